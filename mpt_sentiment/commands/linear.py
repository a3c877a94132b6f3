"""Command `linear`: score the floors of a comparison on one split.

    mpt-sentiment linear --dataset mvsa_single --data_dir MVSA_Single --rationales rationales.jsonl \\
        --text_model_name_or_path sentence-transformers/all-MiniLM-L6-v2 \\
        --cnn_model_name_or_path timm/tf_efficientnet_lite0.in1k

The arguments of posts and split are those of `train`, and so are the posts on each side of the split. The rows are
those of `mpt-sentiment compare --rows floors`, which tests them in folds together with networks.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from datasets import DatasetDict

from mpt_sentiment.arguments import DataArguments, argument, parse
from mpt_sentiment.cells import shuffled_rationales
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.evaluation import evaluate_predictions
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.recipe import TrainingSetup, training_setup
from mpt_sentiment.rows import list_of_rows, parse_row
from mpt_sentiment.training_checks import check_classes
from mpt_sentiment.training_data import load_splits, modalities_of


@dataclasses.dataclass
class LinearArguments:
    """Frozen encoders; without any, TF-IDF and the majority label alone are scored."""

    text_model_name_or_path: str | None = argument("Hub id or folder of the text encoder.")
    cnn_model_name_or_path: str | None = argument("Hub id or folder of a timm CNN.")
    vision_model_name_or_path: str | None = argument("Hub id or folder of a vision encoder.")
    max_length: int = argument("Tokens to which a text is cut for the encoder.", 320)
    rationale_max_length: int = argument("Tokens to which a rationale is cut for the encoder.", 320)
    text_preprocessing: str = argument("none, or tweet: HTML entities resolved, users and links masked.", "none")
    feature_store: str = argument("Vectors are kept in: auto (in HF_HOME), none, a folder.", "auto")


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or posts.
    """
    args, data_args = parse((LinearArguments, DataArguments), argv, command="linear")
    branches = {"cnn": args.cnn_model_name_or_path, "vit": args.vision_model_name_or_path}
    images = [name for name, source in branches.items() if source]
    fields = dataclasses.asdict(args) | ({"image_branches": images} if images else {})
    setup = training_setup([], fields | {"output_dir": "unused"})
    set_up_logging(verbose=True)
    posts, data = load_splits(data_args)
    encoders = {"text": args.text_model_name_or_path, "image": images, "rationales": args.text_model_name_or_path}
    setup.model.modalities = [name for name in modalities_of(posts) if encoders[name]]
    results = score_floors(posts, setup)
    print(f"\n{data.name}, split {data.protocol} ({data.split_hash}), {len(posts['test']):,} test posts")
    print(f"{'row':<36}{'accuracy':>10}{'F1 weighted':>13}{'F1 macro':>10}")
    for title, scores in results.items():
        print(f"{title:<36}{scores['accuracy']:>10.4f}{scores['f1_weighted']:>13.4f}{scores['f1_macro']:>10.4f}")


def score_floors(posts: DatasetDict, setup: TrainingSetup) -> dict[str, dict[str, Any]]:
    """Score the rows of the list `floors` that the posts and encoders allow.

    Args:
        posts (`DatasetDict`): train, validation and test.
        setup ([`TrainingSetup`]): encoders; `modalities` are those that they read.

    Returns:
        Scores on test by the title of the row, see [`~mpt_sentiment.evaluation.evaluate_predictions`].

    Raises:
        ValueError: the train posts have fewer than two classes.
    """
    check_classes(posts)
    names, results = posts["train"].features["label"].names, {}
    for row in map(parse_row, list_of_rows("floors", posts, lambda system: setup)):
        if BASELINES[row.system].reads_encoders and not {*row.modalities()} <= {*setup.model.modalities}:
            continue
        given = shuffled_rationales(posts, setup.training.seed) if "shuffled" in row.words else posts
        probabilities, _ = BASELINES[row.system].predict(given, row.modalities(), setup)
        results[row.title] = evaluate_predictions(probabilities, posts["test"]["label"], names)
    return results
