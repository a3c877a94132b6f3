"""Prediction of labels, probabilities and weights with a trained model."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, Image
from datasets.table import InMemoryTable
from tqdm.auto import tqdm
from transformers import Pipeline, pipeline

from dataset_scripts import join_rationales, load_posts_with_report, rationale_column
from dataset_scripts.output import check_writable
from dataset_scripts.reading.images import read_rgb
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.tables import require_column
from mpt_sentiment.adapters import is_adapter, load_adapter
from mpt_sentiment.evaluation.predictions import table_of_results, write_predictions
from processing_mpt import MPTPipeline, MPTProcessor

TASK = "multimodal-sentiment"


def predict(
    model: str | Path | Pipeline,
    posts: str | Path | Dataset,
    output: str | Path | None = None,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    rationales: str | Path | None = None,
    on_error: str = "raise",
    batch_size: int = 16,
    device: str | None = None,
    progress: bool = True,
    report: BuildReport | None = None,
) -> Dataset:
    """Predict the sentiment of posts.

    Args:
        model (`str`, `Path` or [`MPTPipeline`]): output folder of `train`, whose code is run, or its pipeline.
        posts (`str`, `Path` or `Dataset`): CSV, TSV, JSONL or Parquet table, one post per row; or a dataset.
        output (`str` or `Path`, *optional*): file to write: `.parquet`, `.csv` or `.jsonl`.
        text_column, image_column, id_column, delimiter, encoding, sheet: See [`load_folder`].
        rationales (`str` or `Path`, *optional*): table or store of rationales, joined by id. By default the columns
            `rationale_PERSPECTIVE` of `posts`.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out posts that cannot be read, and counts them.
        batch_size (`int`, defaults to 16): posts per forward pass.
        device (`str`, *optional*): e.g. `"cuda:1"`; by default an accelerator if there is one.
        progress (`bool`, defaults to `True`): show a progress bar.
        report ([`BuildReport`], *optional*): of a dataset from `read_table`; also receives the counts of posts that
            lack a modality or are left out.

    Returns:
        `Dataset` with the columns `id`, `label` (as given, null if unknown), `prediction`, `probability_LABEL`,
        `weight_text`, `weight_image`, `weight_rationales` and `weight_rationale_PERSPECTIVE`.

    Raises:
        ValueError: a folder without a model, an unusable file, column or device, or posts that cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    if output is not None:
        check_writable(output, "output", is_file=True)
    pipe = model if isinstance(model, Pipeline) else load_pipeline(model, device)
    if isinstance(posts, Dataset):
        report = report or BuildReport(source="The dataset", on_error=on_error)
        posts = _with_standard_columns(posts, {"text": text_column, "image": image_column, "id": id_column})
        if rationales is not None:
            posts = join_rationales(posts, rationales, on_error=on_error, report=report)
    else:
        posts, report = read_table(
            posts,
            text_column=text_column,
            image_column=image_column,
            id_column=id_column,
            delimiter=delimiter,
            encoding=encoding,
            sheet=sheet,
            rationales=rationales,
            on_error=on_error,
        )
    table = _predictions(pipe, posts, report, batch_size, progress)
    if output is not None:
        write_predictions(output, table)
    return Dataset(InMemoryTable(table))


def read_table(file: str | Path, **options: Any) -> tuple[Dataset, BuildReport]:
    """Read posts to be labeled from a table; `options` are those of the loader `folder`.

    Labels of the table are kept as texts: they may be of another kind than the model's classes.

    Raises:
        ValueError: a missing file or column, or (unless `on_error="skip"`) a faulty row.
    """
    file = Path(file)
    posts, report = load_posts_with_report("folder", file.parent, file=file.name, label_as_text=True, **options)
    report.source, report.labels = str(file), {}
    return posts, report


