"""One shard of a store: a log while it is being written, a Parquet file once it is complete.

If a log exists, it has all records of the shard; otherwise the Parquet file has them. So one of the two is complete
whenever a process is killed, and a reader can tell which one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.old_names import current_status
from dataset_scripts.rationales.store.record_log import RecordLog
from dataset_scripts.rationales.store.rows import (
    Row,
    read_parquet,
    readable,
    records_of_row,
    row_schema,
    rows_of_log,
    sync_folder,
    write_parquet,
)
from dataset_scripts.rationales.store.shard_index import Record, ShardIndex

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec


class ShardFiles:
    """Files of a shard, and what can be read from them without being its writer."""

    def __init__(self, folder: Path, shard_id: int, spec: RationaleSpec) -> None:
        self.shard_id = shard_id
        self.spec = spec
        self.log = folder / "shards" / f"{shard_id:05d}" / "journal.jsonl"
        self.lock = self.log.with_name("lock")
        self.parquet = folder / "data" / f"{shard_id:05d}.parquet"

    def rows(self) -> Iterator[Row]:
        """Yield one row per post. Posts recorded during the iteration are not included."""
        try:
            log = RecordLog(self.log, writable=False)
        except FileNotFoundError:  # empty or published
            yield from self._published_rows()
            return
        try:
            index = ShardIndex()
            for offset, record in log.records():
                index.add(offset, record)
            yield from rows_of_log(log, index, self.spec, index.post_offsets())
        finally:
            log.close()

    def log_records(self) -> Iterator[Record]:
        """Yield the records of the log; none if the shard is empty or published."""
        if self.log.exists():
            log = RecordLog(self.log, writable=False)
            try:
                yield from (record for _, record in log.records())
            finally:
                log.close()

    def published_statuses(self) -> dict[str, list[str]] | None:
        """Return the status of each post by perspective; `None` unless the shard is published."""
        if self.log.exists() or not self.parquet.exists():
            return None
        columns = {perspective: f"status_{perspective}" for perspective in self.spec.perspectives}
        with readable(self.parquet):
            table = pq.read_table(self.parquet, columns=list(columns.values()))
        return {name: list(map(current_status, table[column].to_pylist())) for name, column in columns.items()}

    def published_records(self) -> Iterator[Record]:
        """Yield the records that the Parquet file was made of."""
        for row in self._published_rows():
            yield from records_of_row(row, self.spec.perspectives)

    def _published_rows(self) -> Iterator[Row]:
        if self.parquet.exists():
            yield from read_parquet(self.parquet, self.spec.perspectives)


class ShardWriter:
    """Context manager of the one process that adds to a shard.

    Kinds of records:

    * `post`: `id`, `image_sha256`, `text_sha256`, `language`, `provenance`. With `error`, the post could not be
      prepared (no such file, not an image), which fails all its perspectives.
    * `answer`, a final result: `key`, `perspective`, `status` (one of `STATUSES`), `text`, `raw`, `flags`, `error`,
      `attempts`, the token counts and `system_fingerprint`.
    * `try`, an answer that the gate rejected and that is requested again: as `answer`, without `status`.
    * `suspect`, a post in flight at a server crash: `content`, `crashes`.

    Raises:
        StoreError: another process writes this shard, or the folder cannot be written.
    """

    def __init__(self, files: ShardFiles) -> None:
        self.files = files
        self.index = ShardIndex()
        self._log: RecordLog | None = None
        self._lock: int | None = None

    def __enter__(self) -> ShardWriter:
        try:
            self.files.log.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.files.lock, os.O_RDWR | os.O_CREAT, 0o644)
            _lock(self._lock, self.files.lock)
            if self.files.log.exists():
                self._open_log()
            else:
                for record in self.files.published_records():
                    self.index.add(0, record)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise StoreError(f"{self.files.lock.parent} cannot be written ({error}).") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()
        if self._lock is not None:
            os.close(self._lock)
        self._log = self._lock = None

    def add(self, record: Record) -> bool:
        """Record something. Returns `False` if it adds no information and was not written."""
        if not self.index.adds(record):
            return False
        offset = self._writable_log().append(record)
        self.index.add(offset, record)
        return True

    def answer(self, key: str) -> Record | None:
        """Return a final answer; `None` if there is none yet."""
        if self.index.status(key) is None:
            return None
        log = self._writable_log()  # first, because it replaces the index of a published shard
        return log.read(self.index.offset(key))

    def rejected_answers(self, key: str) -> list[Record]:
        """List the answers rejected by the gate, in order, while there is no final one."""
        return [self._writable_log().read(offset) for offset in self.index.rejected_offsets(key)]

    def publish(self) -> None:
        """Write the shard as Parquet, ordered by id, then remove the log.

        Raises:
            StoreError: the disk is full or failing; the log is kept.
        """
        if self._log is None:
            return
        self._log.sync()
        order = sorted((self._log.read(offset)["id"], offset) for offset in self.index.post_offsets())
        rows = rows_of_log(self._log, self.index, self.files.spec, [offset for _, offset in order])
        try:
            write_parquet(self.files.parquet, row_schema(self.files.spec.perspectives), rows)
            self._log.close()
            self._log = None  # the index keeps the statuses; its offsets are no longer used
            self.files.log.unlink()
            sync_folder(self.files.log.parent)
        except OSError as error:
            raise StoreError(
                f"{self.files.parquet} cannot be written ({error}). Free disk space or repair the disk, then run "
                f"again: everything is kept in {self.files.log}."
            ) from error

    def _open_log(self) -> None:
        self._log = RecordLog(self.files.log, writable=True)
        self.index = ShardIndex()
        for offset, record in self._log.records():
            self.index.add(offset, record)

    def _writable_log(self) -> RecordLog:
        """Open the log. That of a published shard is first restored from the Parquet file."""
        if self._log is None:
            temporary = self.files.log.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            log = RecordLog(temporary, writable=True)
            index = ShardIndex()
            try:
                for record in self.files.published_records():
                    if index.adds(record):
                        index.add(log.append(record), record)
                log.sync()
            finally:
                log.close()
            os.replace(temporary, self.files.log)
            sync_folder(self.files.log.parent)
            self._open_log()
        return self._log


def _lock(descriptor: int, path: Path) -> None:
    import fcntl  # missing on Windows, where stores can still be read

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        writer = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        raise StoreError(
            f"{path.parent} is being written by {writer}, and a shard has one writer at a time. Wait for that "
            "process, end it, or choose other shards."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
