"""Rationales of a table or a store, found by the id of their post."""

from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.rationales.posts import content_hashes


class RationaleIndex:
    """Rows of rationales by the id of their post.

    Rationales stay on disk; only the ids are in memory.

    Args:
        table (`Dataset`): as `load_rationales` returns it. If a post has rows for several texts, the column
            `text_sha256` selects the row of its present text; of rows with different images, the last one counts.
        columns (`list[str]`): its columns of rationales.
        file (`Path`): its path, for messages.
    """

    def __init__(self, table: Dataset, columns: list[str], file: Path) -> None:
        self.columns, self.file = columns, file
        self._row_of: dict[str, int] = {}
        self._versions: dict[str, dict[str | None, int]] = {}  # of posts with several rows: row by `text_sha256`
        texts = table["text_sha256"] if "text_sha256" in table.column_names else None
        for row, post_id in enumerate(table["id"]):
            if post_id in self._row_of and texts is not None:
                earlier = self._row_of[post_id]
                self._versions.setdefault(post_id, {texts[earlier]: earlier})[texts[row]] = row
            self._row_of[post_id] = row
        self._table = table.select_columns(columns)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, post_id: str) -> bool:
        return post_id in self._row_of

    def an_id(self) -> str:
        """Return the id of one row, for messages."""
        return next(iter(self._row_of))

    def look_up(self, ids: list[str], texts: list[str | None]) -> dict[str, list[Any]]:
        """Return the rationales of posts by column; null for a post without a row."""
        rows = [self._find_row(post_id, text) for post_id, text in zip(ids, texts, strict=True)]
        present = [row for row in rows if row is not None]
        content = self._table[present] if present else {}
        values = {column: iter(content.get(column, ())) for column in self.columns}
        return {column: [None if row is None else next(values[column]) for row in rows] for column in self.columns}

    def _find_row(self, post_id: str, text: str | None) -> int | None:
        if post_id not in self._versions:
            return self._row_of.get(post_id)
        return self._versions[post_id].get(content_hashes({"id": post_id, "text": text})[1])
