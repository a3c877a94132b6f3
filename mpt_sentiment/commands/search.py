"""Command `search`: choose hyperparameters of systems on validation, from one grid.

    mpt-sentiment search comparison --data_dir MVSA_Single --rationales rationales.jsonl --rows all \\
        --output_dir outputs/comparison
    mpt-sentiment compare comparison --data_dir MVSA_Single --rationales rationales.jsonl --rows all \\
        --output_dir outputs/comparison --search outputs/comparison --seeds 1 2 3

Test posts are not scored. The same command resumes a search; rows of other systems in the folder are kept.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mpt_sentiment.arguments import JSON, argument
from mpt_sentiment.commands.compare import ROWS_HELP, load_posts_of, parse_with_protocol
from mpt_sentiment.rows import parse_rows
from mpt_sentiment.searching import GRID, check_grid, run_search

DESCRIPTION = "Choose hyperparameters on validation, from the same grid for every system. [RECIPE] is that of compare."


@dataclasses.dataclass
class SearchArguments:
    """Rows and grid of a search. All other arguments are those of `train`."""

    rows: list[str] = argument(ROWS_HELP, ["all"])
    grid: JSON = argument("Values of each argument (JSON), in all combinations.", GRID)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ValueError: unusable arguments, recipe or posts, or a folder with another search.
    """
    parsed = parse_with_protocol(SearchArguments, argv, "search", DESCRIPTION)
    if parsed is None:
        return 0
    args, protocol = parsed
    parse_rows(args.rows)  # before the posts are read
    check_grid(args.grid)
    common, parts = load_posts_of(protocol)
    if common.run.seeds:
        raise ValueError("A search has one seed: --seed N. --seeds are those of the comparison.")
    output_dir = Path(common.training.output_dir)
    result = run_search(args.rows, common.training.seed, args.grid, protocol, parts, output_dir)
    return 1 if result.failed else 0
