"""Downloads as they come: an archive is unpacked once, into the datasets cache, and nothing leaves its folder."""

import dataclasses
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from datasets import config
from filelock import FileLock

_ZIP_SUFFIXES = (".zip",)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = _ZIP_SUFFIXES + _TAR_SUFFIXES
_CHUNK = 1 << 20
_RATIO_FLOOR = 64 << 20  # a small text compresses a thousandfold and does no harm
_TAR_BLOCK = 512
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_UTF8_NAME = 0x800  # flag of a ZIP entry
_ENCRYPTED = 0x1


@dataclasses.dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to; beyond it is taken for a bomb.

    Attributes:
        max_files: entries, folders included.
        max_bytes: of all files together.
        max_ratio: unpacked size by archive size; not looked at below 64 MiB.
    """

    max_files: int = 1_000_000
    max_bytes: int = 100 << 30
    max_ratio: float = 200.0


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or what else it is
    size: int  # as declared
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def raw_folder(data_dir: Path, limits: ArchiveLimits | None = None) -> Path:
    """`data_dir` if it is a folder, else the folder that the archive `data_dir` was unpacked to (`unpack`).

    Raises:
        ValueError: no folder and no archive, or an archive that `unpack` refuses.
    """
    if data_dir.is_dir():
        return data_dir
    if is_archive(data_dir):
        return unpack(data_dir, limits)
    what = "is a file of another kind" if data_dir.is_file() else "does not exist"
    raise ValueError(
        f"data_dir={str(data_dir)!r} {what}; give the folder that holds the raw data, or its archive as downloaded "
        f"({', '.join(SUFFIXES)}). Other archives: unpack them and give the folder."
    )


def find_root(folder: Path, marker: str) -> Path:
    """The folder that holds the file `marker`: `folder` itself, or the only one down to two levels below it.

    Raises:
        ValueError: none, or several.
    """
    if (folder / marker).is_file():
        return folder
    found = sorted(file.parent for pattern in ("*/", "*/*/") for file in folder.glob(pattern + marker))
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(one) for one in found)
        raise ValueError(f"{folder} holds {marker} in {len(found)} folders ({listed}); give one of them as data_dir.")
    archives = sorted(path for path in folder.iterdir() if is_archive(path))
    hint = f" Did you mean {str(archives[0])!r}?" if len(archives) == 1 else ""
    raise ValueError(
        f"{folder} has no {marker}; data_dir must be the folder of the original download that holds it, or the "
        f"archive of that folder.{hint}"
    )


def unpack(archive: Path, limits: ArchiveLimits | None = None) -> Path:
    """Unpacks a ZIP or (compressed) TAR into the datasets cache and returns the folder.

    It is unpacked once: again only when its path, size or modification time changed. File after file is streamed into
    a folder beside, which takes its name when all is written: whatever stops it leaves nothing half-made. Only files
    and folders are unpacked, without their modes and owners; this is stricter than tarfile's filter "data", which
    lets links pass that stay inside. Names that are not UTF-8 are read as GB18030. Where the archive holds a single
    folder, that folder is returned.

    Raises:
        ValueError: a name that climbs out of the folder, a link or device, more than `limits` allow, a damaged,
            truncated or encrypted archive.
    """
    archive = archive.resolve()
    status = archive.stat()
    identity = hashlib.sha256(f"{archive}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = Path(config.HF_DATASETS_CACHE) / "mpt_posts" / "unpacked" / identity
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _unpack_whole(archive, folder, limits or ArchiveLimits())
    return _only_folder(folder)


def _unpack_whole(archive: Path, folder: Path, limits: ArchiveLimits) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed; the lock says it is no other's
    unfinished.mkdir()
    try:
        _write_members(archive, unfinished, limits)
        os.replace(unfinished, folder)
    except NotImplementedError as error:
        raise ValueError(
            f"{archive} is packed in a way that Python cannot unpack ({error}); unpack it yourself, give the folder."
        ) from None
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, say; decompressors give no number
        what = str(error).partition("\n")[0].rstrip(":")  # tarfile goes on with a list of all that it tried
        raise ValueError(
            f"{archive} is damaged or was not downloaded whole ({type(error).__name__}: {what}); download it again."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_members(archive: Path, folder: Path, limits: ArchiveLimits) -> None:
    budget = _Budget(archive, limits)
    is_zip = archive.name.lower().endswith(_ZIP_SUFFIXES)
    for member in _zip_members(archive, budget) if is_zip else _tar_members(archive, budget):
        target = folder.joinpath(*_parts_inside(archive, member.name))
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        if member.kind != "file":
            raise ValueError(
                f"{archive}: {member.name!r} is a {member.kind}; only files and folders are unpacked. If you trust "
                "the archive, unpack it yourself and give the folder."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            sink = open(target, "xb")
        except (FileExistsError, NotADirectoryError):
            raise ValueError(
                f"{archive} holds {member.name!r} twice; unpack it yourself and give the folder."
            ) from None
        with sink, member.open() as source:
            while chunk := source.read(_CHUNK):
                budget.spend(len(chunk))
                sink.write(chunk)
            if sink.tell() != member.size:
                raise EOFError(f"{member.name!r} has {sink.tell():,} of {member.size:,} bytes")


class _Budget:
    """What has been unpacked so far, held against the limits."""

    def __init__(self, archive: Path, limits: ArchiveLimits) -> None:
        self.archive, self.limits = archive, limits
        self.files = self.bytes = 0
        self.packed = archive.stat().st_size

    def count(self, files: int = 1) -> None:
        self.files += files
        if self.files > self.limits.max_files:
            self._refuse(f"{self.files:,} files or more", "max_files", self.limits.max_files)

    def check(self, size: int) -> None:
        """Refuses a size before anything of it is written."""
        if self.bytes + size > self.limits.max_bytes:
            self._refuse(f"{self.bytes + size:,} bytes or more", "max_bytes", self.limits.max_bytes)
        if self.bytes + size > max(_RATIO_FLOOR, self.packed * self.limits.max_ratio):
            times = (self.bytes + size) / max(self.packed, 1)
            self._refuse(f"{times:,.0f} times its size or more", "max_ratio", self.limits.max_ratio)

    def spend(self, size: int) -> None:
        self.check(size)
        self.bytes += size

    def _refuse(self, what: str, limit: str, value: float) -> None:
        raise ValueError(
            f"{self.archive} unpacks to {what}, the limit is {limit}={value:,}; it may be a bomb. If you trust it, "
            f"raise the limit: ArchiveLimits({limit}=…)."
        )


def _parts_inside(archive: Path, name: str) -> list[str]:
    """The parts of a member's path; Windows programs write backslashes."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in parts or "\0" in path or not path:
        raise ValueError(
            f"{archive}: the path {name!r} leads out of the archive's folder; this archive is not unpacked. Get it "
            "from its original source."
        )
    return parts


