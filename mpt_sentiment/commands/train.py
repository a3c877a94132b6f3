"""Command `train`: train a system on posts, test it once, and save model, card and metrics.

    mpt-sentiment train                                     # the embedded sample
    mpt-sentiment train mvsa_single --data_dir MVSA_Single  # a recipe, with a field set on the command line
    mpt-sentiment train my_recipe.yaml --seeds 1 2 3        # repeat and aggregate
    mpt-sentiment train baselines/bert                      # another system, with its own recipe
    mpt-sentiment train --split folds --jobs 2              # cross-validation: ten folds, two at a time

On several devices: `accelerate launch examples/train.py …` with the same arguments. Called again, an interrupted run
is resumed.
"""

from collections.abc import Sequence

from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.cross_validation import cross_validate
from mpt_sentiment.recipe import parse_training
from mpt_sentiment.training import train_runs
from mpt_sentiment.training_checks import check_setup
from mpt_sentiment.training_data import load_parts


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 if a run of a cross-validation failed.

    Raises:
        ValueError: unusable arguments, recipe or posts.
    """
    setup = parse_training(argv)
    set_up_logging(verbose=setup.training.should_log)
    check_setup(setup)  # before the posts are read
    with setup.training.main_process_first(desc="building the dataset"):
        parts = load_parts(setup.data)
    if len(parts) > 1:
        return 1 if cross_validate(setup, parts).failed else 0
    if setup.run.jobs > 1:
        raise ValueError("--jobs trains the folds of --split folds side by side. Leave it out for a single split.")
    train_runs(setup, *next(iter(parts.values())))
    return 0
