"""Rows of XLSX files, as records of a delimited table."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.quoting import Record
from dataset_scripts.reading.report import did_you_mean

_EXACT_DIGITS = 15  # of Excel's numbers


def sheet_rows(file: Path, sheet: str | None = None, has_option: bool = False) -> Iterator[Record]:
    """Yield the rows of a sheet with their numbers, the header first; blank rows are skipped.

    Formulas have the values that Excel saved.

    Args:
        sheet (`str`, *optional*): its name; needed if several sheets have rows.
        has_option (`bool`, defaults to `False`): whether the user can name the sheet, for messages.

    Raises:
        ValueError: openpyxl is not installed, the file is no XLSX, or the sheet is unknown or not the only one.
    """
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise ValueError(f"{file}: XLSX needs openpyxl: pip install 'mpt-sentiment[xlsx]'.") from None
    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not an XLSX file ({str(error)[:60]}).") from None
    try:
        yield from _records(_select(file, book, sheet, has_option))
    finally:
        book.close()


def _select(file: Path, book: Any, sheet: str | None, has_option: bool) -> Any:
    names = [page.title for page in book.worksheets]
    if sheet is not None:
        if sheet not in names:
            raise ValueError(
                f"{file} has no sheet {sheet!r}; its sheets are {', '.join(map(repr, names))[:150]}."
                + did_you_mean(sheet, names)
            )
        return book[sheet]
    filled = [page for page in book.worksheets if next(_records(page), None) is not None]
    if len(filled) > 1:
        titles = [page.title for page in filled]
        fix = f"name one with {option('sheet', titles[0])}" if has_option else "save one of them as CSV"
        raise ValueError(f"{file} has {len(filled)} sheets with rows: {', '.join(map(repr, titles))[:150]}; {fix}.")
    return filled[0] if filled else book.worksheets[0]


def _records(page: Any) -> Iterator[Record]:
    width = None
    page.reset_dimensions()  # those in the file can be wrong
    for number, cells in enumerate(page.iter_rows(values_only=True), start=1):
        fields = [_cell(value) for value in cells]
        while fields and (fields[-1] is None or str(fields[-1]).strip() == ""):
            fields.pop()
        if not fields:
            continue
        if width is None:
            width = len(fields)
            fields = ["" if name is None else str(name) for name in fields]
        fault = None
        if len(fields) > width:
            fault = f"a cell beyond the {width} columns that the header names; remove it or name its column."
        yield Record(number, number, [*fields, *[None] * (width - len(fields))], fault, unit="row")


def _cell(value: Any) -> Any:
    """Write a whole number that ends after Excel's 15 digits as a rounded one: no sound id."""
    digits = len(str(abs(value))) if isinstance(value, int) else 0
    is_rounded = digits > _EXACT_DIGITS and value % 10 ** (digits - _EXACT_DIGITS) == 0
    return f"{value:.{_EXACT_DIGITS - 1}e}" if is_rounded else value
