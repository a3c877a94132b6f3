"""One shard of a store: one writer, a journal while it is being written, a Parquet file once it is done.

Where a journal lies, it holds all of its shard; where none lies, the Parquet file does. So whatever instant a process
ends at, one of the two is whole, and a reader knows which.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.spec import item_key
from dataset_scripts.rationales.store.journal import Journal

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec

STATUSES = ("ok", "flagged", "failed", "poison")
OPEN = "open"
# Of an answer that counts: the first one stays.
_FINAL = ("ok", "flagged")
COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_BATCH = 1000

Record = dict[str, Any]
Row = dict[str, Any]


def row_schema(perspectives: Sequence[str]) -> pa.Schema:
    """Columns of a published shard: one row per post."""
    fields = [("id", pa.string())]
    for perspective in perspectives:
        fields += [
            (f"rationale_{perspective}", pa.string()),
            (f"status_{perspective}", pa.string()),
            (f"flags_{perspective}", pa.list_(pa.string())),
            (f"error_{perspective}", pa.string()),
            (f"raw_{perspective}", pa.string()),
            (f"attempts_{perspective}", pa.int32()),
            *((f"{count}_{perspective}", pa.int32()) for count in COUNTS),
            (f"key_{perspective}", pa.string()),
        ]
    texts = ("system_fingerprint", "image_sha256", "text_sha256", "language", "provenance")
    return pa.schema(fields + [(name, pa.string()) for name in texts])


class ShardIndex:
    """Where each record of a shard lies: about 150 bytes an answer, none of its text.

    Attributes:
        posts: offset of each post, by a digest of its id and content.
        faulty: offset of each post that could not be made ready, by a digest of its id.
        deaths: how often the server died with a post in flight, by its content (`content_of`).
    """

    def __init__(self) -> None:
        self.posts: dict[bytes, int] = {}
        self.faulty: dict[bytes, int] = {}
        self.deaths: dict[str, int] = {}
        self._answers: dict[bytes, int] = {}
        self._tries: dict[bytes, list[int]] = {}

    def status(self, key: str) -> str | None:
        found = self._answers.get(_short(key))
        return None if found is None else STATUSES[found % len(STATUSES)]

    def offset(self, key: str) -> int | None:
        found = self._answers.get(_short(key))
        return None if found is None else found // len(STATUSES)

    def tries(self, key: str) -> list[int]:
        return self._tries.get(_short(key), [])

    def knows(self, post: Record) -> bool:
        """Whether this post is recorded, and not only as one that could not be made ready."""
        return _digest(post) in self.posts and _digest_of_id(post) not in self.faulty

    def adds(self, record: Record) -> bool:
        """Whether a record tells anything new. The first good answer stays; a failure gives way to what comes."""
        if record["kind"] == "post":
            return _digest_of_id(record) not in self.faulty if record.get("error") else not self.knows(record)
        return record["kind"] == "suspect" or self.status(record["key"]) not in _FINAL

    def note(self, offset: int, record: Record) -> None:
        if not self.adds(record):
            return
        if record["kind"] == "post":
            if record.get("error"):
                self.faulty[_digest_of_id(record)] = offset
            else:
                self.posts[_digest(record)] = offset
                self.faulty.pop(_digest_of_id(record), None)
        elif record["kind"] == "suspect":
            self.deaths[record["content"]] = record["deaths"]
        elif record["kind"] == "try":
            self._tries.setdefault(_short(record["key"]), []).append(offset)
        else:
            key = _short(record["key"])
            self._answers[key] = offset * len(STATUSES) + STATUSES.index(record["status"])
            self._tries.pop(key, None)


class ShardWriter:
    """The one process that adds to a shard; a context manager. Reads are as of the last `add`.

    Records are of the kinds

    * `post`: `id`, `image_sha256`, `text_sha256`, `language`, `provenance`; with `error` if it cannot be made ready
      (no file, not an image), which then is the failure of all its perspectives;
    * `answer`, which is final: `key`, `perspective`, `status` (one of `STATUSES`), `text`, `raw`, `flags`, `error`,
      `attempts`, the token counts and `system_fingerprint`;
    * `try`, an answer that is asked for again: as `answer`, without `status`;
    * `suspect`: `content`, `deaths`.

    Raises:
        StoreError: another process writes this shard, or the folder cannot be written.
    """

    def __init__(self, shard: ShardFiles) -> None:
        self.files = shard
        self.index = ShardIndex()
        self._journal: Journal | None = None
        self._lock: int | None = None

    def __enter__(self) -> ShardWriter:
        try:
            self.files.journal.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.files.lock, os.O_RDWR | os.O_CREAT, 0o644)
            _take(self._lock, self.files.lock)
            if self.files.journal.exists():
                self._open()
            else:
                for record in self.files.published_records():
                    self.index.note(0, record)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, OSError):
                raise StoreError(f"{self.files.lock.parent} cannot be written ({error}).") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            os.close(self._lock)
        self._journal = self._lock = None

    def add(self, record: Record) -> bool:
        """Records it, unless it tells nothing new (then `False`)."""
        if not self.index.adds(record):
            return False
        offset = self._writable().append(record)
        self.index.note(offset, record)
        return True

    def status(self, key: str) -> str | None:
        """Of a final answer; `None` if there is none yet."""
        return self.index.status(key)

    def answer(self, key: str) -> Record | None:
        """A final answer."""
        if self.index.status(key) is None:
            return None
        journal = self._writable()  # first: it moves what was published back into a journal
        return journal.read(self.index.offset(key))

    def tries(self, key: str) -> list[Record]:
        """Answers that were sent back, while there is no final one; oldest first."""
        return [self._writable().read(offset) for offset in self.index.tries(key)]

    def publish(self) -> None:
        """Writes the shard as Parquet, ordered by id, and then removes the journal."""
        if self._journal is None:
            return
        self._journal.sync()
        order = sorted((self._journal.read(offset)["id"], offset) for offset in _offsets(self.index))
        rows = journal_rows(self._journal, self.index, self.files.spec, [offset for _, offset in order])
        try:
            _write_parquet(self.files.parquet, row_schema(self.files.spec.perspectives), rows)
            self._journal.close()
            self._journal = None
            self.files.journal.unlink()
            sync_folder(self.files.journal.parent)
        except OSError as error:
            raise StoreError(
                f"{self.files.parquet} cannot be written ({error}); make room or mend the disk, then start again: "
                f"everything is kept in {self.files.journal}."
            ) from error
        # offsets are those of a journal that is gone; the statuses hold

    def _open(self) -> None:
        self._journal = Journal(self.files.journal, writable=True)
        self.index = ShardIndex()
        for offset, record in self._journal.records():
            self.index.note(offset, record)

    def _writable(self) -> Journal:
        """The journal. That of a published shard is made from what was published, before anything is added."""
        if self._journal is None:
            seed = self.files.journal.with_suffix(".tmp")
            seed.unlink(missing_ok=True)
            journal = Journal(seed, writable=True)
            seen = ShardIndex()
            try:
                for record in self.files.published_records():
                    if seen.adds(record):
                        seen.note(journal.append(record), record)
                journal.sync()
            finally:
                journal.close()
            os.replace(seed, self.files.journal)
            sync_folder(self.files.journal.parent)
            self._open()
        return self._journal


class ShardFiles:
    """Where a shard lies, and what can be read of it without being its writer."""

    def __init__(self, folder: Path, shard_id: int, spec: RationaleSpec) -> None:
        self.shard_id = shard_id
        self.spec = spec
        self.journal = folder / "shards" / f"{shard_id:05d}" / "journal.jsonl"
        self.lock = self.journal.with_name("lock")
        self.parquet = folder / "data" / f"{shard_id:05d}.parquet"

    def rows(self) -> Iterator[Row]:
        """One per post; while a run writes, those recorded when the reading began."""
        try:
            journal = Journal(self.journal, writable=False)
        except FileNotFoundError:  # not begun, or published
            yield from self._published_rows()
            return
        try:
            index = ShardIndex()
            for offset, record in journal.records():
                index.note(offset, record)
            yield from journal_rows(journal, index, self.spec, _offsets(index))
        finally:
            journal.close()

    def published_statuses(self) -> dict[str, list[str]] | None:
        """Per perspective the status of each post; `None` unless the shard is published."""
        if self.journal.exists() or not self.parquet.exists():
            return None
        columns = {perspective: f"status_{perspective}" for perspective in self.spec.perspectives}
        table = pq.read_table(self.parquet, columns=list(columns.values()))
        return {perspective: table[column].to_pylist() for perspective, column in columns.items()}

    def published_records(self) -> Iterator[Record]:
        """What was published, as the records that it was made of."""
        for row in self._published_rows():
            post = {name: row[name] for name in ("id", "image_sha256", "text_sha256", "language", "provenance")}
            first = self.spec.perspectives[0]
            if row[f"key_{first}"] is None:
                yield {"kind": "post", **post, "error": row[f"error_{first}"]}
                continue
            yield {"kind": "post", **post}
            for perspective in self.spec.perspectives:
                if row[f"status_{perspective}"] != OPEN:
                    yield {
                        "kind": "answer",
                        "perspective": perspective,
                        "text": row[f"rationale_{perspective}"],
                        "system_fingerprint": row["system_fingerprint"],
                        **{
                            name: row[f"{name}_{perspective}"]
                            for name in ("key", "status", "flags", "error", "raw", "attempts", *COUNTS)
                        },
                    }

    def _published_rows(self) -> Iterator[Row]:
        if self.parquet.exists():
            with pq.ParquetFile(self.parquet) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    yield from batch.to_pylist()


def journal_rows(journal: Journal, index: ShardIndex, spec: RationaleSpec, offsets: Sequence[int]) -> Iterator[Row]:
    for offset in offsets:
        post = journal.read(offset)
        row = {"id": _writable_text(post["id"])}
        builds = []
        for perspective in spec.perspectives:
            key, answer = None, {"status": "failed", "error": post.get("error")}
            if not post.get("error"):
                key = item_key(spec.spec_hash, post["image_sha256"], post["text_sha256"], perspective)
                answer = {"status": OPEN} if index.offset(key) is None else journal.read(index.offset(key))
            row[f"rationale_{perspective}"] = _writable_text(answer.get("text"))
            row[f"status_{perspective}"] = answer["status"]
            row[f"flags_{perspective}"] = answer.get("flags") or []
            row[f"error_{perspective}"] = _writable_text(answer.get("error"))
            row[f"raw_{perspective}"] = _writable_text(answer.get("raw"))
            row[f"attempts_{perspective}"] = answer.get("attempts") or 0
            for count in COUNTS:
                row[f"{count}_{perspective}"] = answer.get(count)
            row[f"key_{perspective}"] = key
            builds += [answer["system_fingerprint"]] if answer.get("system_fingerprint") else []
        # one server build per run, as a rule; where siblings met two, both are named
        row["system_fingerprint"] = " ".join(dict.fromkeys(builds)) or None
        for name in ("image_sha256", "text_sha256", "language", "provenance"):
            row[name] = post.get(name)
        yield row


def content_of(image_sha256: str | None, text_sha256: str | None) -> str:
    """What two posts share if they are the same to a model."""
    return f"{image_sha256 or ''}:{text_sha256 or ''}"


def sync_folder(folder: Path) -> None:
    """A name in a folder survives a power cut once the folder itself is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _offsets(index: ShardIndex) -> list[int]:
    return sorted([*index.posts.values(), *index.faulty.values()])


def _write_parquet(path: Path, schema: pa.Schema, rows: Iterator[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".parquet.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            batch: list[Row] = []
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                    batch = []
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _take(handle: int, path: Path) -> None:
    import fcntl  # not on Windows, where a store can be read all the same

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
        raise StoreError(
            f"{path.parent} is being written by {holder}; one process at a time writes a shard. Wait for it, end it, "
            "or give this process other shards."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _short(key: str) -> bytes:
    return bytes.fromhex(key[:32])


def _digest(post: Record) -> bytes:
    return _hash(post["id"], post["image_sha256"] or "", post["text_sha256"] or "")


def _digest_of_id(post: Record) -> bytes:
    return _hash(post["id"])


def _hash(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _writable_text(text: str | None) -> str | None:
    """Arrow takes no lone surrogate, and a model may answer with half an emoji."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
