"""Rows of a shard, one per post, and their conversion from and to records of its log."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.output import atomic_path
from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.spec import item_key
from dataset_scripts.rationales.store.old_names import current_status
from dataset_scripts.rationales.store.shard_index import OPEN, Record, ShardIndex

if TYPE_CHECKING:
    from dataset_scripts.rationales.spec import RationaleSpec
    from dataset_scripts.rationales.store.record_log import RecordLog

TOKEN_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_POST_FIELDS = ("image_sha256", "text_sha256", "language", "provenance")
_BATCH = 1000

Row = dict[str, Any]


def row_schema(perspectives: Sequence[str]) -> pa.Schema:
    """Build the Arrow schema of a published shard."""
    fields = [("id", pa.string())]
    for perspective in perspectives:
        fields += [
            (f"rationale_{perspective}", pa.string()),
            (f"status_{perspective}", pa.string()),
            (f"flags_{perspective}", pa.list_(pa.string())),
            (f"error_{perspective}", pa.string()),
            (f"raw_{perspective}", pa.string()),
            (f"attempts_{perspective}", pa.int32()),
            *((f"{count}_{perspective}", pa.int32()) for count in TOKEN_COUNTS),
            (f"key_{perspective}", pa.string()),
        ]
    return pa.schema(fields + [(name, pa.string()) for name in ("system_fingerprint", *_POST_FIELDS)])


def rows_of_log(log: RecordLog, index: ShardIndex, spec: RationaleSpec, offsets: Iterable[int]) -> Iterator[Row]:
    """Yield the rows of the posts at `offsets`."""
    for offset in offsets:
        post = log.read(offset)
        row = {"id": _valid_unicode(post["id"])}
        fingerprints = []
        for perspective in spec.perspectives:
            key, answer = None, {"status": "failed", "error": post.get("error")}
            if not post.get("error"):
                key = item_key(spec.spec_hash, post["image_sha256"], post["text_sha256"], perspective)
                answer = {"status": OPEN} if index.offset(key) is None else log.read(index.offset(key))
            row[f"rationale_{perspective}"] = _valid_unicode(answer.get("text"))
            row[f"status_{perspective}"] = current_status(answer["status"])
            row[f"flags_{perspective}"] = answer.get("flags") or []
            row[f"error_{perspective}"] = _valid_unicode(answer.get("error"))
            row[f"raw_{perspective}"] = _valid_unicode(answer.get("raw"))
            row[f"attempts_{perspective}"] = answer.get("attempts") or 0
            for count in TOKEN_COUNTS:
                row[f"{count}_{perspective}"] = answer.get(count)
            row[f"key_{perspective}"] = key
            fingerprints += [answer["system_fingerprint"]] if answer.get("system_fingerprint") else []
        # several if the server was replaced between two perspectives
        row["system_fingerprint"] = " ".join(dict.fromkeys(fingerprints)) or None
        yield row | {name: post.get(name) for name in _POST_FIELDS}


def records_of_row(row: Row, perspectives: Sequence[str]) -> Iterator[Record]:
    """Yield the records that a published row was made of."""
    post = {"kind": "post", "id": row["id"], **{name: row[name] for name in _POST_FIELDS}}
    first = perspectives[0]
    if row[f"key_{first}"] is None:
        yield post | {"error": row[f"error_{first}"]}
        return
    yield post
    for perspective in perspectives:
        if row[f"status_{perspective}"] != OPEN:
            fields = ("key", "status", "flags", "error", "raw", "attempts", *TOKEN_COUNTS)
            yield {
                "kind": "answer",
                "perspective": perspective,
                "text": row[f"rationale_{perspective}"],
                "system_fingerprint": row["system_fingerprint"],
                **{field: row[f"{field}_{perspective}"] for field in fields},
            }


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Name the file of a published shard that cannot be read.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        yield
    except pa.ArrowException as error:
        raise StoreError(
            f"{path} is damaged ({' '.join(str(error).split())[:150]}). Restore this file, or delete it: the next run "
            "requests its rationales again."
        ) from None


def read_parquet(path: Path, perspectives: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a published shard.

    Raises:
        StoreError: the file is damaged.
    """
    with readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                yield row | {f"status_{name}": current_status(row[f"status_{name}"]) for name in perspectives}


def write_parquet(path: Path, schema: pa.Schema, rows: Iterator[Row]) -> None:
    """Write rows to a Parquet file, complete and flushed to the disk before it gets its name."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process
        leftover.unlink()
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while batch := list(islice(rows, _BATCH)):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that new names in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _valid_unicode(text: str | None) -> str | None:
    """Replace half surrogate pairs, which a model may answer and Arrow refuses."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
