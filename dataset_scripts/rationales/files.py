"""Rows and columns of rationales at a path: a table, or the folder of a store."""

from collections.abc import Iterator
from pathlib import Path

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.rows import row_schema
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.reading.post_ids import DAMAGED_ID, read_id
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import Row, cell_text, nested_column, table_columns, table_rows


def rationale_columns(path: Path) -> list[str]:
    """List the columns of a table (CSV, TSV, JSONL, Parquet) or of a store.

    Raises:
        ValueError: neither a table nor a store, or a file that cannot be read.
    """
    return row_schema(_open_store(path).spec.perspectives).names if path.is_dir() else table_columns(path)


def sound_rationale_rows(path: Path, columns: list[str], report: BuildReport) -> Iterator[Row]:
    """Yield the rows of a table or store with the id as text.

    Faulty rows are passed to `report.fail`.

    Args:
        path (`Path`): table or folder of a store. Rows of one id may differ in `text_sha256` or `image_sha256`.
        columns (`list[str]`): columns that must hold texts.
        report (`BuildReport`): receives the counts.
    """
    checks = RowChecks(report)
    for location, row in _rows(path):
        report.read += 1
        if not checks.has_all_fields(row, location):
            continue
        nested = nested_column(row, columns)
        if nested is not None:
            report.fail("malformed row", f"{location}: {nested!r} must be a text, got {type(row[nested]).__name__}.")
            continue
        post_id, doubt = read_id(row.get("id"))
        if post_id is None:
            report.fail("no id", f"{location}: the id is blank; write the id of the post or remove the row.")
            continue
        if doubt == DAMAGED_ID:
            report.fail("rounded id", f"{location}: the id {post_id} {DAMAGED_ID}.")
            continue
        # A store keeps the answers to earlier versions of a post.
        hashes = [cell_text(row.get(name)) for name in ("text_sha256", "image_sha256")]
        if checks.is_new_id(post_id, location, version="\0".join(filter(None, hashes))):
            row["id"] = post_id
            yield row


def _rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    if not path.is_dir():
        yield from table_rows(path)
        return
    store = _open_store(path)
    for shard_id in range(store.num_shards):
        for row in store.rows([shard_id]):
            yield f"{path}, shard {shard_id}", Row(row)


def rationale_inputs(path: Path) -> list[Path]:
    """List the files that change when the rationales do: the table, or the files of the store."""
    return sorted([*path.glob("data/*.parquet"), *path.glob("shards/*/*.jsonl")]) if path.is_dir() else [path]


def _open_store(folder: Path) -> RationaleStore:
    try:
        return RationaleStore.open(folder)
    except StoreError as error:
        raise ValueError(f"{error} A folder of rationales is the output of `generate-rationales`.") from None
