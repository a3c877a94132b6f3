"""Memotion 7k from its original download (Sharma et al. 2020, SemEval-2020 task 8): memes and the text on them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.archives import find_root
from dataset_scripts.reading.build import build_dataset, files_in, inputs_digest
from dataset_scripts.reading.image_checks import Unchecked
from dataset_scripts.reading.report import BuildReport, Published, did_you_mean
from dataset_scripts.reading.tables import cell_text, table_columns, table_rows
from dataset_scripts.schema import features

LABEL_FILE = "labels.csv"
# The training file, which is what the paper splits. It does not use the task's own test set.
MEMOTION = Published(6992, {"positive": 4160, "neutral": 2201, "negative": 631})
DEGREES = {
    "very_negative": "negative",
    "negative": "negative",
    "neutral": "neutral",
    "positive": "positive",
    "very_positive": "positive",
}
_COLUMNS = ("image_name", "text_corrected", "text_ocr", "overall_sentiment")
_NULL = frozenset(("nan", "null", "none"))  # written for an empty cell; pandas reads them as null too


def load_memotion(
    data_dir: str | Path, on_error: str = "raise", *, fill_truncated: bool = True, num_proc: int | None = None
) -> tuple[Dataset, BuildReport]:
    """The posts of Memotion 7k; the five degrees of `overall_sentiment` become three classes.

    The text is `text_corrected`, or `text_ocr` where that is null; a meme with neither stays, with an empty text.
    Images come as stored: JPEG, PNG with transparency, GIF of several frames (the first counts), whatever their names
    end in. A name in the table that differs from the file's in case or ending finds it. The id is the image's name
    without ending.

    Args:
        data_dir (`str` or `Path`): holds `labels.csv` and the folder `images`.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for faulty rows and images.
        fill_truncated (`bool`, defaults to `True`):
            A JPEG that ends early, as some of the download do, is kept with its missing part grey, counted; `False`
            takes it for an unreadable image.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.

    Returns:
        The dataset (6,992 posts from a full download) and the `BuildReport`.

    Raises:
        ValueError: no such layout, or (unless skipped) a malformed row, unknown sentiment, duplicate id, missing or
            unreadable image.
    """
    root = find_root(Path(data_dir).resolve(), LABEL_FILE)
    columns = table_columns(root / LABEL_FILE)
    for column in _COLUMNS:
        if column not in columns:
            raise ValueError(
                f"{root / LABEL_FILE} has no column {column!r}; its columns are {', '.join(map(repr, columns))}. "
                "Is this the labels.csv of SemEval-2020 task 8?" + did_you_mean(column, columns)
            )
    return build_dataset(
        "memotion",
        _rows,
        features(),
        inputs=inputs_digest([root / LABEL_FILE, *files_in(root / "images")]),
        options={"root": str(root), "fill_truncated": fill_truncated},
        on_error=on_error,
        num_proc=num_proc,
        published=MEMOTION,
    )


def meme_rows(report: BuildReport, label_file: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """The well-formed rows: place, id, image name, text, label."""
    seen: dict[str, str] = {}
    for where, row in table_rows(label_file):
        report.read += 1
        if row is None:
            report.fail("malformed row", f"{where}: not as many fields as the header names; mend the row.")
            continue
        image = cell_text(row["image_name"])
        if image is None:
            report.fail("no image name", f"{where}: image_name is blank; write it or remove the row.")
            continue
        post = os.path.splitext(image)[0]
        degree = (cell_text(row["overall_sentiment"]) or "").lower()
        if degree not in DEGREES:
            report.fail(
                "unknown label",
                f"{where}: overall_sentiment {degree!r}; known are {', '.join(DEGREES)}."
                + (did_you_mean(degree, DEGREES) or " Correct the row."),
            )
            continue
        if post in seen:
            report.fail("duplicate id", f"{where}: id {post!r} is also in {seen[post]}; remove one of the two.")
            continue
        seen[post] = where.rpartition(", ")[2]
        text = _text(row["text_corrected"]) or _text(row["text_ocr"]) or ""
        yield where, post, image, text, DEGREES[degree]


def _text(cell: Any) -> str | None:
    text = cell_text(cell)
    return None if text is None or text.lower() in _NULL else text


class _Images:
    """Finds a file by the name that a table gives it, whose case and ending may be another program's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()
        self._like: dict[str, set[str]] = {}
        for path in files_in(folder):
            name = os.path.basename(path)
            self.names.add(name)
            for key in (name.lower(), os.path.splitext(name.lower())[0]):
                self._like.setdefault(key, set()).add(name)

    def find(self, name: str) -> str:
        """Name of the file; `name` itself if there is none or no single one."""
        if name in self.names:
            return name
        for key in (name.lower(), os.path.splitext(name.lower())[0]):
            if len(found := self._like.get(key, ())) == 1:
                return next(iter(found))
        return name


def _rows(report: BuildReport, root: str, fill_truncated: bool) -> Iterator[Unchecked]:
    images = _Images(Path(root) / "images")
    for where, post, image, text, label in meme_rows(report, Path(root) / LABEL_FILE):
        found = images.find(image)
        notes = ["image found under another case or ending"] if found != image else []
        if not text:
            notes.append("without text")
        row = {
            "id": post,
            "image": str(images.folder / found),
            "text": text,
            "rationale_positive": None,
            "rationale_neutral": None,
            "rationale_negative": None,
            "label": label,
            "text_label": None,
            "image_label": None,
            "language": "en",
            "source": "memotion",
        }
        yield Unchecked(row, where, tuple(notes), fill_truncated)
