"""Command `predict`: label one post, or any number of posts, with a trained model.

    mpt-sentiment predict FOLDER --text "What a day" --image beach.jpg --rationale_positive "The sun shines …"
    mpt-sentiment predict FOLDER posts.csv more/*.parquet --output predictions

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust. The posts are tables (CSV, TSV,
JSONL, Parquet), folders or globs of them, or datasets. A run that was interrupted is resumed by the same command.
"""

import argparse
import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpt_sentiment.arguments import argument, make_parser, parse_with_rationales
from mpt_sentiment.commands.logs import hide_progress_bars, set_up_logging
from mpt_sentiment.evaluation.abstention import abstains
from mpt_sentiment.evaluation.predictions import FORMATS
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.prediction.posts import check_perspectives
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions
from mpt_sentiment.prediction.threshold import chosen_threshold

_OF_ONE_POST = ("device", "text", "image", "calibrated", "abstain_below", "target_precision")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Help that keeps the lines of the description and shows defaults."""


@dataclasses.dataclass
class PredictArguments:
    """One post, or sources of posts.

    Raises:
        ValueError: a shard that is no part such as 3/64.
    """

    device: str | None = argument("E.g. cpu or cuda:1; by default an accelerator if there is one.")
    text: str | None = argument("Text of one post.")
    image: str | None = argument("Path of the image of one post.")
    text_column: str | None = argument("Column of the texts; by default text if it exists.")
    image_column: str | None = argument(
        "Column of images, or of paths relative to the file; by default image or file_name if it exists."
    )
    id_column: str | None = argument("Column of the ids; by default id if it exists, else posts are numbered.")
    keep_columns: list[str] = argument("Columns of the posts that are passed on to the predictions.", [])
    delimiter: str | None = argument("Character between the fields of a text table.")
    encoding: str | None = argument("Encoding of a text table, such as cp1252.")
    sheet: str | None = argument("Sheet of an XLSX file.")
    rationales: str | None = argument("Rationales joined by id; by default columns rationale_PERSPECTIVE.")
    on_error: str = argument("skip: record a faulty row in errors.parquet; raise: stop at it.", "skip")
    output: str = argument(
        f"Folder to write, with data/part-00000.parquet and so on; or one file: {', '.join(FORMATS)}.",
        "predictions.parquet",
    )
    overwrite: bool = argument("Delete the results of another run in --output.", False)
    calibrated: bool = argument("Divide logits by the temperature fitted on validation; changes no label.", True)
    abstain_below: float | None = argument("Add the column abstained, true where the highest probability is lower.")
    target_precision: float | None = argument(
        "Choose --abstain_below for this accuracy among the other posts, on the validation posts of the training."
    )
    batch_size: int = argument("Posts per forward pass.", 16)
    rows_per_part: int = argument("Rows of the posts in one part.", 10_000)
    dataloader_num_workers: int | None = argument("Processes that decode and tokenize; by default one per core.")
    shard_id: str | None = argument(
        "Part of the posts that this process predicts, such as 3/64 for the fourth of 64, e.g. in an array job. "
        "`accelerate launch` needs no such option."
    )

    def __post_init__(self) -> None:
        self.shard()

    def shard(self) -> tuple[int, int]:
        """Return the part of the posts of this process, and the number of all parts."""
        index, _, count = (self.shard_id or "0/1").partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"--shard_id must be a part such as 3/64, from 0/64 to 63/64, got {self.shard_id!r}.")
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        return int(index) * size + rank, int(count) * size


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments, model or posts.
    """
    folder, sources, args, rationales = parse(argv)
    set_up_logging()
    hide_progress_bars()
    if not sources:
        pipe = load_pipeline(folder, args.device)
        check_perspectives("The command line", list(rationales), pipe.processor.perspectives)
        threshold = _threshold(folder, args)
        post = {"text": args.text, "image": args.image, "rationales": rationales or None}
        result = pipe(post, calibrated=args.calibrated)
        print(describe(result))
        if threshold is not None and abstains(np.array([[result["score"]]]), threshold).all():
            print(f"  abstained: the probability is below {threshold:.4f}")
        return
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)  # the summary is printed instead
    options = RunOptions(
        shard=args.shard(), progress=args.shard()[0] == 0, **_fields_of(args, RunOptions, ("shard", "progress"))
    )
    output = RunFolder(args.output)
    device = args.device
    if device is None and "LOCAL_RANK" in os.environ:
        device = _device_of_process()
    pipe = load_pipeline(folder, device)
    options = dataclasses.replace(options, abstain_below=_threshold(folder, args))
    summary, _ = score(pipe, sources, output, ReadingOptions(**_fields_of(args, ReadingOptions)), options)
    if summary is not None:
        print(summary)


def parse(argv: Sequence[str]) -> tuple[str, list[str], PredictArguments, dict[str, str]]:
    """Parse the command line into folder, sources, arguments and rationales by perspective.

    Raises:
        ValueError: unknown or contradictory arguments.
    """
    parser = make_parser([PredictArguments], "predict", __doc__)
    parser.formatter_class = _HelpFormatter
    parser.add_argument("folder", metavar="FOLDER", help="Folder of a trained model.")
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help="Table, folder, glob or dataset of posts.")
    values, rationales = parse_with_rationales(parser, argv)
    folder, sources = values.pop("folder"), values.pop("sources")
    (args,) = parser.parse_dict(values)
    is_post = args.text is not None or args.image is not None or bool(rationales)
    if sources and is_post:
        raise ValueError("Give one post or sources of posts (SOURCE), not both.")
    if not sources and not is_post:
        raise ValueError("Nothing to predict: give --text, --image or a rationale, or a SOURCE of posts.")
    if not sources:
        needless = [
            field.name
            for field in dataclasses.fields(PredictArguments)
            if field.name not in _OF_ONE_POST and getattr(args, field.name) != getattr(PredictArguments(), field.name)
        ]
        if needless:
            raise ValueError(f"--{needless[0]} needs a SOURCE of posts, such as a table.")
    return folder, sources, args, rationales


def describe(result: dict[str, Any]) -> str:
    """Format the result of one post."""
    groups = {
        "probabilities": result["scores"],
        "weights": result["modality_weights"],
        "of rationales": result["perspective_weights"],
    }
    lines = [f"{result['label']} ({result['score']:.1%})"]
    for title, values in groups.items():
        if values is not None:
            lines.append(f"  {title:<15}" + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))
    return "\n".join(lines)


def _threshold(folder: str, args: PredictArguments) -> float | None:
    """Return the threshold of abstention; one chosen on validation is printed with its scores."""
    threshold, line = chosen_threshold(folder, args.abstain_below, args.target_precision, args.calibrated)
    if line is not None and args.shard()[0] == 0:
        print(line)
    return threshold


def _fields_of(args: PredictArguments, options: type, without: Sequence[str] = ()) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(options) if field.name not in without]
    return {name: getattr(args, name) for name in names}


def _device_of_process() -> str | None:
    """Return the accelerator of this process of a launcher; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
