"""Input files: listing, change detection, and lookup of names that differ in form."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import PIL.Image

NAME_DIFFERS_NOTE = "image whose name differs in case, ending or Unicode form"


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


def name_key(name: str) -> str:
    """Return a file name in one case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


class ImageNames:
    """Names of the images in a folder, found also if case, ending or Unicode form differ."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._by_key: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._endings = {*PIL.Image.registered_extensions(), ".heic", ".heif"}
        for name in self._names:
            stem, ending = os.path.splitext(name_key(name))
            self._by_key.setdefault(name_key(name), []).append(name)
            if ending in self._endings and not name.startswith("._"):
                self._by_stem.setdefault(stem, []).append(name)

    def find(self, name: str) -> str | None:
        """Return `name` if it is a file, else the one file that matches; None for none or several."""
        if name in self._names:
            return name
        key = name_key(name)
        stem, ending = os.path.splitext(key)
        found = self._by_key.get(key) or self._by_stem.get(stem if ending in self._endings else key, [])
        return found[0] if len(found) == 1 else None
