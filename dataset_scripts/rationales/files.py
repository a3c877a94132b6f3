"""Rows and columns of rationales at a path: a table, or the folder of a store."""

from collections.abc import Iterator
from pathlib import Path

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.rows import row_schema
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.reading.tables import Row, table_columns, table_rows


def rationale_columns(path: Path) -> list[str]:
    """List the columns of a table (CSV, TSV, JSONL, Parquet) or of a store.

    Raises:
        ValueError: neither a table nor a store, or a file that cannot be read.
    """
    return row_schema(_open_store(path).spec.perspectives).names if path.is_dir() else table_columns(path)


def rationale_rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    """Yield (location, row) of a table or store; of a damaged row of a table the fault, as text."""
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
