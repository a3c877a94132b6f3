"""Parquet files with embedded images: one pass plans and hashes them, one writes them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import embed_table_storage

from dataset_scripts.output import atomic_path

# A reader holds one row group in memory, also when streaming.
ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 32 * 1024**2
_PLAN_BATCH = 16  # rows with embedded images in memory while planning


@dataclasses.dataclass(frozen=True)
class ParquetPlan:
    """Division of a split into files and row groups."""

    content_hash: str  # of all values including image bytes, without the paths of images
    files: tuple[tuple[tuple[int, int], ...], ...]  # row groups of each file, as half-open ranges of rows
    num_bytes: int  # uncompressed size of texts and images

    def file_names(self, split: str) -> list[str]:
        """Return the names of the files, as `datasets` names them."""
        count = len(self.files)
        return [f"{split}-{index:05d}-of-{count:05d}.parquet" for index in range(count)]


def plan_parquet(posts: Dataset, max_file_size: int) -> ParquetPlan:
    """Read all posts once, a few at a time, and set the ends of files and row groups.

    The plan depends on the content only: the same posts give the same files on any machine. `max_file_size` counts
    uncompressed bytes.

    Raises:
        ValueError: an image of the dataset cannot be read.
    """
    digest = hashlib.sha256(json.dumps([str(posts.features), max_file_size]).encode())
    files: list[list[tuple[int, int]]] = [[]]
    start = row = group_bytes = file_bytes = total = 0
    for batch in posts.with_format("arrow").iter(batch_size=_PLAN_BATCH):
        for post in _embed_images(batch, posts).to_pylist():
            size = _update_digest(digest, post)
            group_full = row - start == ROW_GROUP_ROWS or (row > start and group_bytes + size > ROW_GROUP_BYTES)
            file_full = row > 0 and file_bytes + size > max_file_size
            if group_full or file_full:
                files[-1].append((start, row))
                start, group_bytes = row, 0
            if file_full:
                files.append([])
                file_bytes = 0
            row += 1
            group_bytes += size
            file_bytes += size
            total += size
    files[-1].append((start, row))
    return ParquetPlan(digest.hexdigest(), tuple(map(tuple, files)), total)


def write_parquet(posts: Dataset, plan: ParquetPlan, folder: Path, split: str) -> int:
    """Write the files of `plan` that `folder` lacks, and return their number.

    A file has its final name only once complete, so that a repeated call resumes at the first missing file.
    """
    missing = [
        (folder / name, groups)
        for name, groups in zip(plan.file_names(split), plan.files, strict=True)
        if not (folder / name).is_file()
    ]
    for path, groups in missing:
        _write_file(posts, path, groups)
    return len(missing)


def _write_file(posts: Dataset, path: Path, groups: tuple[tuple[int, int], ...]) -> None:
    schema = posts.features.arrow_schema  # carries the features: the file alone opens with ClassLabel and Image
    rows = posts.with_format("arrow")
    # With content-defined chunks, a changed post changes few of the chunks that the Hub stores.
    options = {"use_content_defined_chunking": True, "write_page_index": True} | _compression(schema)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for start, stop in groups:
            table = _embed_images(rows[start:stop], posts)
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)


def _compression(schema: pa.Schema) -> dict[str, Any]:
    """Compress all columns except images, which are compressed already."""
    columns = {}
    for field in schema:
        parts = [f".{part.name}" for part in field.type] if pa.types.is_struct(field.type) else [""]
        columns |= {f"{field.name}{part}": "none" if field.name == "image" else "snappy" for part in parts}
    return {"compression": columns, "use_dictionary": [name for name in columns if not name.startswith("image.")]}


def _embed_images(table: pa.Table, posts: Dataset) -> pa.Table:
    """Replace image paths by image bytes; the file name of a path remains."""
    try:
        return embed_table_storage(table.cast(posts.features.arrow_schema))
    except OSError as error:
        raise ValueError(
            f"An image of the posts {table['id'].to_pylist()[:_PLAN_BATCH]} cannot be read ({error}). Restore the "
            "file, or load the posts again."
        ) from None


def _update_digest(digest: Any, post: dict[str, Any]) -> int:
    """Add a row to `digest` and return its size in bytes."""
    image = (post.pop("image", None) or {}).get("bytes") or b""
    values = json.dumps(post, ensure_ascii=False, sort_keys=True, default=str).encode()
    for content in (values, image):
        digest.update(len(content).to_bytes(8, "big") + content)
    return len(values) + len(image)
