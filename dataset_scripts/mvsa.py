"""MVSA-Single from its original download (Niu et al. 2016), merged by MultiSentiNet's rule (Xu and Mao 2017)."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from .build import BuildReport, build_dataset, check_image, did_you_mean, inputs_digest
from .schema import LABELS, features

logger = logging.getLogger(__name__)

LABEL_FILE = "labelResultAll.txt"
# Of a full download: rows, and posts of each class that the rule keeps.
FULL_ROWS = 4869
FULL_LABELS = {"positive": 2683, "neutral": 470, "negative": 1358}


def merge_labels(text_label: str, image_label: str) -> str | None:
    """MultiSentiNet's rule: a polarity wins over neutral; opposite polarities give None, and the post is dropped."""
    if text_label == image_label:
        return text_label
    if "neutral" in (text_label, image_label):
        return image_label if text_label == "neutral" else text_label
    return None


def decode_text(raw: bytes) -> tuple[str, str]:
    """The text and the encoding it was read with.

    A quarter of the files are GB18030 (curly quotes, ellipses), the rest UTF-8. Bytes valid in neither become U+FFFD
    (`"damaged"`). A `??` is an emoji that was lost before publication; it stays as it is.
    """
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding).strip(), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("gb18030", errors="replace").strip(), "damaged"


def load_mvsa_single(data_dir: str | Path, on_error: str = "raise") -> tuple[Dataset, BuildReport]:
    """The posts of MVSA-Single, with both modality labels.

    Args:
        data_dir (`str` or `Path`): holds `labelResultAll.txt`, `data/ID.jpg` and `data/ID.txt`.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without image, text, or with other faults.

    Returns:
        The dataset (4,511 posts from a full download of 4,869) and the `BuildReport`.

    Raises:
        ValueError: no such layout, or (unless skipped) a malformed row, duplicate id, unknown label, missing or
            unreadable image, missing or empty text.
    """
    data_dir = Path(data_dir).resolve()
    label_file = data_dir / LABEL_FILE
    if not label_file.is_file():
        nested = [str(file.parent) for file in sorted(data_dir.glob(f"*/{LABEL_FILE}"))]
        raise ValueError(
            f"{data_dir} has no {LABEL_FILE}; data_dir must be the folder of the original download that holds it, "
            f"beside the folder data/." + (f" Did you mean {nested[0]!r}?" if len(nested) == 1 else "")
        )
    posts, report = build_dataset(
        "mvsa_single",
        _rows,
        features(),
        inputs=inputs_digest([label_file, *sorted((data_dir / "data").glob("*"))]),
        options={"data_dir": str(data_dir)},
        on_error=on_error,
    )
    if report.read != FULL_ROWS:
        logger.warning(
            "%s has %d rows, a full download %d: results are not comparable with published ones",
            label_file,
            report.read,
            FULL_ROWS,
        )
    elif report.labels != FULL_LABELS:
        logger.warning(
            "%s: kept %s, a full download gives %s; see what was skipped: %s",
            label_file,
            report.labels,
            FULL_LABELS,
            report.skipped or "nothing",
        )
    return posts, report


def label_rows(report: BuildReport, label_file: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """The well-formed rows of `ID<TAB>text,image` that the rule keeps: place, id, label, text label, image label."""
    seen: dict[str, int] = {}
    with open(label_file, encoding="utf-8-sig", errors="replace") as lines:  # a bad byte is an unknown label below
        for number, line in enumerate(lines, start=1):
            fields = line.split(maxsplit=1)
            if not fields or (number == 1 and fields[0].lower() == "id"):
                continue
            report.read += 1
            where = f"{label_file}, line {number}"
            labels = [label.strip().lower() for label in fields[1].split(",")] if len(fields) == 2 else []
            if len(labels) != 2:
                report.fail("malformed row", f"{where}: {line.strip()!r}; a row must read ID<TAB>text,image. Mend it.")
                continue
            post = fields[0]
            unknown = [label for label in labels if label not in LABELS]
            if unknown:
                report.fail(
                    "unknown label",
                    f"{where}: label {unknown[0]!r}; known are {', '.join(LABELS)}."
                    + (did_you_mean(unknown[0], LABELS) or " Correct the row."),
                )
                continue
            if post in seen:
                report.fail("duplicate id", f"{where}: id {post!r} is also on line {seen[post]}; remove one.")
                continue
            seen[post] = number
            label = merge_labels(*labels)
            if label is None:
                report.drop(f"opposite polarities ({labels[0]} text, {labels[1]} image)")
                continue
            yield where, post, label, labels[0], labels[1]


def _rows(report: BuildReport, data_dir: str) -> Iterator[dict[str, Any]]:
    data = Path(data_dir) / "data"
    for where, post, label, text_label, image_label in label_rows(report, Path(data_dir) / LABEL_FILE):
        text_file, image_file = data / f"{post}.txt", data / f"{post}.jpg"
        if not text_file.is_file():
            report.fail("missing text", f"{where}: the text {text_file} does not exist; add it or remove the row.")
            continue
        text, encoding = decode_text(text_file.read_bytes())
        if not text:
            report.fail("empty text", f"{where}: the text {text_file} is empty; write it or remove the row.")
            continue
        if not check_image(report, image_file, where):
            continue
        if encoding == "gb18030":
            report.note("text read as GB18030")
        elif encoding == "damaged":
            report.note("text with bytes of no encoding, replaced by U+FFFD")
        yield {
            "id": post,
            "image": str(image_file),
            "text": text,
            "rationale_positive": None,
            "rationale_neutral": None,
            "rationale_negative": None,
            "label": label,
            "text_label": text_label,
            "image_label": image_label,
            "language": "en",
            "source": "mvsa_single",
        }
