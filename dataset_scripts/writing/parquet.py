"""Splits as Parquet shards with their images inside: one pass that plans and hashes, one that writes."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import embed_table_storage

# A row group is what a reader has to hold at once, also a streaming one: bounded in rows and in bytes.
ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 32 * 1024**2
# Rows looked at together while planning; images of many megabytes must fit as well.
_READ_ROWS = 16


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """How the rows of one split are cut up, and what they hold.

    Attributes:
        content_hash (`str`): over every value of every row, image bytes included; not over where images lie.
        shards (tuple of tuples of `(start, stop)`): for each shard its row groups, as half-open ranges of rows.
        num_bytes (`int`): of texts and images, uncompressed.
    """

    content_hash: str
    shards: tuple[tuple[tuple[int, int], ...], ...]
    num_bytes: int

    def file_names(self, split: str) -> list[str]:
        count = len(self.shards)
        return [f"{split}-{index:05d}-of-{count:05d}.parquet" for index in range(count)]


def plan_shards(posts: Dataset, max_shard_size: int) -> ShardPlan:
    """Reads `posts` once, a few rows at a time, and decides where shards and row groups end.

    The plan depends on the content alone, so that the same posts give the same files on any machine.

    Raises:
        ValueError: an image of the dataset cannot be read any more.
    """
    digest = hashlib.sha256(json.dumps([str(posts.features), max_shard_size]).encode())
    shards: list[list[tuple[int, int]]] = [[]]
    start = row = group_bytes = shard_bytes = total = 0
    for batch in posts.with_format("arrow").iter(batch_size=_READ_ROWS):
        for post in _embedded(batch, posts).to_pylist():
            size = _digest_row(digest, post)
            full = row - start == ROW_GROUP_ROWS or (row > start and group_bytes + size > ROW_GROUP_BYTES)
            shard_full = row > 0 and shard_bytes + size > max_shard_size
            if full or shard_full:
                shards[-1].append((start, row))
                start, group_bytes = row, 0
            if shard_full:
                shards.append([])
                shard_bytes = 0
            row += 1
            group_bytes += size
            shard_bytes += size
            total += size
    shards[-1].append((start, row))
    return ShardPlan(digest.hexdigest(), tuple(map(tuple, shards)), total)


def write_shards(posts: Dataset, plan: ShardPlan, folder: Path, split: str) -> int:
    """Writes the shards of `plan` that `folder` does not have yet; returns how many those were.

    A shard gets its name when it is complete, so an interrupted call goes on at the first one that is missing.
    """
    missing = [
        (folder / name, groups)
        for name, groups in zip(plan.file_names(split), plan.shards, strict=True)
        if not (folder / name).is_file()
    ]
    for path, groups in missing:
        _write_shard(posts, path, groups)
    return len(missing)


def _write_shard(posts: Dataset, path: Path, groups: tuple[tuple[int, int], ...]) -> None:
    # The schema carries the features, so that the file alone opens with ClassLabel and Image.
    schema = posts.features.arrow_schema
    rows = posts.with_format("arrow")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Chunks that end where the content says: a changed post then changes little of what the Hub has to take.
        with pq.ParquetWriter(
            temporary, schema, use_content_defined_chunking=True, write_page_index=True, **_compression(schema)
        ) as writer:
            for start, stop in groups:
                table = _embedded(rows[start:stop], posts)
                writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _compression(schema: pa.Schema) -> dict[str, Any]:
    """Images are compressed already; once more costs time and gains nothing."""
    leaves = {}
    for field in schema:
        parts = [f".{part.name}" for part in field.type] if pa.types.is_struct(field.type) else [""]
        leaves |= {f"{field.name}{part}": "none" if field.name == "image" else "snappy" for part in parts}
    return {"compression": leaves, "use_dictionary": [leaf for leaf in leaves if not leaf.startswith("image.")]}


def _embedded(table: pa.Table, posts: Dataset) -> pa.Table:
    """The rows with image bytes instead of paths; of a path, the file name stays."""
    try:
        return embed_table_storage(table.cast(posts.features.arrow_schema))
    except OSError as error:
        raise ValueError(
            f"an image of the posts {table['id'].to_pylist()[:_READ_ROWS]} cannot be read ({error}); put the file "
            "back or load the posts again."
        ) from None


def _digest_row(digest: Any, post: dict[str, Any]) -> int:
    """Adds the row to `digest`; its size in bytes."""
    image = (post.pop("image", None) or {}).get("bytes") or b""
    plain = json.dumps(post, ensure_ascii=False, sort_keys=True, default=str).encode()
    digest.update(len(plain).to_bytes(8, "big") + plain)
    digest.update(len(image).to_bytes(8, "big") + image)
    return len(plain) + len(image)
