"""Run of a model over many posts: read, prepare, predict and write, one part after another."""

import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm
from transformers import Pipeline

from dataset_scripts.rationales.files import rationale_inputs
from dataset_scripts.rationales.index import RationaleIndex
from dataset_scripts.rationales.join import load_rationales
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.option_names import option, option_name
from dataset_scripts.reading.report import check_on_error
from dataset_scripts.schema import has_values, rationale_column
from mpt_sentiment.prediction.batches import (
    BATCHES_PER_WINDOW,
    Batch,
    Preparation,
    batches_by_length,
    prepared_batches,
    windows_of_parts,
)
from mpt_sentiment.prediction.posts import (
    Fault,
    Item,
    PostReader,
    check_content,
    check_perspectives,
    check_rationales,
    kept_types,
    read_items,
)
from mpt_sentiment.prediction.run_folder import RunFolder, Summary
from mpt_sentiment.prediction.scorer import Scorer
from mpt_sentiment.prediction.sources import ReadingOptions, Source, open_sources

logger = logging.getLogger(__name__)

_NO_NUMBER = "no finite probability"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        rationales (`str` or `Path`, *optional*): table or store of rationales, joined by id.
        keep_columns (sequence of `str`): columns of the sources that are passed on.
        on_error (`str`): `"skip"` records faulty rows, `"raise"` stops at one.
        batch_size (`int`): posts per forward pass.
        rows_per_part (`int`): rows of the sources in a part.
        dataloader_num_workers (`int`, *optional*): processes that prepare posts.
        shard (`tuple[int, int]`): which part of how many equal parts of the posts is predicted.
        overwrite (`bool`): delete the results of an earlier run.
        progress (`bool`): show a progress bar.
        calibrated (`bool`): divide the logits by the temperature that was fitted on validation.
        abstain_below (`float`, *optional*): probability below which the column `abstained` is true.

    Raises:
        ValueError: an option out of range.
    """

    rationales: str | Path | None = None
    keep_columns: Sequence[str] = ()
    on_error: str = "skip"
    batch_size: int = 16
    rows_per_part: int = 10_000
    dataloader_num_workers: int | None = None
    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False
    progress: bool = True
    calibrated: bool = True
    abstain_below: float | None = None

    def __post_init__(self) -> None:
        check_on_error(self.on_error)
        for name in ("batch_size", "rows_per_part"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise ValueError(f"`dataloader_num_workers` must be 0 or more, got {self.dataloader_num_workers}.")
        if self.overwrite and self.shard[1] > 1:
            raise ValueError("`overwrite` is for one process: the others would lose their results. Delete the output.")


def score(
    pipe: Pipeline, posts: Any, folder: RunFolder, reading: ReadingOptions, options: RunOptions
) -> tuple[Summary | None, pa.Table | None]:
    """Predict posts, or resume an interrupted run.

    Returns:
        The summary, None for a process after which others write; and the predictions of an output that is one file.

    Raises:
        ValueError: unusable sources or options, results of another run, no predicted row, or (unless skipped) a faulty
            row.
        OSError: the results cannot be written, e.g. because the disk is full.
    """
    sources = open_sources(posts, reading)
    if str(folder.output.resolve()) in {source.name for source in sources}:
        raise ValueError(f"`output` {folder.output} is a source of the posts; name another file.")
    scorer = Scorer(pipe, options.calibrated, options.abstain_below)
    index = None if options.rationales is None else _rationale_index(options, scorer.perspectives)
    for source in sources:
        check_rationales(source, scorer.perspectives)
    types = kept_types(sources, options.keep_columns)
    schema = prediction_schema(scorer, types)
    finished = folder.start(_settings(scorer, sources, reading, options), overwrite=options.overwrite)
    if finished is not None:
        return finished, None
    as_text = frozenset(name for name, kind in types.items() if kind == pa.string())
    readers = [
        PostReader(source, scorer.modalities, scorer.perspectives, options.keep_columns, as_text) for source in sources
    ]
    num_rows = 0

    @functools.cache
    def is_mine(part: int) -> bool:
        return part % options.shard[1] == options.shard[0] and not folder.has_part(part)

    def items() -> Iterator[Item]:
        nonlocal num_rows
        for item in read_items(sources, readers, lambda number: is_mine(number // options.rows_per_part)):
            num_rows = item.number + 1
            if is_mine(item.number // options.rows_per_part):
                yield item

    def windows() -> Iterator[tuple[int, list[Item], bool]]:
        size = BATCHES_PER_WINDOW * options.batch_size
        for part, window, is_last in windows_of_parts(items(), options.rows_per_part, size):
            found = [item for item in window if item.post is not None]
            if index is not None:
                _join(found, index)
            for item in found:
                check_content(item, scorer.modalities, scorer.perspectives)
            _check_faults(window, options.on_error)
            yield part, window, is_last

    batches = batches_by_length(windows(), options.batch_size)
    preparation = Preparation(scorer.processor, scorer.modalities)
    prepared = prepared_batches(
        batches, preparation, options.dataloader_num_workers, pin_memory=scorer.device.type == "cuda"
    )
    _predict(prepared, scorer, folder, types, options)
    num_parts = -(-num_rows // options.rows_per_part)
    table = None
    if folder.is_file and all(map(folder.has_part, range(num_parts))):
        table = pa.concat_tables(folder.tables(num_parts)) if num_parts else schema.empty_table()
    summary = folder.finish(num_parts, scorer.label_names, schema)
    if summary is not None and summary.predicted == 0:
        raise ValueError(f"No post is left to predict. {' '.join(str(summary).split())}")
    return summary, table


def _predict(
    batches: Iterable[Batch], scorer: Scorer, folder: RunFolder, types: dict[str, pa.DataType], options: RunOptions
) -> None:
    """Predict prepared batches and write each part when its last batch is there."""
    part = PartResults()
    with tqdm(unit="post", disable=not options.progress) as bar:
        for batch in batches:
            _check_faults(batch.others, options.on_error)
            outputs = scorer(batch.inputs) if batch.items else np.empty((0, 0))
            part.add(batch, outputs, len(scorer.label_names))
            bar.update(len(batch.items) + len(batch.others))
            if batch.is_last:
                _check_faults(part.faulty, options.on_error)
                folder.write_part(
                    batch.part,
                    part.table(scorer, types),
                    [item.fault for item in part.faulty],
                    part.num_rows,
                    part.notes,
                )
                part = PartResults()


class PartResults:
    """Results of the rows of a part so far."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, str | None, list[Any], np.ndarray]] = []
        self.faulty: list[Item] = []
        self.notes: Counter[str] = Counter()
        self.num_rows = 0

    def add(self, batch: Batch, outputs: np.ndarray, num_labels: int) -> None:
        for item, row in zip(batch.items, outputs, strict=True):
            if np.isfinite(row[:num_labels]).all():
                self.rows.append((item.number, item.post["id"], item.post["label"], item.kept, row))
                continue
            message = f"{item.location}: the model gives no finite probability for post {item.post['id']!r}."
            item.fault = Fault(item.post["id"], item.location, _NO_NUMBER, message)
            self.faulty.append(item)
        self.faulty += [item for item in batch.others if item.fault is not None]
        for item in [*batch.items, *batch.others]:
            if item.fault is None:
                self.notes.update(item.notes)
        self.num_rows += len(batch.items) + len(batch.others)

    def table(self, scorer: Scorer, types: dict[str, pa.DataType]) -> pa.Table:
        """Build the table of predictions in the order of the rows; sort the faults too."""
        self.rows.sort(key=lambda row: row[0])
        self.faulty.sort(key=lambda item: item.number)
        outputs = np.array([row[-1] for row in self.rows], np.float64)
        table = scorer.table(outputs, [row[1] for row in self.rows], [row[2] for row in self.rows])
        for place, (name, kind) in enumerate(types.items()):
            table = table.append_column(name, pa.array([row[3][place] for row in self.rows], kind))
        return table


