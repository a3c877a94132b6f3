"""Command `compare`: train several systems on the same posts and tabulate them.

    mpt-sentiment compare comparison_small --data_dir MVSA_Single --rationales rationales.jsonl \\
        --models all --seeds 1 2 3

Each system trains by its own recipe; the recipe that is named here, and then the command line, override it for all.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpt_sentiment.arguments import argument, make_parser
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.comparing import KNOWN_SYSTEMS, THINKING, check_systems, run_comparison
from mpt_sentiment.recipe import TRAINING_CLASSES, TrainingSetup, parse_training, system_recipe
from mpt_sentiment.training_data import load_splits

DESCRIPTION = "Train several systems on the same posts and tabulate them. [RECIPE] overrides each system's own recipe."


@dataclasses.dataclass
class CompareArguments:
    """Systems of a comparison. All other arguments are those of `train`."""

    models: list[str] = argument(f"Systems to compare: all, or some of {', '.join(KNOWN_SYSTEMS)}.", ["all"])
    thinking: str = argument(f"Rationales: {', '.join(THINKING)} (both: without and with).", "both")


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
    systems = check_systems(args.models)
    set_up_logging()
    common = parse_training(rest, command="compare")
    with common.training.main_process_first(desc="building the dataset"):
        posts, data = load_splits(common.data)

    def setup_of(system: str, own_fields: dict[str, Any]) -> TrainingSetup:
        words = []
        for name, value in own_fields.items():
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
        return parse_training([*rest, *words], base=system_recipe(system, common.data.dataset), command="compare")

    seeds = common.run.seeds or [common.training.seed]
    output_dir = Path(common.training.output_dir)
    result = run_comparison(systems, seeds, args.thinking, setup_of, posts, data, output_dir)
    return 1 if result.failed else 0
