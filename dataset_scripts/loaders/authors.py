"""The TSV files of rationales that the paper's authors released: label, image path, text, rationales."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.build import build_dataset, inputs_digest
from dataset_scripts.reading.image_checks import Unchecked
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.tsv import encoding_of, tsv_records
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, rationale_column


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one of the files is written; columns beyond label, image path and text are the `perspectives` in order."""

    labels: tuple[str, ...]
    label_names: Mapping[str, str]  # what the file writes -> class name
    perspectives: tuple[str, ...]
    id_part: str  # "folder": the folder of the image is the id, "file": its name without ending
    language: str


# Codes of the three-class files are not documented and differ between projects (0 is positive in one, negative in
# another), so only names are accepted there; `label_names` says what a code means.
_THREE_CLASSES = Layout(LABELS, {label: label for label in LABELS}, PERSPECTIVES, "file", "en")
_POLARITIES = ("positive", "negative")
LAYOUTS = {
    "ch_mits": Layout(_POLARITIES, {"1": "positive", "0": "negative"}, _POLARITIES, "folder", "zh"),
    "mvsa_single": _THREE_CLASSES,
    "mvsa_multiple": _THREE_CLASSES,
    "memotion": _THREE_CLASSES,
}

# Some paths are those of the authors' own disk: D:\ei\Sentiment_Analysis_Imdb-master/n/n168/image_0.jpg
_AUTHORS_DISK = re.compile(r"^[A-Za-z]:/.*?-master/+")


def relative_image_path(path: str) -> str:
    """The path inside the download, with forward slashes: what follows the `…-master` folder of the authors' disk."""
    return _AUTHORS_DISK.sub("", path.strip().replace("\\", "/"))


def load_authors(
    data_dir: str | Path,
    on_error: str = "raise",
    *,
    dataset: str = "ch_mits",
    file: str | None = None,
    images: bool = True,
    label_names: Mapping[str | int, str] | None = None,
    num_proc: int | None = None,
) -> tuple[Dataset, BuildReport]:
    """Posts with the rationales of the paper's authors.

    Args:
        data_dir (`str` or `Path`): holds the TSV, and the images under the paths that the TSV writes.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for faulty rows.
        dataset (`str`, defaults to `"ch_mits"`):
            `"ch_mits"` (two classes, positive and negative rationale; ids are folder names such as `n168`),
            `"mvsa_single"`, `"mvsa_multiple"` or `"memotion"` (three of each; ids are image names).
        file (`str`, *optional*): name of the TSV in `data_dir`; not needed where there is only one.
        images (`bool`, defaults to `True`):
            `False` leaves the image null: the released file comes without images.
        label_names (mapping, *optional*):
            What the label column writes -> class name, e.g. `{"0": "positive", "1": "neutral", "2": "negative"}`.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.

    Returns:
        The dataset and the `BuildReport`. A perspective that the file does not have is null.

    Raises:
        ValueError: no or several TSV files, unknown `dataset`, or (unless skipped) a malformed row, unknown label,
            duplicate id, empty text, missing or unreadable image.
    """
    if dataset not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise ValueError(f"dataset={dataset!r}; files of {known} are known." + did_you_mean(dataset, LAYOUTS))
    layout = LAYOUTS[dataset]
    names = {str(code): name for code, name in (label_names or layout.label_names).items()}
    for code, name in names.items():
        if name not in layout.labels:
            raise ValueError(
                f"label_names maps {code!r} to {name!r}; the classes of {dataset} are {', '.join(layout.labels)}."
                + did_you_mean(name, layout.labels)
            )
    data_dir = Path(data_dir).resolve()
    table = _find_tsv(data_dir, file)
    options = {
        "table": str(table),
        "data_dir": str(data_dir),
        "dataset": dataset,
        "images": images,
        "label_names": names,
    }
    inputs = [table]
    if images:
        with open(table, encoding=encoding_of(table), newline="") as lines:
            records = tsv_records(lines, 3 + len(layout.perspectives))
            inputs += [data_dir / relative_image_path(fields[1]) for _, fields, _ in records if fields is not None]
    return build_dataset(
        dataset,
        _rows,
        features(layout.labels),
        inputs=inputs_digest(inputs),
        options=options,
        on_error=on_error,
        num_proc=num_proc,
    )


def _find_tsv(data_dir: Path, file: str | None) -> Path:
    found = sorted(path.name for path in data_dir.glob("*.tsv"))
    if file is None:
        if len(found) != 1:
            listed = ", ".join(found) or "none"
            raise ValueError(f"{data_dir} holds {len(found)} TSV files ({listed}); name the one to read with file=….")
        file = found[0]
    if not (data_dir / file).is_file():
        raise ValueError(f"file={file!r} is not in {data_dir} (TSV files there: {found})." + did_you_mean(file, found))
    return data_dir / file


def _rows(
    report: BuildReport, table: str, data_dir: str, dataset: str, images: bool, label_names: dict[str, str]
) -> Iterator[dict[str, Any] | Unchecked]:
    layout = LAYOUTS[dataset]
    width = 3 + len(layout.perspectives)
    encoding = encoding_of(Path(table))
    seen: dict[str, int] = {}
    with open(table, encoding=encoding, newline="") as lines:
        for number, fields, found in tsv_records(lines, width):
            if number == 1 and fields is not None and fields[0].strip().lower() in ("label", "labels"):
                continue
            report.read += 1
            where = f"{table}, line {number}"
            if fields is None:
                report.fail(
                    "malformed row",
                    f"{where}: {found} fields; {dataset} has {width}: label, image path, text, "
                    f"{' and '.join(layout.perspectives)} rationale. Mend the row, or give the right dataset=….",
                )
                continue
            code, path, text, *rationales = (field.strip() for field in fields)
            if code not in label_names:
                report.fail(
                    "unknown label",
                    f"{where}: label {code!r}; known are {', '.join(label_names)}. Say what it means with "
                    f"label_names={{{code!r}: …}}." + did_you_mean(code, label_names),
                )
                continue
            image = relative_image_path(path)
            post = _post_id(image, layout.id_part)
            if post is None:
                report.fail("no id", f"{where}: image path {path!r} has no {layout.id_part} to take the id from.")
                continue
            if post in seen:
                report.fail("duplicate id", f"{where}: id {post!r} is also on line {seen[post]}; remove one.")
                continue
            seen[post] = number
            if not text.strip('" '):
                report.fail("empty text", f"{where}: the text is empty; write it or remove the row.")
                continue
            notes = []
            row: dict[str, Any] = {rationale_column(perspective): None for perspective in PERSPECTIVES}
            for perspective, rationale in zip(layout.perspectives, rationales, strict=True):
                # a field of nothing but quotes is a blank that was quoted once too often
                row[rationale_column(perspective)] = rationale if rationale.strip('" ') else None
                if not rationale.strip('" '):
                    notes.append(f"no {perspective} rationale")
            row |= {
                "id": post,
                "image": str(Path(data_dir) / image) if images else None,
                "text": text,
                "label": label_names[code],
                "text_label": None,
                "image_label": None,
                "language": layout.language,
                "source": dataset,
            }
            if images:
                yield Unchecked(row, where, tuple(notes))
                continue
            for note in notes:
                report.note(note)
            yield row


def _post_id(image: str, part: str) -> str | None:
    pieces = [piece for piece in image.split("/") if piece]
    if part == "folder":
        return pieces[-2] if len(pieces) >= 2 else None
    return Path(pieces[-1]).stem if pieces else None
