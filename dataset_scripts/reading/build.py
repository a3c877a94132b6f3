"""Datasets built from a loader's rows: cached on disk, with a report of the rows."""

import contextvars
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, config
from datasets.exceptions import DatasetGenerationError

from dataset_scripts.reading.image_checks import DECODERS, ImageCheckLog, UncheckedRow, checked_rows
from dataset_scripts.reading.report import BuildReport, PublishedCounts, check_on_error

logger = logging.getLogger(__name__)

# Not an argument of the generator: `datasets` would build another dataset for another number of workers.
_num_workers: contextvars.ContextVar[int] = contextvars.ContextVar("num_workers", default=1)


def build_dataset(
    source: str,
    rows: Callable[..., Iterator[dict[str, Any] | UncheckedRow]],
    schema: Features,
    *,
    inputs: str,
    options: dict[str, Any],
    on_error: str = "raise",
    num_proc: int | None = None,
    published: PublishedCounts | None = None,
) -> tuple[Dataset, BuildReport]:
    """Build a dataset from rows, written to the datasets cache one at a time.

    Memory does not grow with the number of posts. A second call with the same inputs, options and code returns the
    cached dataset and report. A build after an interruption starts again, but decodes no image twice.

    Args:
        source: name of the dataset, for messages and the cache folder.
        rows: module-level generator function `rows(report, **options)`. It yields rows of `schema`, or `UncheckedRow`
            if an image file must be decoded, and passes every other row to `report.fail` or `report.drop`. Labels are
            class names.
        inputs: digest that changes when an input file does (`files.inputs_digest`).
        options: keyword arguments of `rows`; plain JSON values.
        published: counts to compare with; differences are logged as warnings and added to the report.

    Raises:
        ValueError: a faulty row, no row is left, or an argument is invalid.
    """
    check_on_error(on_error)
    if num_proc is not None and (isinstance(num_proc, bool) or not isinstance(num_proc, int) or num_proc < 1):
        raise ValueError(f"`num_proc` must be a number of images to decode at a time, 1 or more, got {num_proc!r}.")
    identity = [source, inputs, options, on_error, repr(schema), _code_digest(), DECODERS]
    cache = Path(config.HF_DATASETS_CACHE) / "mpt_posts"
    folder = cache / f"{source}-{_short_hash(identity)}"
    # Named by source and options alone: a build with changed inputs or on_error reuses the checks.
    check_log = cache / f"{source}-{_short_hash([source, options])}.checked_images"
    arguments = {"source": source, "options": options, "on_error": on_error}
    files = {"report": str(folder / "build_report.json"), "check_log": str(check_log)}
    workers = _num_workers.set(num_proc or 1)
    try:
        dataset = Dataset.from_generator(
            _recorded_rows,
            features=schema,
            cache_dir=str(folder),
            # Nested in dicts: `datasets` splits lists among the direct arguments as shards.
            gen_kwargs={"rows": rows, "arguments": arguments, "files": files},
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
    finally:
        _num_workers.reset(workers)
    try:
        report = BuildReport(**json.loads((folder / "build_report.json").read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"The build report of {folder} is missing; delete that folder and load again.") from error
    report.differences = published.differences(report) if published else []
    for difference in report.differences:
        logger.warning("%s: %s", source, difference)
    return dataset, report


def _recorded_rows(
    rows: Callable[..., Iterator[dict[str, Any] | UncheckedRow]], arguments: dict[str, Any], files: dict[str, str]
) -> Iterator[dict[str, Any]]:
    report = BuildReport(arguments["source"], on_error=arguments["on_error"])
    unchecked = rows(report, **arguments["options"])
    for row in checked_rows(unchecked, report, ImageCheckLog(Path(files["check_log"])), _num_workers.get()):
        report.keep(row.get("label"))
        yield row
    if report.kept == 0:
        raise ValueError(f"No row is left.\n{report.summary()}\nCheck the folder and the reasons above.")
    Path(files["report"]).write_text(json.dumps(dataclasses.asdict(report)), encoding="utf-8")


def _short_hash(value: list[Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _code_digest() -> str:
    """Hash the code of this package: a new version must not read the cache of an old one."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