def _zip_members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        budget.count(len(entries))
        budget.check(sum(entry.file_size for entry in entries))  # all of it, before a byte is written
        names = _zip_names(entries)
        for entry in entries:
            if entry.flag_bits & _ENCRYPTED:
                raise ValueError(
                    f"{archive} is encrypted ({entry.filename!r}); unpack it with its password and give the folder."
                )
        for entry, name in zip(entries, names, strict=True):
            yield _Member(name, _zip_kind(entry, name), entry.file_size, partial(opened.open, entry))


def _zip_kind(entry: zipfile.ZipInfo, name: str) -> str:
    mode = stat.S_IFMT(entry.external_attr >> 16)  # 0 where a program of Windows wrote the archive
    if name.replace("\\", "/").endswith("/") or stat.S_ISDIR(mode):
        return "folder"
    return "file" if mode in (0, stat.S_IFREG) else "link" if stat.S_ISLNK(mode) else "special file"


def _zip_names(entries: list[zipfile.ZipInfo]) -> list[str]:
    """Names of the entries. Without the UTF-8 flag zipfile reads them as code page 437; they are what the system of
    the packer used, UTF-8 or GB18030, and one archive uses one."""
    unmarked = [entry.orig_filename.encode("cp437") for entry in entries if not entry.flag_bits & _UTF8_NAME]
    encoding = next((one for one in ("utf-8", "gb18030") if all(_is_valid(raw, one) for raw in unmarked)), "cp437")
    return [
        entry.orig_filename if entry.flag_bits & _UTF8_NAME else entry.orig_filename.encode("cp437").decode(encoding)
        for entry in entries
    ]


def _is_valid(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _tar_members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*", encoding="utf-8", errors="surrogateescape") as opened:
        while (entry := opened.next()) is not None:
            opened.members.clear()  # tarfile keeps them all; tens of thousands of images would add up
            budget.count()
            budget.check(entry.size)
            yield _Member(
                _tar_name(archive, entry.name), _tar_kind(entry), entry.size, partial(opened.extractfile, entry)
            )
        _check_tar_end(opened, budget)


def _tar_kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "link"
    return "file" if entry.isreg() else "folder" if entry.isdir() else "special file"


def _tar_name(archive: Path, name: str) -> str:
    raw = name.encode("utf-8", errors="surrogateescape")
    for encoding in ("utf-8", "gb18030"):
        if _is_valid(raw, encoding):
            return raw.decode(encoding)
    raise ValueError(f"{archive}: the file name {raw!r} is neither UTF-8 nor GB18030; unpack it and give the folder.")


def _check_tar_end(opened: tarfile.TarFile, budget: _Budget) -> None:
    """A TAR ends with blocks of zeros; one cut off between two files reads like a whole one but for them."""
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
        raise EOFError("the end of the archive is missing")
    while chunk := opened.fileobj.read(_CHUNK):  # to the end: a compressed file has its checksum there
        budget.spend(len(chunk))


def _only_folder(folder: Path) -> Path:
    """The folder inside, as long as there is nothing beside it (but what macOS adds)."""
    while True:
        entries = [entry for entry in folder.iterdir() if entry.name not in ("__MACOSX", ".DS_Store")]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]
