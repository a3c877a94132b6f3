"""Command `linear`: score the linear baselines and the majority label.

    mpt-sentiment linear --dataset mvsa_single --data_dir MVSA_Single --rationales rationales.jsonl \\
        --text_model_name_or_path sentence-transformers/all-MiniLM-L6-v2

The arguments of posts and split are those of `train`, and so are the posts on each side of the split.
"""

import dataclasses
from collections.abc import Sequence

from mpt_sentiment.arguments import DataArguments, argument, parse
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.linear import check_text_preprocessing, score_linear_baselines
from mpt_sentiment.training_data import load_splits


@dataclasses.dataclass
class LinearArguments:
    """Text encoder of the linear baselines."""

    text_model_name_or_path: str | None = argument("Hub id or folder of the frozen text encoder; else TF-IDF only.")
    max_length: int = argument("Tokens to which a text is cut for the encoder.", 320)
    text_preprocessing: str = argument("none, or tweet: HTML entities resolved, users and links masked.", "none")

    def __post_init__(self) -> None:
        check_text_preprocessing(self.text_preprocessing)


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments or posts.
    """
    args, data_args = parse((LinearArguments, DataArguments), argv, command="linear")
    set_up_logging(verbose=True)
    posts, data = load_splits(data_args)
    results = score_linear_baselines(posts, args.text_model_name_or_path, args.max_length, args.text_preprocessing)
    majority = next(iter(results.values()))["majority"]
    print(f"\n{data.name}, split {data.protocol} ({data.split_hash}), {len(posts['test']):,} test posts")
    print(f"{'logistic regression on':<32}{'accuracy':>10}{'F1 weighted':>13}{'F1 macro':>10}")
    for name, scores in {"(majority label)": majority, **results}.items():
        print(f"{name:<32}{scores['accuracy']:>10.4f}{scores['f1_weighted']:>13.4f}{scores['f1_macro']:>10.4f}")
