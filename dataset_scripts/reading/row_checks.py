"""Checks of table rows that all loaders share."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from dataset_scripts.reading.option_names import option
from dataset_scripts.reading.report import BuildReport, did_you_mean, shown
from dataset_scripts.reading.tables import Row, is_blank


class RowChecks:
    """Checks of the rows of one table.

    A failed check is passed to `report.fail` and returns False. Messages begin with the location, such as
    `{file}, line 7`.
    """

    def __init__(self, report: BuildReport) -> None:
        self.report = report
        self._location_of_id: dict[str, str] = {}

    def has_all_fields(self, row: Row | str, location: str, fix: str = "") -> TypeGuard[Row]:
        """Check that a row of `table_rows` is sound, and count its notes; drop a blank row."""
        if isinstance(row, str):
            self.report.fail("malformed row", f"{location}: {row} {fix}".rstrip())
            return False
        if all(is_blank(value) for value in row.values()):
            self.report.drop("blank row")
            return False
        for note in row.notes:
            self.report.note(note)
        return True

    def is_new_id(self, post_id: str, location: str, version: str = "") -> bool:
        """Check that no earlier row has this id (and `version`)."""
        key = f"{post_id}\0{version}"
        if key in self._location_of_id:
            file, _, line = self._location_of_id[key].rpartition(", ")
            other = line if location.startswith(f"{file}, ") else f"{Path(file).name}, {line}"
            message = f"{location}: id {shown(post_id)} is also in {other}; remove one of the two."
            if other != line:
                message += f" If each file numbers its posts, use {option('id_column', '')}, which numbers all."
            self.report.fail("duplicate id", message)
            return False
        self._location_of_id[key] = location
        return True

    def is_known_label(self, label: str, known: Iterable[str], location: str, fix: str = "Correct the row.") -> bool:
        """Check a label against the known ones."""
        known = list(known)
        if label not in known:
            hint = did_you_mean(label, known)
            listed = ", ".join(known[:10]) + (", …" if known[10:] else "")
            message = f"{location}: the label must be one of {listed}, got {shown(label, 40)}. {fix}{hint}"
            self.report.fail("unknown label", message)
        return label in known
