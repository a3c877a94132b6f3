"""Rows of own tables as posts: cells checked, images found by path or taken from the table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_scripts.loaders.classes import is_placeholder
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.image_paths import ImageFinder
from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.post_ids import DAMAGED_ID, FLOAT_ID_NOTE, read_id
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import TableFormat, cell_name, cell_text, nested_column, table_rows
from dataset_scripts.schema import GROUP, post_row

_FIX_LABEL = "Correct the row or add the class to {}."


def image_name(value: Any) -> str | None:
    """Return the path that a cell names; None for a blank cell, embedded bytes or another value."""
    value = _without_list(value)
    stored = embedded_image(value)
    if stored is not None:
        return cell_text(stored["path"]) if stored["bytes"] is None else None
    return None if isinstance(value, list | dict) or cell_text(value) is None else str(value)


def embedded_image(value: Any) -> dict[str, Any] | None:
    """Return the image in a cell, bytes or `{"bytes", "path"}`; None for another value."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if not isinstance(value, dict) or not {"bytes", "path"} >= value.keys() or not value:
        return None
    content, path = value.get("bytes"), value.get("path")
    if not isinstance(content, bytes | None) or not isinstance(path, str | None):
        return None
    return {"bytes": content, "path": path}


def _without_list(value: Any) -> Any:
    """Return the only element of a list of one image, any other value as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def label_value(value: Any, classes: list[str] | None) -> Any:
    """Return the class name of a number of a `ClassLabel`, any other label as it is."""
    if classes is None or isinstance(value, bool) or not isinstance(value, int):
        return value
    if value == -1:  # an unknown label, by convention of the Hub
        return None
    return classes[value] if 0 <= value < len(classes) else value


def folder_rows(
    report: BuildReport,
    tables: list[dict[str, Any]],
    table_format: dict[str, str | None],
    data_dir: str,
    label_names: list[str] | None,
    perspectives: list[str],
    constants: dict[str, str],
) -> Iterator[dict[str, Any] | UncheckedRow]:
    """Yield the posts of all tables; labels are not checked if `label_names` is None."""
    checks = RowChecks(report)
    number = -1
    for table in tables:
        read = RowReader(checks, table, data_dir, label_names, perspectives, constants)
        for location, row in table_rows(Path(table["path"]), TableFormat(**table_format)):
            number += 1
            report.read += 1
            if checks.has_all_fields(row, location) and (post := read.post(row, location, number)) is not None:
                yield post


class RowReader:
    """Conversion of the rows of one table; a row that fails is reported and gives None."""

    def __init__(
        self,
        checks: RowChecks,
        table: dict[str, Any],
        data_dir: str,
        label_names: list[str] | None,
        perspectives: list[str],
        constants: dict[str, str],
    ) -> None:
        self.checks, self.report = checks, checks.report
        self.column_of: dict[str, str | None] = table["column_of"]
        self.rationales: dict[str, str] = table["rationales"]
        self.classes: list[str] | None = table["classes"]
        self.split: str | None = table["split"]
        self.finder, self.label_names = ImageFinder(Path(data_dir)), label_names
        self.perspectives, self.constants = perspectives, constants

    def cell(self, row: dict[str, Any], role: str) -> Any:
        """Return the value of a role, None without a column for it."""
        column = self.column_of[role]
        return None if column is None else row.get(column)

    def post(self, row: dict[str, Any], location: str, number: int) -> dict[str, Any] | UncheckedRow | None:
        """Convert a row to a post of `schema.features`."""
        texts = [column for role, column in self.column_of.items() if role != "image" and column is not None]
        nested = nested_column(row, [*texts, *self.rationales.values()])
        if nested is not None:
            self.report.fail(
                "malformed row",
                f"{location}: {nested!r} must be a text or a number, got {type(row[nested]).__name__}.",
            )
            return None
        notes: list[str] = []
        post_id = self.post_id(row, location, number, notes)
        if post_id is None or not self.checks.is_new_id(post_id, location):
            return None
        label = self.label(row)
        fix = _FIX_LABEL.format(option("labels", ["…"]))
        if label is not None and self.label_names is not None:
            if not self.checks.is_known_label(label, self.label_names, location, fix):
                return None
        image, is_sound = self.image(row, location, notes)
        if not is_sound:
            return None
        text = cell_text(self.cell(row, "text"))
        by_perspective = {
            name: cell_text(row.get(self.rationales[name])) if name in self.rationales else None
            for name in self.perspectives
        }
        if text is None and image is None and not any(by_perspective.values()):
            self.report.fail("empty post", f"{location}: neither a text nor an image; write one or remove the row.")
            return None
        notes += [f"without {name}" for name, value in (("text", text), ("image", image)) if value is None]
        if self.rationales and None in by_perspective.values():
            notes.append("without one of its rationales")
        if is_placeholder(text):
            notes.append("whose text is a word for a missing value, such as 'nan'")
        extra = {GROUP: cell_name(self.cell(row, GROUP))} if self.column_of[GROUP] is not None else {}
        extra |= {} if self.split is None else {"split": self.split}
        post = post_row(
            post_id, rationales=by_perspective, text=text, image=image, label=label, **self.constants, **extra
        )
        if image is not None:
            return UncheckedRow(post, location, tuple(notes))
        for note in notes:
            self.report.note(note)
        return post

    def post_id(self, row: dict[str, Any], location: str, number: int, notes: list[str]) -> str | None:
        """Return the id of a post, by default its number; None if it is blank or rounded."""
        column = self.column_of["id"]
        if column is None:
            return str(number)
        post_id, doubt = read_id(row.get(column))
        if post_id is None:
            self.report.fail("blank id", f"{location}: {column!r} is blank; write an id or remove the row.")
        elif doubt == DAMAGED_ID:
            self.report.fail("rounded id", f"{location}: {column!r} {post_id} {DAMAGED_ID}.")
            return None
        elif doubt == FLOAT_ID_NOTE:
            notes.append(doubt)
        return post_id

    def label(self, row: dict[str, Any]) -> str | None:
        """Return the name of the class, or the label as written."""
        value = label_value(self.cell(row, "label"), self.classes)
        return cell_text(value) if self.label_names is None else cell_name(value)

    def image(self, row: dict[str, Any], location: str, notes: list[str]) -> tuple[str | dict[str, Any] | None, bool]:
        """Return the path or the content of the image, and whether it can be used."""
        value, column = _without_list(self.cell(row, "image")), self.column_of["image"]
        stored = embedded_image(value)
        if stored is not None and stored["bytes"] is not None:
            return stored | {"path": None}, True
        if stored is None and isinstance(value, list | dict):
            kind = f"a list of {len(value)}" if isinstance(value, list) else "an object"
            self.report.fail(
                "malformed row",
                f"{location}: {column!r} must be the path of one image, got {kind}. A post has one image: write the "
                "path of one of them.",
            )
            return None, False
        name = image_name(value)
        if name is None:
            return None, True
        found = self.finder.find(name)
        if found.path is None:
            self.report.fail(found.reason, f"{location}: the image {found.problem}")
            return None, False
        if found.note is not None:
            notes.append(found.note)
        return str(found.path), True
