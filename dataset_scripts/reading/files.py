"""Input files: listing, change detection, and lookup of names that differ in case or suffix."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

NAME_DIFFERS_NOTE = "image whose name differs in case or suffix"


def files_in(folder: Path) -> list[str]:
    """List the paths of the files in a folder, sorted by name; none without the folder."""
    return sorted(str(path) for path in folder.glob("*") if path.is_file())


def inputs_digest(files: Iterable[str | Path]) -> str:
    """Hash the names, sizes and modification times of files, missing ones included."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file)
            entry = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            entry = f"{file}\0missing\n"
        digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()


class FileNames:
    """File names of a folder, found also by a name that differs in case or suffix."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._similar: dict[str, set[str]] = {}
        for name in self._names:
            for key in _keys(name):
                self._similar.setdefault(key, set()).add(name)

    def find(self, name: str) -> str:
        """Return the one file name that matches; `name` itself if there is none or if several match."""
        if name in self._names:
            return name
        matches = (self._similar.get(key, set()) for key in _keys(name))
        return next((next(iter(names)) for names in matches if len(names) == 1), name)


def _keys(name: str) -> tuple[str, str]:
    return name.lower(), os.path.splitext(name.lower())[0]
