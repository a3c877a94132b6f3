"""Command `explain`: write a page of what the predictions of a model rest on.

    mpt-sentiment explain FOLDER --text "What a day" --image beach.jpg --rationale_positive "The sun shines …"
    mpt-sentiment explain FOLDER posts.csv --limit 50 --output explanation.html
    mpt-sentiment explain FOLDER --dataset mvsa_single --data_dir MVSA_Single --rationales rationales.jsonl

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust. With the arguments of `train`
for posts and split, the posts are its test posts.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from typing import Any

from mpt_sentiment.arguments import DataArguments, argument, make_parser, parse_with_rationales
from mpt_sentiment.commands.logs import hide_progress_bars, set_up_logging
from mpt_sentiment.explaining import KINDS, METHODS, Explanations, explain
from mpt_sentiment.explaining.page import TITLES, points, signed, verdict
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.prediction.posts import check_perspectives
from mpt_sentiment.training_data import load_splits

_SUBSETS = ("train", "validation", "test")


@dataclasses.dataclass
class ExplainArguments(DataArguments):
    """One post, a table or a dataset, and the method.

    Raises:
        ValueError: an unknown part of the split.
    """

    dataset: str | None = argument("Dataset to split as in training; its posts are explained instead of a table's.")
    subset: str = argument(f"Part of the split of --dataset: {', '.join(_SUBSETS)}.", "test")
    text: str | None = argument("Text of one post.")
    image: str | None = argument("Path of the image of one post.")
    rationales: str | None = argument(
        'Rationales joined by id: a file or store; for one post, JSON such as {"positive": "…"}.'
    )
    output: str = argument("Page to write; the numbers go to a .json of the same name.", "explanation.html")
    method: str = argument(f"Attributions of words and regions: {', '.join(METHODS)}.", METHODS[0])
    grid: int = argument("Rows and columns of the regions of an image.", 7)
    limit: int = argument("Number of posts that are explained at most, a random sample of more.", 20)
    seed: int = argument("Seed of this sample and of the random deletions.", 0)
    num_draws: int = argument("Random orders of deletion per post in the faithfulness test.", 5)
    batch_size: int = argument("Variants of a post per forward pass.", 32)
    device: str | None = argument("E.g. cpu or cuda:1; by default an accelerator if there is one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subset not in _SUBSETS:
            raise ValueError(f"--subset must be one of {', '.join(_SUBSETS)}, got {self.subset!r}.")


_OF_ONE_POST = ("text", "image", "rationales", "output", "method", "grid", "batch_size", "device")
_OF_DATASET = ("dataset", "data_dir", "split", "split_seed", "split_options", "subset")


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ImportError: integrated gradients without Captum.
        ValueError: unusable arguments, model or posts.
    """
    folder, table, args, rationales = parse(argv)
    set_up_logging()
    hide_progress_bars()
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)  # the page has the counts
    pipe = load_pipeline(folder, args.device)
    names = ("output", "method", "grid", "limit", "seed", "num_draws", "on_error", "batch_size")
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    if table is not None:
        posts: Any = table
        options |= {"rationales": args.rationales} | args.dataset_options
    elif args.dataset is not None:
        posts = load_splits(args)[0][args.subset]
    else:
        check_perspectives("The command line", list(rationales), pipe.processor.perspectives)
        posts = {"text": args.text, "image": args.image, "rationales": rationales or None}
    result = explain(pipe, posts, **options)
    print(describe(result))
    print(f"The page is {args.output}")


def parse(argv: Sequence[str]) -> tuple[str, str | None, ExplainArguments, dict[str, str]]:
    """Parse the command line into folder, table, arguments and rationales by perspective.

    Raises:
        ValueError: unknown or contradictory arguments.
    """
    parser = make_parser([ExplainArguments], "explain", __doc__)
    parser.add_argument("folder", metavar="FOLDER", help="Folder of a trained model.")
    parser.add_argument("table", metavar="TABLE", nargs="?", help="CSV, TSV, JSONL, Parquet or XLSX table of posts.")
    values, rationales = parse_with_rationales(parser, argv)
    folder, table = values.pop("folder"), values.pop("table")
    (args,) = parser.parse_dict(values)
    changed = [
        field.name
        for field in dataclasses.fields(args)
        if getattr(args, field.name) != getattr(ExplainArguments(), field.name)
    ]
    is_post = args.text is not None or args.image is not None or bool(rationales)
    if table is None and args.dataset is None:
        if args.rationales is not None:
            rationales = _rationales(args.rationales) | rationales
        if not is_post and not rationales:
            raise ValueError(
                "Nothing to explain: give --text, --image or a rationale, a TABLE of posts, or --dataset."
            )
        for name in changed:
            if name not in _OF_ONE_POST:
                raise ValueError(f"--{name} needs a TABLE of posts or --dataset.")
    elif is_post or (table is not None and args.dataset is not None):
        raise ValueError("Give one of these: one post, a TABLE of posts, --dataset.")
    if table is not None and (needless := [name for name in changed if name in _OF_DATASET]):
        raise ValueError(f"--{needless[0]} needs --dataset; a TABLE is not split.")
    return folder, table, args, rationales


def _rationales(text: str) -> dict[str, str]:
    """Read the rationales of one post.

    Raises:
        ValueError: no JSON object of texts.
    """
    try:
        rationales = json.loads(text)
    except json.JSONDecodeError:
        rationales = None
    if not isinstance(rationales, dict) or not all(isinstance(value, str) for value in rationales.values()):
        raise ValueError(
            'For one post, --rationales must be JSON such as {"positive": "The sun shines"}. A file of rationales is '
            "joined to a TABLE of posts or to --dataset."
        )
    return rationales


def describe(result: Explanations) -> str:
    """Format the effects of one post, or the faithfulness test of several."""
    lines = list(result.notes)
    if result.faithfulness:
        lines.append("faithfulness test: fall of the probability in points, by attribution and at random")
    for test in result.faithfulness:
        interval = "" if test.interval is None else f" [{points(test.interval[0])}, {points(test.interval[1])}]"
        lines.append(
            f"  {TITLES[test.kind]:<24}{points(test.area):>7}{points(test.random_area):>7}  difference "
            f"{points(test.difference)}{interval}: {verdict(test)}"
        )
    if len(result.posts) == 1:
        (post,) = result.posts
        lines.append(f"{post.result['label']} ({post.result['score']:.1%}), log-odds {signed(post.log_odds)}")
        for kind in (each for each in reversed(KINDS) if each in post.attributions):
            strongest = sorted(post.named_values(kind), key=lambda pair: -abs(pair[1]))[:5]
            lines.append(f"  {TITLES[kind]:<24}" + "  ".join(f"{name} {signed(value)}" for name, value in strongest))
    return "\n".join(lines)
