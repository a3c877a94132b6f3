"""Command `predict`: label one post, or a table of posts, with a trained model.

    mpt-sentiment predict FOLDER --text "What a day" --image beach.jpg --rationale_positive "The sun shines …"
    mpt-sentiment predict FOLDER --file posts.csv --output predictions.parquet

FOLDER is the output_dir of `train`. Its code is run: use only folders that you trust.
"""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from dataset_scripts import rationale_column
from mpt_sentiment.arguments import argument, make_parser
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.evaluation.predictions import FORMATS
from mpt_sentiment.predicting import check_perspectives, load_pipeline, predict, read_table

RATIONALE_OPTION = f"--{rationale_column('')}"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Help that keeps the lines of the description and shows defaults."""


@dataclasses.dataclass
class PredictArguments:
    """One post, or a table of posts.

    Raises:
        ValueError: arguments of a table without `file`, or an unknown format.
    """

    device: str | None = argument("E.g. cpu or cuda:1; by default an accelerator if there is one.")
    text: str | None = argument("Text of one post.")
    image: str | None = argument("Path of the image of one post.")
    file: str | None = argument("CSV, TSV, JSONL or Parquet table, one post per row.")
    text_column: str | None = argument("Column of the texts; by default text if it exists.")
    image_column: str | None = argument(
        "Column of images, or of paths relative to the file; by default image or file_name if it exists."
    )
    id_column: str | None = argument("Column of the ids; by default id if it exists, else posts are numbered.")
    delimiter: str | None = argument("Character between the fields of a text table.")
    encoding: str | None = argument("Encoding of a text table, such as cp1252.")
    sheet: str | None = argument("Sheet of an XLSX file.")
    rationales: str | None = argument("Rationales joined by id; by default columns rationale_PERSPECTIVE of the file.")
    on_error: str = argument("raise: stop at the first faulty row; skip: leave it out, counted.", "raise")
    output: str = argument(f"File to write, one of {', '.join(FORMATS)}.", "predictions.parquet")
    batch_size: int = argument("Posts per forward pass.", 16)

    def __post_init__(self) -> None:
        table_fields = [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in ("device", "text", "image") and getattr(self, field.name) != field.default
        ]
        if self.file is None and table_fields:
            raise ValueError(f"--{table_fields[0]} needs --file.")
        if self.file is not None and (self.text is not None or self.image is not None):
            raise ValueError("Give one post or --file, not both.")
        if Path(self.output).suffix not in FORMATS:
            raise ValueError(f"--output must end in one of {', '.join(FORMATS)}, got {self.output}.")


def main(argv: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: unusable arguments, model or posts.
    """
    folder, args, rationales = parse(argv)
    set_up_logging()
    disable_progress_bar()
    disable_progress_bars()
    pipe = load_pipeline(folder, args.device)
    if args.file is None:
        check_perspectives("The command line", rationales, pipe.processor.perspectives)
        print(describe(pipe({"text": args.text, "image": args.image, "rationales": rationales or None})))
        return
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)  # the report is printed instead
    posts, report = read_table(
        args.file,
        text_column=args.text_column,
        image_column=args.image_column,
        id_column=args.id_column,
        delimiter=args.delimiter,
        encoding=args.encoding,
        sheet=args.sheet,
        rationales=args.rationales,
        on_error=args.on_error,
    )
    predictions = predict(pipe, posts, args.output, batch_size=args.batch_size, report=report)
    print(f"{report.summary()}\nPredictions of {len(predictions):,} posts are in {args.output}")


def parse(argv: Sequence[str]) -> tuple[str, PredictArguments, dict[str, str]]:
    """Parse the command line into folder, arguments and rationales by perspective.

    Raises:
        ValueError: unknown or contradictory arguments.
    """
    parser = make_parser([PredictArguments], "predict", __doc__)
    parser.formatter_class = _HelpFormatter
    parser.add_argument("folder", metavar="FOLDER", help="Folder of a trained model.")
    # the model has the perspectives, and is not loaded yet
    given = {word.partition("=")[0] for word in argv if word.startswith(RATIONALE_OPTION)}
    for option in sorted(given) or [f"{RATIONALE_OPTION}PERSPECTIVE"]:
        parser.add_argument(option, metavar="TEXT", help="Rationale of one perspective.")
    values = vars(parser.parse_args(list(argv)))
    folder = values.pop("folder")
    options = [name for name in values if name.startswith(RATIONALE_OPTION[2:])]
    rationales = {name.removeprefix(RATIONALE_OPTION[2:]): values.pop(name) for name in options}
    (args,) = parser.parse_dict(values)
    rationales = {name: text for name, text in rationales.items() if text is not None}
    if args.file is not None and rationales:
        raise ValueError("Give one post or --file, not both.")
    if args.file is None and args.text is None and args.image is None and not rationales:
        raise ValueError("Nothing to predict: give --text, --image or a rationale, or --file.")
    return folder, args, rationales


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
