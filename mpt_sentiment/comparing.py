"""Comparison of several systems trained on the same posts, split and seeds.

A cell (system, arm, seed) that finished is never trained again; one that fails is reported, and the others are
trained nevertheless.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable, write_text_atomically
from modeling_mpt import SYSTEMS
from mpt_sentiment.cells import (
    Cell,
    arms_of_posts,
    check_systems,
    make_cells,
    posts_of_cell,
    run_cells,
    setup_of_cell,
    unusable_cells,
)
from mpt_sentiment.evaluation import TrainingData, read_predictions, write_metrics
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
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.run_identity import METRICS_FILE
from mpt_sentiment.searching import SearchResult, search_file
from mpt_sentiment.training import train_runs
from mpt_sentiment.training_data import as_splits, dataset_name


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        output_dir (`Path`): folder of `comparison.md`, `.csv`, `.json`, `.png` and of the cells.
        rows (`list[dict]`): one row per system and arm, see [`~mpt_sentiment.evaluation.comparison.compare`].
        failed (`dict[str, str]`): error of each cell that failed.
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
    systems: Sequence[str] | str = "all",
    *,
    output_dir: str | Path,
    seeds: Sequence[int] = (42,),
    recipe: str | Path | None = None,
    arms: Sequence[str] | str = "all",
    search: str | Path | None = None,
    **fields: Any,
) -> ComparisonResult:
    """Train systems on the same posts and compare them in a table, a CSV and a chart.

    All systems train alike: a system's own recipe (MPT: that of the dataset) gives its structure, sizes, losses and
    dropout, `recipe` and then `fields` all else, see [`Protocol`].

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.train`.
        systems (sequence of `str`, or `"all"`): names of systems, `"majority"` and `"tfidf"` among them.
        output_dir (`str` or `Path`): folder of the results.
        seeds (sequence of `int`): seeds of the runs of each system.
        recipe (`str` or `Path`, *optional*): recipe of the comparison. By default `"comparison"`, for the sample
            `"sample"`.
        arms (sequence of `str`, or `"all"`): rows of a system that has them: `"without"` rationales, `"with"`,
            `"shuffled"` with those of other posts, `"words"` with static word embeddings in the place of a text
            encoder.
        search (`str` or `Path`, *optional*): `search.json` of `mpt_sentiment.search`, whose values each row takes.
        fields: as of `mpt_sentiment.train`; a system that lacks a field trains without it.

    Returns:
        [`ComparisonResult`].

    Raises:
        ValueError: an unknown system, arm or field, posts that cannot be trained on, a search on another split or with
            one of the seeds, or no cell finished.
    """
    splits, data = as_splits(posts)
    protocol = Protocol.of_fields(recipe, dataset_name(splits), {"output_dir": str(output_dir)} | fields)
    return run_comparison(systems, arms, seeds, protocol, splits, data, Path(output_dir), search)


def run_comparison(
    systems: Sequence[str] | str,
    arms: Sequence[str] | str,
    seeds: Sequence[int],
    protocol: Protocol,
    posts: DatasetDict,
    data: TrainingData,
    output_dir: Path,
    search: str | Path | None = None,
) -> ComparisonResult:
    """Train all cells without results, and write table, CSV and chart of the finished ones.

    Args:
        systems, arms, seeds, search: see [`compare`].
        protocol ([`Protocol`]): arguments of all systems.
        posts (`DatasetDict`): train, validation and test.
        data ([`TrainingData`]): account of the posts.
        output_dir (`Path`): folder of the results.
    """
    systems, arms = check_systems(systems), arms_of_posts(arms, posts)
    protocol.check(systems)
    check_writable(output_dir)
    tuned = None if search is None else SearchResult.read(search)
    if tuned is not None:
        tuned.check(seeds, data, protocol)
    points = (lambda system, arm: [{}]) if tuned is None else (lambda system, arm: [tuned.chosen(system, arm)])
    cells = make_cells(systems, arms, seeds, protocol, dataset_name(posts), output_dir / "cells", points)
    failed = unusable_cells(cells, posts)
    failed |= run_cells([cell for cell in cells if cell not in failed], lambda cell: finish_cell(cell, posts, data))
    finished = [cell for cell in cells if cell not in failed]
    if not finished:
        cell, error = next(iter(failed.items()))
        raise ValueError(f"None of {len(cells)} runs finished. {cell}: {error}")
    state = PartialState()
    notes = [] if tuned is None else tuned.notes(cells, posts)
    result = tabulate(finished, failed, posts, data, output_dir, notes, write=state.is_main_process)
    if tuned is not None and state.is_main_process and not search_file(search).parent.samefile(output_dir):
        tuned.write(output_dir)
    state.wait_for_everyone()  # a launcher stops all processes when the first one ends with an error
    return result


def finish_cell(cell: Cell, posts: DatasetDict, data: TrainingData) -> None:
    """Train and test a cell unless its metrics exist."""
    posts = posts_of_cell(cell, posts)
    if cell.setup is not None:
        train_runs(setup_of_cell(cell), posts, data)
        return
    state = PartialState()
    if state.is_main_process and not (cell.folder / METRICS_FILE).is_file():
        BASELINES[cell.system](posts, cell.folder, cell.arm != "without")
    state.wait_for_everyone()


def tabulate(
    finished: Sequence[Cell],
    failed: dict[Cell, str],
    posts: DatasetDict,
    data: TrainingData,
    output_dir: Path,
    notes: Sequence[str] = (),
    *,
    write: bool,
) -> ComparisonResult:
    """Compare the finished cells; with `write`, save table, CSV, JSON and chart."""
    names = posts["train"].features["label"].names
    groups: dict[str, list[Cell]] = {}
    for cell in finished:
        groups.setdefault(cell.title, []).append(cell)
    _, labels, predictions = read_predictions([cell.folder / "predictions.parquet" for cell in finished], names)
    entries = [
        entry_of(cells, labels, predictions[[finished.index(cell) for cell in cells]]) for cells in groups.values()
    ]
    rows = compare_entries(entries, len(names), dataset_name(posts))
    heading = f"{data.name}, split {data.protocol} (`{data.split_hash}`), {len(posts['test']):,} test posts"
    faults = [f"{cell} failed: {error}" for cell, error in failed.items()]
    markdown = "\n".join([f"# {heading}\n", comparison_markdown(rows), *(f"- {line}" for line in (*notes, *faults))])
    if write:
        write_text_atomically(output_dir / "comparison.md", markdown)
        write_comparison_csv(output_dir / "comparison.csv", rows)
        write_metrics(output_dir / "comparison.json", {"rows": rows, "split": dataclasses.asdict(data)})
        plot_comparison(output_dir / "comparison.png", rows, heading.replace("`", ""))
        print(f"\n{markdown}\nTable, CSV and chart are in {output_dir}")
    return ComparisonResult(output_dir, rows, {str(cell): error for cell, error in failed.items()}, markdown)


