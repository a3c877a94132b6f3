"""Comparison of systems and ablations, trained on the same posts, splits and seeds.

A cell (row, fold, seed) that finished is never trained again; one that fails is reported, and the others are trained
nevertheless.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable, write_text_atomically
from modeling_mpt import SYSTEMS
from mpt_sentiment.cell_training import PREDICTIONS_FILE, evaluate_cell
from mpt_sentiment.cells import Cell, base_setups, make_cells, modalities_of_parts, refuse, run_cells
from mpt_sentiment.evaluation import prediction_table, write_metrics, write_predictions
from mpt_sentiment.evaluation.comparison import (
    Entry,
    comparison_markdown,
    plot_comparison,
    write_comparison_csv,
)
from mpt_sentiment.evaluation.comparison import (
    compare as compare_entries,
)
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.out_of_fold import (
    groups_of_tested,
    heading_of,
    out_of_fold_table,
    probabilities_of,
    tested_posts,
)
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.rows import Row, expand_rows, parse_rows
from mpt_sentiment.run_identity import METRICS_FILE
from mpt_sentiment.searching import SearchResult, search_file
from mpt_sentiment.training_data import Parts, dataset_name, split_parts


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        output_dir (`Path`): folder of `comparison.md`, `.csv`, `.json`, `.png`, of `predictions.parquet` with the
            predictions of all runs, and of the cells.
        rows (`list[dict]`): one per row, see [`~mpt_sentiment.evaluation.comparison.compare`].
        failed (`dict[str, str]`): error of each cell that failed, and of each row that could not be trained.
        markdown (`str`): the table.
    """

    output_dir: Path
    rows: list[dict[str, Any]]
    failed: dict[str, str]
    markdown: str

    def __str__(self) -> str:
        return self.markdown


def compare(
    posts: Dataset | DatasetDict,
    rows: Sequence[str] | str = "all",
    *,
    output_dir: str | Path,
    seeds: Sequence[int] = (42,),
    recipe: str | Path | None = None,
    search: str | Path | None = None,
    reference: str | None = None,
    **fields: Any,
) -> ComparisonResult:
    """Train rows on the same posts and compare them in a table, a CSV and a chart.

    All systems train alike: a system's own recipe (MPT: that of the dataset) gives its structure, sizes, losses and
    dropout, `recipe` and then `fields` all else, see [`Protocol`].

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.train`. A `Dataset` with `split="folds"` is
            cross-validated: each row is trained once per fold, and scored on the predictions of all posts.
        rows (sequence of `str`, or `str`): systems and what differs from them, e.g. `"mpt"`, `"mpt -rationales"`,
            `"mvan +rationales"`, `"tfidf"`, or the lists `"all"`, `"floors"` and `"ablations"`; see
            `mpt_sentiment.rows`.
        output_dir (`str` or `Path`): folder of the results.
        seeds (sequence of `int`): seeds of the runs of each row.
        recipe (`str` or `Path`, *optional*): recipe of the comparison. By default `"comparison"`, for the sample
            `"sample"`.
        search (`str` or `Path`, *optional*): `search.json` of `mpt_sentiment.search`, whose values each row takes.
        reference (`str`, *optional*): row that all others are tested against. By default `"mpt"` if it is there,
            otherwise the best one.
        fields: as of `mpt_sentiment.train`; a system that lacks a field trains without it. `jobs=2` trains two cells
            side by side, in processes that import the calling script: guard it with `if __name__ == "__main__":`.

    Returns:
        [`ComparisonResult`].

    Raises:
        ValueError: an unknown row or field, posts that cannot be trained on, a search on another split or with one of
            the seeds, or no cell finished.
    """
    name = dataset_name(posts)
    protocol = Protocol.of_fields(recipe, name, {"output_dir": str(output_dir)} | fields)
    parts = split_parts(posts, protocol.setup("mpt", name, {}).data)
    return run_comparison(rows, seeds, protocol, parts, Path(output_dir), search, reference)


