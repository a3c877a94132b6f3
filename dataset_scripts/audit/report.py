"""Audit report: a table for the terminal, JSON for programs, and an HTML sheet of examples."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts.audit.groups import Duplicates, Leakage
from dataset_scripts.audit.sheet import SheetSection, sheet_html
from dataset_scripts.output import write_text_atomically

_MAX_LISTED = 1000


@dataclasses.dataclass
class FaultyPosts:
    """Posts with one fault: their number, and the names of the first thousand."""

    count: int
    posts: list[str]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "FaultyPosts":
        """Count the names and keep the first thousand."""
        names = list(names)
        return cls(len(names), names[:_MAX_LISTED])


@dataclasses.dataclass
class AuditReport:
    """Result of `audit_posts`. Posts are named by id, or by `split/id` where splits were given.

    Attributes:
        posts: number of posts.
        splits: given split -> posts; empty for a `Dataset`.
        labels: class -> posts, with `"no label"` if there are any.
        repeated_ids: posts that share their id with another post.
        duplicates: level -> `Duplicates`.
        leakage: protocol, or `"as given"` -> `Leakage`.
        impossible: protocol that these posts do not allow -> reason.
        texts: fault -> posts.
        images: fault -> posts.
        rationale_coverage: posts with a rationale for `all`, `some` or `none` of the perspectives in use.
        rationales: perspective -> `"missing"`, a code of the rationale gate, or `"not judged"` -> posts.
        settings: seed and thresholds.
        sheet: sections of the HTML sheet, with texts and images; not in the JSON.
    """

    posts: int
    splits: dict[str, int]
    labels: dict[str, int]
    repeated_ids: FaultyPosts
    duplicates: dict[str, Duplicates]
    leakage: dict[str, Leakage]
    impossible: dict[str, str]
    texts: dict[str, FaultyPosts]
    images: dict[str, FaultyPosts]
    rationale_coverage: dict[str, int]
    rationales: dict[str, dict[str, FaultyPosts]]
    settings: dict[str, Any]
    sheet: list[SheetSection] = dataclasses.field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values without texts and images, so that the result can be published."""
        content = dataclasses.asdict(dataclasses.replace(self, sheet=[]))
        del content["sheet"]
        return content

    def save(self, folder: str | Path) -> list[Path]:
        """Write `audit.json` and `audit.html` and return their paths. The HTML file shows posts."""
        files = {
            Path(folder) / "audit.json": json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n",
            Path(folder) / "audit.html": sheet_html(self.sheet, self.table()),
        }
        for path, text in files.items():
            write_text_atomically(path, text)
        return list(files)

    def table(self) -> str:
        """Format the counts as plain text with aligned columns."""
        blocks = [self._overview(), self._duplicates(), self._leakage(), self._faults(), self._rationales()]
        return "\n\n".join(filter(None, blocks))

    def _overview(self) -> str:
        lines = [f"{self.posts:,} posts: {_join_counts(self.labels)}"]
        if self.splits:
            lines.append(f"splits: {_join_counts(self.splits)}")
        if self.repeated_ids.count:
            lines.append(f"{self.repeated_ids.count:,} posts share an id, e.g. {self.repeated_ids.posts[0]}")
        return "\n".join(lines)

    def _duplicates(self) -> str:
        rows: list[list[Any]] = [["Duplicates", "groups", "posts", "surplus", "conflicting labels"]]
        for level, counts in self.duplicates.items():
            rows.append([level, counts.groups, counts.posts, counts.surplus, counts.conflicting])
        if self.splits:
            rows[0].append("in several splits")
            for row, counts in zip(rows[1:], self.duplicates.values(), strict=True):
                row.append(counts.crossing)
        return _align(rows)

    def _leakage(self) -> str:
        lines = []
        leaks = self.leakage.values()
        if leaks:
            rows: list[list[Any]] = [["Duplicates of train posts (same label)", *self.leakage]]
            for split in ("validation", "test"):
                rows.append([f"{split} posts", *(leak.posts[split] for leak in leaks)])
                for level in next(iter(leaks)).leaks:
                    rows.append([f"  {level}", *(_leak_cell(leak, level, split) for leak in leaks)])
            lines.append(_align(rows))
        if "folds" in self.leakage:
            lines.append("folds: sum of ten folds; each post is tested once")
        lines += [
            f"{protocol}: {leak.left_out:,} posts are in none of its splits"
            for protocol, leak in self.leakage.items()
            if leak.left_out
        ]
        lines += [f"{protocol}: not possible. {reason}" for protocol, reason in self.impossible.items()]
        return "\n".join(lines)

    def _faults(self) -> str:
        rows: list[list[Any]] = []
        for title, faults in (("Texts", self.texts), ("Images", self.images)):
            rows += [[title, "posts"], *([f"  {fault}", posts.count] for fault, posts in faults.items())]
        return _align(rows)

    def _rationales(self) -> str:
        if not self.rationales:
            return ""
        flags = self.rationales.values()
        rows: list[list[Any]] = [["Rationales", *self.rationales]]
        rows.append(["  written", *(self.posts - counts["missing"].count for counts in flags)])
        for flag in next(iter(flags)):
            if any(counts[flag].count for counts in flags):
                rows.append([f"  {flag}", *(counts[flag].count for counts in flags)])
        return f"{_align(rows)}\nposts by rationales: {_join_counts(self.rationale_coverage)}"


def _join_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _leak_cell(leak: Leakage, level: str, split: str) -> str:
    count = leak.leaks[level][split]
    return f"{count:,} ({leak.same_label[level][split]:,})" if count else "0"


def _align(rows: Sequence[Sequence[Any]]) -> str:
    """Align the first column to the left and the others to the right, two spaces apart."""
    texts = [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for name, *cells in texts:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)
