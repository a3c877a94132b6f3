"""Decoding every image before it becomes a row: in parallel, and with a journal, so that a stopped build goes on."""

import concurrent.futures
import dataclasses
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import PIL.Image

if TYPE_CHECKING:
    from dataset_scripts.reading.report import BuildReport

_DECODING_FAULTS = (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError)
_MISSING = "missing"
_ROWS_AHEAD = 16  # for each worker: enough to keep all busy while a large image holds up the order


@dataclasses.dataclass
class Unchecked:
    """A row that is kept once its image file decodes.

    Attributes:
        row: the row; `row["image"]` is the path of the file.
        where: file and line it comes from, for the message.
        notes: remarks for the report, counted if the row is kept.
        fill_truncated: a JPEG that ends early is kept, its missing part grey (libjpeg's own filling), and noted.
    """

    row: dict[str, Any]
    where: str
    notes: tuple[str, ...] = ()
    fill_truncated: bool = False


def image_fault(image: Path | io.BytesIO) -> str | None:
    """Why the image cannot be used, or None. Decodes every pixel: a truncated file opens well and breaks later."""
    try:
        with PIL.Image.open(image) as opened:
            opened.load()
    except _DECODING_FAULTS as error:
        return f"{type(error).__name__}: {error}"
    return None


def filled_jpeg(path: Path) -> bytes | None:
    """The bytes of a truncated JPEG with an end marker, so that any decoder reads them; None if that does not help."""
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8"):
        return None
    content += b"\xff\xd9"
    return content if image_fault(io.BytesIO(content)) is None else None


class Journal:
    """Verdicts on image files, a line each, written as they are found.

    An entry holds for one path, size, modification time and version of Pillow: a file that was mended is looked at
    again. In memory is one number per sound image. A line that was cut off by a crash is passed over.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sound: set[int] = set()
        self._faulty: dict[int, str] = {}
        self._lines: TextIO | None = None
        if file.is_file():
            with open(file, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    self._read(line)

    def _read(self, line: str) -> None:
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

    def look(self, path: Path) -> tuple[int | None, str | None]:
        """(key to `write` a new verdict under, or None if there is nothing new; the fault, `"missing"` or None)."""
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

    def write(self, key: int, fault: str | None) -> None:
        if self._lines is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lines = open(self.file, "a", encoding="utf-8", buffering=1)  # by line: a crash loses none
            self._lines.write("\n")  # ends a line that a crash left open
        self._lines.write(f"{key:016x} {' '.join(fault.split())}\n" if fault else f"{key:016x}\n")

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()


def checked_rows(
    rows: Iterable[dict[str, Any] | Unchecked], report: "BuildReport", journal: Journal, num_proc: int
) -> Iterator[dict[str, Any]]:
    """The rows in their order, without those whose image is missing or does not decode (`report.fail`).

    Reads at most `16 * num_proc` rows ahead. The workers are threads: Pillow's decoders leave Python's lock, and
    threads need neither a guarded `__main__` nor copies of this process.

    Raises:
        ValueError: what `rows` or `report.fail` raise; always that of the first faulty row.
    """
    source = iter(rows)
    ahead: deque[tuple[dict[str, Any] | Unchecked, concurrent.futures.Future | None]] = deque()
    stopped: BaseException | None = None
    # Pillow loads its formats when first asked; a thread that looks while another one loads may not find its format.
    pool = concurrent.futures.ThreadPoolExecutor(num_proc, "image_checks", initializer=PIL.Image.init)
    try:
        while True:
            while stopped is None and len(ahead) < _ROWS_AHEAD * num_proc:
                try:
                    row = next(source)
                except (StopIteration, ValueError) as error:
                    stopped = error  # after the rows before it had their turn
                    break
                unchecked = isinstance(row, Unchecked)
                ahead.append((row, pool.submit(journal.look, Path(row.row["image"])) if unchecked else None))
            if not ahead:
                break
            row, verdict = ahead.popleft()
            if verdict is None:
                yield row
                continue
            key, fault = verdict.result()
            if key is not None:
                journal.write(key, fault)
            if fault is None or _settle(report, row, fault):
                for note in row.notes:
                    report.note(note)
                yield row.row
        if isinstance(stopped, ValueError):
            raise stopped
    finally:
        pool.shutdown(cancel_futures=True)
        journal.close()


def _settle(report: "BuildReport", unchecked: Unchecked, fault: str) -> bool:
    """True if the row can be kept all the same."""
    path = Path(unchecked.row["image"])
    if fault == _MISSING:
        report.fail(
            "missing image",
            f"{unchecked.where}: the image {path} does not exist; add the file or remove the row.",
        )
        return False
    if unchecked.fill_truncated and (content := filled_jpeg(path)) is not None:
        unchecked.row["image"] = {"bytes": content, "path": None}
        report.note("truncated JPEG, its missing part filled with grey")
        return True
    report.fail(
        "unreadable image",
        f"{unchecked.where}: the image {path} cannot be decoded ({fault}); download it again or remove the row.",
    )
    return False
