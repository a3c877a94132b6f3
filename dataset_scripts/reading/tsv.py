"""Records of TSV files with quoted line breaks and stray quotes, in UTF-8 or GB18030."""

import csv
from collections import deque
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


def tsv_records(lines: Iterable[str], width: int) -> Iterator[tuple[int, list[str] | None, int]]:
    """Yield records of `width` fields as (number of the first line, fields, number of fields).

    A quote at the start of a field that is not closed properly is part of the text. The fields are None where a
    record does not have `width` fields with or without quoting; reading continues with the next line. Blank lines are
    skipped.
    """
    source = iter(lines)
    pending: deque[str] = deque()
    number = 1
    while True:
        record: list[str] = []
        count = 0
        fields = None
        while len(record) < _MAX_LINES:
            line = pending.popleft() if pending else next(source, None)
            if line is None:
                break
            record.append(line)
            if len(record) == 1 and not line.strip():
                break
            quoted = _parse_quoted("".join(record), width)
            if quoted is None:
                continue  # a quote is open or misplaced: read the next line
            if len(quoted) == width:
                fields = quoted
            count = len(quoted)
            break
        if not record:
            return
        if not record[0].strip():
            number += 1
            continue
        if fields is None:
            pending.extendleft(reversed(record[1:]))
            record = record[:1]
            unquoted = record[0].rstrip("\r\n").split("\t")
            count = len(unquoted)
            fields = unquoted if count == width else None
        yield number, fields, count
        number += len(record)


def _parse_quoted(text: str, width: int) -> list[str] | None:
    """Return the fields if `text` is one complete record with correct quoting, else None."""
    try:
        rows = list(csv.reader([text], delimiter="\t", strict=True))
    except csv.Error:
        return None
    if len(rows) != 1:
        return None
    # A line inside quotes with the tabs of a whole record is a record: the quotes around it are two stray ones.
    is_several_records = any(line.count("\t") >= width - 1 for field in rows[0] for line in field.splitlines()[1:])
    return None if is_several_records else rows[0]
