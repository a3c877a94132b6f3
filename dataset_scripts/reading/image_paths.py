"""Image files that the cells of a table name, found also by a path of another system."""

import dataclasses
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path

from dataset_scripts.reading.files import NAME_DIFFERS_NOTE, ImageNames, name_key
from dataset_scripts.reading.report import did_you_mean, shown

BACKSLASHES_NOTE = r"image whose path has \ for /"
ESCAPES_NOTE = "image whose path has %-escapes"
OUTSIDE_NOTE = "image outside the folder of the table"

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ABSOLUTE = re.compile(r"/|\\\\|[a-z]:[\\/]", re.IGNORECASE)
_MAX_PATH = 4096  # characters: a longer cell is no path, and the file system refuses it
_MAX_SUGGESTIONS = 20  # similar names are searched for the first missing files, for messages


@dataclasses.dataclass(frozen=True)
class FoundImage:
    """The file that a cell names, or the reason why there is none.

    Attributes:
        path (`Path`, *optional*): an existing file.
        note (`str`, *optional*): difference between the cell and the path, for the build report.
        reason (`str`), problem (`str`): without a path, the reason for `report.fail`, and a clause that continues "the
            image …" with the fix.
    """

    path: Path | None = None
    note: str | None = None
    reason: str = ""
    problem: str = ""


class ImageFinder:
    """Search of the images of one table; the folders that it reads are listed once.

    A path that does not exist as written is tried with the separators of Windows, without %-escapes, and with names
    that differ in case, ending or Unicode form, if exactly one file matches.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[Path, _Listing] = {}
        self._suggestions_left = _MAX_SUGGESTIONS

    def find(self, cell: str) -> FoundImage:
        """Find the file that a cell names; the cell is not blank."""
        name = cell.strip()
        if name[:5].lower() == "data:":
            problem = "is a data: URI; save it as a file in the folder and write its relative path."
            return FoundImage(reason="image is a URL", problem=problem)
        if "\0" in name:
            return FoundImage(reason="malformed image path", problem=f"{shown(name)} has a null byte; write the path.")
        if len(name) > _MAX_PATH:
            problem = f"{shown(name)} is no path; if it is base64, save it as a file and write its relative path."
            return FoundImage(reason="malformed image path", problem=problem)
        if name[:7].lower() == "file://":
            name = urllib.request.url2pathname(urllib.parse.urlsplit(name).path)
        elif _URL.match(name):
            problem = f"{shown(name)} is a URL; download it into the folder and write its relative path."
            return FoundImage(reason="image is a URL", problem=problem)
        candidates = self._candidates(cell, name)
        for path, note in candidates:
            if _is_file(path):
                return FoundImage(path, note or self._place_note(path))
        if not _ABSOLUTE.match(name):
            for path, note in candidates:
                if (similar := self._similar(path)) is not None:
                    return FoundImage(similar, note or NAME_DIFFERS_NOTE)
        return FoundImage(reason="missing image", problem=f"{shown(name)} {self._problem(name, candidates)}")

    def _candidates(self, cell: str, name: str) -> list[tuple[Path, str | None]]:
        """List the readings of a cell as a path, with their notes."""
        texts: dict[str, str | None] = {name: None, cell: None}
        if name.startswith("~"):
            texts[os.path.expanduser(name)] = None
        if "\\" in name:
            texts.setdefault(name.replace("\\", "/"), BACKSLASHES_NOTE)
        if "%" in name:
            texts.setdefault(urllib.parse.unquote(name), ESCAPES_NOTE)
            texts.setdefault(urllib.parse.unquote(name).replace("\\", "/"), ESCAPES_NOTE)
        return [(self.folder / text, note) for text, note in texts.items() if "\0" not in text]

    def _place_note(self, path: Path) -> str | None:
        inside = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(self.folder))
        return None if inside else OUTSIDE_NOTE

    def _similar(self, path: Path) -> Path | None:
        """Return the one file whose folders and name differ in case, ending or Unicode form."""
        try:
            parts = path.relative_to(self.folder).parts
        except ValueError:
            return None
        found = self.folder
        for part in parts[:-1]:
            name = part if part == ".." or (found / part).is_dir() else self._listing(found).folder(part)
            if name is None:
                return None
            found /= name
        name = self._listing(found).images.find(parts[-1]) if parts else None
        return None if name is None else found / name

    def _problem(self, name: str, candidates: list[tuple[Path, str | None]]) -> str:
        for path, _ in candidates:
            if _exists(path):
                return "is a folder; write the path of a file." if path.is_dir() else "is no file; write its path."
        tail = re.split(r"[\\/]", name)[-1]
        suggestion = self._suggestion(tail)
        if _ABSOLUTE.match(name):
            return f"does not exist; write paths relative to {self.folder}.{suggestion}"
        return f"does not exist; add the file or remove the row.{suggestion}"

    def _suggestion(self, name: str) -> str:
        if not self._suggestions_left or not name:
            return ""
        self._suggestions_left -= 1
        folders = [self.folder, *(self.folder / name for name in self._listing(self.folder).folders[:50])]
        files = [folder.relative_to(self.folder) / name for folder in folders if _is_file(folder / name)]
        if len(files) == 1:
            return f" Did you mean {files[0].as_posix()!r}?"
        names = [
            (folder.relative_to(self.folder) / file).as_posix()
            for folder in folders
            for file in self._listing(folder).files[:2000]
        ]
        return did_you_mean(name, names)

    def _listing(self, folder: Path) -> "_Listing":
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]


class _Listing:
    """Names of the files and folders in a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            entries = []
        self.folders = [entry.name for entry in entries if entry.is_dir()]
        self.files = [entry.name for entry in entries if not entry.is_dir()]
        self.images = ImageNames(self.files)

    def folder(self, name: str) -> str | None:
        """Return the one folder with this name in another case or Unicode form."""
        names = [folder for folder in self.folders if name_key(folder) == name_key(name)]
        return names[0] if len(names) == 1 else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long for the file system
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
