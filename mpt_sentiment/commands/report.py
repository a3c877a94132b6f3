"""Command `report`: write the paper's tables and figures, and more, as a page.

    mpt-sentiment report sample --output_dir outputs/report --seeds 1 2
    mpt-sentiment report mvsa_single_frozen --data_dir MVSA_Single --rationales rationales.jsonl --split folds \\
        --what polarities ablation calibration --seeds 1 2 3 --jobs 2 --output_dir outputs/report

The same command resumes an interrupted report, run by run.
"""

import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, disable_progress_bars

from dataset_scripts import load_posts_with_report
from mpt_sentiment.arguments import DataArguments, argument
from mpt_sentiment.commands.compare import load_posts_of, parse_with_protocol
from mpt_sentiment.reporting.run import SECTIONS, ReportOptions, run_report

DESCRIPTION = "Write the paper's tables and figures as a page. [RECIPE] is that of all systems, as in compare."
WITH_OPPOSITE = ("mvsa_single", "mvsa_multiple")


@dataclasses.dataclass
class ReportArguments:
    """Sections of a report. All other arguments are those of `train`."""

    what: list[str] = argument(f"all, or some of {', '.join(SECTIONS)}.", ["all"])
    comparison: str | None = argument("Folder of a finished comparison of these posts; no row is trained then.")
    zero_shot: str | None = argument("Predictions of the LMM alone: folder or predictions.parquet of zero-shot.")
    other_reports: list[str] = argument("Finished reports of other datasets, whose figures are shown too.", [])
    epochs: list[int] = argument("Epochs whose fused vectors are mapped; the last one is added.", [1])
    num_explained: int = argument("Test posts that are explained.", 16)
    num_shown: int = argument("Cases of each kind that are shown.", 5)

    def options(self) -> ReportOptions:
        return ReportOptions(**dataclasses.asdict(self))


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ValueError: unusable arguments, recipe or posts, or no run finished.
    """
    parsed = parse_with_protocol(ReportArguments, argv, "report", DESCRIPTION)
    if parsed is None:
        return 0
    options, protocol = parsed[0].options(), parsed[1]
    common, parts = load_posts_of(protocol)
    disable_progress_bars()
    result = run_report(
        options,
        common.run.seeds or [common.training.seed],
        protocol,
        parts,
        Path(common.training.output_dir),
        functools.partial(command_of, argv),
        functools.partial(posts_with_opposite, common.data),
    )
    return 1 if result.failed else 0


def command_of(argv: Sequence[str], section: str) -> str:
    """Return the command line of one section, for a shell."""
    kept, skipping = [], False
    for word in argv:
        if word.startswith("--"):
            skipping = word.partition("=")[0] == "--what"
        if not skipping:
            kept.append(word)
    return shlex.join(["mpt-sentiment", "report", *kept, "--what", section])


def posts_with_opposite(data: DataArguments) -> Dataset | None:
    """Load the posts of MVSA with those of opposite polarities, which have no label."""
    if data.dataset not in WITH_OPPOSITE:
        return None
    options = data.dataset_options | {"keep_opposite": True}
    posts, _ = load_posts_with_report(
        data.dataset, data.data_dir, rationales=data.rationales, on_error=data.on_error, **options
    )
    return posts
