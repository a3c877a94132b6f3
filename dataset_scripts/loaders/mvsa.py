"""MVSA (Niu et al. 2016), labels merged by MultiSentiNet's rule (Xu and Mao 2017)."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from datasets import Dataset

from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.reading.archives import find_root
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import files_in, inputs_digest
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.report import BuildReport, PublishedCounts, shown
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.text_files import decode_text, encoding_notes, text_lines
from dataset_scripts.schema import LABELS, features, post_row

_CITATIONS = (
    """\
@inproceedings{niu2016mvsa,
  title = {Sentiment Analysis on Multi-View Social Data},
  author = {Niu, Teng and Zhu, Shiai and Pang, Lei and El Saddik, Abdulmotaleb},
  booktitle = {International Conference on Multimedia Modeling},
  pages = {15--27},
  publisher = {Springer},
  year = {2016}
}""",
    """\
@inproceedings{xu2017multisentinet,
  title = {{MultiSentiNet}: A Deep Semantic Network for Multimodal Sentiment Analysis},
  author = {Xu, Nan and Mao, Wenji},
  booktitle = {Proceedings of the 2017 ACM on Conference on Information and Knowledge Management},
  pages = {2399--2402},
  year = {2017}
}""",
)
_MERGE_RULE = (
    "If both agree, the post has their label; a polarity wins over neutral; posts with opposite polarities are left "
    "out (the rule of MultiSentiNet)."
)
MVSA_SINGLE = DatasetFacts(
    title="MVSA-Single",
    about=f"Posts of Twitter, each one text and one image, which one annotator labelled separately. {_MERGE_RULE}",
    citations=_CITATIONS,
    table_1=(3611, 450, 450),
)
MVSA_MULTIPLE = DatasetFacts(
    title="MVSA-Multiple",
    about="Posts of Twitter, each one text and one image, which three annotators labelled separately. First the "
    "majority of the three decides for the text and for the image, and posts without a majority are left out. "
    + _MERGE_RULE,
    citations=_CITATIONS,
    table_1=(13624, 1700, 1700),
    table_1_note="The rule gives 17,027 posts of a full download; the ids 3910, 5995 and 15324 are missing from "
    "every published list.",
)
SINGLE = PublishedCounts(4869, {"positive": 2683, "neutral": 470, "negative": 1358})
MULTIPLE = PublishedCounts(19600, {"positive": 11318, "neutral": 4408, "negative": 1298})
MULTIPLE_WITH_UNLISTED = PublishedCounts(19600, {"positive": 11320, "neutral": 4408, "negative": 1299})
# The rule keeps these posts, but no published list of MVSA-Multiple has them.
UNLISTED_IDS = ("3910", "5995", "15324")
LABEL_FILE = "labelResultAll.txt"
_ANNOTATORS = {"mvsa_single": 1, "mvsa_multiple": 3}


def merge_labels(text_label: str, image_label: str) -> str | None:
    """Merge the labels of text and image by MultiSentiNet's rule.

    A polarity wins over neutral; opposite polarities give None, and the post is dropped.
    """
    labels = {text_label, image_label} - {"neutral"} or {"neutral"}
    return labels.pop() if len(labels) == 1 else None


def majority(labels: Sequence[str]) -> str | None:
    """Return the label of more than half of the annotators, or None."""
    label, votes = Counter(labels).most_common(1)[0]
    return label if 2 * votes > len(labels) else None


def load_mvsa_single(
    data_dir: str | Path, on_error: str = "raise", *, keep_opposite: bool = False, num_proc: int | None = None
) -> tuple[Dataset, BuildReport]:
    """Load the posts of MVSA-Single, with the labels of text and image.

    Args:
        data_dir (`str` or `Path`): folder with `labelResultAll.txt`, `data/ID.jpg` and `data/ID.txt`.
        keep_opposite (`bool`, defaults to `False`):
            Keep the posts with opposite polarities of text and image, without label; they cannot be trained on.
        on_error, num_proc: See [`load_posts`].

    Returns:
        The dataset (4,511 posts from a full download of 4,869) and the `BuildReport`.

    Raises:
        ValueError: no such layout, or (unless skipped) a malformed row, duplicate id, unknown label, missing or
            unreadable image, missing or empty text.
    """
    return _load("mvsa_single", data_dir, on_error, num_proc, (), SINGLE, keep_opposite)


def load_mvsa_multiple(
    data_dir: str | Path,
    on_error: str = "raise",
    *,
    keep_unlisted: bool = False,
    keep_opposite: bool = False,
    num_proc: int | None = None,
) -> tuple[Dataset, BuildReport]:
    """Load the posts of MVSA-Multiple, with the majority labels of text and image.

    Three annotators labelled each post. First the majority of each modality is taken, and a post without one is
    dropped; then MultiSentiNet's rule applies. (Merging per annotator first gives other labels and other posts.)

    Args:
        data_dir, on_error, num_proc: See [`load_mvsa_single`], which also lists the errors.
        keep_unlisted (`bool`, defaults to `False`):
            Keep the posts 3910, 5995 and 15324, which the rule keeps and every published list lacks.
        keep_opposite (`bool`, defaults to `False`): See [`load_mvsa_single`].

    Returns:
        The dataset (17,024 posts from a full download of 19,600; 17,027 with `keep_unlisted`) and the `BuildReport`.
    """
    excluded_ids, published = ((), MULTIPLE_WITH_UNLISTED) if keep_unlisted else (UNLISTED_IDS, MULTIPLE)
    return _load("mvsa_multiple", data_dir, on_error, num_proc, excluded_ids, published, keep_opposite)


def _load(
    source: str,
    data_dir: str | Path,
    on_error: str,
    num_proc: int | None,
    excluded_ids: Collection[str],
    published: PublishedCounts,
    keep_opposite: bool,
) -> tuple[Dataset, BuildReport]:
    root = find_root(Path(data_dir).resolve(), LABEL_FILE)
    return build_dataset(
        source,
        _rows,
        features(),
        inputs=inputs_digest([root / LABEL_FILE, *files_in(root / "data")]),
        options={
            "root": str(root),
            "source": source,
            "excluded_ids": list(excluded_ids),
            "keep_opposite": keep_opposite,
        },
        on_error=on_error,
        num_proc=num_proc,
        published=None if keep_opposite else published,
    )


def label_rows(
    report: BuildReport,
    label_file: Path,
    source: str = "mvsa_single",
    excluded_ids: Collection[str] = (),
    keep_opposite: bool = False,
) -> Iterator[tuple[str, str, str | None, str, str]]:
    """Yield the rows that the rules keep as (location, id, label, text label, image label).

    A row reads `ID<TAB>text,image`, with one such pair for each annotator.
    """
    checks = RowChecks(report)
    lines = text_lines(label_file, errors="replace")  # a label with an invalid byte is unknown
    for number, line in enumerate(lines, start=1):
        fields = re.sub(r"\s*,\s*", ",", line).split()
        if not fields or (number == 1 and fields[0].lower() == "id"):
            continue
        post_id, *pairs = fields
        report.read += 1
        location = f"{label_file}, line {number}"
        votes = [pair.lower().split(",") for pair in pairs]
        if len(votes) != _ANNOTATORS[source] or any(len(vote) != 2 for vote in votes):
            report.fail("malformed row", _malformed_row(location, line, source, len(votes)))
            continue
        given = [label for vote in votes for label in vote]
        if not all(checks.is_known_label(label, LABELS, location) for label in given):
            continue
        if not checks.is_new_id(post_id, location):
            continue
        text_label, image_label = map(majority, zip(*votes, strict=True))
        majorities = {"text": text_label, "image": image_label}
        lacking = [modality for modality, label in majorities.items() if label is None]
        if lacking:
            report.drop(f"no majority of the annotators ({' and '.join(lacking)})")
            continue
        label = merge_labels(text_label, image_label)
        if label is None and not keep_opposite:
            report.drop(f"opposite polarities ({text_label} text, {image_label} image)")
        elif post_id in excluded_ids:
            report.drop(f"in no published list (ids {', '.join(excluded_ids)}); keep_unlisted=True keeps them")
        else:
            yield location, post_id, label, text_label, image_label


def _malformed_row(location: str, line: str, source: str, num_pairs: int) -> str:
    pairs = "<TAB>text,image" * _ANNOTATORS[source]
    other = next((name for name, count in _ANNOTATORS.items() if count == num_pairs and name != source), None)
    hint = f"is this {other}?" if other else "correct it."
    return f"{location}: a row of {source} must read ID{pairs}, got {shown(line.strip())}; {hint}"


def _rows(
    report: BuildReport, root: str, source: str, excluded_ids: list[str], keep_opposite: bool
) -> Iterator[UncheckedRow]:
    data = Path(root) / "data"
    rows = label_rows(report, Path(root) / LABEL_FILE, source, excluded_ids, keep_opposite)
    for location, post_id, label, text_label, image_label in rows:
        file = data / f"{post_id}.txt"
        if not file.is_file():
            report.fail("missing text", f"{location}: the text {file} does not exist; add it or remove the row.")
            continue
        text, encoding = decode_text(file.read_bytes())
        if not text:
            report.fail("empty text", f"{location}: the text {file} is empty; write it or remove the row.")
            continue
        row = post_row(
            post_id,
            text=text,
            image=str(data / f"{post_id}.jpg"),
            label=label,
            text_label=text_label,
            image_label=image_label,
            language="en",
            source=source,
        )
        yield UncheckedRow(row, location, encoding_notes(encoding))
