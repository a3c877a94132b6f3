"""TSV files of the paper's authors, with label, image path, text and rationales."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import Row, find_table, headerless_rows
from dataset_scripts.reading.text_files import encoding_of
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, post_row


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of one of the files."""

    labels: tuple[str, ...]  # class names, in the order of the label ids
    label_names: Mapping[str, str]  # value of the label column -> class name
    perspectives: tuple[str, ...]  # of the columns after label, image path and text
    id_part: str  # the id is the `"folder"` of the image, or the `"file"` name of the image without suffix
    language: str  # code of the texts

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return ["label", "image path", "text", *(f"{name} rationale" for name in self.perspectives)]


# The codes of the three-class files are not documented and differ between projects (0 is positive in one, negative in
# another), so these files need class names, or the argument `label_names`.
_THREE_CLASSES = Layout(LABELS, {label: label for label in LABELS}, PERSPECTIVES, "file", "en")
_POLARITIES = ("positive", "negative")
LAYOUTS = {
    "ch_mits": Layout(_POLARITIES, {"1": "positive", "0": "negative"}, _POLARITIES, "folder", "zh"),
    "mvsa_single": _THREE_CLASSES,
    "mvsa_multiple": _THREE_CLASSES,
    "memotion": _THREE_CLASSES,
}

# Some paths are absolute on the authors' disk: D:\ei\Sentiment_Analysis_Imdb-master/n/n168/image_0.jpg
_AUTHORS_DISK = re.compile(r"^[A-Za-z]:/.*?-master/+")


def relative_image_path(path: str) -> str:
    """Return the path after the `…-master` folder of the authors' disk, with slashes."""
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
    """Load posts with the rationales of the paper's authors.

    Args:
        data_dir (`str` or `Path`): folder with the TSV, and the images under the paths in the TSV.
        on_error, num_proc: See [`load_posts`].
        dataset (`str`, defaults to `"ch_mits"`):
            `"ch_mits"` (two classes, positive and negative rationale; ids are folder names such as `n168`),
            `"mvsa_single"`, `"mvsa_multiple"` or `"memotion"` (three of each; ids are image names).
        file (`str`, *optional*): name of the TSV in `data_dir`, if there are several.
        images (`bool`, defaults to `True`):
            `False` leaves the image null: the released file comes without images.
        label_names (mapping, *optional*):
            Value of the label column -> class name, e.g. `{"0": "positive", "1": "neutral", "2": "negative"}`.

    Returns:
        The dataset and the `BuildReport`. Perspectives of the paper that the file lacks are null.

    Raises:
        ValueError: no or several TSV files, unknown `dataset`, or (unless skipped) a malformed row, unknown label,
            duplicate id, empty text, missing or unreadable image.
    """
    if dataset not in LAYOUTS:
        hint = did_you_mean(dataset, LAYOUTS)
        raise ValueError(f"`dataset` must be one of {', '.join(LAYOUTS)}, got {dataset!r}.{hint}")
    layout = LAYOUTS[dataset]
    names = {str(code): name for code, name in (label_names or layout.label_names).items()}
    for code, name in names.items():
        if name not in layout.labels:
            raise ValueError(
                f"`label_names` maps {code!r} to {name!r}; the classes of {dataset} are {', '.join(layout.labels)}."
                + did_you_mean(name, layout.labels)
            )
    data_dir = Path(data_dir).resolve()
    table = find_table(data_dir, file, (".tsv",))
    inputs = [table]
    if images:
        sound = (row for _, row in _table_rows(table, layout) if isinstance(row, Row))
        inputs += [data_dir / relative_image_path(row["image path"]) for row in sound]
    return build_dataset(
        dataset,
        _rows,
        features(layout.labels),
        inputs=inputs_digest(inputs),
        options=dict(table=str(table), data_dir=str(data_dir), dataset=dataset, images=images, label_names=names),
        on_error=on_error,
        num_proc=num_proc,
    )


def _rows(
    report: BuildReport, table: str, data_dir: str, dataset: str, images: bool, label_names: dict[str, str]
) -> Iterator[dict[str, Any] | UncheckedRow]:
    layout = LAYOUTS[dataset]
    checks = RowChecks(report)
    layouts = [name for name, other in LAYOUTS.items() if other.columns != layout.columns]
    fix = f"Its fields are {', '.join(layout.columns)}; for other fields set `dataset` to {' or '.join(layouts)}."
    for number, (location, row) in enumerate(_table_rows(Path(table), layout)):
        if number == 0 and isinstance(row, Row) and row["label"].strip().lower() in ("label", "labels"):
            continue
        report.read += 1
        if not checks.has_all_fields(row, location, fix):
            continue
        code, path, text, *rationales = (field.strip() for field in row.values())
        named = option("label_names", {code[:20]: "…"})
        if not checks.is_known_label(code, label_names, location, f"Name its class: {named}."):
            continue
        image = relative_image_path(path)
        parts = PurePosixPath(image)
        post_id = parts.parent.name if layout.id_part == "folder" else parts.stem
        if not post_id:
            report.fail("no id", f"{location}: the image path {path!r} has no {layout.id_part} for the id.")
            continue
        if not checks.is_new_id(post_id, location):
            continue
        if not text.strip('" '):
            report.fail("empty text", f"{location}: the text is empty; write it or remove the row.")
            continue
        # A field of quotes alone is a blank that was quoted twice.
        given = [rationale if rationale.strip('" ') else None for rationale in rationales]
        by_perspective = dict.fromkeys(PERSPECTIVES) | dict(zip(layout.perspectives, given, strict=True))
        notes = tuple(f"no {name} rationale" for name in layout.perspectives if by_perspective[name] is None)
        post = post_row(
            post_id,
            text=text,
            image=str(Path(data_dir) / image) if images else None,
            label=label_names[code],
            language=layout.language,
            source=dataset,
            rationales=by_perspective,
        )
        if images:
            yield UncheckedRow(post, location, notes)
            continue
        for note in notes:
            report.note(note)
        yield post


def _table_rows(table: Path, layout: Layout) -> Iterator[tuple[str, Row | str]]:
    return headerless_rows(table, layout.columns, "\t", encoding_of(table))
