"""Prediction of labels, probabilities and weights with a trained model."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from datasets.table import InMemoryTable
from transformers import Pipeline, pipeline

from dataset_scripts import load_posts_with_report
from dataset_scripts.reading.report import BuildReport, did_you_mean
from mpt_sentiment.adapters import is_adapter, load_adapter
from mpt_sentiment.prediction.run_folder import RunFolder, Summary
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions
from mpt_sentiment.prediction.threshold import chosen_threshold
from processing_mpt import MPTPipeline, MPTProcessor

logger = logging.getLogger(__name__)

TASK = "multimodal-sentiment"


def predict(
    model: str | Path | Pipeline,
    posts: str | Path | Dataset | IterableDataset | Sequence[str | Path | Dataset | IterableDataset],
    output: str | Path | None = None,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    rationales: str | Path | None = None,
    keep_columns: Sequence[str] = (),
    on_error: str = "raise",
    calibrated: bool = True,
    abstain_below: float | None = None,
    target_precision: float | None = None,
    batch_size: int = 16,
    rows_per_part: int = 10_000,
    dataloader_num_workers: int | None = None,
    overwrite: bool = False,
    device: str | None = None,
    progress: bool = True,
    report: BuildReport | None = None,
) -> Dataset:
    """Predict the sentiment of posts.

    Memory does not grow with the number of posts, except for the returned predictions. With `output`, a run that was
    interrupted is resumed by the same call.

    Args:
        model (`str`, `Path` or [`MPTPipeline`]): output folder of `train`, whose code is run, or its pipeline.
        posts (`str`, `Path`, `Dataset`, `IterableDataset` or a list of them): a CSV, TSV, JSONL, Parquet or XLSX table
            with one post per row, a folder or glob of tables, the folder or Hub id of a dataset, which is streamed, or
            a dataset. Image paths are relative to their table.
        output (`str` or `Path`, *optional*): a folder, for Parquet files `data/part-NNNNN.parquet` that are complete
            as they appear; or one file: `.parquet`, `.csv` or `.jsonl`. Faulty rows are in `errors.parquet` of the
            folder, or in `NAME.errors.parquet` next to the file.
        text_column, image_column, id_column, delimiter, encoding, sheet: See [`load_folder`]. Ids are not compared.
        rationales (`str` or `Path`, *optional*): table or store of rationales, joined by id. By default the columns
            `rationale_PERSPECTIVE` of `posts`.
        keep_columns (sequence of `str`): columns of `posts` that are passed on to the predictions.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out posts that cannot be read, and counts them.
        calibrated (`bool`, defaults to `True`): divide the logits by the temperature that was fitted on validation,
            which changes the probabilities and no prediction.
        abstain_below (`float`, *optional*): add the column `abstained`, true where the highest probability is lower.
        target_precision (`float`, *optional*): choose `abstain_below` for this accuracy among the other posts, on the
            validation predictions in the folder of `train`. Coverage and accuracy on test are logged.
        batch_size (`int`, defaults to 16): posts per forward pass.
        rows_per_part (`int`, defaults to 10,000): rows of the sources in one part.
        dataloader_num_workers (`int`, *optional*): processes that decode and tokenize; by default one per core.
        overwrite (`bool`, defaults to `False`): delete the results of another run in `output`.
        device (`str`, *optional*): e.g. `"cuda:1"`; by default an accelerator if there is one.
        progress (`bool`, defaults to `True`): show a progress bar.
        report ([`BuildReport`], *optional*): receives the counts of rows, of faults and of missing modalities.

    Returns:
        `Dataset` with the columns `id`, `label` (as given, null if unknown), `prediction`, `probability_LABEL`,
        `weight_text`, `weight_image`, `weight_rationales`, `weight_rationale_PERSPECTIVE`, `abstained`
        with a threshold, and those of `keep_columns`.

    Raises:
        ValueError: a folder without a model, an unusable source, column or device, results of another run in `output`,
            or posts that cannot be read.
    """
    reading = ReadingOptions(text_column, image_column, id_column, delimiter, encoding, sheet)
    options = RunOptions(
        rationales=rationales,
        keep_columns=keep_columns,
        on_error=on_error,
        batch_size=batch_size,
        rows_per_part=rows_per_part,
        dataloader_num_workers=dataloader_num_workers,
        overwrite=overwrite,
        progress=progress,
        calibrated=calibrated,
        abstain_below=abstain_below,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary, "predictions.parquet") if output is None else output)
        pipe = model if isinstance(model, Pipeline) else load_pipeline(model, device)
        trained = model.model.name_or_path if isinstance(model, Pipeline) else model
        threshold, line = chosen_threshold(trained, abstain_below, target_precision, calibrated)
        if line is not None:
            logger.info(line)
            options = dataclasses.replace(options, abstain_below=threshold)
        summary, table = score(pipe, posts, folder, reading, options)
    if report is not None and summary is not None:
        _fill(report, summary)
    if folder.is_file:
        return Dataset(InMemoryTable(table))
    return Dataset.from_parquet(folder.files())


def _fill(report: BuildReport, summary: Summary) -> None:
    """Add the counts of a run to a report."""
    report.read += summary.rows
    report.kept += summary.predicted
    for reason, count in summary.faulty.items():
        report.skipped[reason] = report.skipped.get(reason, 0) + count
        report.examples.setdefault(reason, []).append(summary.examples[reason])
    for note, count in summary.notes.items():
        report.note(note, count)


def read_table(file: str | Path, **options: Any) -> tuple[Dataset, BuildReport]:
    """Read the posts of a table as a dataset; `options` are those of the loader `folder`.

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
