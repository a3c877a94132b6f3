"""Images decoded in parallel before their rows are kept, with a log of the results."""

import contextlib
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import PIL.Image

from dataset_scripts.reading.images import DECODING_ERRORS
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.threads import map_in_threads

_MISSING = "missing"
_LOG_LINE = re.compile(r"([0-9a-f]{16})(?: (.+))?\n")  # hash of the image's path and version, and its fault


@dataclasses.dataclass
class UncheckedRow:
    """A row that is kept if its image file decodes."""

    row: dict[str, Any]  # `row["image"]` is the path of the file
    location: str  # file and line of the row, for messages
    notes: tuple[str, ...] = ()  # notes for the report, counted if the row is kept
    # Keep a truncated JPEG, with its missing part grey (libjpeg's own filling), and count it.
    fill_truncated: bool = False


def image_fault(image: Path | io.BytesIO) -> str | None:
    """Decode all pixels of an image and return the error, or None."""
    try:
        with PIL.Image.open(image) as opened:
            opened.load()
    except DECODING_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return None


def filled_jpeg(path: Path) -> bytes | None:
    """Return the content of a truncated JPEG with an end marker, or None if it is broken."""
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8"):
        return None
    content += b"\xff\xd9"
    return content if image_fault(io.BytesIO(content)) is None else None


class ImageCheckLog:
    """Results of image checks, one line each, appended as they are made.

    A result holds for one path, size, modification time and version of Pillow. An incomplete last line, left by a
    crash, is ignored.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._faults: dict[int, str | None] = {}
        self._lines: TextIO | None = None
        if file.is_file():
            with open(file, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if match := _LOG_LINE.fullmatch(line):
                        self._faults[int(match[1], 16)] = match[2]

    def check(self, path: Path) -> tuple[int | None, str | None]:
        """Look an image up, or decode it if the log has no result.

        Returns:
            The key for `record`, None if there is nothing to record; and the fault, `"missing"` or None.
        """
        try:
            status = os.stat(path)
        except OSError:
            return None, _MISSING
        identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{PIL.__version__}"
        key = int.from_bytes(hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=8).digest(), "big")
        return (None, self._faults[key]) if key in self._faults else (key, image_fault(path))

    def record(self, key: int, fault: str | None) -> None:
        """Append a result to the file."""
        if self._lines is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lines = open(self.file, "a", encoding="utf-8", buffering=1)  # line-buffered: a crash loses no line
            self._lines.write("\n")  # ends an incomplete line
        self._lines.write(f"{key:016x} {' '.join(fault.split())}\n" if fault else f"{key:016x}\n")

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()


def checked_rows(
    rows: Iterable[dict[str, Any] | UncheckedRow], report: BuildReport, log: ImageCheckLog, num_proc: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows in order; rows with a missing or broken image are passed to `report.fail`.

    Images are decoded in `num_proc` threads.

    Raises:
        ValueError: the error of the first faulty row, from `rows` or `report.fail`.
    """

    def check(row: dict[str, Any] | UncheckedRow) -> tuple[Any, int | None, str | None]:
        return (row, *log.check(Path(row.row["image"]))) if isinstance(row, UncheckedRow) else (row, None, None)

    with contextlib.closing(log):
        for row, key, fault in map_in_threads(check, rows, num_proc):
            if key is not None:
                log.record(key, fault)
            if not isinstance(row, UncheckedRow):
                yield row
            elif fault is None or _is_repaired(report, row, fault):
                for note in row.notes:
                    report.note(note)
                yield row.row


def _is_repaired(report: BuildReport, unchecked: UncheckedRow, fault: str) -> bool:
    """Fill a truncated JPEG if the row allows it; report any other fault and return False."""
    path = Path(unchecked.row["image"])
    if fault == _MISSING:
        message = f"{unchecked.location}: the image {path} does not exist; add the file or remove the row."
        report.fail("missing image", message)
        return False
    if unchecked.fill_truncated and (content := filled_jpeg(path)) is not None:
        unchecked.row["image"] = {"bytes": content, "path": None}
        report.note("truncated JPEG, its missing part filled with grey")
        return True
    report.fail(
        "unreadable image",
        f"{unchecked.location}: the image {path} cannot be decoded ({fault}); download it again or remove the row.",
    )
    return False
