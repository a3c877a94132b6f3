"""MVSA from its original downloads (Niu et al. 2016), merged by MultiSentiNet's rule (Xu and Mao 2017)."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from datasets import Dataset

from dataset_scripts.reading.archives import find_root
from dataset_scripts.reading.build import build_dataset, files_in, inputs_digest
from dataset_scripts.reading.image_checks import Unchecked
from dataset_scripts.reading.report import BuildReport, Published, did_you_mean
from dataset_scripts.reading.text_files import decode_text, encoding_notes
from dataset_scripts.schema import LABELS, features

LABEL_FILE = "labelResultAll.txt"
SINGLE = Published(4869, {"positive": 2683, "neutral": 470, "negative": 1358})
MULTIPLE = Published(19600, {"positive": 11318, "neutral": 4408, "negative": 1298})
MULTIPLE_WITH_UNLISTED = Published(19600, {"positive": 11320, "neutral": 4408, "negative": 1299})
# The rule keeps them, but no published list of MVSA-Multiple has them.
UNLISTED_IDS = ("3910", "5995", "15324")
_ANNOTATORS = {"mvsa_single": 1, "mvsa_multiple": 3}


def merge_labels(text_label: str, image_label: str) -> str | None:
    """MultiSentiNet's rule: a polarity wins over neutral; opposite polarities give None, and the post is dropped."""
    if text_label == image_label:
        return text_label
    if "neutral" in (text_label, image_label):
        return image_label if text_label == "neutral" else text_label
    return None


def majority(labels: Sequence[str]) -> str | None:
    """The label that more than half of the annotators gave one modality, or None."""
    label, votes = Counter(labels).most_common(1)[0]
    return label if 2 * votes > len(labels) else None


def load_mvsa_single(
    data_dir: str | Path, on_error: str = "raise", *, num_proc: int | None = None
) -> tuple[Dataset, BuildReport]:
    """The posts of MVSA-Single, with both modality labels.

    Args:
        data_dir (`str` or `Path`): holds `labelResultAll.txt`, `data/ID.jpg` and `data/ID.txt`.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without image, text, or with other faults.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.

    Returns:
        The dataset (4,511 posts from a full download of 4,869) and the `BuildReport`.

    Raises:
        ValueError: no such layout, or (unless skipped) a malformed row, duplicate id, unknown label, missing or
            unreadable image, missing or empty text.
    """
    return _load("mvsa_single", data_dir, on_error, num_proc, (), SINGLE)


def load_mvsa_multiple(
    data_dir: str | Path, on_error: str = "raise", *, keep_unlisted: bool = False, num_proc: int | None = None
) -> tuple[Dataset, BuildReport]:
    """The posts of MVSA-Multiple, with both modality labels.

    Three annotators labelled each post. First the majority of each modality is taken, and a post without one is
    dropped; then MultiSentiNet's rule applies. (Merging per annotator first gives other labels and other posts.)

    Args:
        data_dir (`str` or `Path`): holds `labelResultAll.txt`, `data/ID.jpg` and `data/ID.txt`.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without image, text, or with other faults.
        keep_unlisted (`bool`, defaults to `False`):
            Keep the posts 3910, 5995 and 15324, which the rule keeps and every published list lacks.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.

    Returns:
        The dataset (17,024 posts from a full download of 19,600; 17,027 with `keep_unlisted`) and the `BuildReport`.

    Raises:
        ValueError: as `load_mvsa_single`.
    """
    left_out, published = ((), MULTIPLE_WITH_UNLISTED) if keep_unlisted else (UNLISTED_IDS, MULTIPLE)
    return _load("mvsa_multiple", data_dir, on_error, num_proc, left_out, published)


def _load(
    source: str,
    data_dir: str | Path,
    on_error: str,
    num_proc: int | None,
    left_out: Collection[str],
    published: Published,
) -> tuple[Dataset, BuildReport]:
    root = find_root(Path(data_dir).resolve(), LABEL_FILE)
    return build_dataset(
        source,
        _rows,
        features(),
        inputs=inputs_digest([root / LABEL_FILE, *files_in(root / "data")]),
        options={"root": str(root), "source": source, "left_out": list(left_out)},
        on_error=on_error,
        num_proc=num_proc,
        published=published,
    )


def label_rows(
    report: BuildReport, label_file: Path, source: str = "mvsa_single", left_out: Collection[str] = ()
) -> Iterator[tuple[str, str, str, str, str]]:
    """The well-formed rows that the rules keep: place, id, label, text label, image label.

    A row reads `ID<TAB>text,image`, with one such pair for each annotator.
    """
    annotators = _ANNOTATORS[source]
    seen: dict[str, int] = {}
    with open(label_file, encoding="utf-8-sig", errors="replace") as lines:  # a bad byte is an unknown label below
        for number, line in enumerate(lines, start=1):
            fields = re.sub(r"\s*,\s*", ",", line).split()
            if not fields or (number == 1 and fields[0].lower() == "id"):
                continue
            post, *pairs = fields
            report.read += 1
            where = f"{label_file}, line {number}"
            votes = [pair.lower().split(",") for pair in pairs]
            if len(votes) != annotators or any(len(vote) != 2 for vote in votes):
                report.fail("malformed row", _malformed(where, line, source, len(votes)))
                continue
            unknown = [label for vote in votes for label in vote if label not in LABELS]
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
            text_label, image_label = (majority(labels) for labels in zip(*votes, strict=True))
            if text_label is None or image_label is None:
                lacking = [name for name, one in (("text", text_label), ("image", image_label)) if one is None]
                report.drop(f"no majority of the annotators ({' and '.join(lacking)})")
                continue
            label = merge_labels(text_label, image_label)
            if label is None:
                report.drop(f"opposite polarities ({text_label} text, {image_label} image)")
            elif post in left_out:
                report.drop(f"in no published list (ids {', '.join(left_out)}); keep_unlisted=True keeps them")
            else:
                yield where, post, label, text_label, image_label


def _malformed(where: str, line: str, source: str, found: int) -> str:
    pairs = "<TAB>text,image" * _ANNOTATORS[source]
    other = next((name for name, count in _ANNOTATORS.items() if count == found and name != source), None)
    hint = f" Is this {other}?" if other else ""
    return f"{where}: {line.strip()!r}; a row of {source} must read ID{pairs}.{hint} Mend it."


def _rows(report: BuildReport, root: str, source: str, left_out: list[str]) -> Iterator[Unchecked]:
    data = Path(root) / "data"
    for where, post, label, text_label, image_label in label_rows(report, Path(root) / LABEL_FILE, source, left_out):
        text_file = data / f"{post}.txt"
        if not text_file.is_file():
            report.fail("missing text", f"{where}: the text {text_file} does not exist; add it or remove the row.")
            continue
        text, encoding = decode_text(text_file.read_bytes())
        if not text:
            report.fail("empty text", f"{where}: the text {text_file} is empty; write it or remove the row.")
            continue
        row = {
            "id": post,
            "image": str(data / f"{post}.jpg"),
            "text": text,
            "rationale_positive": None,
            "rationale_neutral": None,
            "rationale_negative": None,
            "label": label,
            "text_label": text_label,
            "image_label": image_label,
            "language": "en",
            "source": source,
        }
        yield Unchecked(row, where, encoding_notes(encoding))
