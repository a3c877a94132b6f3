"""Ask a trained model: label, probabilities, and how much text, image and each rationale weighed.

    python examples/predict.py FOLDER --text "What a day" --image beach.jpg --rationale_positive "The sun shines …"
    python examples/predict.py FOLDER --file posts.csv --output predictions.parquet

FOLDER is what `train.py` wrote to its output_dir. It carries code, which is run: name only folders that you trust.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import torch
from datasets import Dataset
from pyarrow import csv, parquet
from tqdm.auto import tqdm
from transformers import Pipeline, pipeline

from dataset_scripts import load_posts_with_report, rationale_column
from dataset_scripts.output import atomic_path
from dataset_scripts.reading.report import BuildReport, did_you_mean
from mpt_sentiment.evaluation.predictions import MODALITIES

TASK = "multimodal-sentiment"
RATIONALE_OPTION = f"--{rationale_column('')}"
FORMATS = (".parquet", ".csv", ".jsonl")
FILE_OPTIONS = ("text_column", "image_column", "id_column", "rationales", "on_error", "output", "batch_size")


def main(argv: list[str]) -> None:
    args, rationales = parse(argv)
    pipe = load_pipeline(args.folder, args.device)
    check_perspectives("The command line", rationales, pipe.processor.perspectives)
    if args.file is None:
        print(describe(pipe({"text": args.text, "image": args.image, "rationales": rationales or None})))
        return
    posts, report = load_posts_with_report(
        "folder",
        args.file.parent,
        file=args.file.name,
        text_column=args.text_column,
        image_column=args.image_column,
        id_column=args.id_column,
        rationales=args.rationales,
        on_error=args.on_error,
    )
    rows = predict(pipe, posts, str(args.file), report, args.batch_size)
    print(report.summary())
    if not rows:
        raise ValueError(f"{args.file}: no post is left to predict; see the reasons above.")
    write(args.output, rows)
    print(f"Predictions of {len(rows):,} posts are in {args.output}")


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The arguments, and the rationales among them by perspective.

    Raises:
        ValueError: for unknown or contradictory arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = _raise
    parser.add_argument("folder", type=Path, help="Folder of a trained model.")
    parser.add_argument("--device", help="E.g. cpu or cuda:1; by default an accelerator, where there is one.")
    post = parser.add_argument_group("one post")
    post.add_argument("--text")
    post.add_argument("--image", help="Path of an image file.")
    # The model names the perspectives; those given are checked once it is loaded.
    given = {argument.split("=")[0] for argument in argv if argument.startswith(RATIONALE_OPTION)}
    for option in sorted(given) or [f"{RATIONALE_OPTION}PERSPECTIVE"]:
        post.add_argument(option, metavar="TEXT", help="Rationale of one of the model's perspectives.")
    posts = parser.add_argument_group("many posts")
    posts.add_argument("--file", type=Path, help="CSV, TSV, JSONL or Parquet table, one post a row.")
    posts.add_argument("--text_column", default="text")
    posts.add_argument("--image_column", help="Paths, relative to the file; by default 'image', where there is one.")
    posts.add_argument("--id_column", help="By default 'id', where there is one; else posts are numbered.")
    posts.add_argument("--rationales", help="Table of rationales, joined by id; or columns rationale_… of the file.")
    posts.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="What to do at a faulty row.")
    posts.add_argument(
        "--output", type=Path, default=Path("predictions.parquet"), help=f"One of {', '.join(FORMATS)}."
    )
    posts.add_argument("--batch_size", type=int, default=16)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        _raise(f"unknown argument {unknown[0]!r}.{did_you_mean(unknown[0], [f'--{name}' for name in vars(args)])}")
    rationales = {option.removeprefix(RATIONALE_OPTION): vars(args)[option[2:]] for option in given}
    one = [name for name in ("text", "image") if getattr(args, name) is not None] + sorted(rationales)
    many = [name for name in FILE_OPTIONS if getattr(args, name) != parser.get_default(name)]
    if args.file is None and many:
        _raise(f"--{many[0]} goes with --file, which is not given.")
    if args.file is None and not one:
        _raise("nothing to predict: give --text, --image or a rationale, or --file.")
    if args.file is not None and one:
        _raise("give one post or --file, not both.")
    if args.file is not None and not args.file.is_file():
        beside = [path.name for path in args.file.parent.glob("*")]
        _raise(f"--file {args.file}: there is no such file.{did_you_mean(args.file.name, beside)}")
    if args.output.suffix not in FORMATS:
        _raise(f"--output {args.output}: the ending says the format; write one of {', '.join(FORMATS)}.")
    if args.batch_size < 1:
        _raise(f"--batch_size {args.batch_size}: write 1 or more.")
    return args, rationales


def load_pipeline(folder: Path, device: str | None) -> Pipeline:
    """The pipeline of the model in `folder`.

    Raises:
        ValueError: where `folder` holds no model of this package, or `device` cannot be used.
    """
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        raise ValueError(
            f"There is no folder {str(folder)!r}.{did_you_mean(folder.name, siblings)} (A model of the Hub is brought "
            "here by `hf download OWNER/NAME --local-dir FOLDER`.)"
        )
    if not (folder / "config.json").is_file():
        below = sorted(str(path.parent) for path in folder.glob("*/config.json"))
        hint = f" There is one in {', '.join(below)}." if below else " Name the output_dir of train.py."
        raise ValueError(f"{folder} holds no model (no config.json).{hint}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if TASK not in config.get("custom_pipelines", {}):
        raise ValueError(
            f"{folder} holds a {config.get('model_type')!r} model, which has no pipeline for {TASK}; name the "
            "output_dir of train.py."
        )
    if device is not None:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from None
    return pipeline(TASK, model=str(folder), trust_remote_code=True, device=device)


def check_perspectives(source: str, given: Any, known: list[str]) -> None:
    for perspective in given:
        if perspective not in known:
            raise ValueError(
                f"{source} has a rationale for {perspective!r}; the perspectives of this model are "
                f"{', '.join(known)}.{did_you_mean(perspective, known)}"
            )


def predict(pipe: Pipeline, posts: Dataset, source: str, report: BuildReport, batch_size: int) -> list[dict[str, Any]]:
    """A row of the output for each post; what has nothing that the model reads goes to `report`."""
    perspectives = pipe.processor.perspectives
    columns = [name for name in posts.column_names if name.startswith(rationale_column(""))]
    written = [name for name in columns if any(value is not None for value in posts[name])]
    check_perspectives(source, [name.removeprefix(rationale_column("")) for name in written], perspectives)
    parts = {"text": ["text"], "image": ["image"], "rationales": written}
    reads = pipe.model.config.modalities
    names = posts.features["label"].names
    kept: list[dict[str, Any]] = []

    def readable_posts() -> Iterator[dict[str, Any]]:
        for row in posts:
            absent = [modality for modality in reads if all(row[column] is None for column in parts[modality])]
            if absent == reads:
                message = f"{source}: post {row['id']!r} has none of what the model reads, {', '.join(reads)}."
                report.fail("nothing to read", message)
                continue
            for modality in absent:
                report.note(f"predicted without {modality}")
            label = None if row["label"] is None else names[row["label"]]
            kept.append({"id": row["id"]} | ({"label": label} if report.labels.keys() != {"(none)"} else {}))
            yield {column: row[column] for column in ["id", "text", "image", *written]}

    results = list(tqdm(pipe(readable_posts(), batch_size=batch_size), total=len(posts), unit="post"))
    return [row | _flat(result, perspectives) for row, result in zip(kept, results, strict=True)]


def _flat(result: dict[str, Any], perspectives: list[str]) -> dict[str, Any]:
    """The columns of the `predictions.parquet` that train.py writes."""
    weights = result["perspective_weights"] or dict.fromkeys(perspectives)
    numbers = {f"probability_{label}": score for label, score in result["scores"].items()}
    modality_weights = result["modality_weights"] or dict.fromkeys(MODALITIES)
    numbers |= {f"weight_{modality}": modality_weights[modality] for modality in MODALITIES}
    numbers |= {f"weight_{rationale_column(name)}": weights[name] for name in perspectives}
    return {"prediction": result["label"]} | {k: v if v is None else round(v, 6) for k, v in numbers.items()}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows in the format that the ending of `path` says, whole or not at all."""
    text = ("id", "label", "prediction")
    schema = pa.schema([(name, pa.string() if name in text else pa.float32()) for name in rows[0]])
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows, schema), temporary)
        elif path.suffix == ".csv":
            csv.write_csv(pa.Table.from_pylist(rows, schema), temporary)
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            temporary.write_text("".join(lines), encoding="utf-8")


def describe(result: dict[str, Any]) -> str:
    """The result of one post in a few lines."""
    parts = {
        "probabilities": result["scores"],
        "weights": result["modality_weights"],
        "of rationales": result["perspective_weights"],
    }
    lines = [f"{result['label']} ({result['score']:.1%})"]
    for name, values in parts.items():
        if values is not None:
            lines.append(f"  {name:<15}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    return "\n".join(lines)


def _raise(message: str) -> NoReturn:
    raise ValueError(f"{message} (--help lists every argument)")
