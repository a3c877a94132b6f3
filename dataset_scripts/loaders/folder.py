"""A folder of one's own: a CSV, TSV, JSONL or Parquet table, and the images it names by relative path."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.build import build_dataset, inputs_digest
from dataset_scripts.reading.image_checks import Unchecked
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.tables import (
    SUFFIXES,
    cell_name,
    cell_text,
    nested_column,
    require_column,
    table_columns,
    table_rows,
)
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, rationale_column

logger = logging.getLogger(__name__)

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MAX_DISCOVERED = 100


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
    """Posts from a table and the images beside it.

    Args:
        data_dir (`str` or `Path`): holds the table; image paths are relative to it.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for faulty rows.
        file (`str`, *optional*): name of the table in `data_dir`; not needed where there is only one.
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
            Every class name, in the order of the label ids. By default those that occur: positive, neutral, negative
            in this order if there are no others, else sorted (integers by value).
        language, source (`str`): written into every row.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.

    Raises:
        ValueError: no or several tables, a column that is not there, or (unless skipped) a malformed row, blank id,
            duplicate id, empty text, unknown label, a URL for an image, missing or unreadable image.
    """
    data_dir = Path(data_dir).resolve()
    table = _find_table(data_dir, file)
    columns = table_columns(table)
    require_column(table, columns, text_column, "text_column")
    chosen = {
        "text": text_column,
        "image": _optional_column(table, columns, image_column, "image"),
        "label": _optional_column(table, columns, label_column, "label"),
        "id": _optional_column(table, columns, id_column, "id"),
    }
    rationales = _rationale_columns(table, columns, rationale_columns)
    for role in ("image", "label"):
        if chosen[role] is None:
            logger.warning(
                "%s: no column %r among %s; posts have no %s. If another column holds it, write %s_column=…",
                table, role, columns, role, role,
            )  # fmt: skip
    if chosen["label"] is None:
        names = [str(label) for label in labels or LABELS]
    else:
        names = [str(label) for label in labels] if labels is not None else _discover_labels(table, chosen["label"])
    return build_dataset(
        source,
        _rows,
        features(names, list(rationales) or PERSPECTIVES),
        inputs=inputs_digest(itertools.chain([table], _images(table, data_dir, chosen["image"]))),
        options={
            "table": str(table),
            "data_dir": str(data_dir),
            "chosen": chosen,
            "rationales": rationales,
            "names": names,
            "constants": {"language": language, "source": source},
        },
        on_error=on_error,
        num_proc=num_proc,
    )


def _find_table(data_dir: Path, file: str | None) -> Path:
    found = sorted(path.name for path in data_dir.glob("*") if path.suffix in SUFFIXES)
    if file is None:
        if len(found) != 1:
            listed = ", ".join(found) or "none"
            raise ValueError(
                f"{data_dir} holds {len(found)} tables ({listed}); name the one to read with file=…, one of the "
                f"formats {', '.join(SUFFIXES)}."
            )
        file = found[0]
    if not (data_dir / file).is_file():
        raise ValueError(f"file={file!r} is not in {data_dir} (tables there: {found})." + did_you_mean(file, found))
    return data_dir / file


def _optional_column(table: Path, columns: list[str], wanted: str | None, role: str) -> str | None:
    if wanted is None:
        return role if role in columns else None
    require_column(table, columns, wanted, f"{role}_column")
    return wanted


def _rationale_columns(table: Path, columns: list[str], wanted: Mapping[str, str] | None) -> dict[str, str]:
    """Perspective -> column of the table."""
    if wanted is None:
        prefix = rationale_column("")
        found = {column.removeprefix(prefix): column for column in columns if column.startswith(prefix)}
        # the paper's order first, so that a table with shuffled columns gives the same schema
        order = [perspective for perspective in PERSPECTIVES if perspective in found]
        return {perspective: found[perspective] for perspective in dict.fromkeys([*order, *found])}
    for column in wanted.values():
        require_column(table, columns, column, "rationale_columns")
    return dict(wanted)


def _discover_labels(table: Path, column: str) -> list[str]:
    found = {cell_name(row.get(column)) for _, row in table_rows(table) if row is not None} - {None}
    if not found:
        return list(LABELS)
    if len(found) > _MAX_DISCOVERED:
        raise ValueError(
            f"{table}: column {column!r} has {len(found):,} different values (e.g. {sorted(found)[0]!r}); that is no "
            "label. Name the right column with label_column=…, or all classes with labels=[…]."
        )
    if found <= set(LABELS):
        return [label for label in LABELS if label in found]
    if all(re.fullmatch(r"-?\d+", name) for name in found):
        return sorted(found, key=int)
    return sorted(found)


def _images(table: Path, data_dir: Path, column: str | None) -> Iterator[Path]:
    if column is not None:
        for _, row in table_rows(table):
            path = cell_text(row.get(column)) if row is not None else None
            if path is not None and not _URL.match(path):
                yield data_dir / path


def _rows(
    report: BuildReport,
    table: str,
    data_dir: str,
    chosen: dict[str, str | None],
    rationales: dict[str, str],
    names: list[str],
    constants: dict[str, str],
) -> Iterator[dict[str, Any] | Unchecked]:
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(table_rows(Path(table))):
        report.read += 1
        if row is None:
            report.fail("malformed row", f"{where}: not as many fields as the header names; mend the row.")
            continue
        nested = nested_column(row, [*filter(None, chosen.values()), *rationales.values()])
        if nested is not None:
            report.fail(
                "malformed row",
                f"{where}: {nested!r} holds a {type(row[nested]).__name__}; a text or a number is expected. A dataset "
                "with its images inside opens as load_posts(folder).",
            )
            continue
        cells = {role: cell_text(row.get(column)) if column else None for role, column in chosen.items()}
        post = cell_name(cells["id"]) if chosen["id"] else str(number)
        if post is None:
            report.fail("blank id", f"{where}: {chosen['id']!r} is blank; write an id or remove the row.")
            continue
        if post in seen:
            report.fail("duplicate id", f"{where}: id {post!r} is also in {seen[post]}; remove one of the two.")
            continue
        seen[post] = where.rpartition(", ")[2]
        if cells["text"] is None:
            report.fail("empty text", f"{where}: {chosen['text']!r} is empty; write the text or remove the row.")
            continue
        label = cell_name(cells["label"])
        if label is not None and label not in names:
            report.fail(
                "unknown label",
                f"{where}: label {label!r}; known are {', '.join(names)}. Correct the row or add it to labels=[…]."
                + did_you_mean(label, names),
            )
            continue
        image = cells["image"]
        if image is not None and _URL.match(image):
            report.fail(
                "image is a URL",
                f"{where}: image {image!r} is a URL; download the images into the folder and write their relative "
                "paths.",
            )
            continue
        written = {rationale_column(name): cell_text(row.get(column)) for name, column in rationales.items()}
        lacks_rationale = any(text is None for text in written.values())
        post_row = {
            "id": post,
            "image": image and str(Path(data_dir) / image),
            "text": cells["text"],
            **(written or dict.fromkeys(map(rationale_column, PERSPECTIVES))),
            "label": label,
            "text_label": None,
            "image_label": None,
            **constants,
        }
        notes = ("without one of its rationales",) if lacks_rationale else ()
        if image is not None:
            yield Unchecked(post_row, where, notes)
            continue
        for note in ("without image", *notes):
            report.note(note)
        yield post_row