def run_comparison(
    rows: Sequence[str] | str,
    seeds: Sequence[int],
    protocol: Protocol,
    parts: Parts,
    output_dir: Path,
    search: str | Path | None = None,
    reference: str | None = None,
) -> ComparisonResult:
    """Train all cells without results, and write table, CSV and chart of the finished ones.

    Args:
        rows, seeds, search, reference: see [`compare`].
        protocol ([`Protocol`]): arguments of all systems.
        parts ([`Parts`]): posts of each fold.
        output_dir (`Path`): folder of the results.
    """
    parsed, posts = parse_rows(rows), next(iter(parts.values())).posts
    name = dataset_name(posts)
    base = base_setups(protocol, name)
    listed = expand_rows(parsed, posts, base)
    protocol.check([row.system for row in listed])
    check_writable(output_dir)
    tuned = None if search is None else SearchResult.read(search)
    if tuned is not None:
        tuned.check(seeds, parts, protocol)
    points = (lambda row, fold: [{}]) if tuned is None else (lambda row, fold: [tuned.chosen(row, fold)])
    trained = list(dict.fromkeys(row.trained for row in listed))
    present = modalities_of_parts(parts)
    cells, refused = make_cells(trained, list(parts), seeds, protocol, name, present, output_dir / "cells", points)
    if len(seeds) < 2:
        refused |= {row.title: "an ensemble needs two seeds or more" for row in listed if row.trained != row}
    total = len(cells)
    cells, refused = refuse(cells, parts, refused)
    failed = run_cells(cells, evaluate_cell, parts, base("mpt").run.jobs)
    finished = [cell for cell in cells if cell not in failed]
    errors = refused | {str(cell): error for cell, error in failed.items()}
    if not finished:
        first = next(iter(errors.items()))
        raise ValueError(f"None of {max(total, len(errors))} runs finished. {first[0]}: {first[1]}")
    state = PartialState()
    notes = [] if tuned is None else tuned.notes(cells, parts)
    groups = groups_of_tested(parts, base("mpt").data.split_options.get("group_column"))
    rows_to_show = [row for row in listed if row.title not in refused]
    result = tabulate(
        rows_to_show, finished, errors, parts, groups, output_dir, notes, reference, write=state.is_main_process
    )
    if tuned is not None and state.is_main_process and not search_file(search).parent.samefile(output_dir):
        tuned.write(output_dir)
    state.wait_for_everyone()  # a launcher stops all processes when the first one ends with an error
    return result


def tabulate(
    rows: Sequence[Row],
    finished: Sequence[Cell],
    errors: Mapping[str, str],
    parts: Parts,
    groups: np.ndarray,
    output_dir: Path,
    notes: Sequence[str] = (),
    reference: str | None = None,
    *,
    write: bool,
) -> ComparisonResult:
    """Compare the rows with finished cells; with `write`, save table, chart and predictions."""
    tested = tested_posts(parts)
    names, ids, labels = tested.features["label"].names, tested["id"], np.array(tested["label"])
    table = out_of_fold_table(
        [(cell.row.title, cell.seed, cell.fold, cell.folder / PREDICTIONS_FILE) for cell in finished]
    )
    runs = probabilities_of(table, ids, names)
    posts = next(iter(parts.values())).posts
    entries, lines = [], []
    for row in rows:
        cells = [cell for cell in finished if cell.row == row.trained]
        seeds = sorted({cell.seed for cell in cells})
        complete = [runs[row.trained.title, seed] for seed in seeds if (row.trained.title, seed) in runs]
        if len(complete) < len(seeds) or not complete:
            lines.append(f"{row.title}: {len(complete)} of {len(seeds)} seeds have predictions of all posts.")
        if not complete:
            continue
        entry = entry_of(row, cells, labels, np.array(complete), dataset_name(posts))
        if row != row.trained:
            mean = np.mean(complete, axis=0)
            table = pa.concat_tables([table, _ensemble_table(row, table, ids, mean, labels, names)])
        entries.append(entry)
    if not entries:
        raise ValueError(f"No row has predictions of all posts. {'; '.join(f'{k}: {v}' for k, v in errors.items())}")
    compared = compare_entries(entries, len(names), reference=reference, groups=groups)
    heading = heading_of(parts)
    faults = [f"{cell} failed: {error}" for cell, error in errors.items()]
    remarks = [*notes, *lines, *faults]
    markdown = "\n".join([f"# {heading}\n", comparison_markdown(compared), *(f"- {line}" for line in remarks)])
    if write:
        write_text_atomically(output_dir / "comparison.md", markdown)
        write_comparison_csv(output_dir / "comparison.csv", compared)
        accounts = {"once" if fold is None else f"fold {fold}": dataclasses.asdict(parts[fold].data) for fold in parts}
        write_metrics(output_dir / "comparison.json", {"rows": compared, "splits": accounts})
        plot_comparison(output_dir / "comparison.png", compared, heading.replace("`", ""))
        write_predictions(output_dir / PREDICTIONS_FILE, table)
        print(f"\n{markdown}\nTable, CSV, chart and the predictions of all posts are in {output_dir}")
    return ComparisonResult(output_dir, compared, dict(errors), markdown)


