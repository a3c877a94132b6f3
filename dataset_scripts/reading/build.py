"""From a loader's rows to a `datasets.Dataset` on disk, with an account of what was read, dropped and skipped."""

import contextvars
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, config
from datasets.exceptions import DatasetGenerationError

from dataset_scripts.reading.image_checks import Journal, Unchecked, checked_rows
from dataset_scripts.reading.report import BuildReport, Published, check_on_error

logger = logging.getLogger(__name__)

# Not among the generator's arguments: datasets would take another number of workers for another dataset.
_num_workers: contextvars.ContextVar[int] = contextvars.ContextVar("num_workers", default=1)


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
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
