"""Command `train`: train a system on posts, test it once, and save model, card and metrics.

    mpt-sentiment train                                     # the embedded sample
    mpt-sentiment train mvsa_single --data_dir MVSA_Single  # a recipe, with a field set on the command line
    mpt-sentiment train my_recipe.yaml --seeds 1 2 3        # repeat and aggregate
    mpt-sentiment train baselines/bert                      # another system, with its own recipe

On several devices: `accelerate launch examples/train.py …` with the same arguments. Called again, an interrupted run
is resumed.
"""

from collections.abc import Sequence

from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.recipe import parse_training
from mpt_sentiment.training import train_runs
from mpt_sentiment.training_checks import check_setup
from mpt_sentiment.training_data import load_splits


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments, recipe or posts.
    """
    setup = parse_training(argv)
    set_up_logging(verbose=setup.training.should_log)
    check_setup(setup)  # before the posts are read
    with setup.training.main_process_first(desc="building the dataset"):
        posts, data = load_splits(setup.data)
    train_runs(setup, posts, data)