def _ensemble_table(
    row: Row, table: pa.Table, ids: Sequence[str], mean: np.ndarray, labels: np.ndarray, names: list[str]
) -> pa.Table:
    """Build the predictions of an ensemble, with the columns of the runs; its seed is null."""
    folds = dict(zip(table["id"].to_pylist(), table["fold"].to_pylist(), strict=True))
    own = prediction_table(ids, names, mean, labels)
    columns = {
        "fold": pa.array([folds[post_id] for post_id in ids], pa.int64()),
        "row": pa.array([row.title] * len(ids), pa.string()),
        "seed": pa.array([None] * len(ids), pa.int64()),
        "temperature": pa.array([None] * len(ids), pa.float64()),
    }
    columns |= {name: own[name] for name in own.column_names}
    return pa.table({name: columns[name] for name in table.column_names})


def entry_of(row: Row, cells: Sequence[Cell], labels: np.ndarray, probabilities: np.ndarray, dataset: str) -> Entry:
    """Build the entry of a row.

    Args:
        row ([`Row`]): system, and what differs from it.
        cells (sequence of [`Cell`]): its runs.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        probabilities (`np.ndarray` of shape `(num_seeds, num_posts, num_classes)`): of the complete runs.
        dataset (`str`): name of the dataset, for the paper's numbers.
    """
    metrics = [json.loads((cell.folder / METRICS_FILE).read_text(encoding="utf-8")) for cell in cells]
    speeds = sorted(run["train_posts_per_second"] for run in metrics if run.get("train_posts_per_second"))
    updates = [run["updates"] for run in metrics if run.get("updates")]
    remarks = [SYSTEMS[row.system][0].remark if row.system in SYSTEMS else BASELINES[row.system].remark]
    facts = metrics[0].get("system", {})
    remarks += [f"{part}: {provider}" for part, provider in facts.get("providers", {}).items() if provider]
    untrained_images = facts.get("untrained_images") if "image" in facts.get("modalities", []) else None
    remarks += ["untrained images"] * bool(untrained_images)
    if row != row.trained:
        remarks.append(f"ensemble: mean probabilities of {len(probabilities)} seeds")
        probabilities = probabilities.mean(axis=0, keepdims=True)
    values = [cell.values for cell in cells]
    return Entry(
        title=row.title,
        labels=labels,
        predictions=probabilities.argmax(axis=2),
        rationales="rationales" in facts.get("modalities", ["rationales"] * row.reads_rationales),
        published=row.published(dataset),
        parameters=metrics[0].get("parameters"),
        trainable_parameters=metrics[0].get("trainable_parameters"),
        updates=round(sum(updates) / len(updates)) if updates else None,
        optimizer=metrics[0].get("optimizer"),
        speed=speeds[len(speeds) // 2] if speeds else None,
        tuned=values[0] if all(each == values[0] for each in values) else {},
        untrained_images=untrained_images,
        remark="; ".join(filter(None, remarks + ["tuned in each fold"] * any(each != values[0] for each in values))),
    )
