"""Run of a report: the rows that its sections need, the sections, and their files."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from accelerate import PartialState
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable
from dataset_scripts.reading.option_names import option_name
from dataset_scripts.reading.report import did_you_mean
from mpt_sentiment.cell_training import PREDICTIONS_FILE
from mpt_sentiment.cells import base_setups, make_cells, run_cells
from mpt_sentiment.comparing import run_comparison
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.reporting import (
    ablation,
    calibration,
    cases,
    contrastive_weight,
    errors,
    explanations,
    lmm,
    maps,
    noise,
    polarities,
)
from mpt_sentiment.reporting.context import Context, Plan
from mpt_sentiment.reporting.other_reports import read_captions, with_figures_of, write_captions
from mpt_sentiment.reporting.page import write_report
from mpt_sentiment.reporting.section import Omitted, Section
from mpt_sentiment.reporting.training import train_observed
from mpt_sentiment.rows import parse_row
from mpt_sentiment.training_data import Parts, dataset_name, split_parts

logger = logging.getLogger(__name__)

# Name of a section → its module, in the order of the page: `TITLE`, `rows(plan)`, `section(context)`.
SECTIONS: dict[str, Any] = {
    "polarities": polarities,
    "ablation": ablation,
    "lmm": lmm,
    "maps": maps,
    "lambda": contrastive_weight,
    "explanations": explanations,
    "cases": cases,
    "calibration": calibration,
    "errors": errors,
    "noise": noise,
}


@dataclass(frozen=True)
class ReportOptions:
    """Sections of a report, and the sources of its predictions.

    Attributes:
        what (sequence of `str`): names of sections, or `"all"`.
        comparison (`Path`, *optional*): folder of a finished comparison; by default one is trained.
        zero_shot (`Path`, *optional*): predictions of the large multimodal model.
        other_reports (sequence of `Path`): folders of finished reports of other datasets, whose figures are shown too.
        epochs (sequence of `int`): epochs of the maps; the last one is added.
        num_explained (`int`): posts that are explained.
        num_shown (`int`): posts that a section shows of each kind.
    """

    what: Sequence[str] = ("all",)
    comparison: str | Path | None = None
    zero_shot: str | Path | None = None
    other_reports: Sequence[str | Path] = ()
    epochs: Sequence[int] = (1,)
    num_explained: int = 16
    num_shown: int = 5

    def __post_init__(self) -> None:
        for name in self.what:
            if name not in (*SECTIONS, "all"):
                raise ValueError(
                    f"{option_name('what')} must be all, or some of {', '.join(SECTIONS)}; got {name!r}."
                    + did_you_mean(name, (*SECTIONS, "all"))
                )
        numbers = {"num_explained": [self.num_explained], "num_shown": [self.num_shown], "epochs": self.epochs}
        for name, values in numbers.items():
            if min(values, default=1) < 1:
                raise ValueError(f"{option_name(name)} must be at least 1, got {min(values)}.")
        if not self.what:
            raise ValueError(f"{option_name('what')} must name a section, e.g. ablation, or all.")
        for folder in self.other_reports:
            read_captions(Path(folder))

    @property
    def names(self) -> list[str]:
        """Names of the sections, in the order of the page."""
        return [name for name in SECTIONS if name in self.what or "all" in self.what]


@dataclass(frozen=True)
class ReportResult:
    """A written report.

    Attributes:
        output_dir (`Path`): folder of `index.html`, `report.md`, `tables`, `figures`, and of the runs.
        sections (`dict[str, Section]`): by name; an omitted one has the reason.
        failed (`dict[str, str]`): error of each run that failed, and of each row that could not be trained.
    """

    output_dir: Path
    sections: dict[str, Section]
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{name}: " + (section.title if section.omitted is None else f"omitted. {section.omitted}")
            for name, section in self.sections.items()
        ]
        return "\n".join([*lines, f"The page is {self.output_dir / 'index.html'}"])


def report(
    posts: Dataset | DatasetDict,
    what: Sequence[str] | str = "all",
    *,
    output_dir: str | Path,
    seeds: Sequence[int] = (42,),
    recipe: str | Path | None = None,
    comparison: str | Path | None = None,
    zero_shot: str | Path | None = None,
    other_reports: Sequence[str | Path] = (),
    epochs: Sequence[int] = (1,),
    num_explained: int = 16,
    num_shown: int = 5,
    opposite: Dataset | None = None,
    **fields: Any,
) -> ReportResult:
    """Write the paper's tables and figures, explanations, calibration and label noise as a page.

    Rows without results are trained as `mpt_sentiment.compare` does; the same call resumes. Two networks are trained
    in addition, for maps and explanations.

    Args:
        posts (`Dataset` or `DatasetDict`): see `mpt_sentiment.compare`.
        what (sequence of `str`, or `str`): `"all"`, or some of `"polarities"`, `"ablation"`, `"lmm"`, `"maps"`,
            `"lambda"`, `"explanations"`, `"cases"`, `"calibration"`, `"errors"`, `"noise"`.
        output_dir (`str` or `Path`): folder of the report and its runs.
        seeds (sequence of `int`): seeds of each row.
        recipe (`str` or `Path`, *optional*): see `mpt_sentiment.compare`.
        comparison (`str` or `Path`, *optional*): folder of a comparison of the same posts and split, whose
            predictions are used; no row is trained then, and a section says which ones it lacks.
        zero_shot (`str` or `Path`, *optional*): `predictions.parquet` of `mpt_sentiment.zero_shot`, or its folder.
        other_reports (sequence of `str` or `Path`): `output_dir` of finished reports of other datasets, whose figures
            are shown next to those of the same section.
        epochs (sequence of `int`, defaults to the first): epochs whose vectors are mapped; the last one is added.
        num_explained (`int`, defaults to 16): test posts that are explained.
        num_shown (`int`, defaults to 5): cases of each kind.
        opposite (`Dataset`, *optional*): posts of MVSA loaded with `keep_opposite=True`; those without label are
            counted by the label that MPT gives them.
        fields: as of `mpt_sentiment.compare`.

    Returns:
        [`ReportResult`].

    Raises:
        ValueError: an unknown section or field, posts that cannot be trained on, or predictions of other posts.
    """
    what = [what] if isinstance(what, str) else list(what)
    options = ReportOptions(what, comparison, zero_shot, other_reports, epochs, num_explained, num_shown)
    name = dataset_name(posts)
    protocol = Protocol.of_fields(recipe, name, {"output_dir": str(output_dir)} | fields)
    parts = split_parts(posts, protocol.setup("mpt", name, {}).data)

    def command(section: str) -> str:
        given = {"recipe": recipe, "seeds": list(seeds)} | fields
        listed = ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
        return f"mpt.report(posts, {section!r}, output_dir=…, {listed})"

    return run_report(options, seeds, protocol, parts, Path(output_dir), command, lambda: opposite)


def run_report(
    options: ReportOptions,
    seeds: Sequence[int],
    protocol: Protocol,
    parts: Parts,
    output_dir: Path,
    command: Callable[[str], str],
    opposite: Callable[[], Dataset | None] = lambda: None,
) -> ReportResult:
    """Train what is missing, compute the sections, and write the report.

    Args:
        options ([`ReportOptions`]): sections and sources.
        seeds, protocol, parts, output_dir: see [`~mpt_sentiment.comparing.run_comparison`].
        command (callable): gives the command that makes a section.
        opposite (callable): loads posts among which those with opposite polarities have no label.

    Raises:
        ValueError: see [`report`].
    """
    if PartialState().num_processes > 1:
        raise ValueError(
            "A report needs a single process: start it without accelerate launch; --jobs trains in several."
        )
    check_writable(output_dir)
    name = dataset_name(next(iter(parts.values())).posts)
    plan = Plan(parts, base_setups(protocol, name)("mpt"))
    zero_shot = None if options.zero_shot is None else read_table(Path(options.zero_shot), "zero_shot")
    rows = list(dict.fromkeys(row for each in options.names for row in SECTIONS[each].rows(plan)))
    table, failed = predictions_of(options, rows, seeds, protocol, parts, output_dir)
    context = Context(
        plan,
        table,
        output_dir,
        functools.cache(
            functools.partial(
                train_network, seed=seeds[0], epochs=options.epochs, plan=plan, protocol=protocol, folder=output_dir
            )
        ),
        zero_shot,
        functools.cache(lambda: without_label(opposite())),
        options.epochs,
        options.num_explained,
        options.num_shown,
        failed,
    )
    sections = {each: section_of(each, context) for each in options.names}
    heading = without_paths(context.heading)
    write_captions(output_dir, heading, sections)
    sections = with_figures_of([*map(Path, options.other_reports)], output_dir, heading, sections)
    write_report(output_dir, context, sections, {each: command(each) for each in sections}, command("all"), failed)
    result = ReportResult(output_dir, sections, failed)
    print(f"\n{result}")
    return result


def predictions_of(
    options: ReportOptions,
    rows: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol,
    parts: Parts,
    output_dir: Path,
) -> tuple[pa.Table | None, dict[str, str]]:
    """Return the predictions of the rows, and the errors of those that failed.

    Raises:
        ValueError: the folder has no comparison, or one of other posts.
    """
    if options.comparison is not None:
        table = read_table(Path(options.comparison), "comparison")
        tested = {post_id for part in parts.values() for post_id in part.posts["test"]["id"]}
        other = {*table["id"].to_pylist()} ^ tested
        if other or "row" not in table.column_names:
            raise ValueError(
                f"{options.comparison} is a comparison of other test posts ({len(other):,} ids differ, e.g. "
                f"{min(other, default='')!r}). Give the dataset, split and folds of that comparison."
            )
        return table, {}
    if not rows:
        return None, {}
    folder = output_dir / "comparison"
    compared = run_comparison(rows, seeds, protocol, parts, folder)
    return read_table(folder, "comparison"), compared.failed


def read_table(path: Path, name: str) -> pa.Table:
    """Read predictions from their Parquet file, or from the folder of a run.

    Raises:
        ValueError: no such file.
    """
    file = path / PREDICTIONS_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".parquet":
        raise ValueError(
            f"{option_name(name)} {path} has no predictions: name a folder with {PREDICTIONS_FILE}, or that file."
        )
    return pa.parquet.read_table(file)


def train_network(row: str, *, seed: int, epochs: Sequence[int], plan: Plan, protocol: Protocol, folder: Path) -> Path:
    """Train a row on the first fold, unless it has finished, and keep its network.

    Raises:
        Omitted: it cannot be trained.
    """
    fold, part = next(iter(plan.parts.items()))
    name = dataset_name(part.posts)
    present = plan.modalities
    cells, refused = make_cells([parse_row(row)], [fold], [seed], protocol, name, present, folder / "networks")
    failed: Mapping[Any, str] = refused or run_cells(
        cells, functools.partial(train_observed, epochs=tuple(epochs)), {fold: part}
    )
    if failed:
        raise Omitted(f"The network `{row}` could not be trained: {next(iter(failed.values()))}")
    return cells[0].folder


def without_label(posts: Dataset | None) -> Dataset | None:
    """Select posts without label."""
    if posts is None:
        return None
    return posts.select([number for number, label in enumerate(posts["label"][:]) if label is None])


def section_of(name: str, context: Context) -> Section:
    """Compute a section; where that is impossible, return one with the reason."""
    module = SECTIONS[name]
    try:
        return module.section(context)
    except (ValueError, ImportError) as error:
        logger.warning("The section %s is omitted: %s", name, error)
        return Section(module.TITLE, omitted=str(error))
