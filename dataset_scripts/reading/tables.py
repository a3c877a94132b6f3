"""Rows of CSV, TSV, JSONL, Parquet and XLSX files, read one at a time with their location."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.quoting import Record, read_records
from dataset_scripts.reading.report import did_you_mean, shown
from dataset_scripts.reading.sheets import sheet_rows
from dataset_scripts.reading.text_files import LOST_CHARACTER, text_lines

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_COMPRESSED = tuple(f"{suffix}.gz" for suffix in (".csv", ".tsv", *_JSON_LINES))
SUFFIXES = (".csv", ".tsv", *_JSON_LINES, ".parquet")
# Read if `file` names them, or if a folder has no other table: often copies of one.
OTHER_SUFFIXES = (".xlsx", *_COMPRESSED)
_MAYBE_TABLES = (".txt", ".json", ".xls")
_READABLE = (*SUFFIXES, *OTHER_SUFFIXES, ".txt")
_DELIMITER_LINE = re.compile(r'"?sep=([^"\r\n])"?\r?\n?', re.IGNORECASE)  # written for Excel as the first line
_RECOGNIZED_DELIMITERS = ("\t", ";", "|", ",")
LOST_NOTE = "row with half of a character pair or a null character, replaced by U+FFFD"
_LOST = re.compile("[\ud800-\udfff\0]")
_INTEGRAL_FLOAT = re.compile(r"^(-?\d+)\.0$")


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """Format of a table, as far as its ending and its bytes do not say it.

    The functions below take None for a table that has no such options; messages then advise none of them.

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


