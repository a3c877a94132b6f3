"""Images decoded in parallel before their rows are kept, with a log of the results."""

import contextlib
import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import datasets
import PIL

from dataset_scripts.reading.images import pillow_heif, read_rgb, stored_image, to_rgb
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.threads import map_in_threads
from dataset_scripts.schema import has_values

# The versions that decide whether an image is decoded: after an upgrade, images are checked again.
DECODERS = (
    f"check 2, Pillow {PIL.__version__}, datasets {datasets.__version__}, {getattr(pillow_heif, '__version__', '')}"
)

_MISSING = "missing"
_METADATA = "malformed metadata"
_REPAIRED_NOTE = "image with malformed metadata (EXIF), stored upright without them"
_UNREADABLE = "{} cannot be decoded ({}); replace it or remove the row."
_LOG_LINE = re.compile(r"([0-9a-f]{16})(?: (.+))?\n")  # hash of the image's path and version, and its fault


@dataclasses.dataclass
class UncheckedRow:
    """A row that is kept if its image decodes."""

    row: dict[str, Any]  # `row["image"]` is the path of the file, or `{"bytes": …, "path": …}`
    location: str  # file and line of the row, for messages
    notes: tuple[str, ...] = ()  # notes for the report, counted if the row is kept
    # Keep a truncated JPEG, with its missing part grey (libjpeg's own filling), and count it.
    fill_truncated: bool = False


def image_fault(image: Path | Mapping[str, Any]) -> str | None:
    """Decode an image as training does, and return the reason of a failure, or None.

    For an image whose pixels alone decode, the reason is `malformed metadata`.

    Raises:
        OSError: the file cannot be read.
    """
    stored = stored_image(image)
    try:
        to_rgb(datasets.Image().decode_example(stored))
        return None
    except Exception:  # of any type: `datasets` parses and writes metadata with Pillow
        pass
    try:
        read_rgb(stored)
    except ValueError as error:
        return str(error)
    return _METADATA


