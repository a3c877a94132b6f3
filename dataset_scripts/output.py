"""Output shared by all packages: atomic files and Markdown tables."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A full disk as C, C++ and Rust libraries report it, without the number of the error.
_DISK_FULL = re.compile(
    r"No space left on device|os error 28|quota exceeded|disk is full$|inline_container.*unexpected pos"
    r"|PytorchStreamWriter failed writing",
    re.IGNORECASE,
)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, renamed to `path` when the block succeeds.

    The file at `path` is always complete, and a failure does not change it. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk_named(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], name: str = "output_dir", *, is_file: bool = False) -> None:
    """Check that results can be written at a path, by writing a temporary file there.

    Called before work that takes hours. Nothing is left: for a folder that does not exist, its nearest existing parent
    is tried.

    Args:
        path (`str` or `Path`): folder of results, or their file.
        name (`str`): name of the argument.
        is_file (`bool`): whether `path` is a file.

    Raises:
        ValueError: a file in the place of a folder or the reverse, or a folder that cannot be written.
    """
    path = Path(path)
    try:
        if is_file and path.is_dir():
            raise ValueError(f"`{name}` must be a file, but {path} is a folder. Name a file in it.")
        folder = path.parent if is_file else path
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise ValueError(f"`{name}` {path} cannot be written: {folder} is not a folder. Choose another place.")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise ValueError(
            f"`{name}` {path} cannot be written: {error.strerror}. Name a folder that can be written, with free space."
        ) from error


@contextmanager
def full_disk_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of a full disk name the path that was being written.

    Raises:
        OSError: the disk is full, as libraries report it in several types.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error) and not getattr(error, "filename", None):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Return whether an exception, without those that caused it, says that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return True
    return not isinstance(error, ValueError) and bool(_DISK_FULL.search(str(error)))


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
