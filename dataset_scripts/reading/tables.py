"""Rows of CSV, TSV, JSONL and Parquet files, read one at a time with their location."""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.report import did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_INTEGRAL_FLOAT = re.compile(r"^(-?\d+)\.0$")
_MAX_FIELD = 16 * 1024 * 1024  # csv's default limit of 128 KiB is below a long document


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """Format of a table, as far as its ending and its bytes do not say it.

    Attributes:
        delimiter (`str`, *optional*): character between the fields of a text table.
        encoding (`str`, *optional*): encoding of a text table, such as `"cp1252"`; UTF-8 by default.
        sheet (`str`, *optional*): name of the sheet of an XLSX file that has several.
    """

    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None


class Row(dict[str, Any]):
    """Cells of a row by column, and `notes` for the build report."""

    notes: tuple[str, ...] = ()


def table_names(data_dir: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """List the names of the tables of a folder, without hidden files such as `._posts.csv`."""
    return sorted(path.name for path in data_dir.glob("[!.]*") if path.suffix.lower() in suffixes)


def find_table(data_dir: Path, file: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return the table `file` of a folder, by default the only one with one of the suffixes.

    Raises:
        ValueError: the file does not exist, or none is named and the folder has no or several tables.
    """
    names = table_names(data_dir, suffixes)
    listed = ", ".join(names) or "none"
    if file is None:
        if len(names) != 1:
            raise ValueError(
                f"{data_dir} has {len(names)} tables ({', '.join(suffixes)}): {listed}; name one with "
                f"{option('file')}."
            )
        file = names[0]
    if not (data_dir / file).is_file():
        raise ValueError(
            f"{option('file', file)} is not in {data_dir}; its tables: {listed}." + did_you_mean(file, names)
        )
    return data_dir / file


def table_columns(file: Path, table_format: TableFormat = TableFormat()) -> list[str]:
    """List the column names of a table; of JSONL, the keys of all lines.

    Raises:
        ValueError: the file does not exist, has another suffix, or does not have the format of its suffix.
    """
    if not file.is_file():
        raise ValueError(f"The table {file} does not exist.")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: the suffix must be one of {', '.join(SUFFIXES)}, got {file.suffix!r}.")
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
    for _, row in sound_rows(file, table_format):
        columns.update(dict.fromkeys(row))
    return list(columns)


def sound_rows(file: Path, table_format: TableFormat = TableFormat()) -> Iterator[tuple[str, Row]]:
    """Yield the rows of `table_rows` that are not damaged."""
    for location, row in table_rows(file, table_format):
        if isinstance(row, Row):
            yield location, row


def table_rows(file: Path, table_format: TableFormat = TableFormat()) -> Iterator[tuple[str, Row | str]]:
    """Yield (location, row); of a damaged row the fault, as text for `RowChecks.has_all_fields`.

    Raises:
        ValueError: the file does not have the format of its suffix; the message names the line.
    """
    if file.suffix == ".parquet":
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=512):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", Row(row)
    elif file.suffix in _DELIMITERS:
        records = _csv_records(file)
        _, header = next(records, (1, []))
        header = [name.strip() for name in header]
        for number, record in records:
            location = f"{file}, line {number}"
            if len(record) == len(header):
                yield location, Row(zip(header, record, strict=True))
            else:
                yield location, "the number of fields differs from the header; correct the row."
    else:
        for number, line in _lines(file):
            if not line.strip():
                continue
            location = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{location}: invalid JSON ({error}); JSONL has one object per line.") from None
            if not isinstance(row, dict):
                raise ValueError(f"{location}: expected an object {{…}}, got {type(row).__name__}.")
            yield location, Row(row)


def require_column(file: Path | str, columns: list[str], wanted: str, option_of_column: str) -> None:
    """Raise a ValueError that lists the columns, unless `wanted` is one of them."""
    if wanted not in columns:
        raise ValueError(
            f"{file} has no column {wanted!r}; its columns are {', '.join(map(repr, columns))}. Name the right one "
            f"with {option(option_of_column)}." + did_you_mean(wanted, columns)
        )


def nested_column(row: dict[str, Any], columns: list[str]) -> str | None:
    """Return the first of `columns` with a list, mapping or bytes in this row, or None."""
    return next((column for column in columns if isinstance(row.get(column), (dict, list, bytes))), None)


def cell_text(value: Any) -> str | None:
    """Convert a cell to stripped text; None for null, NaN and blank."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def cell_name(value: Any) -> str | None:
    """Convert an id or label to text, with `1.0` as `1`: integers with gaps become floats."""
    text = cell_text(value)
    return text if text is None else _INTEGRAL_FLOAT.sub(r"\1", text)


def _csv_records(file: Path) -> Iterator[tuple[int, list[str]]]:
    limit = csv.field_size_limit(_MAX_FIELD)
    first_line = 1
    try:
        reader = csv.reader((line for _, line in _lines(file)), delimiter=_DELIMITERS[file.suffix])
        for record in reader:
            if record:
                yield first_line, record
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {first_line}: {error}; look for a quote that is never closed.") from None
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
