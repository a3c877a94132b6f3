"""Rows of sources as posts that a model reads, or as faults."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from dataset_scripts import rationale_column
from dataset_scripts.loaders.folder_rows import RowReader
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.post_ids import read_id
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import Row, cell_text, require_column
from mpt_sentiment.prediction.sources import Source

BLANK_ROW = "blank row left out"


@dataclasses.dataclass
class Fault:
    """A row without a prediction: its id if it can be read, its place, and the reason."""

    id: str | None
    location: str
    reason: str
    message: str


@dataclasses.dataclass
class Item:
    """A row of a source.

    Attributes:
        number (`int`): of the row over all sources, from 0.
        location (`str`): file and line or row, for messages.
        post (`dict`, *optional*): columns of `schema.post_row`; None for a row without a post.
        kept (`list`): values of the columns to keep.
        notes (`list[str]`): peculiarities, to be counted.
        fault ([`Fault`], *optional*): reason why there is no prediction.
    """

    number: int
    location: str
    post: dict[str, Any] | None = None
    kept: list[Any] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    fault: Fault | None = None


class _RowFaultError(Exception):
    """Reason and message of a faulty row."""


class _RowReport(BuildReport):
    """Report of one row at a time, which passes a fault to the caller."""

    def fail(self, reason: str, message: str) -> None:
        raise _RowFaultError(reason, message)

    def take_notes(self) -> list[str]:
        """Return the notes of the last row; those on missing modalities depend on the model."""
        notes, self.notes = self.notes, {}
        return [note for note in notes if not note.startswith("without ")]


class _Checks(RowChecks):
    """Checks that keep nothing of earlier rows: ids are not compared."""

    def is_new_id(self, post_id: str, location: str, version: str = "") -> bool:
        return True


class PostReader:
    """Conversion of the rows of one source.

    Args:
        source ([`Source`])
        modalities (sequence of `str`): modalities that the model reads.
        perspectives (sequence of `str`): its perspectives.
        keep (sequence of `str`): columns of the source that are passed on.
        keep_as_text (`set[str]`): those of them that become texts.

    Raises:
        ValueError: the source lacks a column to keep.
    """

    def __init__(
        self,
        source: Source,
        modalities: Sequence[str],
        perspectives: Sequence[str],
        keep: Sequence[str] = (),
        keep_as_text: frozenset[str] = frozenset(),
    ) -> None:
        for column in keep:
            require_column(source.name, source.columns, column, "keep_columns")
        self.source, self.keep, self.keep_as_text = source, keep, keep_as_text
        self.modalities = modalities
        read = perspectives if "rationales" in modalities else ()
        self._report = _RowReport(source.name)
        table = {
            "column_of": source.column_of | ({} if "image" in modalities else {"image": None}),
            "rationales": {name: column for name, column in source.rationales.items() if name in read},
            "classes": source.classes,
            "split": None,
        }
        self._reader = RowReader(_Checks(self._report), table, str(source.folder), None, list(read), {})

    def item(self, row: Row | str, location: str, number: int) -> Item:
        """Convert a row; `number` is its id where the source has none."""
        item = Item(number, location)
        self._report.take_notes()
        try:
            if self._reader.checks.has_all_fields(row, location):
                post = self._reader.post(row, location, number)
                if isinstance(post, UncheckedRow):
                    for note in post.notes:
                        self._report.note(note)
                    post = post.row
                item.post = post
                item.notes = self._report.take_notes()
                item.kept = [self._kept(row.get(column), column) for column in self.keep]
            elif not isinstance(row, str):
                item.notes.append(BLANK_ROW)
        except _RowFaultError as fault:
            reason, message = fault.args
            item.fault = Fault(self._id(row, number), location, reason, message)
            if reason == "empty post":
                item.fault = _nothing_to_read(item.fault.id, location, self.modalities)
        return item

    def _id(self, row: Row | str, number: int) -> str | None:
        column = self.source.column_of["id"]
        if column is None:
            return str(number)
        return None if isinstance(row, str) or isinstance(row.get(column), dict | list) else read_id(row[column])[0]

    def _kept(self, value: Any, column: str) -> Any:
        if column not in self.keep_as_text or value is None or isinstance(value, str):
            return value
        return json.dumps(value, ensure_ascii=False, default=str)


def check_content(item: Item, modalities: Sequence[str], perspectives: Sequence[str]) -> None:
    """Note the modalities that a post lacks; without any, its row becomes a fault."""
    columns_of = {"text": ["text"], "image": ["image"], "rationales": [*map(rationale_column, perspectives)]}
    missing = [name for name in modalities if all(item.post.get(column) is None for column in columns_of[name])]
    if len(missing) < len(modalities):
        item.notes += [f"predicted without {name}" for name in missing]
        return
    item.fault, item.post = _nothing_to_read(item.post["id"], item.location, modalities), None


def _nothing_to_read(post_id: str | None, location: str, modalities: Sequence[str]) -> Fault:
    message = f"{location}: post {post_id!r} has nothing that the model reads ({', '.join(modalities)}); write it."
    return Fault(post_id, location, "nothing to read", message)


def kept_types(sources: Sequence[Source], keep: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the type of each column to keep: that of all sources, or else text."""
    types = {}
    for column in keep:
        found = {source.types.get(column, pa.string()) for source in sources}
        types[column] = found.pop() if len(found) == 1 else pa.string()
    return types


def check_perspectives(source: str, given: Sequence[str], known: list[str]) -> None:
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


def check_rationales(source: Source, perspectives: list[str]) -> None:
    """Check that columns of rationales for which a model has no perspective are empty.

    Raises:
        ValueError: one has a value. Its rows are read for that, and only if there is such a column.
    """
    unknown = {name: column for name, column in source.rationales.items() if name not in perspectives}
    if unknown:
        for _, row in source.rows(lambda number: True):
            if isinstance(row, Row):
                found = [name for name, column in unknown.items() if cell_text(row.get(column)) is not None]
                check_perspectives(source.name, found, perspectives)


def read_items(
    sources: Sequence[Source], readers: Sequence[PostReader], is_read: Callable[[int], bool]
) -> Iterator[Item]:
    """Yield the rows of all sources, numbered through.

    Of the rows whose number `is_read` does not accept, there is only number and location.
    """
    number = 0
    for source, reader in zip(sources, readers, strict=True):
        start = number
        for location, row in source.rows(lambda offset, start=start: is_read(start + offset)):
            if row is None or not is_read(number):
                yield Item(number, location)
            else:
                yield reader.item(row, location, number)
            number += 1
