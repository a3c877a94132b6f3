"""Downloads as archives: unpacked once into the datasets cache."""

import dataclasses
import hashlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from datasets import config
from filelock import FileLock

from dataset_scripts.reading.option_names import option

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_RATIO_FLOOR = 64 << 20  # bytes: a small text compresses a thousandfold and does no harm
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_UTF8_NAME = 0x800  # flag of a ZIP entry


@dataclasses.dataclass(frozen=True)
class ArchiveLimits:
    """Limits of the unpacked files, against archive bombs.

    Attributes:
        max_files: number of entries, folders included.
        max_bytes: size of all files together.
        max_ratio: unpacked size divided by archive size; not checked below 64 MiB.
    """

    max_files: int = 1_000_000
    max_bytes: int = 100 << 30
    max_ratio: float = 200.0


def is_archive(path: Path) -> bool:
    """Return True for an existing file with the suffix of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def raw_folder(data_dir: Path, limits: ArchiveLimits | None = None) -> Path:
    """Return `data_dir` if it is a folder, else unpack it and return the folder of its files.

    Raises:
        ValueError: no folder and no archive, or an archive that `unpack` refuses.
    """
    if data_dir.is_dir():
        return data_dir
    if is_archive(data_dir):
        return unpack(data_dir, limits)
    problem = "is a file of another kind" if data_dir.is_file() else "does not exist"
    raise ValueError(
        f"{option('data_dir', str(data_dir))} {problem}; give the folder of the raw data, or its archive as "
        f"downloaded ({', '.join(SUFFIXES)}). Unpack other archives and give the folder."
    )


def find_root(folder: Path, marker: str) -> Path:
    """Return the folder with the file `marker`, at most two levels below `folder`.

    Raises:
        ValueError: none, or several.
    """
    if (folder / marker).is_file():
        return folder
    roots = sorted(file.parent for pattern in ("*/", "*/*/") for file in folder.glob(pattern + marker))
    if len(roots) == 1:
        return roots[0]
    if roots:
        listed = ", ".join(map(str, roots))
        raise ValueError(f"{folder} has {marker} in {len(roots)} folders ({listed}); give one of them as data_dir.")
    archives = sorted(path for path in folder.iterdir() if is_archive(path))
    hint = f" Did you mean {str(archives[0])!r}?" if len(archives) == 1 else ""
    raise ValueError(
        f"{folder} has no {marker}; data_dir must be the folder of the original download with that file, or the "
        f"archive of that folder.{hint}"
    )


def unpack(archive: Path, limits: ArchiveLimits | None = None) -> Path:
    """Unpack a ZIP or (compressed) TAR into the datasets cache and return the folder.

    It is unpacked again only if its path, size or modification time changed; an interruption leaves no partial
    folder. Names are read as UTF-8, else as GB18030. If the archive has a single folder, that folder is returned.

    Raises:
        ValueError: a TAR with paths outside the folder, links or devices; more than `limits`; a damaged, truncated or
            encrypted archive.
    """
    archive = archive.resolve()
    status = archive.stat()
    identity = hashlib.sha256(f"{archive}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = Path(config.HF_DATASETS_CACHE) / "mpt_posts" / "unpacked" / identity
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _unpack_all(archive, folder, _Budget(archive, limits or ArchiveLimits()))
    return _innermost_folder(folder)


def _unpack_all(archive: Path, folder: Path, budget: "_Budget") -> None:
    """Unpack into a temporary folder that is renamed when it is complete."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process: the lock excludes a running one
    unfinished.mkdir()
    unpack_files = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    try:
        unpack_files(archive, unfinished, budget)
        os.replace(unfinished, folder)
    except tarfile.FilterError as error:
        raise ValueError(f"{archive} is not safe to unpack: {error}. Get it from its original source.") from None
    except RuntimeError as error:  # zipfile: encrypted, or an unknown compression method
        raise ValueError(f"{archive} cannot be unpacked ({error}); unpack it yourself and give the folder.") from None
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system, such as a full disk; decompressors give no number
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(
            f"{archive} is damaged or was not downloaded completely ({type(error).__name__}: {reason}); download it "
            "again."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path, budget: "_Budget") -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        for entry in entries:
            budget.add(entry.file_size)  # `zipfile` reads no more than this size
        # zipfile reads names without the UTF-8 flag as code page 437.
        unmarked = [entry for entry in entries if not entry.flag_bits & _UTF8_NAME]
        names = _decode_names([entry.orig_filename.encode("cp437") for entry in unmarked])
        for entry, name in zip(unmarked, names, strict=True):
            entry.filename = name
        for entry in entries:
            entry.filename = entry.filename.replace("\\", "/")  # as written by Windows programs
            opened.extract(entry, folder)


def _unpack_tar(archive: Path, folder: Path, budget: "_Budget") -> None:
    def check(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        budget.add(member.size)
        if not (member.isreg() or member.isdir()):
            raise tarfile.SpecialFileError(member)
        (name,) = _decode_names([member.name.encode("utf-8", errors="surrogateescape")])
        return tarfile.data_filter(member.replace(name=name, deep=False), path)

    with tarfile.open(archive, "r:*", encoding="utf-8", errors="surrogateescape") as opened:
        opened.extractall(folder, filter=check)
        # tarfile raises no error for an archive that is cut inside a header.
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("the end of the archive is missing")


def _decode_names(names: list[bytes]) -> list[str]:
    """Decode file names as UTF-8, or all as GB18030 if one is not valid UTF-8."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return [name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            continue
    return [name.decode("cp437") for name in names]


class _Budget:
    """Number and size of the unpacked files, compared with the limits before each is written."""

    def __init__(self, archive: Path, limits: ArchiveLimits) -> None:
        self.archive, self.limits = archive, limits
        self.files = self.bytes = 0
        self.archive_size = max(archive.stat().st_size, 1)

    def add(self, size: int) -> None:
        self.files += 1
        self.bytes += size
        ratio = self.bytes / self.archive_size if self.bytes > _RATIO_FLOOR else 0
        for limit, value, amount in (
            ("max_files", self.files, f"{self.files:,} files"),
            ("max_bytes", self.bytes, f"{self.bytes:,} bytes"),
            ("max_ratio", ratio, f"{ratio:,.0f} times its size"),
        ):
            if value > (maximum := getattr(self.limits, limit)):
                raise ValueError(
                    f"{self.archive} unpacks to {amount} or more, the limit is {limit}={maximum:,}; it may be an "
                    f"archive bomb. If you trust it, unpack it yourself and give the folder: {option('data_dir')}."
                )


def _innermost_folder(folder: Path) -> Path:
    """Descend while a folder is the only entry, except those that macOS adds."""
    entries = [entry for entry in folder.iterdir() if entry.name not in ("__MACOSX", ".DS_Store")]
    return _innermost_folder(entries[0]) if len(entries) == 1 and entries[0].is_dir() else folder
