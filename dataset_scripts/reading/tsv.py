"""Records of TSV files written by hand and by several programs: quoted line breaks, stray quotes, two encodings."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

# A quoted field may span lines, but one that never closes must not swallow the file: beyond this it is a stray quote.
_MAX_LINES = 200


def encoding_of(file: Path) -> str:
    """`"utf-8-sig"` if every byte of the file is valid UTF-8, else `"gb18030"` (the superset of GBK).

    UTF-8 is tried first because nearly any bytes pass as GB18030, and come out garbled.

    Raises:
        ValueError: the file is neither.
    """
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            with open(file, encoding=encoding, newline="") as lines:
                for _ in lines:
                    pass
            return encoding
        except UnicodeDecodeError as error:
            fault = error
    raise ValueError(f"{file} is neither UTF-8 nor GB18030 ({fault}); save it as UTF-8.")


def tsv_records(lines: Iterable[str], width: int) -> Iterator[tuple[int, list[str] | None, int]]:
    """Records of `width` fields: (number of its first line, fields, number of fields found).

    A quote at the start of a field that does not close properly is text, not quoting. Where a record cannot be read
    as `width` fields either way, its fields are None and reading goes on with the next line. Blank lines are passed.
    """
    source = iter(lines)
    pending: deque[str] = deque()
    number = 1
    while True:
        record: list[str] = []
        found = 0
        fields = None
        while len(record) < _MAX_LINES:
            line = pending.popleft() if pending else next(source, None)
            if line is None:
                break
            record.append(line)
            if len(record) == 1 and not line.strip():
                break
            quoted = _strict("".join(record), width)
            if quoted is None:
                continue  # a quote is still open, or misplaced: the next line decides
            if len(quoted) == width:
                fields = quoted
            found = len(quoted)
            break
        if not record:
            return
        if not record[0].strip():
            number += 1
            continue
        if fields is None:
            pending.extendleft(reversed(record[1:]))
            record = record[:1]
            plain = record[0].rstrip("\r\n").split("\t")
            found = len(plain)
            fields = plain if found == width else None
        yield number, fields, found
        number += len(record)


def _strict(text: str, width: int) -> list[str] | None:
    """The fields if `text` is one whole record with every quote in its place, else None."""
    try:
        rows = list(csv.reader([text], delimiter="\t", strict=True))
    except csv.Error:
        return None
    if len(rows) != 1:
        return None
    # A line inside quotes that has the tabs of a whole record is one: a stray quote met another one further on.
    swallowed = any(line.count("\t") >= width - 1 for field in rows[0] for line in field.splitlines()[1:])
    return None if swallowed else rows[0]
