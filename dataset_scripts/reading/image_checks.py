"""Images decoded in parallel before their rows are kept, with a log of the results."""

import concurrent.futures
import dataclasses
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import PIL.Image

from dataset_scripts.reading.images import DECODING_ERRORS
from dataset_scripts.reading.report import BuildReport

_MISSING = "missing"
_ROWS_AHEAD = 16  # per worker, so that all are busy while one decodes a large image


@dataclasses.dataclass
class UncheckedRow:
    """A row that is kept if its image file decodes.

    Attributes:
        row: the row; `row["image"]` is the path of the file.
        location: file and line of the row, for messages.
        notes: notes for the report, counted if the row is kept.
        fill_truncated: keep a truncated JPEG, with its missing part grey (libjpeg's own filling), and count it.
    """

    row: dict[str, Any]
    location: str
    notes: tuple[str, ...] = ()
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

    A result holds for one path, size, modification time and version of Pillow. A sound image takes one number in
    memory. An incomplete last line, left by a crash, is ignored.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sound: set[int] = set()
        self._faulty: dict[int, str] = {}
        self._lines: TextIO | None = None
        if file.is_file():
            with open(file, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    self._parse(line)

    def _parse(self, line: str) -> None:
        key, _, fault = line.rstrip("\n").partition(" ")
        if not line.endswith("\n") or len(key) != 16:
            return
        try:
            number = int(key, 16)
        except ValueError:
            return
        if fault:
            self._faulty[number] = fault
        else:
            self._sound.add(number)

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
        if key in self._sound:
            return None, None
        if key in self._faulty:
            return None, self._faulty[key]
        return key, image_fault(path)

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

    Reads at most `16 * num_proc` rows ahead. The workers are threads: Pillow's decoders release the GIL.

    Raises:
        ValueError: the error of the first faulty row, from `rows` or `report.fail`.
    """
    source = iter(rows)
    ahead: deque[tuple[dict[str, Any] | UncheckedRow, concurrent.futures.Future | None]] = deque()
    end: BaseException | None = None
    # Pillow registers its formats at first use, which is not thread-safe.
    pool = concurrent.futures.ThreadPoolExecutor(num_proc, "image_checks", initializer=PIL.Image.init)
    try:
        while True:
            while end is None and len(ahead) < _ROWS_AHEAD * num_proc:
                try:
                    row = next(source)
                except (StopIteration, ValueError) as error:
                    end = error  # raised after the rows before it
                    break
                unchecked = isinstance(row, UncheckedRow)
                ahead.append((row, pool.submit(log.check, Path(row.row["image"])) if unchecked else None))
            if not ahead:
                break
            row, result = ahead.popleft()
            if result is None:
                yield row
                continue
            key, fault = result.result()
            if key is not None:
                log.record(key, fault)
            if fault is None or _is_repaired(report, row, fault):
                for note in row.notes:
                    report.note(note)
                yield row.row
        if isinstance(end, ValueError):
            raise end
    finally:
        pool.shutdown(cancel_futures=True)
        log.close()


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