def load_pipeline(folder: str | Path, device: str | None = None) -> Pipeline:
    """Load the pipeline of a trained model, or of LoRA adapters. Code in the folder is run.

    Args:
        folder (`str` or `Path`): output folder of `train`.
        device (`str`, *optional*): e.g. `"cpu"` or `"cuda:1"`; by default an accelerator if there is one.

    Raises:
        ValueError: the folder holds no model of this package, or the device cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        raise ValueError(
            f"Folder {str(folder)!r} does not exist.{did_you_mean(folder.name, siblings)} To get a model from the "
            "Hub: `hf download OWNER/NAME --local-dir FOLDER`."
        )
    if not (folder / "config.json").is_file():
        subfolders = sorted(str(path.parent) for path in folder.glob("*/config.json"))
        hint = f"Did you mean {', '.join(subfolders)}?" if subfolders else "Use the output_dir of `train`."
        raise ValueError(f"{folder} holds no model: it has no config.json. {hint}")
    if device is not None:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"Device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
    if is_adapter(folder):
        return MPTPipeline(model=load_adapter(folder), processor=MPTProcessor.from_pretrained(folder), device=device)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if TASK not in config.get("custom_pipelines", {}):
        raise ValueError(
            f"{folder} holds a {config.get('model_type')!r} model without a pipeline for {TASK}. Use the output_dir "
            "of `train`."
        )
    return pipeline(TASK, model=str(folder), trust_remote_code=True, device=device)


def check_perspectives(source: str, given: Iterable[str], known: list[str]) -> None:
    """Check that a model has the given perspectives.

    Raises:
        ValueError: it lacks one.
    """
    for perspective in given:
        if perspective not in known:
            raise ValueError(
                f"{source} has a rationale for {perspective!r}; the perspectives of this model are "
                f"{', '.join(known)}.{did_you_mean(perspective, known)}"
            )


def _with_standard_columns(posts: Dataset, columns: dict[str, str | None]) -> Dataset:
    """Rename columns to the names that the pipeline reads, and number posts without ids."""
    for name, column in columns.items():
        if column in (None, name):
            continue
        require_column("The dataset", posts.column_names, column, f"{name}_column")
        if name in posts.column_names:
            posts = posts.remove_columns(name)
        posts = posts.rename_column(column, name)
    if "id" not in posts.column_names:
        posts = posts.add_column("id", [str(number) for number in range(len(posts))])
    return posts


def _predictions(pipe: Pipeline, posts: Dataset, report: BuildReport, batch_size: int, progress: bool) -> pa.Table:
    """Build the table of predictions; `report` counts posts that the model cannot read."""
    perspectives = pipe.processor.perspectives
    prefix = rationale_column("")
    columns = [name for name in posts.column_names if name.startswith(prefix)]
    columns = [name for name in columns if any(value is not None for value in posts[name])]
    check_perspectives(report.source, [name.removeprefix(prefix) for name in columns], perspectives)
    columns_of = {"text": ["text"], "image": ["image"], "rationales": columns}
    modalities = pipe.model.config.modalities
    label_names = getattr(posts.features.get("label"), "names", None)
    ids: list[str] = []
    labels: list[str | None] = []

    if isinstance(posts.features.get("image"), Image):
        posts = posts.cast_column("image", Image(decode=False))  # `datasets` fails on malformed metadata

    def readable_posts() -> Iterator[dict[str, Any]]:
        for row in posts:
            if "image" in modalities and isinstance(row.get("image"), Mapping):
                try:
                    row["image"] = read_rgb(row["image"])
                except (OSError, ValueError) as error:
                    message = f"{report.source}: the image of post {row['id']!r} cannot be decoded ({error})."
                    report.fail("unreadable image", message)
                    continue
            missing = [name for name in modalities if all(row.get(column) is None for column in columns_of[name])]
            if missing == modalities:
                report.fail(
                    "nothing to read",
                    f"{report.source}: post {row['id']!r} has nothing that the model reads ({', '.join(modalities)}).",
                )
                continue
            for modality in missing:
                report.note(f"predicted without {modality}")
            ids.append(str(row["id"]))
            label = row.get("label")
            labels.append(None if label is None else label_names[label] if label_names else str(label))
            yield {column: row.get(column) for column in ["id", "text", "image", *columns]}

    results = list(
        tqdm(pipe(readable_posts(), batch_size=batch_size), total=len(posts), unit="post", disable=not progress)
    )
    if not results:
        raise ValueError(f"{report.source}: no post is left to predict.\n{report.summary()}")
    table = table_of_results(results, ids, perspectives=perspectives)
    # by name: the classes of the posts may have another order than those of the model
    return table.set_column(table.column_names.index("label"), "label", pa.array(labels, pa.string()))
