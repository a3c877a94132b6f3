"""Content of a report's section: prose, tables, figures and posts."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from dataset_scripts.output import atomic_path, markdown_table


class Omitted(ValueError):
    """A section, or a part of one, that cannot be computed; the message is shown in its place."""


@dataclass(frozen=True)
class Table:
    """Table of a section.

    Attributes:
        name (`str`): name of its CSV file.
        caption (`str`): what is measured, on how many posts, with which seeds and intervals.
        records (sequence of `dict`): numbers as the CSV has them, one dictionary per row.
        columns (`dict[str, Callable]`): heading → text of a record; the first column is left-aligned.
    """

    name: str
    caption: str
    records: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]]

    def rows(self) -> list[list[str]]:
        """Return the cells as texts."""
        return [[text(record) for text in self.columns.values()] for record in self.records]

    def is_number(self) -> list[bool]:
        """Return for each column whether its cells are numbers, which are aligned on the right."""
        return [
            all(re.match(r"[+−\d–]|reference$|$", cell) for cell in column)
            for column in zip(*self.rows(), strict=True)
        ]

    def markdown(self) -> str:
        align = "".join("r" if number else "l" for number in self.is_number())
        return markdown_table(list(self.columns), self.rows(), align)

    def write_csv(self, path: Path) -> None:
        """Write the records with one number per column."""
        flat = [flattened(record) for record in self.records]
        names = list(dict.fromkeys(name for record in flat for name in record))
        with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=names)
            writer.writeheader()
            writer.writerows(flat)


@dataclass(frozen=True)
class Figure:
    """Figure of a section.

    Attributes:
        path (`Path`): PNG; an SVG of the same name is next to it.
        caption (`str`): what is shown; also the text for readers who cannot see it.
    """

    path: Path
    caption: str


@dataclass(frozen=True)
class Post:
    """Post shown in a section.

    Attributes:
        id (`str`)
        text (`str`, *optional*)
        image (`PIL.Image.Image`, *optional*)
        rationales (`dict[str, str]`): by perspective.
        facts (`dict[str, str]`): e.g. label and predictions.
    """

    id: str
    text: str | None
    image: Image.Image | None
    rationales: Mapping[str, str]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """Section of a report.

    Attributes:
        title (`str`)
        prose (sequence of `str`): paragraphs; `code` in backticks.
        tables, figures (sequence): [`Table`] and [`Figure`].
        posts (`dict[str, list[Post]]`): heading → posts.
        explanations (`dict[str, dict]`): heading → variables of the template of explained posts.
        notes (sequence of `str`): parts that were left out, with the reason.
        omitted (`str`, *optional*): reason why the section has no content.
    """

    title: str
    prose: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    posts: Mapping[str, Sequence[Post]] = field(default_factory=dict)
    explanations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    omitted: str | None = None


def flattened(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give each bound of an interval, and each number of a nested record, a column of its own."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}_{key}".removesuffix("_mean"): part for key, part in flattened(value).items()}
        elif isinstance(value, list | tuple) and len(value) == 2:
            flat |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        else:
            flat[name] = value
    return flat


def share(value: float | None) -> str:
    """Write a share in percent."""
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−")


def shares(interval: Sequence[float] | None) -> str:
    """Write an interval of shares in percent."""
    return "–" if interval is None else f"{share(interval[0])} to {share(interval[1])}"


def number(value: float | None) -> str:
    """Write a number with three digits."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def numbers(interval: Sequence[float] | None) -> str:
    """Write an interval with three digits."""
    return "–" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
