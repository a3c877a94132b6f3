"""Result files that are whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MODALITIES: tuple[str, ...] = ("text", "image", "rationales")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` once the block has ended without an error.

    A reader never sees half a file, and a failure leaves the file that was there before. Missing parent folders are
    made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> Path:
    """Write `metrics` as JSON. NumPy numbers and arrays are converted; NaN and infinities, which JSON lacks, refused.

    Raises:
        ValueError: A value is NaN or infinite.
        TypeError: A value has no JSON form.
    """
    with atomic_path(path) as temporary:
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def write_predictions(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    label_names: Sequence[str],
    probabilities: np.ndarray,
    predictions: Sequence[int] | np.ndarray | None = None,
    labels: Sequence[int | None] | np.ndarray | None = None,
    modality_weights: np.ndarray | None = None,
    perspective_weights: np.ndarray | None = None,
    perspectives: Sequence[str] = (),
) -> Path:
    """Write one row per post to a Parquet file that `datasets.load_dataset("parquet", ...)` or pandas opens.

    Columns: `id`, `label` (name, null where unknown), `prediction` (name), `probability_{label}` for each label,
    `weight_text`, `weight_image`, `weight_rationales` if there are modality weights, and `weight_rationale_{p}` for
    each perspective if there are perspective weights.

    Args:
        path: Where to; usually `predictions.parquet` in the output folder.
        ids (`Sequence[str]` of length `num_posts`): Ids of the posts.
        label_names (`Sequence[str]`): Name of each class.
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): Class probabilities.
        predictions (`Sequence[int]` of length `num_posts`, *optional*): Predicted indices, by default the most
            probable class.
        labels (`Sequence[int | None]` of length `num_posts`, *optional*): True indices, `None` where unknown.
        modality_weights (`np.ndarray` of shape `(num_posts, 3)`, *optional*): Weights of text, image, rationales.
        perspective_weights (`np.ndarray` of shape `(num_posts, num_perspectives)`, *optional*): Their weights.
        perspectives (`Sequence[str]`): Names of the perspectives, required with `perspective_weights`.

    Raises:
        ValueError: A column has another number of rows than `ids`, or an array another number of columns than names.
    """
    label_names = list(label_names)
    columns: dict[str, Any] = {
        "id": pa.array([str(post_id) for post_id in ids], pa.string()),
        "label": _names([None] * len(ids) if labels is None else labels, label_names, "labels"),
    }
    scores = _columns(probabilities, "probability_", label_names)
    chosen = np.asarray(probabilities).argmax(axis=1) if predictions is None else predictions
    columns["prediction"] = _names(chosen, label_names, "predictions")
    columns.update(scores)
    if modality_weights is not None:
        columns.update(_columns(modality_weights, "weight_", MODALITIES))
    if perspective_weights is not None:
        columns.update(_columns(perspective_weights, "weight_rationale_", perspectives))
    for name, column in columns.items():
        if len(column) != len(ids):
            raise ValueError(f"Column {name!r} has {len(column)} rows for {len(ids)} ids: one per post is required.")
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
    return Path(path)


def _columns(values: np.ndarray, prefix: str, names: Sequence[str]) -> dict[str, pa.Array]:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(
            f"The array for {prefix}{{{', '.join(names)}}} has the shape {values.shape}: (num_posts, {len(names)}) is "
            "required, one column per name."
        )
    return {f"{prefix}{name}": pa.array(values[:, index]) for index, name in enumerate(names)}


def _names(indices: Sequence[int | None] | np.ndarray, label_names: list[str], argument: str) -> pa.Array:
    names: list[str | None] = []
    for row, index in enumerate(indices):
        if index is not None and not 0 <= index < len(label_names):
            raise ValueError(
                f"{argument}[{row}] is {index}: an index from 0 to {len(label_names) - 1} is required, or None for a "
                "post without a label."
            )
        names.append(None if index is None else label_names[int(index)])
    return pa.array(names, pa.string())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form: pass numbers, strings, lists and dicts.")
