"""From a loader's rows to a `datasets.Dataset` on disk, with an account of what was read, dropped and skipped."""

import contextvars
import dataclasses
import difflib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, config
from datasets.exceptions import DatasetGenerationError

from .image_checks import Journal, Unchecked, checked_rows

logger = logging.getLogger(__name__)

_EXAMPLES_KEPT = 3
# Not among the generator's arguments: datasets would take another number of workers for another dataset.
_num_workers: contextvars.ContextVar[int] = contextvars.ContextVar("num_workers", default=1)


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


def files_in(folder: Path) -> Iterator[str]:
    """Paths of the files in a folder, sorted by name (strings, a Path weighs more); none if there is no folder."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
        yield from (os.path.join(folder, name) for name in names)


def inputs_digest(files: Iterable[str | Path]) -> str:
    """Hash of names, sizes and modification times: changes whenever an input file does. Missing files count too."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file)
            entry = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            entry = f"{file}\0missing\n"
        digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()


def build_dataset(
    source: str,
    rows: Callable[..., Iterator[dict[str, Any] | Unchecked]],
    schema: Features,
    *,
    inputs: str,
    options: dict[str, Any],
    on_error: str = "raise",
    num_proc: int | None = None,
    published: Published | None = None,
) -> tuple[Dataset, BuildReport]:
    """Writes rows to the datasets cache one at a time, so that memory does not grow with the number of posts.

    A second call with the same inputs, options and code reads the cache; the report comes back with it. A build that
    was stopped begins anew, but does not decode again the images that it had decoded.

    Args:
        source: name of the dataset, for messages and the cache folder.
        rows: a module-level generator function `rows(report, **options)` that yields rows of `schema`, or `Unchecked`
            rows whose image file is still to be decoded, and gives every row it does not yield to `report.fail` or
            `report.drop`. Labels are yielded as class names.
        schema: features of the dataset.
        inputs: a digest that changes when an input file does (`inputs_digest`).
        options: keyword arguments of `rows`; plain JSON values.
        on_error: `"raise"` or `"skip"`.
        num_proc: how many images are decoded at a time; 1 by default.
        published: figures to compare with; a difference is logged as a warning and stands in the report.

    Raises:
        ValueError: whatever `rows` objects to, or if no row is left.
    """
    check_on_error(on_error)
    if num_proc is not None and (isinstance(num_proc, bool) or not isinstance(num_proc, int) or num_proc < 1):
        raise ValueError(f"num_proc={num_proc!r}; write how many images to decode at a time, 1 or more.")
    identity = [source, inputs, options, on_error, repr(schema), _code_digest()]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    cache = Path(config.HF_DATASETS_CACHE) / "mpt_posts"
    folder = cache / f"{source}-{key}"
    # Not `key`: what was decoded stays decoded when another file changed, or after on_error="raise" stopped.
    place = hashlib.sha256(json.dumps([source, options], sort_keys=True).encode()).hexdigest()[:16]
    arguments = {"source": source, "options": options, "on_error": on_error}
    files = {"report": str(folder / "build_report.json"), "journal": str(cache / f"{source}-{place}.checked_images")}
    workers = _num_workers.set(num_proc or 1)
    try:
        dataset = Dataset.from_generator(
            _recorded_rows,
            features=schema,
            cache_dir=str(folder),
            # Everything sits inside dicts: datasets takes a list at this level for shards and would cut it up.
            gen_kwargs={"rows": rows, "arguments": arguments, "files": files},
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None  # the row's own message, without datasets' wrapping
        raise
    finally:
        _num_workers.reset(workers)
    try:
        report = BuildReport(**json.loads((folder / "build_report.json").read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"the build report of {folder} is gone; delete that folder and load again.") from error
    report.differences = published.differences(report) if published else []
    for difference in report.differences:
        logger.warning("%s: %s", source, difference)
    return dataset, report


def _recorded_rows(
    rows: Callable[..., Iterator[dict[str, Any] | Unchecked]], arguments: dict[str, Any], files: dict[str, str]
) -> Iterator[dict[str, Any]]:
    report = BuildReport(arguments["source"], on_error=arguments["on_error"])
    found = rows(report, **arguments["options"])
    for row in checked_rows(found, report, Journal(Path(files["journal"])), _num_workers.get()):
        report.keep(row.get("label"))
        yield row
    if report.kept == 0:
        raise ValueError(f"no row is left.\n{report.summary()}\nCheck the folder and the reasons above.")
    Path(files["report"]).write_text(json.dumps(dataclasses.asdict(report)), encoding="utf-8")


def _code_digest() -> str:
    """A new version of a loader must not be answered from the cache of the old one."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
