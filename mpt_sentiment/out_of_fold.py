"""Predictions of all posts out of fold: one table, with the groups of duplicates."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets import Dataset, concatenate_datasets

from dataset_scripts.duplicates import group_ids
from dataset_scripts.splits import groups_in
from mpt_sentiment.run_identity import METRICS_FILE
from mpt_sentiment.training_data import Parts


def tested_posts(parts: Parts) -> Dataset:
    """Concatenate the test posts of all folds."""
    return concatenate_datasets([part.posts["test"] for part in parts.values()])


def groups_of_tested(parts: Parts, group_column: str | None = None) -> np.ndarray:
    """Assign group numbers `(num_posts,)` to the test posts; the split keeps groups together."""
    tested = tested_posts(parts)
    return np.array(group_ids(tested, groups_in(tested, group_column)))


def heading_of(parts: Parts) -> str:
    """Describe posts and split in one line."""
    data, size = next(iter(parts.values())).data, sum(len(part.posts["test"]) for part in parts.values())
    if len(parts) == 1:
        return f"{data.name}, split {data.protocol} (`{data.split_hash}`), {size:,} test posts"
    return f"{data.name}, {len(parts)} folds (seed {data.split_seed}), {size:,} posts, each predicted out of fold"


def out_of_fold_table(runs: Sequence[tuple[str, int, int | None, Path]]) -> pa.Table:
    """Join the predictions of runs into one table.

    Args:
        runs (sequence): title of the row, seed, fold and `predictions.parquet` of each run.

    Returns:
        Columns `id`, `fold` (null for posts that are split once), `row`, `seed`, `temperature` (with which the
        probabilities were calibrated on the fold's validation posts; null for systems without), `label`,
        `prediction` and `probability_{label}`.
    """
    tables = []
    for row, seed, fold, path in runs:
        table = pa.parquet.read_table(path)
        kept = [name for name in table.column_names if not name.startswith("weight_")]
        size = len(table)
        temperature = json.loads((path.parent / METRICS_FILE).read_text(encoding="utf-8")).get("temperature")
        columns = {
            "id": table["id"],
            "fold": pa.array([fold] * size, pa.int64()),
            "row": pa.array([row] * size, pa.string()),
            "seed": pa.array([seed] * size, pa.int64()),
            "temperature": pa.array([temperature] * size, pa.float64()),
        }
        tables.append(pa.table(columns | {name: table[name] for name in kept if name != "id"}))
    return pa.concat_tables(tables)


def probabilities_of(table: pa.Table, ids: Sequence[str], label_names: Sequence[str]) -> dict[tuple, np.ndarray]:
    """Read the probabilities of complete runs from a table of [`out_of_fold_table`].

    Args:
        table (`pa.Table`): predictions of runs.
        ids (sequence of `str`): all posts.
        label_names (sequence of `str`): names of the classes.

    Returns:
        (row, seed) → probabilities `(num_posts, num_classes)` in the order of `ids`; without runs that lack a post.

    Raises:
        ValueError: a run has other posts.
    """
    position = {post_id: index for index, post_id in enumerate(ids)}
    rows, seeds = np.array(table["row"].to_pylist()), np.array(table["seed"].to_pylist())
    places = np.array([position.get(post_id, -1) for post_id in table["id"].to_pylist()])
    if (places < 0).any():
        first = rows[np.argmax(places < 0)]
        raise ValueError(f"The runs of {first!r} have other posts; repeat them with --overwrite true.")
    values = np.stack([table[f"probability_{name}"].to_numpy() for name in label_names], axis=1)
    complete = {}
    for row, seed in dict.fromkeys(zip(rows.tolist(), seeds.tolist(), strict=True)):
        own = np.flatnonzero((rows == row) & (seeds == seed))
        if len(own) == len(position) == len(np.unique(places[own])):
            complete[row, seed] = np.empty((len(position), len(label_names)))
            complete[row, seed][places[own]] = values[own]
    return complete
