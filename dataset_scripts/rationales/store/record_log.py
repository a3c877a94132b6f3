"""Append-only file of checksummed records that survives a crash of its writer."""

import contextlib
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

_FSYNC_SECONDS = 1.0  # only a power failure can lose records, and only younger ones


class RecordLog:
    """Log of records, one per line: CRC-32 of the JSON in hexadecimal, a space, the JSON.

    Opening it for writing truncates an unfinished last line. A corrupt line before intact ones is skipped, counted and
    logged: its answer is missing, so it is requested again.

    Args:
        path (`Path`): the file, created if `writable`.
        writable (`bool`): open for appending. The caller ensures that there is one writer; readers may read meanwhile.
        monotonic (callable): clock of the fsync once a second.

    Attributes:
        corrupt_lines (`int`): lines skipped by `records`.
    """

    def __init__(self, path: Path, *, writable: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.corrupt_lines = 0
        self._monotonic = monotonic
        self._synced = monotonic()
        self._end = 0
        self._writable = writable
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        self._file = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the offset and content of each intact record.

        A writer must exhaust the iterator before the first `append`.
        """
        offset = end = corrupt = 0
        os.lseek(self._file, 0, os.SEEK_SET)
        # by file descriptor, because the writer may have removed the file after this reader opened it
        with open(self._file, "rb", buffering=1 << 20, closefd=False) as lines:
            for line in lines:
                record = _parse(line)
                if record is None:
                    corrupt += 1
                else:
                    self.corrupt_lines, end = corrupt, offset + len(line)
                    yield offset, record
                offset += len(line)
        # a writer that was killed leaves one unfinished line at the end, and only a faulty disk leaves more
        damaged = corrupt if corrupt - self.corrupt_lines > 1 else self.corrupt_lines
        if damaged:
            logger.warning("%s: %d corrupt lines skipped; their answers are requested again", self.path, damaged)
        if self._writable and offset > end:
            logger.info("%s: %d bytes of an unfinished record removed", self.path, offset - end)
            os.ftruncate(self._file, end)
        self._end = end

    def append(self, record: dict[str, Any]) -> int:
        """Append a record and return its offset.

        Raises:
            StoreError: the disk is full or failing; the log keeps all earlier records.
        """
        line = _line(record)
        offset = self._end
        try:
            written = os.write(self._file, line)
            while written < len(line):  # a nearly full disk accepts a part
                written += os.write(self._file, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):  # the next writer removes the unfinished line
                os.ftruncate(self._file, offset)
            raise self._write_error(error) from error
        self._end += len(line)
        if self._monotonic() - self._synced >= _FSYNC_SECONDS:
            self.sync()
        return offset

    def read(self, offset: int) -> dict[str, Any]:
        """Read the record at an offset from `records` or `append`.

        Raises:
            StoreError: the record has changed.
        """
        size = 2048
        while True:
            chunk = os.pread(self._file, size, offset)
            line, newline, _ = chunk.partition(b"\n")
            if newline or len(chunk) < size:
                break
            size *= 8
        record = _parse(line + newline)
        if record is None:
            raise StoreError(f"{self.path}: the record at byte {offset:,} changed after it was read; check the disk.")
        return record

    def sync(self) -> None:
        """Flush all records to the disk.

        Raises:
            StoreError: the disk is full or failing.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._write_error(error) from error
        self._synced = self._monotonic()

    def close(self) -> None:
        os.close(self._file)

    def _write_error(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self.path} cannot be written ({error}). Free disk space or repair the disk, then run again: all "
            "earlier answers are kept."
        )


def _line(record: dict[str, Any]) -> bytes:
    # surrogatepass: a model may answer half of a surrogate pair
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
