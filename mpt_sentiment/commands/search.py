"""Command `search`: choose hyperparameters of systems on validation, from one grid.

    mpt-sentiment search comparison --data_dir MVSA_Single --rationales rationales.jsonl --models all \\
        --output_dir outputs/comparison
    mpt-sentiment compare comparison --data_dir MVSA_Single --rationales rationales.jsonl --models all \\
        --output_dir outputs/comparison --search outputs/comparison --seeds 1 2 3

Test posts are not scored. The same command resumes a search; rows of other systems in the folder are kept.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mpt_sentiment.arguments import JSON, argument, make_parser
from mpt_sentiment.cells import KNOWN_SYSTEMS, check_arms
from mpt_sentiment.commands.compare import load_posts_of
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.evaluation.comparison import ARMS
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.recipe import TRAINING_CLASSES
from mpt_sentiment.searching import GRID, check_grid, check_networks, run_search

DESCRIPTION = "Choose hyperparameters on validation, from the same grid for every system. [RECIPE] is that of compare."


@dataclasses.dataclass
class SearchArguments:
    """Systems and grid of a search. All other arguments are those of `train`."""

    models: list[str] = argument(f"Systems to search: all, or some of {', '.join(KNOWN_SYSTEMS)}.", ["all"])
    arms: list[str] = argument(f"Rows of each system: all, or some of {', '.join(ARMS)}.", ["all"])
    grid: JSON = argument("Values of each argument (JSON), in all combinations.", GRID)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ValueError: unusable arguments, recipe or posts, or a folder with another search.
    """
    if {"-h", "--help"} & {*argv}:
        make_parser([SearchArguments, *TRAINING_CLASSES], "search", DESCRIPTION).print_help()
        return 0
    parser = make_parser([SearchArguments], "search", add_help=False)
    args, rest = parser.parse_args_into_dataclasses(list(argv), return_remaining_strings=True)
    check_networks(args.models)
    check_arms(args.arms)
    check_grid(args.grid)
    set_up_logging()
    protocol = Protocol.of_command(rest, "search")
    common, posts, data = load_posts_of(protocol)
    if common.run.seeds:
        raise ValueError("A search has one seed: --seed N. --seeds are those of the comparison.")
    output_dir = Path(common.training.output_dir)
    seed = common.training.seed
    result = run_search(args.models, args.arms, seed, args.grid, protocol, posts, data, output_dir)
    return 1 if result.failed else 0
