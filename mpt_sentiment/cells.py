"""Cells of a comparison or search: single runs of systems, each in its own folder."""

import contextlib
import dataclasses
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
from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
from mpt_sentiment.evaluation.comparison import ARMS, row_title
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.training import checked
from mpt_sentiment.training_data import modalities_of

KNOWN_SYSTEMS = (*BASELINES, *SYSTEMS)
# Systems whose papers read static word vectors, and that can read the states of a text encoder instead.
STATIC_WORDS = ("co_mem", "mvan", "mgnns")


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of one system.

    Attributes:
        system (`str`): name of the system.
        arm (`str`): see [`ARMS`].
        seed (`int`): seed of the run.
        folder (`Path`): folder of its results.
        setup ([`TrainingSetup`]): arguments of the run; `None` for a linear baseline.
        values (`dict`): values of the grid of a search, by the name of the argument.
    """

    system: str
    arm: str
    seed: int
    folder: Path
    setup: TrainingSetup | None
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        return row_title(self.system, self.arm)

    def __str__(self) -> str:
        values = "".join(f", {name} {value}" for name, value in self.values.items())
        return f"{self.title}, seed {self.seed}{values}"


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


def check_arms(arms: Sequence[str] | str) -> list[str]:
    """Return the names of the arms to compare; `"all"` names every one.

    Raises:
        ValueError: an unknown name.
    """
    if arms in ("all", ["all"]):
        return list(ARMS)
    for name in arms:
        if name not in ARMS:
            raise ValueError(
                f"Unknown arm {name!r}; use all, or some of {', '.join(ARMS)}." + did_you_mean(name, ARMS)
            )
    return list(arms)


def arms_of_posts(arms: Sequence[str] | str, posts: DatasetDict) -> list[str]:
    """Return the names of the arms that the posts allow.

    Raises:
        ValueError: an unknown name, or a named arm with rationales for posts without.
    """
    names = check_arms(arms)
    reading = [name for name in names if name in ("with", "shuffled")]
    if not reading or "rationales" in modalities_of(posts):
        return names
    if arms not in ("all", ["all"]):
        raise ValueError(f"`arms` has {reading[0]!r}, but no post has a rationale; join some with --rationales FILE.")
    print("No post has a rationale: systems are trained without.", file=sys.stderr)
    return [name for name in names if name not in reading]


def has_arm(system: str, arm: str) -> bool:
    """Return whether a system has an arm.

    MPT, TF-IDF, and the baselines of text and image read rationales.
    """
    if arm == "without":
        return True
    if arm == "words":
        return system in STATIC_WORDS
    if system in BASELINES:
        return system == "tfidf"
    return system == "mpt" or {"text", "image"} <= set(SYSTEMS[system][0].reads)


def arm_fields(system: str, arm: str, modalities: Sequence[str] | None = None) -> dict[str, Any]:
    """Build the fields that select an arm of a network; a linear baseline has none.

    Args:
        system, arm (`str`): names.
        modalities (sequence of `str`, *optional*): of MPT in all arms; the arm decides about rationales.
    """
    if system in BASELINES:
        return {}
    rationales = arm in ("with", "shuffled")
    if system == "mpt":
        if rationales and modalities is None:
            return {}  # all that the posts have
        others = [name for name in modalities or ("text", "image") if name != "rationales"]
        return {"modalities": [*others, "rationales"] if rationales else others}
    provider = {"text_provider": "embeddings" if arm == "words" else "encoder"} if system in STATIC_WORDS else {}
    return {"use_rationales": rationales} | provider


def make_cells(
    systems: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol,
    dataset: str,
    folder: Path,
    points: Callable[[str, str], Sequence[Mapping[str, Any]]] = lambda system, arm: [{}],
) -> list[Cell]:
    """List all cells seed by seed, so that an early stop leaves results of all systems.

    Args:
        systems, arms, seeds (sequences): names of systems and arms, and the seeds of the runs.
        protocol ([`Protocol`]): arguments of all systems.
        dataset (`str`): name of the dataset, for MPT's own recipe.
        folder (`Path`): folder of the cells.
        points (callable): gives the values of further fields for each run of a system in an arm.
    """
    cells = []
    for seed in seeds:
        for system in systems:
            for arm in arms:
                if not has_arm(system, arm) or (system in BASELINES and seed != seeds[0]):
                    continue  # linear baselines are deterministic
                row = folder / (system if arm == "without" else f"{system}+{arm}")
                several = [{}] if system in BASELINES else points(system, arm)
                for values in several:
                    name = f"seed-{seed}"
                    if len(several) > 1:
                        name = ",".join([name, *(f"{field}={value}" for field, value in values.items())])
                    own = arm_fields(system, arm, protocol.argument("modalities")) | values
                    setup = protocol.setup(system, dataset, own) if system in SYSTEMS else None
                    cells.append(Cell(system, arm, seed, row / name, setup, dict(values)))
    return cells


def unusable_cells(cells: Sequence[Cell], posts: DatasetDict) -> dict[Cell, str]:
    """Check all runs before the first is trained; return and print the faults."""
    faults: dict[str, str | None] = {}
    for cell in cells:
        if cell.setup is not None and cell.title not in faults:
            try:
                checked(cell.setup, posts)
                faults[cell.title] = None
            except ValueError as error:
                faults[cell.title] = str(error)
                if PartialState().is_main_process:
                    print(f"Not trained: {cell.title}: {error}", file=sys.stderr)
    return {cell: fault for cell in cells if (fault := faults.get(cell.title))}


def run_cells(cells: Sequence[Cell], run: Callable[[Cell], None]) -> dict[Cell, str]:
    """Run all cells, and return the errors of those that fail.

    Raises:
        OSError: the disk is full.
        ValueError: no cell finished.
    """
    state = PartialState()
    failed = {}
    for cell in (bar := tqdm(cells, desc="Cells", disable=not state.is_main_process)):
        bar.set_postfix_str(str(cell))
        cell.folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(cell.folder / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                run(cell)
            (cell.folder / "error.txt").unlink(missing_ok=True)
        except Exception as error:  # a failure of one system must not cost the others
            if is_disk_full(error):
                raise
            failed[cell] = f"{type(error).__name__}: {error}"
            if state.is_main_process:
                write_text_atomically(cell.folder / "error.txt", traceback.format_exc())
                tqdm.write(f"{cell} failed: {failed[cell]} (see {cell.folder / 'error.txt'}); continuing.")
        gc.collect()
    return failed


def setup_of_cell(cell: Cell) -> TrainingSetup:
    """Return the arguments of a network's cell with its own seed and folder."""
    args = cell.setup.training
    args.seed = args.data_seed = cell.seed
    args.output_dir = str(cell.folder)
    args.disable_tqdm = True
    cell.setup.run.seeds = None
    return cell.setup


def posts_of_cell(cell: Cell, posts: DatasetDict) -> DatasetDict:
    """Return the posts that a cell reads, for `"shuffled"` with permuted rationales."""
    return shuffled_rationales(posts, cell.seed) if cell.arm == "shuffled" else posts


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
