"""Records of TSV files with quoted line breaks and stray quotes, in UTF-8 or GB18030."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAX_LINES = 200  # of a record: beyond it, a quote that never closes is a stray quote


def encoding_of(file: Path) -> str:
    """Return `"utf-8-sig"` if the file is valid UTF-8, else `"gb18030"` (superset of GBK).

    Raises:
        ValueError: the file is neither.
    """
    for encoding in ("utf-8-sig", "gb18030"):  # in this order, since nearly all bytes are valid GB18030
        try:
            with open(file, encoding=encoding, newline="") as lines:
                for _ in lines:
                    pass
            return encoding
        except UnicodeDecodeError as error:
            fault = error
    raise ValueError(f"{file} is neither UTF-8 nor GB18030 ({fault}); save it as UTF-8.")


def tsv_records(lines: Iterable[str], width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the records as (number of the first line, fields).

    A quote at the start of a field that is not closed properly is part of the text. A record has another number of
    fields than `width` only if it does so with and without quoting; reading continues with the next line. Blank lines
    are skipped.
    """
    lines = list(lines)
    start = 0
    while start < len(lines):
        stop, fields = start + 1, lines[start].rstrip("\r\n").split("\t")
        for end in range(start + 1, min(start + _MAX_LINES, len(lines)) + 1):
            quoted = _parse_quoted("".join(lines[start:end]), width)
            if quoted is not None:  # else a quote is open or misplaced
                if len(quoted) == width:
                    stop, fields = end, quoted
                break
        if lines[start].strip():
            yield start + 1, fields
        start = stop


def _parse_quoted(text: str, width: int) -> list[str] | None:
    """Return the fields if `text` is one complete record with correct quoting, else None."""
    try:
        rows = list(csv.reader([text], delimiter="\t", strict=True))
    except csv.Error:
        return None
    if len(rows) != 1:
        return None
    # A line inside quotes with the tabs of a whole record is a record of its own, and the quotes are stray.
    is_several_records = any(line.count("\t") >= width - 1 for field in rows[0] for line in field.splitlines()[1:])
    return None if is_several_records else rows[0]
