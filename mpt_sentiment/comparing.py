"""Compare systems on the same posts, split, seeds and metrics: one table, one chart, one command.

    accelerate launch examples/compare.py comparison_small --data_dir MVSA_Single --rationales rationales.jsonl \
        --models all --seeds 1 2 3

Each system trains by its own recipe (`recipes/baselines/NAME.yaml`; MPT by that of the dataset); the recipe that is
named here, and then the command line, are laid over it for all of them. What can read rationales is trained without
and with them. A cell (system, rationales, seed) that is finished is never run again; one that breaks is reported, and
the rest goes on.
"""

import contextlib
import dataclasses
import gc
import json
import logging
import traceback
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import DatasetDict
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from modeling_mpt import SYSTEMS
from mpt_sentiment.evaluation import atomic_path, write_metrics
from mpt_sentiment.evaluation.comparison import (
    Entry,
    compare,
    comparison_markdown,
    plot_comparison,
    read_predictions,
    write_comparison_csv,
)
from mpt_sentiment.linear import majority, tfidf_regression
from mpt_sentiment.recipe import RECIPES, parse
from mpt_sentiment.training import TrainingData, load_splits, run, settings_of

FLOORS = {"majority": majority, "tfidf": tfidf_regression}


@dataclasses.dataclass
class CompareArguments:
    """What is compared; all other arguments are those of `train.py`."""

    models: list[str] = dataclasses.field(
        default_factory=lambda: ["all"],
        metadata={"help": f"Systems to compare: all, or some of {', '.join([*FLOORS, *SYSTEMS])}."},
    )
    thinking: str = dataclasses.field(
        default="both", metadata={"help": "Rationales: both (without and with), without, with."}
    )

    def __post_init__(self) -> None:
        known = [*FLOORS, *SYSTEMS]
        self.models = known if self.models == ["all"] else self.models
        for name in self.models:
            if name not in known:
                raise ValueError(f"--models {name}: there is no such system; write all, or some of {known}.")
        if self.thinking not in ("both", "without", "with"):
            raise ValueError(f"--thinking {self.thinking}: write both, without or with.")


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of one system."""

    system: str
    rationales: bool
    seed: int
    arguments: tuple[Any, ...]  # as `recipe.parse` gives them
    folder: Path

    def __str__(self) -> str:
        return f"{self.system}{' + rationales' if self.rationales else ''}, seed {self.seed}"


def main(argv: list[str]) -> int:
    compare_parser = HfArgumentParser(CompareArguments, allow_abbrev=False)
    own, rest = compare_parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    *_, data_args, run_args, training_args = parse(rest)
    output_dir, state = Path(training_args.output_dir), PartialState()
    with training_args.main_process_first(desc="building the dataset"):
        posts, data = load_splits(data_args)
    seeds = run_args.seeds or [training_args.seed]
    cells = grid(own, rest, seeds, data_args.dataset, posts, output_dir)
    failed = {}
    for cell in (bar := tqdm(cells, desc="Cells", disable=not state.is_main_process)):
        bar.set_postfix_str(str(cell))
        try:
            run_cell(cell, posts, data, state)
        except Exception as error:  # whatever breaks one system must not cost the others
            failed[cell] = f"{type(error).__name__}: {error}"
            cell.folder.mkdir(parents=True, exist_ok=True)
            (cell.folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            tqdm.write(f"{cell} failed: {failed[cell]} (more in {cell.folder / 'error.txt'}); going on.")
        gc.collect()
    if state.is_main_process:
        finished = [cell for cell in cells if cell not in failed]
        report(finished, failed, data_args.dataset, data, posts, output_dir)
    state.wait_for_everyone()  # the first process that ends with 1 ends the others
    return 1 if failed else 0


def grid(
    own: CompareArguments, rest: list[str], seeds: list[int], dataset: str, posts: DatasetDict, output_dir: Path
) -> list[Cell]:
    """All cells, one seed after the other, so that a grid that is stopped early has compared all systems."""
    train = posts["train"]
    columns = [name for name in train.column_names if name.startswith("rationale_")]
    there = any(value is not None for column in columns for value in train[column])
    if own.thinking == "with" and not there:
        raise ValueError("--thinking with, but no post has a rationale; join some with --rationales FILE.")
    wanted = {"without": [False], "with": [True], "both": [False, True] if there else [False]}[own.thinking]
    cells = []
    for seed in seeds:
        for system in own.models:
            for rationales in wanted:
                if rationales and not can_read_rationales(system):
                    continue
                name = f"{system}+rationales" if rationales else system
                folder = output_dir / "cells" / name / f"seed-{seed}"
                if system in FLOORS and seed != seeds[0]:
                    continue  # nothing in them is random
                arguments = (None, None, None, None)
                if system not in FLOORS:
                    arguments = parse([*rest, *switches(system, rationales)], base=recipe_of(system, dataset))
                cells.append(Cell(system, rationales, seed, arguments, folder))
    return cells


def can_read_rationales(system: str) -> bool:
    """MPT, TF-IDF, and the baselines that read both text and image (paper, Table 4)."""
    if system in FLOORS:
        return system == "tfidf"
    return system == "mpt" or {"text", "image"} <= set(SYSTEMS[system][0].reads)


def switches(system: str, rationales: bool) -> list[str]:
    """Arguments that choose the system and whether it reads rationales."""
    if system == "mpt":
        return ["--model", "mpt"] if rationales else ["--model", "mpt", "--modalities", "text", "image"]
    return ["--model", system, "--use_rationales", str(rationales)]


def recipe_of(system: str, dataset: str) -> Path:
    """The recipe that a system starts from."""
    own = RECIPES / (f"{dataset}.yaml" if system == "mpt" else f"baselines/{system}.yaml")
    return own if own.is_file() else RECIPES / "mvsa_single.yaml"


def run_cell(cell: Cell, posts: DatasetDict, data: TrainingData, state: PartialState) -> None:
    """Run a cell unless its metrics are there; what it prints goes to a log in its folder."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    if cell.system in FLOORS:
        if state.is_main_process and not (cell.folder / "metrics.json").is_file():
            FLOORS[cell.system](posts, cell.folder, cell.rationales)
        state.wait_for_everyone()
        return
    model_args, data_args, run_args, args = cell.arguments
    args.seed = args.data_seed = cell.seed
    args.output_dir = str(cell.folder)
    args.disable_tqdm = True
    settings = settings_of(model_args, data_args, args, data)
    with open(cell.folder / "log.txt", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        run(model_args, data_args, args, posts, data, settings, run_args.overwrite)
    (cell.folder / "error.txt").unlink(missing_ok=True)


def report(
    finished: list[Cell],
    failed: dict[Cell, str],
    dataset: str,
    data: TrainingData,
    posts: DatasetDict,
    output_dir: Path,
) -> None:
    """`comparison.md`, `.csv`, `.json` and `.png` of the cells that finished."""
    names = posts["train"].features["label"].names
    groups: dict[tuple[str, bool], list[Cell]] = {}
    for cell in finished:
        groups.setdefault((cell.system, cell.rationales), []).append(cell)
    if not groups:
        print("No cell finished, so there is nothing to compare.")
        return
    _, labels, every = read_predictions([cell.folder / "predictions.parquet" for cell in finished], names)
    entries = []
    for (system, rationales), cells in groups.items():
        metrics = [json.loads((cell.folder / "metrics.json").read_text(encoding="utf-8")) for cell in cells]
        speeds = [each["train_posts_per_second"] for each in metrics if each.get("train_posts_per_second")]
        providers = metrics[0].get("system", {}).get("providers", {})
        # What a table must say of a system stands behind the paper it is from.
        remarks = [SYSTEMS[system][0].source.partition("; ")[2]] if system in SYSTEMS else []
        remarks += [f"{what}: {provider}" for what, provider in providers.items() if provider]
        entries.append(
            Entry(
                system=system,
                rationales=rationales,
                labels=labels,
                predictions=every[[finished.index(cell) for cell in cells]],
                parameters=metrics[0].get("parameters"),
                speed=sorted(speeds)[len(speeds) // 2] if speeds else None,
                remark="; ".join(filter(None, remarks)),
            )
        )
    rows = compare(entries, len(names), dataset)
    heading = f"{data.name}, split {data.protocol} (`{data.split_hash}`), {len(labels):,} test posts"
    table = comparison_markdown(rows)
    notes = [f"- {cell} failed: {error}" for cell, error in failed.items()]
    text = "\n".join([f"# {heading}\n", table, *notes])
    with atomic_path(output_dir / "comparison.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_comparison_csv(output_dir / "comparison.csv", rows)
    write_metrics(output_dir / "comparison.json", {"rows": rows, "split": dataclasses.asdict(data)})
    plot_comparison(output_dir / "comparison.png", rows, heading.replace("`", ""))
    print(f"\n{text}\nTable, CSV and chart are in {output_dir}")
