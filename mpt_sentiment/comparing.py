"""Comparison of several systems trained on the same posts, split and seeds.

A cell (system, rationales, seed) that finished is never trained again; one that fails is reported, and the others are
trained nevertheless.
"""

import contextlib
import dataclasses
import gc
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from dataset_scripts.output import check_writable, is_disk_full, write_text_atomically
from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
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
from mpt_sentiment.recipe import TrainingSetup, training_setup
from mpt_sentiment.run_identity import METRICS_FILE
from mpt_sentiment.training import checked, default_recipes, train_runs
from mpt_sentiment.training_data import as_splits, dataset_name, modalities_of

KNOWN_SYSTEMS = (*BASELINES, *SYSTEMS)
THINKING = {"both": (False, True), "without": (False,), "with": (True,)}
# Builds the arguments of a run of a system; the fields select the system and its rationales.
SetupOf = Callable[[str, dict[str, Any]], TrainingSetup]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of one system.

    Attributes:
        system (`str`): name of the system.
        rationales (`bool`): whether it reads rationales.
        seed (`int`): seed of the run.
        folder (`Path`): folder of its results.
        setup ([`TrainingSetup`]): arguments of the run; `None` for a linear baseline.
    """

    system: str
    rationales: bool
    seed: int
    folder: Path
    setup: TrainingSetup | None

    @property
    def title(self) -> str:
        return f"{self.system}{' + rationales' if self.rationales else ''}"

    def __str__(self) -> str:
        return f"{self.title}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        output_dir (`Path`): folder of `comparison.md`, `.csv`, `.json`, `.png` and of the cells.
        rows (`list[dict]`): one row per system, see [`~mpt_sentiment.evaluation.comparison.compare`].
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
    thinking: str = "both",
    **fields: Any,
) -> ComparisonResult:
    """Train systems on the same posts and compare them in a table, a CSV and a chart.

    Each system trains by its own recipe (MPT by that of the dataset), over which `recipe` and then `fields` are laid
    for all. A system that can read rationales is trained without and with them.

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.train`.
        systems (sequence of `str`, or `"all"`): names of systems, `"majority"` and `"tfidf"` among them.
        output_dir (`str` or `Path`): folder of the results.
        seeds (sequence of `int`): seeds of the runs of each system.
        recipe (`str` or `Path`, *optional*): recipe laid over those of all systems, e.g. `"comparison_small"`.
        thinking (`str`, defaults to `"both"`): `"both"` without and with rationales, `"without"`, or `"with"`.
        fields: as of `mpt_sentiment.train`.

    Returns:
        [`ComparisonResult`].

    Raises:
        ValueError: an unknown system or field, posts that cannot be trained on, or no cell finished.
    """
    systems = check_systems(systems)
    splits, data = as_splits(posts)
    dataset = dataset_name(splits)

    def setup_of(system: str, own_fields: dict[str, Any]) -> TrainingSetup:
        recipes = default_recipes(system, dataset) + ([str(recipe)] if recipe is not None else [])
        return training_setup(recipes, {"output_dir": str(output_dir)} | fields | own_fields)

    return run_comparison(systems, seeds, thinking, setup_of, splits, data, Path(output_dir))


def run_comparison(
    systems: Sequence[str],
    seeds: Sequence[int],
    thinking: str,
    setup_of: SetupOf,
    posts: DatasetDict,
    data: TrainingData,
    output_dir: Path,
) -> ComparisonResult:
    """Train all cells without results, and write table, CSV and chart of the finished ones.

    Args:
        systems, seeds, thinking: see [`compare`].
        setup_of (callable): gives the arguments of a run of a system.
        posts (`DatasetDict`): train, validation and test.
        data ([`TrainingData`]): account of the posts.
        output_dir (`Path`): folder of the results.
    """
    state = PartialState()
    check_writable(output_dir)
    cells = make_cells(systems, seeds, thinking, setup_of, posts, output_dir)
    failed = unusable_cells(cells, posts)
    for line in dict.fromkeys(f"{cell.title}: {error}" for cell, error in failed.items()):
        if state.is_main_process:
            print(f"Not trained: {line}", file=sys.stderr)
    usable = [cell for cell in cells if cell not in failed]
    for cell in (bar := tqdm(usable, desc="Cells", disable=not state.is_main_process)):
        bar.set_postfix_str(str(cell))
        try:
            run_cell(cell, posts, data, state)
        except Exception as error:  # a failure of one system must not cost the others
            if is_disk_full(error):
                raise
            failed[cell] = f"{type(error).__name__}: {error}"
            if state.is_main_process:
                write_text_atomically(cell.folder / "error.txt", traceback.format_exc())
                tqdm.write(f"{cell} failed: {failed[cell]} (see {cell.folder / 'error.txt'}); continuing.")
        gc.collect()
    finished = [cell for cell in cells if cell not in failed]
    if not finished:
        cell, error = next(iter(failed.items()))
        raise ValueError(f"None of {len(cells)} runs finished. {cell}: {error}")
    result = tabulate(finished, failed, posts, data, output_dir, write=state.is_main_process)
    state.wait_for_everyone()  # a launcher stops all processes when the first one ends with an error
    return result


def unusable_cells(cells: Sequence[Cell], posts: DatasetDict) -> dict[Cell, str]:
    """Check all runs before the first one is trained; return the faults of unusable ones."""
    faults: dict[str, str | None] = {}
    for cell in cells:
        if cell.setup is not None and cell.title not in faults:
            try:
                checked(cell.setup, posts)
                faults[cell.title] = None
            except ValueError as error:
                faults[cell.title] = str(error)
    return {cell: fault for cell in cells if (fault := faults.get(cell.title))}


def check_systems(systems: Sequence[str] | str) -> list[str]:
    """Return the names of the systems to compare; `"all"` names every one.

    Raises:
        ValueError: an unknown name.
    """
    if systems in ("all", ["all"]):
        return list(KNOWN_SYSTEMS)
    for name in systems:
        if name not in KNOWN_SYSTEMS:
            raise ValueError(
                f"Unknown system {name!r}; use all, or some of {', '.join(KNOWN_SYSTEMS)}."
                + did_you_mean(name, KNOWN_SYSTEMS)
            )
    return list(systems)


def make_cells(
    systems: Sequence[str],
    seeds: Sequence[int],
    thinking: str,
    setup_of: SetupOf,
    posts: DatasetDict,
    output_dir: Path,
) -> list[Cell]:
    """List all cells seed by seed, so that an early stop leaves results of all systems.

    Raises:
        ValueError: an unknown value of `thinking`, or `"with"` for posts without rationales.
    """
    if thinking not in THINKING:
        raise ValueError(f"`thinking` must be one of {', '.join(THINKING)}, got {thinking!r}.")
    has_rationales = "rationales" in modalities_of(posts)
    if thinking == "with" and not has_rationales:
        raise ValueError("`thinking` is 'with', but no post has a rationale; join some with --rationales FILE.")
    cells = []
    for seed in seeds:
        for system in systems:
            if system in BASELINES and seed != seeds[0]:
                continue  # they are deterministic
            for rationales in THINKING[thinking]:
                if rationales and not (has_rationales and can_read_rationales(system)):
                    continue
                name = f"{system}+rationales" if rationales else system
                setup = None if system in BASELINES else setup_of(system, system_fields(system, rationales))
                cells.append(Cell(system, rationales, seed, output_dir / "cells" / name / f"seed-{seed}", setup))
    return cells


def can_read_rationales(system: str) -> bool:
    """Return whether a system reads rationales: MPT, TF-IDF, baselines of text and image."""
    if system in BASELINES:
        return system == "tfidf"
    return system == "mpt" or {"text", "image"} <= set(SYSTEMS[system][0].reads)


def system_fields(system: str, rationales: bool) -> dict[str, Any]:
    """Build the fields that select a system and whether it reads rationales."""
    if system != "mpt":
        return {"model": system, "use_rationales": rationales}
    return {"model": "mpt"} | ({} if rationales else {"modalities": ["text", "image"]})


def run_cell(cell: Cell, posts: DatasetDict, data: TrainingData, state: PartialState) -> None:
    """Train a cell unless its metrics exist; its output goes to a log in its folder."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    if cell.setup is None:
        if state.is_main_process and not (cell.folder / METRICS_FILE).is_file():
            BASELINES[cell.system](posts, cell.folder, cell.rationales)
        state.wait_for_everyone()
        return
    args = cell.setup.training
    args.seed = args.data_seed = cell.seed
    args.output_dir = str(cell.folder)
    args.disable_tqdm = True
    cell.setup.run.seeds = None
    with open(cell.folder / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        train_runs(cell.setup, posts, data)
    (cell.folder / "error.txt").unlink(missing_ok=True)


def tabulate(
    finished: Sequence[Cell],
    failed: dict[Cell, str],
    posts: DatasetDict,
    data: TrainingData,
    output_dir: Path,
    *,
    write: bool,
) -> ComparisonResult:
    """Compare the finished cells; with `write`, save table, CSV, JSON and chart."""
    names = posts["train"].features["label"].names
    groups: dict[tuple[str, bool], list[Cell]] = {}
    for cell in finished:
        groups.setdefault((cell.system, cell.rationales), []).append(cell)
    _, labels, predictions = read_predictions([cell.folder / "predictions.parquet" for cell in finished], names)
    entries = [
        entry_of(cells, labels, predictions[[finished.index(cell) for cell in cells]]) for cells in groups.values()
    ]
    rows = compare_entries(entries, len(names), dataset_name(posts))
    heading = f"{data.name}, split {data.protocol} (`{data.split_hash}`), {len(posts['test']):,} test posts"
    notes = [f"- {cell} failed: {error}" for cell, error in failed.items()]
    markdown = "\n".join([f"# {heading}\n", comparison_markdown(rows), *notes])
    if write:
        write_text_atomically(output_dir / "comparison.md", markdown)
        write_comparison_csv(output_dir / "comparison.csv", rows)
        write_metrics(output_dir / "comparison.json", {"rows": rows, "split": dataclasses.asdict(data)})
        plot_comparison(output_dir / "comparison.png", rows, heading.replace("`", ""))
        print(f"\n{markdown}\nTable, CSV and chart are in {output_dir}")
    return ComparisonResult(output_dir, rows, {str(cell): error for cell, error in failed.items()}, markdown)


def entry_of(cells: Sequence[Cell], labels: np.ndarray, predictions: np.ndarray) -> Entry:
    """Build the entry of a system, without or with rationales.

    Args:
        cells (sequence of [`Cell`]): its runs.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        predictions (`np.ndarray` of shape `(num_runs, num_posts)`): predicted class indices.
    """
    first = cells[0]
    metrics = [json.loads((cell.folder / METRICS_FILE).read_text(encoding="utf-8")) for cell in cells]
    speeds = sorted(run["train_posts_per_second"] for run in metrics if run.get("train_posts_per_second"))
    remarks = [SYSTEMS[first.system][0].remark] if first.system in SYSTEMS else []
    providers = metrics[0].get("system", {}).get("providers", {})
    remarks += [f"{part}: {provider}" for part, provider in providers.items() if provider]
    return Entry(
        system=first.system,
        rationales=first.rationales,
        labels=labels,
        predictions=predictions,
        parameters=metrics[0].get("parameters"),
        speed=speeds[len(speeds) // 2] if speeds else None,
        remark="; ".join(filter(None, remarks)),
    )
