"""HTML sheet of examples for each fault that an audit reports, with the images embedded."""

import base64
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jinja2
import numpy as np

from dataset_scripts.audit.groups import group_members
from dataset_scripts.audit.rows import AuditRows
from dataset_scripts.reading.images import read_rgb

_IMAGE_SIDE = 180
_OPPOSITE = {"positive", "negative"}


@dataclasses.dataclass
class SheetPost:
    """Post on the sheet. `image` is a data URI or None."""

    name: str
    label: str
    text: str
    image: str | None
    rationales: dict[str, str]


@dataclasses.dataclass
class SheetSection:
    """Title, number of candidates, and the shown ones as a caption with one or two posts."""

    title: str
    total: int
    entries: list[tuple[str, list[SheetPost]]]


@dataclasses.dataclass
class Candidate:
    """Caption, rows of one or two posts, and the perspectives of rationales to show."""

    caption: str
    rows: tuple[int, ...]
    perspectives: tuple[str, ...] = ()


def draw_section(rows: AuditRows, title: str, candidates: Sequence[Candidate], limit: int) -> SheetSection:
    """Prepare the first `limit` candidates for the sheet, with reduced images."""
    entries = [
        (candidate.caption, [_sheet_post(rows, row, candidate.perspectives) for row in candidate.rows])
        for candidate in candidates[:limit]
    ]
    return SheetSection(title, len(candidates), entries)


def conflicting_pairs(rows: AuditRows, levels: dict[str, np.ndarray]) -> list[Candidate]:
    """Select a pair with different labels per group, opposite polarities first in a level."""

    def priority(first: int, second: int) -> int:
        names = {rows.label_name(first), rows.label_name(second)}
        if "no label" in names or len(names) < 2:
            return 0
        return 2 if names == _OPPOSITE else 1

    return _pairs(rows, levels, priority)


def crossing_pairs(rows: AuditRows, levels: dict[str, np.ndarray]) -> list[Candidate]:
    """Select a pair from two given splits per group, different labels first in a level."""

    def priority(first: int, second: int) -> int:
        if rows.split_of[first] == rows.split_of[second]:
            return 0
        return 2 if rows.labels[first] != rows.labels[second] else 1

    return _pairs(rows, levels, priority)


def _pairs(rows: AuditRows, levels: dict[str, np.ndarray], priority: Callable[[int, int], int]) -> list[Candidate]:
    """Select the pair of highest priority per group; priority 0 excludes a pair."""
    selected: set[tuple[int, int]] = set()
    candidates = []
    for level, groups in levels.items():
        pairs = []
        for members in group_members(groups):
            # One post per label and split is enough: a group of retweets can have hundreds.
            distinct = sorted({(rows.labels[row], rows.split_of[row]): int(row) for row in members[::-1]}.values())
            pair = max(
                ((first, second) for index, first in enumerate(distinct) for second in distinct[index + 1 :]),
                key=lambda pair: priority(*pair),
                default=None,
            )
            if pair is not None and priority(*pair) and pair not in selected:
                selected.add(pair)
                pairs.append((-priority(*pair), pair, len(members)))
        candidates += [Candidate(f"{level}; {size} posts in the group", pair) for _, pair, size in sorted(pairs)]
    return candidates


def _sheet_post(rows: AuditRows, row: int, perspectives: Iterable[str]) -> SheetPost:
    post = rows.post(row)
    rationales = rows.rationales(post)
    return SheetPost(
        name=rows.names[row],
        label=rows.label_name(row),
        text=post["text"] or "",
        image=_data_uri(post["image"]),
        rationales={perspective: rationales[perspective] or "" for perspective in perspectives},
    )


def _data_uri(image: dict | None) -> str | None:
    if image is None:
        return None
    try:
        picture = read_rgb(image, _IMAGE_SIDE)
    except (OSError, ValueError):
        return None
    picture.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def sheet_html(sections: Sequence[SheetSection], table: str) -> str:
    """Render the sheet as one page without scripts and external references. Texts are escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = Path(__file__).with_name("sheet.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(sections=sections, table=table)
