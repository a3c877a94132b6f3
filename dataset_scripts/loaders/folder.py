"""Own posts: a CSV, TSV, JSONL or Parquet table, and images named by relative paths."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import (
    cell_name,
    cell_text,
    find_table,
    nested_column,
    require_column,
    sound_rows,
    table_columns,
    table_rows,
)
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, post_row, rationale_column

logger = logging.getLogger(__name__)

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MAX_CLASSES = 100


def load_folder(
    data_dir: str | Path,
    on_error: str = "raise",
    *,
    file: str | None = None,
    text_column: str = "text",
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    rationale_columns: Mapping[str, str] | None = None,
    labels: Sequence[str | int] | None = None,
    language: str = "en",
    source: str = "folder",
    num_proc: int | None = None,
) -> tuple[Dataset, BuildReport]:
    """Load posts from a table and the images that it names.

    Args:
        data_dir (`str` or `Path`): folder of the table; image paths are relative to it.
        on_error, num_proc: See [`load_posts`].
        file (`str`, *optional*): name of the table in `data_dir`, if there are several.
        text_column (`str`, defaults to `"text"`): every row needs a text.
        image_column (`str`, *optional*):
            Relative paths; a blank cell is a post without image. By default the column `image` if there is one.
        label_column (`str`, *optional*):
            Names or integers; a blank cell is a post without label, for prediction. By default `label` if present.
        id_column (`str`, *optional*):
            By default `id` if present, else posts are numbered from 0 in the order of the table.
        rationale_columns (mapping, *optional*):
            Perspective -> column, e.g. `{"positive": "why_positive"}`; the keys become the perspectives of the
            dataset. By default the columns `rationale_*` of the table, or the three perspectives of the paper, null.
        labels (sequence, *optional*):
            All class names, in the order of the label ids. By default those that occur: positive, neutral, negative
            in this order if there are no others, else sorted (integers by value).
        language, source (`str`): values of these columns.

    Raises:
        ValueError: no or several tables, a missing column, or (unless skipped) a malformed row, blank id, duplicate
            id, empty text, unknown label, a URL for an image, missing or unreadable image.
    """
    data_dir = Path(data_dir).resolve()
    table = find_table(data_dir, file)
    columns = table_columns(table)
    require_column(table, columns, text_column, "text_column")
    column_of = {
        "text": text_column,
        "image": _optional_column(table, columns, image_column, "image"),
        "label": _optional_column(table, columns, label_column, "label"),
        "id": _optional_column(table, columns, id_column, "id"),
    }
    rationales = _rationale_columns(table, columns, rationale_columns)
    for role in ("image", "label"):
        if column_of[role] is None:
            logger.warning(
                "%s: no column %r among %s; posts have no %s. Name another column with %s_column=…",
                table, role, columns, role, role,
            )  # fmt: skip
    if labels is not None or column_of["label"] is None:
        label_names = [str(label) for label in labels or LABELS]
    else:
        label_names = _classes_in(table, column_of["label"])
    return build_dataset(
        source,
        _rows,
        features(label_names, list(rationales) or PERSPECTIVES),
        inputs=inputs_digest(itertools.chain([table], _images(table, data_dir, column_of["image"]))),
        options={
            "table": str(table),
            "data_dir": str(data_dir),
            "column_of": column_of,
            "rationales": rationales,
            "label_names": label_names,
            "constants": {"language": language, "source": source},
        },
        on_error=on_error,
        num_proc=num_proc,
    )


def _optional_column(table: Path, columns: list[str], given: str | None, role: str) -> str | None:
    if given is None:
        return role if role in columns else None
    require_column(table, columns, given, f"{role}_column")
    return given


def _rationale_columns(table: Path, columns: list[str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Map each perspective to its column of the table."""
    if given is None:
        prefix = rationale_column("")
        present = {column.removeprefix(prefix): column for column in columns if column.startswith(prefix)}
        # Those of the paper first, so that the order of the table's columns does not change the schema.
        return {name: present[name] for name in dict.fromkeys([*PERSPECTIVES, *present]) if name in present}
    for column in given.values():
        require_column(table, columns, column, "rationale_columns")
    return dict(given)


def _classes_in(table: Path, column: str) -> list[str]:
    """List the class names that occur in a column, in the order of `labels` of `load_folder`."""
    names = {cell_name(row.get(column)) for _, row in sound_rows(table)} - {None}
    if not names:
        return list(LABELS)
    if len(names) > _MAX_CLASSES:
        raise ValueError(
            f"{table}: column {column!r} has {len(names):,} different values (e.g. {sorted(names)[0]!r}), more than "
            f"{_MAX_CLASSES}. Name the column of labels with label_column=…, or all classes with labels=[…]."
        )
    if names <= set(LABELS):
        return sorted(names, key=LABELS.index)
    return sorted(names, key=int if all(re.fullmatch(r"-?\d+", name) for name in names) else None)


def _images(table: Path, data_dir: Path, column: str | None) -> Iterator[Path]:
    if column is not None:
        for _, row in sound_rows(table):
            path = cell_text(row.get(column))
            if path is not None and not _URL.match(path):
                yield data_dir / path


def _rows(
    report: BuildReport,
    table: str,
    data_dir: str,
    column_of: dict[str, str | None],
    rationales: dict[str, str],
    label_names: list[str],
    constants: dict[str, str],
) -> Iterator[dict[str, Any] | UncheckedRow]:
    checks = RowChecks(report)
    for number, (location, row) in enumerate(table_rows(Path(table))):
        report.read += 1
        if not checks.has_all_fields(row, location):
            continue
        nested = nested_column(row, [*filter(None, column_of.values()), *rationales.values()])
        if nested is not None:
            report.fail(
                "malformed row",
                f"{location}: {nested!r} must be a text or a number, got {type(row[nested]).__name__}. A dataset with "
                "embedded images opens as load_posts(folder).",
            )
            continue
        cells = {role: cell_text(row.get(column)) if column else None for role, column in column_of.items()}
        post_id = cell_name(cells["id"]) if column_of["id"] else str(number)
        if post_id is None:
            report.fail("blank id", f"{location}: {column_of['id']!r} is blank; write an id or remove the row.")
            continue
        if not checks.is_new_id(post_id, location):
            continue
        if cells["text"] is None:
            report.fail("empty text", f"{location}: {column_of['text']!r} is empty; write the text or remove the row.")
            continue
        label = cell_name(cells["label"])
        fix = "Correct the row or add the class to labels=[…]."
        if label is not None and not checks.is_known_label(label, label_names, location, fix):
            continue
        image = cells["image"]
        if image is not None and _URL.match(image):
            report.fail(
                "image is a URL",
                f"{location}: the image {image!r} is a URL; download the images into the folder and write their "
                "relative paths.",
            )
            continue
        by_perspective = {name: cell_text(row.get(column)) for name, column in rationales.items()}
        post = post_row(
            post_id,
            text=cells["text"],
            image=image and str(Path(data_dir) / image),
            label=label,
            rationales=by_perspective or None,
            **constants,
        )
        notes = ("without one of its rationales",) if None in by_perspective.values() else ()
        if image is not None:
            yield UncheckedRow(post, location, notes)
            continue
        for note in ("without image", *notes):
            report.note(note)
        yield post