def entry_of(cells: Sequence[Cell], labels: np.ndarray, predictions: np.ndarray) -> Entry:
    """Build the entry of a system in one of its arms.

    Args:
        cells (sequence of [`Cell`]): its runs.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        predictions (`np.ndarray` of shape `(num_runs, num_posts)`): predicted class indices.
    """
    first = cells[0]
    metrics = [json.loads((cell.folder / METRICS_FILE).read_text(encoding="utf-8")) for cell in cells]
    speeds = sorted(run["train_posts_per_second"] for run in metrics if run.get("train_posts_per_second"))
    updates = [run["updates"] for run in metrics if run.get("updates")]
    remarks = [SYSTEMS[first.system][0].remark] if first.system in SYSTEMS else []
    facts = metrics[0].get("system", {})
    remarks += [f"{part}: {provider}" for part, provider in facts.get("providers", {}).items() if provider]
    untrained_images = facts.get("untrained_images") if "image" in facts.get("modalities", []) else None
    remarks += ["untrained images"] * bool(untrained_images)
    return Entry(
        system=first.system,
        arm=first.arm,
        labels=labels,
        predictions=predictions,
        parameters=metrics[0].get("parameters"),
        trainable_parameters=metrics[0].get("trainable_parameters"),
        updates=round(sum(updates) / len(updates)) if updates else None,
        optimizer=metrics[0].get("optimizer"),
        speed=speeds[len(speeds) // 2] if speeds else None,
        tuned=first.values,
        untrained_images=untrained_images,
        remark="; ".join(filter(None, remarks)),
    )
