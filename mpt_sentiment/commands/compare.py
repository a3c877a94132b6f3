"""Command `compare`: train several systems on the same posts and tabulate them.

    mpt-sentiment compare comparison --data_dir MVSA_Single --rationales rationales.jsonl \\
        --models all --seeds 1 2 3

Each system has the structure, sizes, losses and dropout of its own recipe; the recipe that is named here, and then the
command line, set all else alike.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from datasets import DatasetDict

from mpt_sentiment.arguments import argument, make_parser
from mpt_sentiment.cells import KNOWN_SYSTEMS, check_arms, check_systems
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.comparing import run_comparison
from mpt_sentiment.evaluation import TrainingData
from mpt_sentiment.evaluation.comparison import ARMS
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import TRAINING_CLASSES, TrainingSetup
from mpt_sentiment.training_data import load_splits

DESCRIPTION = "Train several systems on the same posts and tabulate them. [RECIPE] is that of all systems."


@dataclasses.dataclass
class CompareArguments:
    """Systems of a comparison. All other arguments are those of `train`."""

    models: list[str] = argument(f"Systems to compare: all, or some of {', '.join(KNOWN_SYSTEMS)}.", ["all"])
    arms: list[str] = argument(
        f"Rows of each system: all, or some of {', '.join(ARMS)} (rationales of other posts; static words).", ["all"]
    )
    search: str | None = argument("Result of `mpt-sentiment search` (file or folder), whose values each row takes.")


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a cell failed.

    Raises:
        ValueError: unusable arguments, recipe or posts, or no cell finished.
    """
    if {"-h", "--help"} & {*argv}:
        make_parser([CompareArguments, *TRAINING_CLASSES], "compare", DESCRIPTION).print_help()
        return 0
    parser = make_parser([CompareArguments], "compare", add_help=False)
    args, rest = parser.parse_args_into_dataclasses(list(argv), return_remaining_strings=True)
    check_systems(args.models)
    check_arms(args.arms)
    set_up_logging()
    protocol = Protocol.of_command(rest, "compare")
    common, posts, data = load_posts_of(protocol)
    seeds = common.run.seeds or [common.training.seed]
    output_dir = Path(common.training.output_dir)
    result = run_comparison(args.models, args.arms, seeds, protocol, posts, data, output_dir, args.search)
    return 1 if result.failed else 0


def load_posts_of(protocol: Protocol) -> tuple[TrainingSetup, DatasetDict, TrainingData]:
    """Load the posts of a protocol, with the arguments that are the same for all systems."""
    common = protocol.setup("mpt", "", {})
    with common.training.main_process_first(desc="building the dataset"):
        return common, *load_splits(common.data)