def _check_faults(items: Iterable[Item], on_error: str) -> None:
    fault = next((item.fault for item in items if item.fault is not None), None)
    if fault is not None and on_error == "raise":
        raise ValueError(f"{fault.message} Or skip such rows with {option('on_error', 'skip')}.")


def prediction_schema(scorer: Scorer, types: dict[str, pa.DataType]) -> pa.Schema:
    """Return the columns of the predictions.

    Raises:
        ValueError: a column to keep has the name of one of them.
    """
    schema = scorer.table(np.empty((0, 0)), [], []).schema
    for name, kind in types.items():
        if name in schema.names:
            raise ValueError(
                f"{option_name('keep_columns')}: the predictions have a column {name!r} of their own; leave it out."
            )
        schema = schema.append(pa.field(name, kind))
    return schema


def _settings(
    scorer: Scorer, sources: Sequence[Source], reading: ReadingOptions, options: RunOptions
) -> dict[str, Any]:
    """Collect what decides the results of a run.

    The size of batches is not among it: it changes no result beyond rounding.
    """
    rationales = None
    if options.rationales is not None:
        path = Path(options.rationales).resolve()
        rationales = [str(path), inputs_digest(rationale_inputs(path))]
    return {
        "model": scorer.digest(),
        "sources": [[source.name, source.identity] for source in sources],
        **dataclasses.asdict(reading),
        "rationales": rationales,
        "keep_columns": list(options.keep_columns),
        "rows_per_part": options.rows_per_part,
        "calibrated": options.calibrated,
        "abstain_below": options.abstain_below,
    }


def _rationale_index(options: RunOptions, perspectives: list[str]) -> RationaleIndex:
    file = options.rationales
    table, report = load_rationales(file, on_error=options.on_error)
    for reason, count in report.skipped.items():
        logger.warning("%s: %d rows left out: %s, e.g. %s", file, count, reason, report.examples[reason][0])
    columns = [name for name in table.column_names if name.startswith(rationale_column(""))]
    given = [name.removeprefix(rationale_column("")) for name in columns if has_values(table, name)]
    check_perspectives(str(file), given, perspectives)
    return RationaleIndex(table, columns, Path(file))


def _join(items: Sequence[Item], index: RationaleIndex) -> None:
    """Give posts the rationales of their id."""
    values = index.look_up([item.post["id"] for item in items], [item.post["text"] for item in items])
    for place, item in enumerate(items):
        item.post |= {column: texts[place] for column, texts in values.items()}
        if item.post["id"] not in index:
            item.notes.append("without a row in the rationale file")
