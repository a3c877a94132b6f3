"""Report of a build: rows read, kept, dropped and skipped."""

import dataclasses
import difflib
import logging
from collections.abc import Iterable, Mapping

from dataset_scripts.reading.option_names import option, option_name

logger = logging.getLogger(__name__)

_MAX_EXAMPLES = 3
NO_LABEL = "(none)"  # class of posts without label in `BuildReport.labels`


def did_you_mean(given: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` if a candidate is similar to `given`, else an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(given).lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def shown(value: object, limit: int = 80) -> str:
    """Write a value for a message, at most `limit` of its characters."""
    text = str(value)
    return repr(value) if len(text) <= limit else f"{text[: limit - 20]!r}… ({len(text):,} characters)"


def check_on_error(on_error: str) -> None:
    """Raise a ValueError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"{option_name('on_error')} must be 'raise' or 'skip', got {on_error!r}.")


@dataclasses.dataclass
class BuildReport:
    """Counts of the rows that a dataset was built from.

    Attributes:
        source (`str`): name of the dataset.
        read (`int`): rows of the input.
        kept (`int`): rows of the dataset.
        dropped (`dict[str, int]`): rows that are blank, or left out by a rule of the literature, by rule.
        skipped (`dict[str, int]`): faulty rows left out because of `on_error="skip"`, by reason.
        examples (`dict[str, list[str]]`): the first messages of each reason in `skipped`.
        notes (`dict[str, int]`): kept rows with a peculiarity (e.g. no rationale), by note.
        labels (`dict[str, int]`): kept rows of each class; rows without label under `"(none)"`.
        on_error (`str`): `"raise"` or `"skip"`.
        differences (`list[str]`): differences from the counts of the full download and of Table 1 of the paper.
    """

    source: str
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    on_error: str = "raise"
    differences: list[str] = dataclasses.field(default_factory=list)

    def fail(self, reason: str, message: str) -> None:
        """Record a faulty row as skipped, or raise its message.

        Raises:
            ValueError: `on_error` is `"raise"`.
        """
        if self.on_error == "raise":
            raise ValueError(f"{message} Or skip such rows with {option('on_error', 'skip')}.")
        logger.info("skipped (%s): %s", reason, message)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MAX_EXAMPLES:
            examples.append(message)

    def drop(self, rule: str) -> None:
        """Count a row that a rule of the literature leaves out."""
        self.dropped[rule] = self.dropped.get(rule, 0) + 1

    def note(self, note: str, count: int = 1) -> None:
        """Count a peculiarity of kept rows."""
        self.notes[note] = self.notes.get(note, 0) + count

    def keep(self, label: str | None) -> None:
        """Count a kept row and its class."""
        self.kept += 1
        name = NO_LABEL if label is None else label
        self.labels[name] = self.labels.get(name, 0) + 1

    def skip_kept(self, reason: str, count: int, message: str) -> None:
        """Count posts without label that were kept, and are left out of training, as skipped."""
        self.kept -= count
        self.labels = {name: number for name, number in self.labels.items() if name != NO_LABEL}
        self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.examples.setdefault(reason, []).append(message)

    def summary(self) -> str:
        """Format the counts as a few lines of text."""
        classes = ", ".join(f"{name} {count:,}" for name, count in self.labels.items())
        kept = f"{self.kept:,} posts kept" + (f" ({classes})" if classes else "")
        lines = [f"{self.source}: {self.read:,} rows read, {kept}"]
        lines += [f"  dropped by rule: {rule} {count:,}" for rule, count in self.dropped.items()]
        lines += [f"  skipped: {why} {count:,}, e.g. {self.examples[why][0]}" for why, count in self.skipped.items()]
        lines += [f"  note: {note} {count:,}" for note, count in self.notes.items()]
        lines += [f"  differs: {difference}" for difference in self.differences]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class PublishedCounts:
    """Published counts of a full download: rows of its table, and kept posts of each class."""

    rows: int
    labels: Mapping[str, int]

    def differences(self, report: BuildReport) -> list[str]:
        """Describe where the counts of a report differ, one sentence each."""
        differences = []
        if report.read != self.rows:
            differences.append(f"{report.read:,} rows read, a full download has {self.rows:,}")
        if report.labels != self.labels:
            posts, expected = _counts(report.kept, report.labels), _counts(sum(self.labels.values()), self.labels)
            differences.append(f"{posts} kept, published results are on {expected}")
        return differences


def _counts(total: int, labels: Mapping[str, int]) -> str:
    return f"{total:,} posts ({', '.join(f'{name} {labels[name]:,}' for name in sorted(labels))})"
