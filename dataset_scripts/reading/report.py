"""Account of a dataset's rows: read, kept, dropped, skipped; and the checks that every loader shares."""

import dataclasses
import difflib
import logging
from collections.abc import Iterable, Mapping

logger = logging.getLogger(__name__)

_EXAMPLES_KEPT = 3


def did_you_mean(given: str, candidates: Iterable[str]) -> str:
    """` Did you mean 'x'?` where one candidate is close to `given`, else an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(given).lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


@dataclasses.dataclass
class BuildReport:
    """What became of every row of the input.

    Attributes:
        source (`str`): name of the dataset.
        read (`int`): rows in the input.
        kept (`int`): rows in the dataset.
        dropped (`dict[str, int]`): rows left out by a rule of the literature, by rule. Not a fault of the data.
        skipped (`dict[str, int]`): faulty rows left out because of `on_error="skip"`, by reason.
        examples (`dict[str, list[str]]`): the first few messages of each reason in `skipped`.
        notes (`dict[str, int]`): rows that were kept, but are worth knowing of (e.g. no rationale), by remark.
        labels (`dict[str, int]`): kept rows per class; rows without label under `"(none)"`.
        on_error (`str`): `"raise"` or `"skip"`.
        differences (`list[str]`): where the counts are not those of the full download or of Table 1 of the paper.
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
        """A faulty row: a ValueError, or with `on_error="skip"` a counted skip (the caller then goes on).

        Raises:
            ValueError: `on_error` is `"raise"`.
        """
        if self.on_error == "raise":
            raise ValueError(f'{message} Or leave such rows out, counted, with on_error="skip".')
        logger.info("skipped (%s): %s", reason, message)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES_KEPT:
            examples.append(message)

    def drop(self, rule: str) -> None:
        self.dropped[rule] = self.dropped.get(rule, 0) + 1

    def note(self, remark: str, count: int = 1) -> None:
        self.notes[remark] = self.notes.get(remark, 0) + count

    def keep(self, label: str | None) -> None:
        self.kept += 1
        name = "(none)" if label is None else label
        self.labels[name] = self.labels.get(name, 0) + 1

    def summary(self) -> str:
        """A few lines for a person: rows read and kept, classes, and each reason with its count."""
        classes = ", ".join(f"{name} {count:,}" for name, count in self.labels.items())
        lines = [f"{self.source}: {self.read:,} rows read, {self.kept:,} posts kept ({classes})"]
        lines += [f"  dropped by rule: {rule} {count:,}" for rule, count in self.dropped.items()]
        lines += [f"  skipped: {why} {count:,}, e.g. {self.examples[why][0]}" for why, count in self.skipped.items()]
        lines += [f"  note: {remark} {count:,}" for remark, count in self.notes.items()]
        lines += [f"  differs: {difference}" for difference in self.differences]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Published:
    """Figures of the literature for a whole download: rows of its table, and posts kept of each class."""

    rows: int
    labels: Mapping[str, int]

    def differences(self, report: BuildReport) -> list[str]:
        """What of `report` does not agree, in sentences."""
        found = []
        if report.read != self.rows:
            found.append(f"{report.read:,} rows read, a full download has {self.rows:,}")
        if report.labels != self.labels:
            posts, expected = _counts(report.kept, report.labels), _counts(sum(self.labels.values()), self.labels)
            found.append(f"{posts} kept, published results are on {expected}")
        return found


def _counts(total: int, labels: Mapping[str, int]) -> str:
    return f"{total:,} posts ({', '.join(f'{name} {labels[name]:,}' for name in sorted(labels))})"


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error={on_error!r}; write "raise" (stop at a faulty row) or "skip" (count it, go on).')
