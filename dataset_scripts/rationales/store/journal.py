"""An append-only file of checksummed records: what was written before a crash is there after it."""

import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataset_scripts.rationales.errors import StoreError

logger = logging.getLogger(__name__)

_FSYNC_EVERY = 1.0  # seconds; kill -9 loses nothing, only a power cut can lose what is younger


class Journal:
    """One record a line: CRC-32 of the JSON in hex, a space, the JSON.

    Opening it for writing cuts off a torn last line. A faulty line with sound ones after it (a bad block, an editor)
    is passed over, counted and logged: its answer is missing, and is asked for again.

    Args:
        path (`Path`): the file; created where `writable`.
        writable (`bool`): one writer at a time, which the caller sees to; readers may come while it writes.
        monotonic (callable): clock of the once-a-second fsync; setting the computer's clock does not matter to it.
    """

    def __init__(self, path: Path, *, writable: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.faulty_lines = 0
        self._monotonic = monotonic
        self._synced = monotonic()
        self._end = 0
        self._writable = writable
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        self._file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every sound record with its offset, oldest first; to be read to its end before the first `append`."""
        offset = end = faulty = skipped = 0
        os.lseek(self._file, 0, os.SEEK_SET)
        # by the open file, not by its name: a reader may have opened what its writer has meanwhile published
        with open(self._file, "rb", buffering=1 << 20, closefd=False) as lines:
            for line in lines:
                record = _parse(line)
                if record is None:
                    faulty += 1
                else:
                    skipped, end = faulty, offset + len(line)
                    yield offset, record
                offset += len(line)
        self.faulty_lines = skipped
        if skipped:
            logger.warning("%s: %d faulty lines passed over; what they held is asked again", self.path, skipped)
        if self._writable and offset > end:
            logger.info("%s: %d bytes of an unfinished record cut off", self.path, offset - end)
            os.ftruncate(self._file, end)
        self._end = end

    def append(self, record: dict[str, Any]) -> int:
        """Writes one record with one call to the system, and gives its offset.

        Raises:
            StoreError: the disk is full or failing; the file ends with the record before this one.
        """
        line = _line(record)
        offset = self._end
        try:
            written = os.write(self._file, line)
            while written < len(line):  # a disk that is nearly full takes a part
                written += os.write(self._file, line[written:])
        except OSError as error:
            self._cut(offset)
            raise self._failing(error) from error
        self._end += len(line)
        if self._monotonic() - self._synced >= _FSYNC_EVERY:
            self.sync()
        return offset

    def read(self, offset: int) -> dict[str, Any]:
        """The record that `records` or `append` gave this offset."""
        size = 2048
        while True:
            chunk = os.pread(self._file, size, offset)
            line, newline, _ = chunk.partition(b"\n")
            if newline or len(chunk) < size:
                break
            size *= 8
        record = _parse(line + newline)
        if record is None:
            raise StoreError(
                f"{self.path}: the record at byte {offset:,} changed since it was read; is the disk sound?"
            )
        return record

    def sync(self) -> None:
        """Puts everything appended so far onto the disk itself.

        Raises:
            StoreError: the disk is full or failing.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failing(error) from error
        self._synced = self._monotonic()

    def close(self) -> None:
        os.close(self._file)

    def _failing(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self.path} cannot be written ({error}); make room or mend the disk, then start again: every answer "
            "recorded before this one is kept."
        )

    def _cut(self, end: int) -> None:
        try:
            os.ftruncate(self._file, end)
        except OSError:  # then the torn line is cut off when the journal is next opened
            logger.warning("%s: an unfinished record could not be cut off", self.path)


def _line(record: dict[str, Any]) -> bytes:
    # surrogatepass: a model may answer half an emoji, and an answer that was paid for is kept
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _parse(line: bytes) -> dict[str, Any] | None:
    if len(line) < 12 or line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    content = line[9:-1]
    try:
        if int(line[:8], 16) != zlib.crc32(content):
            return None
        return json.loads(content.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
