"""The posts under audit: the small columns in memory, texts and undecoded images one at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Image

from dataset_scripts.schema import features

_RATIONALE = "rationale_"


class AuditRows:
    """Posts of one `Dataset`, or of the splits of a `DatasetDict` one after the other.

    Attributes:
        splits: names of the given splits; none for a `Dataset`.
        class_names: of the labels.
        perspectives: of the rationale columns.
        columns: `id`, `label`, `text_label`, `image_label` of all posts.
        labels: (N,) label ids, -1 without label.
        split_of: (N,) position in `splits`; zeros for a `Dataset`.
        names: what the report calls each post: its id, after its split if there are splits.

    Raises:
        ValueError: not a dataset, no posts, columns missing, or labels that are no `ClassLabel` or differ.
    """

    def __init__(self, posts: Dataset | DatasetDict) -> None:
        if not isinstance(posts, Dataset | DatasetDict):
            raise ValueError(
                f"posts is a {type(posts).__name__}; an audit compares all posts with each other and needs a Dataset "
                "or a DatasetDict. Load it without streaming."
            )
        self.splits = list(posts) if isinstance(posts, DatasetDict) else []
        self._parts: list[Dataset] = list(posts.values()) if isinstance(posts, DatasetDict) else [posts]
        if not sum(map(len, self._parts)):
            raise ValueError("there are no posts to audit.")
        self._check()
        first = self._parts[0].features
        self.class_names: list[str] = first["label"].names
        self.perspectives = [name.removeprefix(_RATIONALE) for name in first if name.startswith(_RATIONALE)]
        self.columns: dict[str, list[Any]] = {
            name: [value for part in self._parts for value in part[name]]
            for name in ("id", "label", "text_label", "image_label")
        }
        self.labels = np.array([-1 if label is None else label for label in self.columns["label"]])
        self.split_of = np.repeat(np.arange(len(self._parts)), [len(part) for part in self._parts])
        self._starts = np.cumsum([0] + [len(part) for part in self._parts])
        self.names = (
            [f"{self.splits[split]}/{post}" for split, post in zip(self.split_of, self.columns["id"], strict=True)]
            if self.splits
            else list(self.columns["id"])
        )

    def __len__(self) -> int:
        return len(self.labels)

    def _check(self) -> None:
        needed = list(features(perspectives=()))
        for place, part in enumerate(self._parts):
            where = f"split {self.splits[place]!r}" if self.splits else "the dataset"
            missing = [name for name in needed if name not in part.column_names]
            if missing:
                raise ValueError(
                    f"{where} lacks the columns {', '.join(missing)} (found: {', '.join(part.column_names)}); "
                    "load_posts('folder', …) brings any table into this form."
                )
            label = part.features["label"]
            if not isinstance(label, ClassLabel):
                raise ValueError(f"{where}: the column 'label' is {label}; use dataset.class_encode_column('label').")
            if part.features != self._parts[0].features:
                raise ValueError(
                    f"{where} has other columns or class names than split {self.splits[0]!r}; cast one to the "
                    "features of the other first."
                )

    def label_name(self, row: int) -> str:
        label = self.labels[row]
        return self.class_names[label] if label >= 0 else "no label"

    def texts(self) -> Iterator[dict[str, Any]]:
        """`text`, `language` and the `rationale_*` of every post."""
        wanted = ["text", "language", *(_RATIONALE + perspective for perspective in self.perspectives)]
        for part in self._parts:
            yield from part.select_columns(wanted)

    def images(self) -> Iterator[dict[str, Any] | None]:
        """The undecoded image of every post."""
        for part in self._parts:
            for row in part.select_columns("image").cast_column("image", Image(decode=False)):
                yield row["image"]

    def post(self, row: int) -> dict[str, Any]:
        """All columns of one post, its image undecoded."""
        split = self.split_of[row]
        return self._parts[split].cast_column("image", Image(decode=False))[int(row - self._starts[split])]

    def rationales(self, post: dict[str, Any]) -> dict[str, str | None]:
        return {perspective: post[_RATIONALE + perspective] for perspective in self.perspectives}
