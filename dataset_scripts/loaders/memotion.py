"""Memotion 7k (Sharma et al. 2020, SemEval-2020 task 8): memes and the text on them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.reading.archives import find_root
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import NAME_DIFFERS_NOTE, ImageNames, files_in, inputs_digest
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.report import BuildReport, PublishedCounts, did_you_mean
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import cell_text, table_columns, table_rows
from dataset_scripts.schema import LABELS, features, post_row

MEMOTION = DatasetFacts(
    title="Memotion 7k",
    about="Memes of SemEval-2020 task 8, each with the text in it, from the training file. The five "
    "degrees of `overall_sentiment` are merged into three: very positive into positive, very negative into negative.",
    citations=(
        """\
@article{sharma2020memotion,
  title = {{SemEval}-2020 Task 8: Memotion Analysis -- The Visuo-Lingual Metaphor!},
  author = {Sharma, Chhavi and Bhageria, Deepesh and Scott, William and Pykl, Srinivas and Das, Amitava and
            Chakraborty, Tanmoy and Pulabagari, Viswanath and Gamb{\\"a}ck, Bj{\\"o}rn},
  journal = {arXiv preprint arXiv:2008.03781},
  year = {2020}
}""",
    ),
    table_1=(5594, 699, 699),
)
# Counts of the training file. The paper does not use the test set of the task.
PUBLISHED = PublishedCounts(6992, {"positive": 4160, "neutral": 2201, "negative": 631})
LABEL_FILE = "labels.csv"
DEGREES = {label: label for label in LABELS} | {"very_positive": "positive", "very_negative": "negative"}
_COLUMNS = ("image_name", "text_corrected", "text_ocr", "overall_sentiment")
_NULL = frozenset(("nan", "null", "none"))  # written for an empty cell; pandas reads them as null too


def load_memotion(
    data_dir: str | Path, on_error: str = "raise", *, fill_truncated: bool = True, num_proc: int | None = None
) -> tuple[Dataset, BuildReport]:
    """Load the posts of Memotion 7k, with the five degrees of sentiment as three classes.

    The text is `text_corrected`, or `text_ocr` if that is null; a meme with neither is kept with an empty text.
    Images are kept as stored: JPEG, PNG with transparency, GIF of several frames (the first counts). A name in the
    table may differ from the file's in case or suffix. The id is the image's name without suffix.

    Args:
        data_dir (`str` or `Path`): folder with `labels.csv` and the folder `images`.
        on_error, num_proc: See [`load_posts`].
        fill_truncated (`bool`, defaults to `True`):
            Keep a truncated JPEG, of which the download has some, with its missing part grey, and count it; `False`
            treats it as unreadable.

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
        published=PUBLISHED,
    )


def meme_rows(report: BuildReport, label_file: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the well-formed rows as (location, id, image name, text, label)."""
    checks = RowChecks(report)
    for location, row in table_rows(label_file):
        report.read += 1
        if not checks.has_all_fields(row, location):
            continue
        image = cell_text(row["image_name"])
        if image is None:
            report.fail("no image name", f"{location}: image_name is blank; write it or remove the row.")
            continue
        post_id = os.path.splitext(image)[0]
        degree = (cell_text(row["overall_sentiment"]) or "").lower()
        if checks.is_known_label(degree, DEGREES, location) and checks.is_new_id(post_id, location):
            text = _text(row["text_corrected"]) or _text(row["text_ocr"]) or ""
            yield location, post_id, image, text, DEGREES[degree]


def _text(cell: Any) -> str | None:
    text = cell_text(cell)
    return None if text is None or text.lower() in _NULL else text


def _rows(report: BuildReport, root: str, fill_truncated: bool) -> Iterator[UncheckedRow]:
    folder = Path(root) / "images"
    images = ImageNames(map(os.path.basename, files_in(folder)))
    for location, post_id, image, text, label in meme_rows(report, Path(root) / LABEL_FILE):
        file_name = images.find(image) or image
        notes = [NAME_DIFFERS_NOTE] if file_name != image else []
        if not text:
            notes.append("without text")
        path = str(folder / file_name)
        row = post_row(post_id, text=text, image=path, label=label, language="en", source="memotion")
        yield UncheckedRow(row, location, tuple(notes), fill_truncated)
