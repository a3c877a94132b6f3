"""What an audit found: a table for the terminal, JSON for programs, a sheet to look at."""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts.audit.groups import Duplicates, Leakage
from dataset_scripts.audit.sheet import SheetSection, sheet_html

_MOST_LISTED = 1000


@dataclasses.dataclass
class Finding:
    """Posts with one fault: how many, and the names of the first thousand."""

    count: int
    posts: list[str]

    @classmethod
    def of(cls, posts: Iterable[str]) -> "Finding":
        posts = list(posts)
        return cls(len(posts), posts[:_MOST_LISTED])


@dataclasses.dataclass
class AuditReport:
    """What `audit_posts` found. Names of posts are ids, after the split where splits were given (`"test/17"`).

    Attributes:
        posts: number of posts.
        splits: posts of each given split; empty for a `Dataset`.
        labels: posts of each class, and `"no label"` if there are such.
        repeated_ids: posts whose id another post has too.
        duplicates: by level; see `Duplicates`.
        leakage: by protocol, and `"as given"`; see `Leakage`.
        impossible: protocols that these posts do not allow, and why.
        texts, images: by fault.
        rationale_coverage: posts with a rationale of all, some, none of the perspectives that any post has.
        rationales: perspective -> fault -> finding.
        settings: seed and thresholds.
        sheet: sections of the HTML sheet, with texts and images; not part of the JSON, which holds names alone.
    """

    posts: int
    splits: dict[str, int]
    labels: dict[str, int]
    repeated_ids: Finding
    duplicates: dict[str, Duplicates]
    leakage: dict[str, Leakage]
    impossible: dict[str, str]
    texts: dict[str, Finding]
    images: dict[str, Finding]
    rationale_coverage: dict[str, int]
    rationales: dict[str, dict[str, Finding]]
    settings: dict[str, Any]
    sheet: list[SheetSection] = dataclasses.field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; without texts and images, so it may be published where those may not."""
        content = dataclasses.asdict(dataclasses.replace(self, sheet=[]))
        del content["sheet"]
        return content

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `audit.json` and `audit.html` (which shows posts), each whole or not at all; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "audit.json": json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n",
            "audit.html": sheet_html(self.sheet, self.table()),
        }
        for name, text in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            try:
                temporary.write_text(text, encoding="utf-8")
                os.replace(temporary, folder / name)
            finally:
                temporary.unlink(missing_ok=True)
        return [folder / name for name in files]

    def table(self) -> str:
        """The counts as aligned plain text."""
        blocks = [self._overview(), self._duplicates(), self._leakage(), self._faults(), self._rationales()]
        return "\n\n".join(block for block in blocks if block)

    def _overview(self) -> str:
        lines = [f"{self.posts:,} posts: {_listed(self.labels)}"]
        if self.splits:
            lines.append(f"splits: {_listed(self.splits)}")
        if self.repeated_ids.count:
            lines.append(
                f"{self.repeated_ids.count:,} posts share their id with another, e.g. {self.repeated_ids.posts[0]}"
            )
        return "\n".join(lines)

    def _duplicates(self) -> str:
        rows = [["Duplicates", "groups", "posts", "surplus", "conflicting labels"]]
        if self.splits:
            rows[0].append("in several splits")
        for level, found in self.duplicates.items():
            numbers = [found.groups, found.posts, found.surplus, found.conflicting]
            rows.append([level, *(f"{number:,}" for number in [*numbers, *([found.crossing] if self.splits else [])])])
        return _grid(rows)

    def _leakage(self) -> str:
        lines = []
        if self.leakage:
            rows = [["Leaks into train (same label)", *self.leakage]]
            for split in ("validation", "test"):
                rows.append([f"{split} posts", *(f"{leak.posts[split]:,}" for leak in self.leakage.values())])
                levels = next(iter(self.leakage.values())).leaks
                rows += [
                    [f"  {level}", *(_leak(leak, level, split) for leak in self.leakage.values())] for level in levels
                ]
            lines.append(_grid(rows))
        if "folds" in self.leakage:
            lines.append("folds: the sum of its ten; every post is tested once")
        for protocol, leak in self.leakage.items():
            if leak.left_out:
                lines.append(f"{protocol}: {leak.left_out:,} posts are in none of its splits")
        lines += [f"{protocol}: not possible, {reason}" for protocol, reason in self.impossible.items()]
        return "\n".join(lines)

    def _faults(self) -> str:
        rows = [["Texts", "posts"], *([f"  {fault}", f"{found.count:,}"] for fault, found in self.texts.items())]
        rows += [["Images", "posts"], *([f"  {fault}", f"{found.count:,}"] for fault, found in self.images.items())]
        return _grid(rows)

    def _rationales(self) -> str:
        if not self.rationales:
            return ""
        written = (
            self.posts - sum(found[fault].count for fault in ("missing", "blank"))
            for found in self.rationales.values()
        )
        rows = [["Rationales", *self.rationales], ["  written", *(f"{count:,}" for count in written)]]
        for fault in next(iter(self.rationales.values())):
            rows.append([f"  {fault}", *(f"{found[fault].count:,}" for found in self.rationales.values())])
        return f"{_grid(rows)}\nposts with a rationale of all perspectives, some, none: " + ", ".join(
            f"{count:,}" for count in self.rationale_coverage.values()
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _leak(leak: Leakage, level: str, split: str) -> str:
    count = leak.leaks[level][split]
    return f"{count:,} ({leak.same_label[level][split]:,})" if count else "0"


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)