def find_table(data_dir: Path, file: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return the table `file` of a folder, by default the only one with one of the suffixes.

    Raises:
        ValueError: the file does not exist, or none is named and the folder has no or several tables.
    """
    names = table_names(data_dir, suffixes) or (table_names(data_dir, OTHER_SUFFIXES) if suffixes == SUFFIXES else [])
    listed = ", ".join(names[:5]) + (", …" if names[5:] else "") or "none"
    if file is None:
        if len(names) != 1:
            others = names or table_names(data_dir, _MAYBE_TABLES)
            advice = f"name one with {option('file', others[0])}." if others else "add one, or give its folder."
            raise ValueError(f"{data_dir} has {len(names)} tables ({', '.join(suffixes)}): {listed}; {advice}")
        file = names[0]
    if not (data_dir / file).is_file():
        raise ValueError(
            f"{option('file', file)} is not in {data_dir}; its tables: {listed}." + did_you_mean(file, names)
        )
    return data_dir / file


def table_names(data_dir: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """List the tables of a folder, without hidden files such as `._posts.csv`, `~$posts.xlsx`."""
    return sorted(
        path.name
        for path in data_dir.glob("*")
        if path.name.lower().endswith(suffixes) and not path.name.startswith((".", "~$")) and path.is_file()
    )


def table_columns(file: Path, table_format: TableFormat | None = None) -> list[str]:
    """List the column names of a table; of JSONL, the keys of all lines.

    Raises:
        ValueError: the file does not exist, has another ending, does not have the format of its ending, or a name
            occurs twice.
    """
    suffix = _check(file, table_format)
    if suffix == ".parquet":
        return _unique_names(file, _parquet(file).schema_arrow.names)
    if suffix not in _JSON_LINES:
        records = _records(file, table_format, suffix)
        header = next(records, None)
        records.close()
        if header is None:
            raise ValueError(f"{file} is empty; its first line must name the columns.")
        return [name for name in _column_names(file, header.fields) if name]
    columns: dict[str, None] = {}
    fault = f"{file} is empty; a JSONL file has one object per line."
    for location, row in table_rows(file, table_format):
        if isinstance(row, Row):
            columns.update(dict.fromkeys(row))
        else:
            fault = f"{location}: {row}"
    if not columns:
        raise ValueError(fault)
    return list(columns)


def sound_rows(
    file: Path, table_format: TableFormat | None = None, columns: list[str] | None = None
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of `table_rows` that are not damaged."""
    for location, row in table_rows(file, table_format, columns):
        if isinstance(row, Row):
            yield location, row


def table_rows(
    file: Path,
    table_format: TableFormat | None = None,
    columns: list[str] | None = None,
    is_read: Callable[[int], bool] | None = None,
) -> Iterator[tuple[str, Row | str | None]]:
    """Yield (location, row); of a damaged row the fault, as text for `RowChecks.has_all_fields`.

    Only `columns` of a Parquet file are read, by default all. Half of a character pair (an emoji that was cut) and
    null characters become U+FFFD, with a note. With `is_read`, the rows for whose number (from 0) it returns False are
    None; row groups of Parquet without other rows are not read.

    Raises:
        ValueError: the file does not have the format of its ending.
    """
    suffix = _check(file, table_format)
    if suffix == ".parquet":
        rows = _parquet_rows(file, columns, is_read)
    elif suffix in _JSON_LINES:
        rows = _json_rows(file, table_format)
    else:
        rows = _delimited_rows(file, table_format, suffix)
    for number, (position, row) in enumerate(rows):
        yield f"{file}, {position}", row if is_read is None or is_read(number) else None


def headerless_rows(
    file: Path, columns: Sequence[str], delimiter: str, encoding: str
) -> Iterator[tuple[str, Row | str]]:
    """Yield (location, row) as `table_rows`, of a text table with known columns, not a header."""
    for record in read_records(lambda: text_lines(file, encoding), delimiter, len(columns)):
        row = record.fault or _row(zip(columns, record.fields, strict=True), record.notes)
        yield f"{file}, {record.position}", row


def require_column(file: Path | str, columns: list[str], wanted: str, name: str) -> None:
    """Raise a ValueError that lists the columns, unless `wanted` is one of them."""
    if wanted in columns:
        return
    listed = ", ".join(map(repr, columns[:12])) + (", …" if columns[12:] else "")
    hint = did_you_mean(wanted, columns)
    delimiter = next((mark for mark in "\t;|" if any(mark in column for column in columns)), None)
    if delimiter is not None:
        hint = f" Or is {delimiter!r} between the fields: {option('delimiter', delimiter)}?"
    raise ValueError(
        f"{file} has no column {shown(wanted)}; its columns are {listed[:200]}. Name the right one with "
        f"{option(name)}.{hint}"
    )


def nested_column(row: dict[str, Any], columns: list[str]) -> str | None:
    """Return the first of `columns` with a list, mapping or bytes in this row, or None."""
    return next((column for column in columns if isinstance(row.get(column), (dict, list, bytes))), None)


def is_blank(value: Any) -> bool:
    """Check whether a cell is null, NaN or white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell_text(value: Any) -> str | None:
    """Convert a cell to stripped text; None for null, NaN and blank."""
    return None if is_blank(value) else str(value).strip()


def cell_name(value: Any) -> str | None:
    """Convert an id or label to text, with `1.0` as `1`: integers with gaps become floats."""
    text = cell_text(value)
    return text if text is None else _INTEGRAL_FLOAT.sub(r"\1", text)


def _check(file: Path, table_format: TableFormat | None) -> str:
    """Check file and options; return the ending in lower case and without `.gz`."""
    if not file.is_file():
        raise ValueError(f"The table {file} does not exist.")
    name = file.name.lower()
    if not name.endswith(_READABLE):
        other = {".xls": "save it as .xlsx or CSV", ".json": "write one object per line, as .jsonl"}.get(
            file.suffix.lower()
        )
        raise ValueError(
            f"{file}: the suffix must be one of {', '.join(SUFFIXES)} or .xlsx, got {file.suffix!r}"
            + (f"; {other}." if other else ".")
        )
    suffix = Path(name.removesuffix(".gz")).suffix
    concerns = {
        "delimiter": ("CSV and TSV", suffix in _DELIMITERS),
        "encoding": ("CSV, TSV and JSONL", suffix in _DELIMITERS or suffix in _JSON_LINES),
        "sheet": ("XLSX", suffix == ".xlsx"),
    }
    for field, (formats, is_concerned) in concerns.items():
        if getattr(table_format, field, None) is not None and not is_concerned:
            raise ValueError(f"{file}: {option(field)} is for {formats}; leave it out.")
    return suffix


def _column_names(file: Path, header: list[str]) -> list[str]:
    return _unique_names(file, [_name(name) for name in header])


def _name(value: Any) -> str:
    return str(value).strip("\ufeff").strip()


def _unique_names(file: Path, names: list[str]) -> list[str]:
    twice = next((name for number, name in enumerate(names) if name and name in names[:number]), None)
    if twice is not None:
        raise ValueError(f"{file}: {names.count(twice)} columns have the name {shown(twice)}; rename all but one.")
    return names


def _row(cells: Iterable[tuple[str, Any]], notes: tuple[str, ...] = ()) -> Row:
    row = Row(cells)
    for name, value in row.items():
        if isinstance(value, str) and _LOST.search(value):
            row[name] = _LOST.sub(LOST_CHARACTER, value)
            notes = (*notes, LOST_NOTE) if LOST_NOTE not in notes else notes
    row.notes = notes
    return row


def _delimited_rows(file: Path, table_format: TableFormat | None, suffix: str) -> Iterator[tuple[str, Row | str]]:
    """Yield (position, row) of the records after the header, without unnamed columns."""
    header: list[str] | None = None
    for record in _records(file, table_format, suffix):
        if header is None:
            header = record.fields
            names = _column_names(file, header)
        elif record.fault is not None:
            yield record.position, record.fault
        elif all(_name(field) == name for field, name in zip(record.fields, names, strict=True)):
            yield record.position, "the header once more, as in tables that were joined; remove this line."
        else:
            cells = zip(names, record.fields, strict=True)
            yield record.position, _row(((name, value) for name, value in cells if name), record.notes)


def _records(file: Path, table_format: TableFormat | None, suffix: str) -> Iterator[Record]:
    if suffix == ".xlsx":
        return sheet_rows(file, table_format.sheet if table_format else None, has_option=table_format is not None)
    delimiter = _delimiter(file, table_format, suffix)
    return read_records(lambda: _lines(file, table_format), delimiter)


def _text_lines(file: Path, table_format: TableFormat | None) -> Iterator[str]:
    encoding = table_format.encoding if table_format else None
    return text_lines(file, encoding, has_option=table_format is not None)


def _lines(file: Path, table_format: TableFormat | None) -> Iterator[str]:
    """Yield the lines of a text table; the line with which Excel names the delimiter is blank."""
    lines = _text_lines(file, table_format)
    first = next(lines, "")
    yield "\n" if _DELIMITER_LINE.fullmatch(first) else first
    yield from lines


def _delimiter(file: Path, table_format: TableFormat | None, suffix: str) -> str:
    """Return the delimiter given, that of the ending, or another one that the header has."""
    given = table_format.delimiter if table_format else None
    if given is not None:
        given = "\t" if given == r"\t" else given
        if not isinstance(given, str) or len(given) != 1 or given in '"\r\n\0':
            raise ValueError(f"{option('delimiter', given)} must be one character, e.g. {option('delimiter', ';')}.")
        return given
    lines = (line for line in _text_lines(file, table_format) if line.strip("\r\n"))
    header = next(lines, "")
    if (named := _DELIMITER_LINE.fullmatch(header)) is not None:
        return named[1]
    usual = _DELIMITERS[suffix]
    if usual in header:
        return usual
    return next((mark for mark in _RECOGNIZED_DELIMITERS if mark in header), usual)


def _json_rows(file: Path, table_format: TableFormat | None) -> Iterator[tuple[str, Row | str]]:
    for number, line in enumerate(_text_lines(file, table_format), start=1):
        if not line.strip():
            continue
        position = f"line {number}"
        try:
            row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=_json_object)
        except (ValueError, RecursionError) as error:
            yield position, f"invalid JSON ({shown(str(error), 60)}); JSONL has one object per line."
            continue
        if isinstance(row, dict):
            yield position, _row(row.items())
        else:
            yield position, f"expected an object {{…}}, got {type(row).__name__}; JSONL has one object per line."


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} occurs twice")
    return result


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not a Parquet file ({shown(str(error), 60)}).") from None


def _parquet_rows(
    file: Path, columns: list[str] | None, is_read: Callable[[int], bool] | None
) -> Iterator[tuple[str, Row | str | None]]:
    number = 0
    with _parquet(file) as table:
        _unique_names(file, table.schema_arrow.names)
        try:
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                if is_read is not None and not any(map(is_read, range(number, number + size))):
                    yield from ((f"row {row + 1}", None) for row in range(number, number + size))
                    number += size
                    continue
                for batch in table.iter_batches(batch_size=512, row_groups=[group], columns=columns):
                    for row in range(batch.num_rows):
                        number += 1
                        if is_read is not None and not is_read(number - 1):
                            yield f"row {number}", None
                            continue
                        try:
                            yield f"row {number}", _row(batch.slice(row, 1).to_pylist()[0].items())
                        except UnicodeDecodeError:
                            yield f"row {number}", "a text is not UTF-8; write the row again."
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}, after row {number}: damaged ({shown(str(error), 60)}).") from None
