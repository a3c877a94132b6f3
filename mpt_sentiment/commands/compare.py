"""Command `compare`: train systems and ablations on the same posts and tabulate them.

    mpt-sentiment compare comparison --data_dir MVSA_Single --rationales rationales.jsonl --split folds \\
        --rows floors mpt "mpt -rationales" "mpt shuffled" "mvan +rationales" --seeds 1 2 3 --jobs 2

Each system has the structure, sizes, losses and dropout of its own recipe; the recipe that is named here, and then the
command line, set all else alike. The same command resumes an interrupted comparison, run by run.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from mpt_sentiment.arguments import argument, make_parser
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.comparing import run_comparison
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import TRAINING_CLASSES, TrainingSetup
from mpt_sentiment.rows import KNOWN_SYSTEMS, LISTS, parse_rows
from mpt_sentiment.training_data import Parts, load_parts

DESCRIPTION = "Train several systems on the same posts and tabulate them. [RECIPE] is that of all systems."
ROWS_HELP = (
    f"{', '.join(LISTS)}, or systems ({', '.join(KNOWN_SYSTEMS)}) with what differs from them, each row in quotes: "
    "'mpt -rationales' 'mpt shuffled' 'mpt -mlcl' 'mpt dropout=0.3' 'mvan +rationales' 'mvan words' 'mpt ensemble'."
)


@dataclasses.dataclass
class CompareArguments:
    """Rows of a comparison. All other arguments are those of `train`."""

    rows: list[str] = argument(ROWS_HELP, ["all"])
    reference: str | None = argument("Row that the others are tested against; by default mpt, else the best.")
    search: str | None = argument("Result of `mpt-sentiment search` (file or folder), whose values each row takes.")


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a cell failed.

    Raises:
        ValueError: unusable arguments, recipe or posts, or no cell finished.
    """
    parsed = parse_with_protocol(CompareArguments, argv, "compare", DESCRIPTION)
    if parsed is None:
        return 0
    args, protocol = parsed
    parse_rows(args.rows)  # before the posts are read
    common, parts = load_posts_of(protocol)
    seeds = common.run.seeds or [common.training.seed]
    output_dir = Path(common.training.output_dir)
    result = run_comparison(args.rows, seeds, protocol, parts, output_dir, args.search, args.reference)
    return 1 if result.failed else 0


def parse_with_protocol(
    arguments: type, argv: Sequence[str], command: str, description: str
) -> tuple[Any, Protocol] | None:
    """Parse own arguments and those of training; `None` if the command shows its help.

    Raises:
        ValueError: an unknown argument, or an unusable value.
    """
    if {"-h", "--help"} & {*argv}:
        make_parser([arguments, *TRAINING_CLASSES], command, description).print_help()
        return None
    parser = make_parser([arguments], command, add_help=False)
    args, rest = parser.parse_args_into_dataclasses(list(argv), return_remaining_strings=True)
    set_up_logging()
    disable_progress_bar()  # of loading weights, once per run
    return args, Protocol.of_command(rest, command)


def load_posts_of(protocol: Protocol) -> tuple[TrainingSetup, Parts]:
    """Load the posts of a protocol, with the arguments that are the same for all systems."""
    common = protocol.setup("mpt", "", {})
    with common.training.main_process_first(desc="building the dataset"):
        return common, load_parts(common.data)