def _without_metadata(image: Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return an image as PNG, upright, in RGB and without metadata."""
    decoded = read_rgb(stored_image(image))
    decoded.info = {}
    content = io.BytesIO()
    decoded.save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def filled_jpeg(path: Path) -> dict[str, Any] | None:
    """Return a truncated JPEG with an end marker as a stored image, or None if it is broken."""
    content = path.read_bytes()
    filled = {"bytes": content + b"\xff\xd9", "path": None}
    return filled if content.startswith(b"\xff\xd8") and image_fault(filled) is None else None


def check_images(posts: datasets.Dataset, where: str, report: BuildReport) -> tuple[datasets.Dataset, set[int]]:
    """Decode the images of posts once; the results are kept in the datasets cache.

    Args:
        posts (`Dataset`): posts with a column `image` of the type `Image`.
        where (`str`): their dataset, for messages.
        report (`BuildReport`): receives the images that cannot be decoded.

    Returns:
        The posts, with images of malformed metadata replaced by sound ones, and the rows that failed.
    """
    if not has_values(posts, "image"):
        return posts, set()
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "mpt_posts"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{posts._fingerprint} {DECODERS}".encode()).hexdigest()[:16]
    stored = posts.select_columns("image").cast_column("image", datasets.Image(decode=False))
    faults = stored.map(
        lambda post: {"fault": _stored_fault(post["image"])},
        features=datasets.Features({"fault": datasets.Value("string")}),
        remove_columns="image",
        new_fingerprint=digest,
        cache_file_name=str(folder / f"{digest}.image_faults"),
        desc="Checking images",
    )["fault"][:]
    if _METADATA in faults:
        report.note(_REPAIRED_NOTE, faults.count(_METADATA))
        images = stored.map(
            lambda post, row: {"image": _without_metadata(post["image"])} if faults[row] == _METADATA else post,
            with_indices=True,
            features=stored.features,
            new_fingerprint=f"{digest[:-1]}i",
            cache_file_name=str(folder / f"{digest}.images"),
            desc="Storing images",
        ).cast_column("image", datasets.Image())
        columns = posts.column_names
        posts = datasets.concatenate_datasets([posts.remove_columns("image"), images], axis=1).select_columns(columns)
    failed = {row for row, fault in enumerate(faults) if fault not in (None, _METADATA)}
    for row in sorted(failed):
        report.fail("unreadable image", f"{where}, row {row + 1}: {_UNREADABLE.format('its image', faults[row])}")
    return posts, failed


def _stored_fault(image: Mapping[str, Any] | None) -> str | None:
    try:
        return None if image is None else image_fault(image)
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"


class ImageCheckLog:
    """Results of image checks, one line each, appended as they are made.

    A result holds for one path, size, modification time and the versions in `DECODERS`. An error of the file system
    is not recorded, because it may pass. An incomplete last line, left by a crash, is ignored.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._faults: dict[int, str | None] = {}
        self._lines: TextIO | None = None
        if file.is_file():
            with open(file, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if match := _LOG_LINE.fullmatch(line):
                        self._faults[int(match[1], 16)] = match[2]

    def check(self, image: str | Path | Mapping[str, Any]) -> tuple[int | None, str | None]:
        """Look an image up, or decode it if the log has no result.

        Returns:
            The key for `record`, None if there is nothing to record; and the fault, `"missing"` or None.
        """
        if isinstance(image, Mapping):
            return None, image_fault(image)
        path = Path(image)
        try:
            status = os.stat(path)
        except OSError:
            return None, _MISSING
        identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{DECODERS}"
        key = int.from_bytes(hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=8).digest(), "big")
        if key in self._faults:
            return None, self._faults[key]
        try:
            return key, image_fault(path)
        except OSError as error:
            return None, f"the file cannot be read: {error.strerror}"

    def record(self, key: int, fault: str | None) -> None:
        """Append a result to the file."""
        if self._lines is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lines = open(self.file, "a", encoding="utf-8", buffering=1)  # line-buffered: a crash loses no line
            self._lines.write("\n")  # ends an incomplete line
        self._lines.write(f"{key:016x} {' '.join(fault.split())}\n" if fault else f"{key:016x}\n")

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()


def checked_rows(
    rows: Iterable[dict[str, Any] | UncheckedRow], report: BuildReport, log: ImageCheckLog, num_proc: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows in order; rows with a missing or broken image are passed to `report.fail`.

    Images are decoded in `num_proc` threads.

    Raises:
        ValueError: the error of the first faulty row, from `rows` or `report.fail`.
    """

    def check(row: dict[str, Any] | UncheckedRow) -> tuple[Any, int | None, str | None]:
        return (row, *log.check(row.row["image"])) if isinstance(row, UncheckedRow) else (row, None, None)

    with contextlib.closing(log):
        for row, key, fault in map_in_threads(check, rows, num_proc):
            if key is not None:
                log.record(key, fault)
            if not isinstance(row, UncheckedRow):
                yield row
            elif fault is None or _is_repaired(report, row, fault):
                for note in row.notes:
                    report.note(note)
                yield row.row


def _is_repaired(report: BuildReport, unchecked: UncheckedRow, fault: str) -> bool:
    """Replace an image that can be used in another form, or report its fault."""
    image = unchecked.row["image"]
    name = "its image" if isinstance(image, Mapping) else f"the image {image}"
    if fault == _MISSING:
        message = f"{unchecked.location}: {name} does not exist; add the file or remove the row."
        report.fail("missing image", message)
        return False
    if fault == _METADATA:
        unchecked.row["image"] = _without_metadata(image)
        report.note(_REPAIRED_NOTE)
        return True
    if unchecked.fill_truncated and (filled := filled_jpeg(Path(image))) is not None:
        unchecked.row["image"] = filled
        report.note("truncated JPEG, its missing part filled with grey")
        return True
    report.fail("unreadable image", f"{unchecked.location}: {_UNREADABLE.format(name, fault)}")
    return False
