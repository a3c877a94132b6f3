"""Output shared by all packages: atomic files and Markdown tables."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, renamed to `path` when the block succeeds.

    The file at `path` is always complete, and a failure does not change it. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file that is complete or absent."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown_table(header: Sequence[Any], rows: Sequence[Sequence[Any]], align: str | None = None) -> str:
    """Format a Markdown table. `|` inside a cell is escaped.

    Args:
        header (sequence): one title per column.
        rows (sequence of sequences): cells, converted with `str`; `None` becomes an empty cell.
        align (`str`, *optional*): one of `l`, `r` per column; by default the first column is left-aligned and the
            others are right-aligned.
    """
    align = align or "l" + "r" * (len(header) - 1)
    rules = ["---" if side == "l" else "---:" for side in align]
    cells = [["" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    lines = [cells[0], rules, *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
