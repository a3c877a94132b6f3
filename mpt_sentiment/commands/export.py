"""Command `export`: write a trained model as an ONNX graph that runs without torch.

    mpt-sentiment export FOLDER --output my_onnx
    mpt-sentiment export FOLDER test_posts.csv --output my_onnx --quantize int8
    mpt-sentiment export FOLDER --dataset mvsa_single --data_dir MVSA_Single --output my_onnx --quantize int8

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust. Model and graph are scored on
labelled posts: a TABLE, or with the arguments of `train` for posts and split, its test posts.
"""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from mpt_sentiment.arguments import DataArguments, argument, make_parser
from mpt_sentiment.commands.logs import hide_progress_bars, set_up_logging
from mpt_sentiment.exporting.folder import FORMATS, QUANTIZATIONS, export
from mpt_sentiment.predicting import read_table
from mpt_sentiment.training_data import load_splits


@dataclasses.dataclass
class ExportArguments(DataArguments):
    """Folder to write, and labelled posts to score it on.

    Raises:
        ValueError: no folder to write.
    """

    dataset: str | None = argument("Dataset to split as in training; the export is scored on its test posts.")
    output: str | None = argument("New or empty folder to write.")
    format: str = argument(f"Format of the graph: {', '.join(FORMATS)}.", FORMATS[0])
    quantize: str | None = argument(
        f"{', '.join(QUANTIZATIONS)}: weights of linear layers and embeddings in 8 bits; by default single precision."
    )
    batch_size: int = argument("Posts per forward pass.", 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is None:
            raise ValueError("--output is required: a new or empty folder, such as --output my_onnx.")


_OF_DATASET = ("data_dir", "split", "split_seed", "split_options")
_OF_POSTS = ("on_error", "dataset_options", "rationales", "batch_size")


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ImportError: the extra `onnx` is not installed.
        ValueError: unusable arguments, model or posts.
    """
    folder, table, args = parse(argv)
    set_up_logging()
    hide_progress_bars()
    posts = None
    if table is not None:
        posts, report = read_table(table, on_error=args.on_error, rationales=args.rationales, **args.dataset_options)
        if report.skipped:
            print(f"{report.kept:,} of {report.read:,} posts are scored; skipped: {report.skipped}")
    elif args.dataset is not None:
        logging.getLogger("dataset_scripts").setLevel(logging.ERROR)
        posts = load_splits(args)[0]["test"]
    metrics = export(
        folder, args.output, format=args.format, quantize=args.quantize, posts=posts, batch_size=args.batch_size
    )
    print(describe(metrics))
    print(f"The export is in {args.output}")


def parse(argv: Sequence[str]) -> tuple[str, str | None, ExportArguments]:
    """Parse the command line into folder, table and arguments.

    Raises:
        ValueError: unknown or contradictory arguments.
    """
    parser = make_parser([ExportArguments], "export", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="FOLDER", help="Folder of a trained model.")
    parser.add_argument("table", metavar="TABLE", nargs="?", help="Table of labelled posts to score the export on.")
    values = vars(parser.parse_intermixed_args(list(argv)))
    folder, table = values.pop("folder"), values.pop("table")
    (args,) = parser.parse_dict(values)
    if table is not None and args.dataset is not None:
        raise ValueError("Give a TABLE of posts or --dataset, not both.")
    default = ExportArguments(output=args.output)
    needless = _OF_DATASET if args.dataset is None else ()
    if table is None and args.dataset is None:
        needless += _OF_POSTS
    for name in needless:
        if getattr(args, name) != getattr(default, name):
            needed = "--dataset; a TABLE is not split" if name in _OF_DATASET else "a TABLE of posts or --dataset"
            raise ValueError(f"--{name} needs {needed}.")
    return folder, table, args


def describe(metrics: dict[str, Any]) -> str:
    """Format sizes, scores, and the difference from the trained network."""
    lines = []
    for kind, size in metrics["megabytes"].items():
        line = f"  {kind:<6}{size:>9.1f} MB"
        if "scores" in metrics:
            scores = metrics["scores"][kind]
            line += "".join(f"  {name} {scores[name]:.4f}" for name in scores if name != "intervals")
        lines.append(line)
    for kind, share in metrics.get("same_label_as_torch", {}).items():
        lines.append(f"  {share:.1%} of {metrics['posts']:,} posts have the same label in {kind} as in torch")
    return "\n".join([*lines, f"  logits differ by at most {metrics['max_logit_difference']:.1e} in single precision"])
