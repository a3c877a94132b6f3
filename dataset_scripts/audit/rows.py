"""Posts under audit: label columns in memory, texts and undecoded images read one at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Image

from dataset_scripts.schema import features, rationale_column
from dataset_scripts.splits import check_label_type

_PREFIX = rationale_column("")


class AuditRows:
    """Posts of a `Dataset`, or of all splits of a `DatasetDict` in sequence.

    Attributes:
        splits: names of the given splits; empty for a `Dataset`.
        class_names: names of the labels.
        perspectives: perspectives of the rationale columns.
        columns: `id`, `label`, `text_label`, `image_label` of all posts.
        labels: (N,) label ids, -1 without label.
        split_of: (N,) index into `splits`; zeros for a `Dataset`.
        names: name of each post in the report: its id, or `split/id` if splits were given.

    Raises:
        ValueError: not a dataset, no posts, missing columns, a label that is no `ClassLabel`, or class names that
            differ between splits.
    """

    def __init__(self, posts: Dataset | DatasetDict) -> None:
        if not isinstance(posts, Dataset | DatasetDict):
            raise ValueError(
                f"An audit needs a Dataset or a DatasetDict, got {type(posts).__name__}. Load the posts without "
                "streaming."
            )
        self.splits = list(posts) if isinstance(posts, DatasetDict) else []
        self._parts: list[Dataset] = list(posts.values()) if isinstance(posts, DatasetDict) else [posts]
        if not sum(map(len, self._parts)):
            raise ValueError("The dataset has no posts to audit.")
        for index, part in enumerate(self._parts):
            self._check(part, f"The split {self.splits[index]!r}" if self.splits else "The dataset")
        columns = self._parts[0].features
        self.class_names: list[str] = columns["label"].names
        self.perspectives = [name.removeprefix(_PREFIX) for name in columns if name.startswith(_PREFIX)]
        self.columns: dict[str, list[Any]] = {
            name: [value for part in self._parts for value in part[name]]
            for name in ("id", "label", "text_label", "image_label")
        }
        self.labels = np.array([-1 if label is None else label for label in self.columns["label"]])
        sizes = [len(part) for part in self._parts]
        self.split_of = np.repeat(np.arange(len(sizes)), sizes)
        self._starts = np.cumsum([0, *sizes])
        self.names: list[str] = self.columns["id"]
        if self.splits:
            pairs = zip(self.split_of, self.names, strict=True)
            self.names = [f"{self.splits[split]}/{name}" for split, name in pairs]

    def __len__(self) -> int:
        return len(self.labels)

    def _check(self, part: Dataset, name: str) -> None:
        missing = [column for column in features(perspectives=()) if column not in part.column_names]
        if missing:
            raise ValueError(
                f"{name} lacks the columns {', '.join(missing)} (it has {', '.join(part.column_names)}). "
                "load_posts gives a table or a dataset all columns."
            )
        check_label_type(part, name)
        if part.features != self._parts[0].features:
            raise ValueError(
                f"{name} has other columns or class names than split {self.splits[0]!r}. Cast one to the features of "
                "the other."
            )

    def label_name(self, row: int) -> str:
        """Return the class name of a post, or `"no label"`."""
        label = self.labels[row]
        return self.class_names[label] if label >= 0 else "no label"

    def texts(self) -> Iterator[dict[str, Any]]:
        """Yield `text`, `language` and the `rationale_*` columns of every post."""
        columns = ["text", "language", *map(rationale_column, self.perspectives)]
        for part in self._parts:
            yield from part.select_columns(columns)

    def images(self) -> Iterator[dict[str, Any] | None]:
        """Yield the undecoded image of every post."""
        for part in self._parts:
            for post in part.select_columns("image").cast_column("image", Image(decode=False)):
                yield post["image"]

    def post(self, row: int) -> dict[str, Any]:
        """Return all columns of one post, with its image undecoded."""
        split = self.split_of[row]
        return self._parts[split].cast_column("image", Image(decode=False))[int(row - self._starts[split])]

    def rationales(self, post: dict[str, Any]) -> dict[str, str | None]:
        """Return the rationales of a post by perspective."""
        return {perspective: post[rationale_column(perspective)] for perspective in self.perspectives}
