"""Records of delimited text that was written with or without quoting.

A quote at the start of a field begins a quoted field, or is a character of the text; a file does not say how it was
written. A wrong choice merges posts or cuts them apart. So the whole file is the evidence: lines that only quoting
explains, against lines that no writer with quoting produces.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator

SEVERAL_ROWS_NOTE = "quoted text of several lines, each of which could be a row"
_MAX_LINES = 10_000  # of a record: beyond it, a quote that never closes is a character
_QUOTED_SHARE = 0.9  # of the fields of a column with quoting: damaged rows are not seen to be quoted


@dataclasses.dataclass(frozen=True)
class Record:
    """Fields of a record, and its first and last line in the file, numbered from 1.

    Attributes:
        fault (`str`, *optional*): reason why the record is damaged.
        notes (`tuple[str]`): peculiarities, for the build report.
        unit (`str`): `"line"`, or `"row"` of a sheet.
    """

    first: int
    last: int
    fields: list[str]
    fault: str | None = None
    notes: tuple[str, ...] = ()
    unit: str = "line"

    @property
    def position(self) -> str:
        """Name the first line, for messages; of a damaged record all lines."""
        if self.fault is None or self.first == self.last:
            return f"{self.unit} {self.first}"
        return f"{self.unit}s {self.first}-{self.last}"


def read_records(lines: Callable[[], Iterable[str]], delimiter: str, width: int | None = None) -> Iterator[Record]:
    """Yield the records of delimited text; blank lines are skipped.

    Lines that could be rows of their own are never joined, unless the file is evidently written with quoting, and then
    the record has a note. A quote that never closes properly is a character. Tab-separated text has no quoting, unless
    every field of the column is quoted or the content requires it (tab, quote, line break).

    Args:
        lines: function that opens the text; it is read twice.
        delimiter: one character.
        width: number of fields; by default that of the first record, the header.
    """
    rows = _Lines(lines())
    evidence = _Evidence(delimiter, width)
    first_row = 1
    for parsed in rows.parsed(delimiter, width):
        if evidence.width is None:
            header = Record(parsed.first, parsed.last, parsed.plain if parsed.fields is None else parsed.fields)
            yield header
            first_row = header.last + 1
            evidence.begin(len(header.fields), parsed)
            rows.take(parsed.num_lines, evidence.width)
        else:
            rows.take(evidence.add(parsed))
    rows = _Lines(lines())
    for parsed in rows.parsed(delimiter, evidence.width):
        if parsed.first < first_row:
            rows.take(1)
            continue
        record = evidence.record(parsed)
        yield record
        rows.take(record.last - record.first + 1)


@dataclasses.dataclass
class _Parsed:
    """Fields of the next line without quoting (`plain`), and of the next record with it.

    `fields` is None if the line has no quotes, or if they do not close properly. Of a record of several lines,
    `could_be_rows` is True if one of the lines has the fields of a whole record, and `are_rows` if all have.
    """

    first: int
    plain: list[str]
    has_quotes: bool = False
    fields: list[str] | None = None
    quoted: list[bool] = dataclasses.field(default_factory=list)
    num_lines: int = 1
    has_doubled: bool = False  # a doubled quote in a quoted field
    has_bare: bool = False  # a quote in a field without quoting
    could_be_rows: bool = False
    are_rows: bool = False

    @property
    def last(self) -> int:
        return self.first + self.num_lines - 1


class _Lines:
    """Lines of a text, seen before they are taken."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._ahead: deque[str] = deque()
        self._number = 1
        self._width: int | None = None

    def parsed(self, delimiter: str, width: int | None) -> Iterator[_Parsed]:
        """Yield the next record; the caller takes the lines that it accepts."""
        self._width = width
        while (line := self._line(0)) is not None:
            if line.strip("\r\n"):
                yield self._parse(delimiter)
            else:
                self.take(1)

    def take(self, count: int, width: int | None = None) -> None:
        """Continue after `count` lines, with records of another width if it is given."""
        self._width = width or self._width
        self._number += count
        for _ in range(count):
            self._ahead.popleft()

    def _line(self, offset: int) -> str | None:
        while len(self._ahead) <= offset:
            line = next(self._lines, None)
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[offset]

    def _parse(self, delimiter: str) -> _Parsed:
        plain = self._line(0).rstrip("\r\n").split(delimiter)
        if '"' not in self._line(0):
            return _Parsed(self._number, plain)
        parsed = _Parsed(self._number, plain, has_quotes=True, fields=[])
        return parsed if self._parse_quoted(parsed, delimiter) else _Parsed(self._number, plain, has_quotes=True)

    def _parse_quoted(self, parsed: _Parsed, delimiter: str) -> bool:
        """Read the fields of a record with quoting; return False if a quote does not close properly."""
        line, position = self._line(0).rstrip("\r\n"), 0
        complete = [len(parsed.plain) == self._width]  # by line; a further line may have a delimiter too many
        opened = closed = 0  # the field that the first line leaves open, and the one that the last line closes
        while True:
            is_quoted = line.startswith('"', position)
            parsed.quoted.append(is_quoted)
            if is_quoted:
                parts: list[str] = []
                position += 1
                while (end := _closing_quote(line, position)) < 0:
                    parts.append(self._line(parsed.num_lines - 1)[position:])
                    following = self._line(parsed.num_lines) if parsed.num_lines < _MAX_LINES else None
                    if following is None:
                        return False
                    opened, closed = (len(parsed.fields) if parsed.num_lines == 1 else opened), len(parsed.fields)
                    parsed.num_lines += 1
                    line, position = following.rstrip("\r\n"), 0
                    complete.append(self._width is not None and line.count(delimiter) + 1 >= self._width)
                parts.append(line[position:end])
                position = end + 1
                if position < len(line) and line[position] != delimiter:
                    return False  # text after the closing quote
                text = "".join(parts)
                parsed.has_doubled |= '"' in text
                parsed.fields.append(text.replace('""', '"'))
            else:
                end = line.find(delimiter, position)
                end = len(line) if end < 0 else end
                parsed.fields.append(line[position:end])
                parsed.has_bare |= '"' in line[position:end]
                position = end
            if position == len(line):
                break
            position += 1
        if parsed.num_lines > 1 and self._width is not None:
            parsed.are_rows = all(complete)
            # The first line up to a quoted last field is complete, and the last line from a quoted first field.
            parsed.could_be_rows = (
                any(complete[1:-1])
                or (complete[0] and opened < self._width - 1)
                or (complete[-1] and closed > 0)
                or self._width == 1
                or parsed.has_bare
            )
        return True


