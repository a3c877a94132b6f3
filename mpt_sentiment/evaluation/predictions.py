"""Table of predictions: one row per post, as Parquet, CSV or JSON lines."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dataset_scripts.output import atomic_path

MODALITIES = ("text", "image", "rationales")
FORMATS = (".parquet", ".csv", ".jsonl")


def prediction_table(
    ids: Sequence[str],
    label_names: Sequence[str],
    probabilities: np.ndarray,
    labels: Sequence[int | None] | np.ndarray | None = None,
    modality_weights: np.ndarray | None = None,
    perspective_weights: np.ndarray | None = None,
    perspectives: Sequence[str] = (),
) -> pa.Table:
    """Build the table of predictions that every command of this package writes.

    Columns: `id`, `label` (name, null if unknown), `prediction` (name of the most probable class),
    `probability_{label}` for each label, `weight_text`, `weight_image`, `weight_rationales` if there are modality
    weights, and `weight_rationale_{perspective}` if there are perspective weights. Numbers are float64; NaN becomes
    null.

    Args:
        ids (`Sequence[str]` of length `num_posts`): ids of the posts.
        label_names (`Sequence[str]`): name of each class.
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int | None]` of length `num_posts`, *optional*): true class indices, `None` if unknown.
        modality_weights (`np.ndarray` of shape `(num_posts, 3)`, *optional*): weights of text, image, rationales.
        perspective_weights (`np.ndarray` of shape `(num_posts, num_perspectives)`, *optional*): their weights.
        perspectives (`Sequence[str]`): names of the perspectives, required with `perspective_weights`.

    Raises:
        ValueError: A column has another number of rows than `ids`, an array has another number of columns than
            names, or a label is out of range.
    """
    label_names, num_posts = list(label_names), len(ids)
    columns: dict[str, Any] = {
        "id": pa.array([str(post_id) for post_id in ids], pa.string()),
        "label": _label_column([None] * num_posts if labels is None else labels, label_names),
        "prediction": _label_column(np.asarray(probabilities).argmax(axis=1), label_names),
        **_number_columns("probability_", label_names, probabilities),
    }
    if modality_weights is not None:
        columns |= _number_columns("weight_", MODALITIES, modality_weights)
    if perspective_weights is not None:
        columns |= _number_columns("weight_rationale_", perspectives, perspective_weights)
    for name, column in columns.items():
        if len(column) != num_posts:
            raise ValueError(f"Column {name!r} has {len(column)} rows for {num_posts} ids; pass one row per post.")
    return pa.table(columns)


def table_of_results(
    results: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    labels: Sequence[int | None] | None = None,
    perspectives: Sequence[str] = (),
) -> pa.Table:
    """Build the table of predictions from the results of the `multimodal-sentiment` pipeline.

    Args:
        results (`Sequence[Mapping]`): one result per post with `scores`, `modality_weights`, `perspective_weights`;
            weights that a result lacks become null.
        ids (`Sequence[str]`): ids of the posts.
        labels (`Sequence[int | None]`, *optional*): true class indices, `None` if unknown.
        perspectives (`Sequence[str]`): names of the model's perspectives.
    """
    label_names = list(results[0]["scores"])

    def array(key: str, names: Sequence[str]) -> np.ndarray:
        return np.array([[(result[key] or {}).get(name, np.nan) for name in names] for result in results], np.float64)

    return prediction_table(
        ids,
        label_names,
        array("scores", label_names),
        labels,
        array("modality_weights", MODALITIES),
        array("perspective_weights", perspectives),
        perspectives,
    )


def write_predictions(path: str | os.PathLike[str], table: pa.Table) -> Path:
    """Write a table of predictions in the format of the file's ending.

    Raises:
        ValueError: The ending is not one of `FORMATS`.
    """
    return write_tables(path, table.schema, [table])


def write_tables(path: str | os.PathLike[str], schema: pa.Schema, tables: Iterable[pa.Table]) -> Path:
    """Write tables one after another to a file that is complete or absent.

    The file's ending chooses the format.

    Raises:
        ValueError: The ending is not one of `FORMATS`.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the file's ending must be one of {', '.join(FORMATS)}, got {path.suffix!r}.")
    with atomic_path(path) as temporary:
        if path.suffix == ".jsonl":
            with open(temporary, "w", encoding="utf-8") as file:
                for table in tables:
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
            return path
        writer = pa.parquet.ParquetWriter if path.suffix == ".parquet" else pa.csv.CSVWriter
        with writer(temporary, schema) as file:
            for table in tables:
                file.write_table(table)
    return path


def read_predictions(
    paths: Sequence[str | os.PathLike[str]], label_names: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read the `predictions.parquet` of several runs over the same posts.

    Returns:
        Ids in the order of the first file, labels `(num_posts,)` and predictions `(num_runs, num_posts)`.

    Raises:
        ValueError: A file has other posts or labels than the first.
    """
    class_index = {name: index for index, name in enumerate(label_names)}
    ids: list[str] = []
    labels, predictions = np.empty(0), []
    for path in paths:
        columns = pa.parquet.read_table(path, columns=["id", "label", "prediction"]).to_pydict()
        row_of_id = {post_id: row for row, post_id in enumerate(columns["id"])}
        ids = ids or columns["id"]
        if row_of_id.keys() != set(ids):
            raise ValueError(f"{path} has other posts than {paths[0]}; compare runs on the same test set.")
        order = [row_of_id[post_id] for post_id in ids]
        run_labels = np.array([class_index[columns["label"][row]] for row in order])
        if predictions and (run_labels != labels).any():
            raise ValueError(f"{path} has other labels than {paths[0]} for the same posts; repeat the older run.")
        labels = run_labels
        predictions.append([class_index[columns["prediction"][row]] for row in order])
    return ids, labels, np.array(predictions)


def _number_columns(prefix: str, names: Sequence[str], values: np.ndarray) -> dict[str, pa.Array]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(
            f"The array for {prefix}{{{', '.join(names)}}} must have the shape (num_posts, {len(names)}), one column "
            f"per name, got {values.shape}."
        )
    return {f"{prefix}{name}": pa.array(values[:, index], from_pandas=True) for index, name in enumerate(names)}


def _label_column(indices: Sequence[int | None] | np.ndarray, label_names: list[str]) -> pa.Array:
    for row, index in enumerate(indices):
        if index is not None and not 0 <= index < len(label_names):
            raise ValueError(f"labels[{row}] must be an index from 0 to {len(label_names) - 1} or None, got {index}.")
    return pa.array([None if index is None else label_names[int(index)] for index in indices], pa.string())
