"""Rows of a CSV, TSV, JSONL or Parquet file, or of a store of rationales, one at a time, with their place there."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.shard import row_schema
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.reading.report import did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_WHOLE_FLOAT = re.compile(r"^(-?\d+)\.0$")
_MAX_FIELD = 16 * 1024 * 1024  # csv's own limit of 128 KiB is below a long document


def table_columns(file: Path) -> list[str]:
    """Column names of the table; of JSONL, every key that any line has.

    Raises:
        ValueError: no such file, another format, or a file that cannot be read as its ending says.
    """
    if file.is_dir():
        return row_schema(_store(file).spec.perspectives).names
    if not file.is_file():
        raise ValueError(f"the table {file} does not exist.")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: the ending {file.suffix!r} is not one of {', '.join(SUFFIXES)}; convert the table.")
    if file.suffix == ".parquet":
        try:
            return pq.read_schema(file).names
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} is not a Parquet file ({error}).") from None
    if file.suffix in _DELIMITERS:
        for _, header in _csv_records(file):
            return [name.strip() for name in header]
        raise ValueError(f"{file} is empty; its first line must name the columns.")
    columns: dict[str, None] = {}
    for _, row in table_rows(file):
        columns.update(dict.fromkeys(row))
    return list(columns)


def table_rows(file: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(place, row); the row is None where a CSV record has more or fewer fields than the header."""
    if file.is_dir():
        store = _store(file)
        for shard_id in range(store.num_shards):
            for row in store.rows([shard_id]):
                yield f"{file}, shard {shard_id}", row
    elif file.suffix == ".parquet":
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=512):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", row
    elif file.suffix in _DELIMITERS:
        header: list[str] | None = None
        for number, record in _csv_records(file):
            if header is None:
                header = [name.strip() for name in record]
                continue
            yield (
                f"{file}, line {number}",
                dict(zip(header, record, strict=True)) if len(record) == len(header) else None,
            )
    else:
        for number, line in _lines(file):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: not JSON ({error}); JSONL holds one object per line.") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where}: {type(row).__name__}; JSONL holds one object {{…}} per line.")
            yield where, row


def table_files(file: Path) -> list[Path]:
    """What changes when the table does: the file, or the files of a store."""
    return sorted([*file.glob("data/*.parquet"), *file.glob("shards/*/journal.jsonl")]) if file.is_dir() else [file]


def require_column(file: Path, columns: list[str], wanted: str, option: str) -> None:
    """Raises a ValueError that lists the columns found, unless `wanted` is one of them."""
    if wanted not in columns:
        raise ValueError(
            f"{file} has no column {wanted!r}; its columns are {', '.join(map(repr, columns))}. Name the right one "
            f"with {option}=…." + did_you_mean(wanted, columns)
        )


def nested_column(row: dict[str, Any], columns: list[str]) -> str | None:
    """The first of `columns` whose cell is no plain value (JSONL and Parquet can nest), or None."""
    return next((column for column in columns if isinstance(row.get(column), (dict, list, bytes))), None)


def cell_text(value: Any) -> str | None:
    """A cell as stripped text; None for null, NaN and blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def cell_name(value: Any) -> str | None:
    """As `cell_text`, for an id or a label: `1.0` is 1, which tables store so where the column has gaps."""
    text = cell_text(value)
    return text if text is None else _WHOLE_FLOAT.sub(r"\1", text)


def _store(folder: Path) -> RationaleStore:
    try:
        return RationaleStore.open(folder)
    except StoreError as error:
        raise ValueError(f"{error} A folder of rationales is one that generate_rationales.py wrote.") from None


def _csv_records(file: Path) -> Iterator[tuple[int, list[str]]]:
    limit = csv.field_size_limit(_MAX_FIELD)
    first = 1
    try:
        reader = csv.reader((line for _, line in _lines(file)), delimiter=_DELIMITERS[file.suffix])
        for record in reader:
            if record:
                yield first, record
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {first}: {error}; look for a quote that is never closed.") from None
    finally:
        csv.field_size_limit(limit)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}, after line {number}: not UTF-8 ({error}); save the table as UTF-8.") from None
