"""Cells of a comparison or search: single runs of rows, each in its own folder."""

import contextlib
import copy
import dataclasses
import functools
import gc
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from dataset_scripts.output import is_disk_full, write_text_atomically
from mpt_sentiment.jobs import run_in_jobs
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.rows import Row
from mpt_sentiment.training import checked
from mpt_sentiment.training_data import Part, Parts, modalities_of

# Gives the values of further fields for each run of a row in a fold.
Points = Callable[[Row, int | None], Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of one row.

    Attributes:
        row ([`Row`]): system, and what differs from it.
        fold (`int`, *optional*): fold of the posts; `None` for posts that are split once.
        seed (`int`): seed of the run.
        folder (`Path`): folder of its results.
        setup ([`TrainingSetup`]): arguments of the run, those of MPT for one of `BASELINES`.
        values (`dict`): values of the grid of a search, by the name of the argument.
    """

    row: Row
    fold: int | None
    seed: int
    folder: Path
    setup: TrainingSetup
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_network(self) -> bool:
        return self.row.system not in BASELINES

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        values = "".join(f", {name} {value}" for name, value in self.values.items())
        return f"{self.row.title}{fold}, seed {self.seed}{values}"

    def own_setup(self) -> TrainingSetup:
        """Copy the arguments, with the seed and folder of the cell."""
        setup = copy.copy(self.setup)
        setup.training, setup.run = copy.copy(setup.training), copy.copy(setup.run)
        setup.training.seed = setup.training.data_seed = self.seed
        setup.training.output_dir = str(self.folder)
        setup.run.seeds = None
        return setup


def base_setups(protocol: Protocol, dataset: str) -> Callable[[str], TrainingSetup]:
    """Return a function that gives the arguments of a system, for linear baselines MPT's."""
    return functools.cache(lambda system: protocol.setup("mpt" if system in BASELINES else system, dataset, {}))


def make_cells(
    rows: Sequence[Row],
    folds: Sequence[int | None],
    seeds: Sequence[int],
    protocol: Protocol,
    dataset: str,
    present: Sequence[str],
    folder: Path,
    points: Points = lambda row, fold: [{}],
) -> tuple[list[Cell], dict[str, str]]:
    """List all cells seed by seed, so that an early stop leaves results of all rows.

    Args:
        rows (sequence of [`Row`]): rows that are trained.
        folds (sequence): indices of folds; `[None]` for posts that are split once.
        seeds (sequence of `int`): seeds of the runs; a linear baseline, which is deterministic, has the first.
        protocol ([`Protocol`]): arguments of all systems.
        dataset (`str`): name of the dataset, for MPT's own recipe.
        present (sequence of `str`): modalities that the posts have.
        folder (`Path`): folder of the cells.
        points (callable): see [`Points`].

    Returns:
        The cells, and the error of each row that the arguments or a configuration refuse, by its title.
    """
    base = base_setups(protocol, dataset)
    setups: dict[tuple[str, str], TrainingSetup] = {}
    cells, refused = [], {}
    for seed in seeds:
        for row in rows:
            if row.title in refused or (row.system in BASELINES and seed != seeds[0]):
                continue
            for fold in folds:
                several = [{}] if row.system in BASELINES else points(row, fold)
                for values in several:
                    names = [f"seed-{seed}"]
                    if len(several) > 1:
                        names += [f"{field}={value}" for field, value in values.items()]
                    place = folder / row.folder / ("" if fold is None else f"fold-{fold}") / ",".join(names)
                    key = row.title, str(values)
                    try:
                        if key not in setups and row.system in BASELINES:
                            setups[key] = base(row.system)
                        elif key not in setups:
                            fields = row.fields(base(row.system), present)
                            setups[key] = protocol.setup(row.system, dataset, {**fields, **values})
                    except ValueError as error:
                        refused[row.title] = str(error)
                        break
                    cells.append(Cell(row, fold, seed, place, setups[key], dict(values)))
    return [cell for cell in cells if cell.row.title not in refused], refused


def refuse(cells: Sequence[Cell], parts: Parts, refused: Mapping[str, str]) -> tuple[list[Cell], dict[str, str]]:
    """Check each row before the first is trained, and print the errors.

    Args:
        cells (sequence of [`Cell`]): runs.
        parts ([`Parts`]): the posts; those of the first fold are checked.
        refused (mapping): errors of [`make_cells`].

    Returns:
        The cells without errors, and the error of each other row by its title.
    """
    errors: dict[str, str | None] = {**refused}
    for cell in cells:
        if cell.row.title not in errors:
            errors[cell.row.title] = None
            try:
                posts = cell.row.posts(parts[cell.fold].posts)
                if cell.is_network:
                    checked(cell.own_setup(), posts)
            except ValueError as error:
                errors[cell.row.title] = str(error)
    faults = {title: error for title, error in errors.items() if error is not None}
    if PartialState().is_main_process:
        for title, error in faults.items():
            print(f"Not trained: {title}: {error}", file=sys.stderr)
    return [cell for cell in cells if cell.row.title not in faults], faults


def run_cells(
    cells: Sequence[Cell], run: Callable[[Cell, Part], None], parts: Parts, num_jobs: int = 1
) -> dict[Cell, str]:
    """Run all cells, and return the errors of those that fail.

    Args:
        cells (sequence of [`Cell`]): runs.
        run (callable): trains a cell on its posts; a function of a module, so that worker processes find it.
        parts ([`Parts`]): the posts.
        num_jobs (`int`, defaults to 1): processes that run cells side by side, each with its share of the threads.

    Raises:
        OSError: the disk is full.
        ValueError: several jobs in a distributed run.
    """
    state = PartialState()
    if num_jobs > 1 and state.num_processes > 1:
        raise ValueError("`jobs` needs a single process: start the command without accelerate launch or torchrun.")
    failed: dict[Cell, str] = {}
    one = functools.partial(run_cell, run=run)
    with tqdm(total=len(cells), desc="Cells", disable=not state.is_main_process) as bar:

        def done(index: int, error: str | None) -> None:
            cell = cells[index]
            bar.update()
            bar.set_postfix_str(str(cell))
            if error is not None:
                failed[cell] = error
                if state.is_main_process:
                    log = cell.folder / "error.txt"
                    if not log.is_file():  # the process was killed
                        write_text_atomically(log, error + "\n")
                    tqdm.write(f"{cell} failed: {error} (see {log}); continuing.")

        if num_jobs > 1:
            run_in_jobs(one, cells, parts, num_jobs, done)
        else:
            for index, cell in enumerate(cells):
                bar.set_postfix_str(str(cell))
                done(index, one(cell, parts))
    return failed


def run_cell(cell: Cell, parts: Parts, *, run: Callable[[Cell, Part], None]) -> str | None:
    """Run one cell and return its error.

    Its output is in `log.txt`, the traceback of the error in `error.txt`.

    Raises:
        OSError: the disk is full.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    fault = cell.folder / "error.txt"
    try:
        part = parts[cell.fold]
        posts = posts_of_cell(cell, part.posts)
        with open(cell.folder / "log.txt", "a", buffering=1, encoding="utf-8") as log, contextlib.redirect_stdout(log):
            run(cell, Part(posts, part.data))
        fault.unlink(missing_ok=True)
    except Exception as error:  # a failure of one row must not cost the others
        if is_disk_full(error):
            raise
        if PartialState().is_main_process:
            write_text_atomically(fault, traceback.format_exc())
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
    return None


def posts_of_cell(cell: Cell, posts: DatasetDict) -> DatasetDict:
    """Return the posts that a cell reads, for `shuffled` with permuted rationales."""
    posts = cell.row.posts(posts)
    return shuffled_rationales(posts, cell.seed) if "shuffled" in cell.row.words else posts


def shuffled_rationales(posts: DatasetDict, seed: int) -> DatasetDict:
    """Give each post the rationales of another post of its split.

    The posts of a split form one random cycle, in which each gets all rationales of its successor. A network that
    gains from rationales of other posts gains from its additional parameters.
    """
    shuffled = {}
    for index, (name, split) in enumerate(posts.items()):
        order = np.random.default_rng((seed, index)).permutation(len(split))
        source = np.empty_like(order)
        source[order] = np.roll(order, -1)
        shuffled[name] = _with_rationales_of(split, source)
    return DatasetDict(shuffled)


def _with_rationales_of(split: Dataset, source: np.ndarray) -> Dataset:
    columns = [name for name in split.column_names if name.startswith("rationale_")]
    result = split.remove_columns(columns)
    for name in columns:
        values = split[name][:]
        result = result.add_column(name, [values[row] for row in source], feature=split.features[name])
    return result.select_columns(split.column_names)


def modalities_of_parts(parts: Parts) -> list[str]:
    """List the modalities that any post has."""
    return modalities_of(next(iter(parts.values())).posts)
