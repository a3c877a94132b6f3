"""Columns that every dataset of this package has: one post, one row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value

# The order is the label id of the three-class datasets (positive 0, neutral 1, negative 2) and the order of the
# perspectives in a model. Published datasets and models depend on it.
LABELS = ("positive", "neutral", "negative")
PERSPECTIVES = LABELS
GROUP = "group"  # optional column: posts with the same value stay in one split
CONTENT = ("image", "text")  # columns that a dataset can be published without, for the rights of their owners


def rationale_column(perspective: str) -> str:
    """Name the column of the rationale written from `perspective`."""
    return f"rationale_{perspective}"


def features(labels: Sequence[str] = LABELS, perspectives: Sequence[str] = PERSPECTIVES) -> Features:
    """Build the `datasets.Features` of every dataset.

    Args:
        labels (sequence of `str`): class names; the position is the label id.
        perspectives (sequence of `str`): one rationale column per perspective.

    Returns:
        `id`, `text`, `language`, `source` are strings; `image`, every `rationale_*`, `label`, `text_label` and
        `image_label` may be null: a post without image, without rationale, or without label (for prediction).

    Raises:
        ValueError: `labels` or `perspectives` has a repeated or blank name, or `labels` is empty.
    """
    labels = _names("labels", labels)
    if not labels:
        raise ValueError("`labels` must name at least one class, e.g. ('positive', 'negative').")
    perspectives = _names("perspectives", perspectives)
    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "text": Value("string"),
            **{rationale_column(perspective): Value("string") for perspective in perspectives},
            "label": ClassLabel(names=labels),
            "text_label": ClassLabel(names=labels),
            "image_label": ClassLabel(names=labels),
            "language": Value("string"),
            "source": Value("string"),
        }
    )


def post_row(post_id: str, rationales: Mapping[str, str | None] | None = None, **columns: Any) -> dict[str, Any]:
    """Build a row of `features`; columns that are not given are null.

    Args:
        post_id (`str`): the column `id`.
        rationales (mapping, *optional*): perspective -> rationale or None; by default None for each of `PERSPECTIVES`.
        columns: the other columns. An image is a path or `{"bytes": …, "path": None}`; labels are class names.
    """
    rationales = dict.fromkeys(PERSPECTIVES) if rationales is None else rationales
    row = dict.fromkeys(("image", "text", "label", "text_label", "image_label", "language", "source")) | columns
    return {"id": post_id} | row | {rationale_column(name): text for name, text in rationales.items()}


def _names(argument: str, names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"`{argument}` must be a sequence of names, got the string {names!r}; write ({names!r},).")
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"`{argument}` must contain strings that are not blank, got {name!r}.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"`{argument}` must not repeat names, got {', '.join(map(repr, repeated))} more than once.")
    return names


def has_values(posts: Dataset, column: str) -> bool:
    """Return whether any post has a value in a column. Images are not decoded."""
    tables = posts.select_columns([column]).with_format("arrow").iter(1000)
    return any(table.column(column).null_count < len(table) for table in tables)


def null_rows(posts: Dataset, columns: Sequence[str], *, any_of: bool = False) -> set[int]:
    """Find the rows that are null in all columns, or in any of them. Images are not decoded."""
    combine, rows, start = np.logical_or if any_of else np.logical_and, set(), 0
    for table in posts.select_columns(list(columns)).with_format("arrow").iter(1000):
        nulls = combine.reduce([np.asarray(table.column(column).is_null()) for column in columns])
        rows.update((start + np.flatnonzero(nulls)).tolist())
        start += len(table)
    return rows