def _closing_quote(line: str, position: int) -> int:
    """Return the position of the next quote that is not doubled, or -1."""
    while (end := line.find('"', position)) >= 0 and line.startswith('"', end + 1):
        position = end + 2
    return end


class _Evidence:
    """Evidence for or against quoting in a file, and the records that follow from it."""

    def __init__(self, delimiter: str, width: int | None) -> None:
        self.delimiter = delimiter
        self.width = width
        self.has_tabs = delimiter == "\t"
        self.proper = 0  # records that only quoting explains
        self.stray = 0  # lines that no writer with quoting produces
        self._num_quoted = [0] * (width or 0)
        self._num_filled = [0] * (width or 0)

    def begin(self, width: int, header: _Parsed) -> None:
        """Set the width of the records from the header; a quoted name is evidence of quoting."""
        self.width = width
        self.proper += header.fields is not None and any(header.quoted)
        self._num_quoted, self._num_filled = [0] * width, [0] * width

    def add(self, parsed: _Parsed) -> int:
        """Count the evidence in a record; return the number of lines that it concerns."""
        fields = parsed.plain if parsed.fields is None else parsed.fields
        if len(fields) != self.width:
            self.stray += parsed.num_lines == 1
            return parsed.num_lines
        if parsed.fields is None:
            self.stray += parsed.has_quotes
        elif parsed.num_lines == 1:
            self.stray += parsed.has_bare
            self.proper += not parsed.has_bare and (parsed.has_doubled or len(parsed.plain) != self.width)
        else:
            self.proper += parsed.has_doubled or not parsed.could_be_rows
            if parsed.could_be_rows:
                return parsed.num_lines
        for column, field in enumerate(fields):
            is_quoted = parsed.fields is not None and parsed.quoted[column]
            self._num_filled[column] += bool(field)
            self._num_quoted[column] += is_quoted and bool(field)
        return parsed.num_lines

    def record(self, parsed: _Parsed) -> Record:
        """Return the record at a line: with quoting, of this line alone, or damaged."""
        if parsed.fields is None:
            return self._line(parsed)
        if parsed.num_lines == 1:
            if len(parsed.fields) != self.width:
                return self._line(parsed)
            if len(parsed.plain) != self.width:
                return Record(parsed.first, parsed.last, parsed.fields)
            return Record(parsed.first, parsed.last, self._unquoted(parsed))
        is_whole = len(parsed.fields) == self.width
        if self.proper > self.stray and is_whole:
            notes = (SEVERAL_ROWS_NOTE,) if parsed.are_rows else ()
            return Record(parsed.first, parsed.last, parsed.fields, notes=notes)
        if is_whole and not parsed.could_be_rows and (self.has_tabs or self.proper == self.stray):
            return Record(parsed.first, parsed.last, parsed.fields)
        if self.proper < self.stray or (self.has_tabs and self.width > 1 and self.proper == self.stray):
            return self._line(parsed)
        fault = (
            "a quote closes in a later line, but these lines could be rows; save the table with every field in quotes "
            "(csv.QUOTE_ALL), or as JSONL."
        )
        if not is_whole:
            fault = self._width_fault(parsed.fields)
        return Record(parsed.first, parsed.last, parsed.fields, fault)

    def _line(self, parsed: _Parsed) -> Record:
        is_damaged = len(parsed.plain) != self.width
        fault = self._width_fault(parsed.plain, parsed.has_quotes) if is_damaged else None
        return Record(parsed.first, parsed.first, parsed.plain, fault)

    def _unquoted(self, parsed: _Parsed) -> list[str]:
        if not self.has_tabs or self.proper > self.stray:
            return parsed.fields
        fields = []
        for column, (plain, field) in enumerate(zip(parsed.plain, parsed.fields, strict=True)):
            is_quoting = not field or self._num_quoted[column] >= _QUOTED_SHARE * self._num_filled[column]
            is_quoting |= '"' in field and self.proper == self.stray
            fields.append(field if is_quoting else plain)
        return fields

    def _width_fault(self, fields: list[str], has_quotes: bool = False) -> str:
        cause = ""
        if has_quotes:
            cause = "look for a quote that does not close, or "
        elif len(fields) > self.width:
            cause = f"look for {self.delimiter!r} in a text without quotes, or "
        return f"the number of fields is {len(fields)}, it must be {self.width}; {cause}correct the row."
