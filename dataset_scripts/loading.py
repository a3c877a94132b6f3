"""Posts of any dataset by its name, with the columns of `schema.features`."""

import inspect
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts.loaders.opening import open_dataset
from dataset_scripts.loaders.published import OPTIONS, standard_columns
from dataset_scripts.rationales.join import join_rationales
from dataset_scripts.reading.archives import ArchiveLimits, raw_folder
from dataset_scripts.reading.option_names import load_call, option, option_name
from dataset_scripts.reading.report import BuildReport, check_on_error, did_you_mean
from dataset_scripts.reading.tables import SUFFIXES
from dataset_scripts.registry import DATASETS
from dataset_scripts.schema import CONTENT, null_rows, rationale_column

logger = logging.getLogger(__name__)


def load_posts(
    name: str,
    data_dir: str | Path | None = None,
    *,
    rationales: str | Path | None = None,
    on_error: str = "raise",
    archive_limits: ArchiveLimits | None = None,
    **options: Any,
) -> Dataset | DatasetDict:
    """Load posts by the name of their dataset, with the columns of `schema.features`.

    Args:
        name (`str`):
            A name in `registry.DATASETS`: `"sample"` needs no files, `"folder"` is a table of your own, the others
            are datasets of the literature. Or a folder or Hub id that `datasets.load_dataset` or `load_from_disk`
            opens; columns that it lacks get their defaults.
        data_dir (`str` or `Path`, *optional*):
            The raw data: a folder, or an archive as downloaded (ZIP, TAR, compressed TAR), which is unpacked once
            into the datasets cache. For a dataset published without texts and images, the original download that has
            them (`join_content`).
        rationales (`str` or `Path`, *optional*):
            TSV, CSV, JSONL or Parquet file of rationales, or the folder of a store, joined by `id`
            (`join_rationales`).
        on_error (`str`, defaults to `"raise"`):
            `"raise"` stops at a faulty row and names a fix; `"skip"` leaves the row out, counts and logs it.
        archive_limits (`ArchiveLimits`, *optional*): limits of unpacked files, against archive bombs.
        options:
            Options of the loader, e.g. `num_proc` (images decoded at a time). For a folder or Hub id those of
            `datasets.load_dataset`, whose `name` is `config_name` here, and `text_column`, `image_column`,
            `label_column`, `id_column`, `group_column`, `labels` and `language` as of the loader `folder`.

    Returns:
        A `Dataset`; a `DatasetDict` if a published dataset or a folder has several splits.

    Raises:
        ValueError: unknown name or option, or a fault in the data; the message names file, row and fix.
    """
    posts, _ = load_posts_with_report(
        name, data_dir, rationales=rationales, on_error=on_error, archive_limits=archive_limits, **options
    )
    return posts


def load_posts_with_report(
    name: str,
    data_dir: str | Path | None = None,
    *,
    rationales: str | Path | None = None,
    on_error: str = "raise",
    archive_limits: ArchiveLimits | None = None,
    **options: Any,
) -> tuple[Dataset | DatasetDict, BuildReport]:
    """Load posts as `load_posts`, and report the rows read, dropped and skipped."""
    check_on_error(on_error)
    if name in DATASETS:
        posts, report = _load_registered(name, data_dir, on_error, archive_limits, options)
    else:
        report = BuildReport(source=name, on_error=on_error)
        posts = _load_published(name, data_dir, report, options)
    if rationales is not None:
        posts = join_rationales(posts, Path(rationales).expanduser(), on_error=on_error, report=report)
    logger.log(logging.WARNING if report.skipped else logging.INFO, "%s", report.summary())
    return posts, report


def join_content(
    published: Dataset | DatasetDict,
    name: str,
    data_dir: str | Path,
    *,
    on_missing: str = "raise",
    **options: Any,
) -> Dataset | DatasetDict:
    """Add texts and images of the original download to posts published without them.

    Args:
        published (`Dataset` or `DatasetDict`): ids, labels and rationales, as `load_dataset` opens them.
        name (`str`): dataset of the original, such as `"mvsa_single"`, as for `load_posts`.
        data_dir (`str` or `Path`): folder of the original download.
        on_missing (`str`, defaults to `"raise"`):
            `"skip"` leaves out the posts that the download lacks, and logs their number.
        options: of `load_posts`, e.g. `on_error="skip"` for a download with faulty posts.

    Returns:
        `published` with the columns `image` and `text`, in the order of `schema.features`.

    Raises:
        ValueError: the posts have texts or images, the download lacks some of them, or it has other labels for them
            (MVSA-Single and MVSA-Multiple have equal ids).
    """
    if on_missing not in ("raise", "skip"):
        raise ValueError(f"`on_missing` must be 'raise' or 'skip', got {on_missing!r}.")
    splits = _splits(published)
    for posts in splits.values():
        if any(column in posts.column_names for column in CONTENT):
            raise ValueError(
                f"The posts already have {' or '.join(CONTENT)} (columns: {posts.column_names}); there is nothing to "
                "join."
            )
    original = concatenate_datasets(list(_splits(load_posts(name, data_dir, **options)).values()))
    row_of = {post_id: row for row, post_id in enumerate(original["id"])}
    joined = {}
    for split, posts in splits.items():
        posts = _select_present(posts, row_of, f"posts of {split!r} are not in {name} of {data_dir}", on_missing)
        content = original.select([row_of[post_id] for post_id in posts["id"]])
        _compare_labels(posts, content, f"{name} of {data_dir}")
        order = [column for column in original.column_names if column in CONTENT or column in posts.column_names]
        order += [column for column in posts.column_names if column not in order]
        content = content.select_columns(list(CONTENT))
        joined[split] = concatenate_datasets([posts, content], axis=1).select_columns(order)
    return DatasetDict(joined) if isinstance(published, DatasetDict) else joined["posts"]


def _load_registered(
    name: str,
    data_dir: str | Path | None,
    on_error: str,
    archive_limits: ArchiveLimits | None,
    options: dict[str, Any],
) -> tuple[Dataset, BuildReport]:
    load = DATASETS[name].load
    parameters = inspect.signature(load).parameters
    given: dict[str, Any] = {"on_error": on_error}
    if "data_dir" in parameters:
        if data_dir is None:
            raise ValueError(
                f"{load_call(name)} needs {option_name('data_dir')}: the folder of the raw data, or its archive."
            )
        given["data_dir"] = None  # unpacked below, after the options are checked
    elif data_dir is not None:
        raise _needless_data_dir(name, data_dir)
    if "archive_limits" in parameters:
        given["archive_limits"] = archive_limits
    known = [parameter for parameter in parameters if parameter not in given]
    for wanted in options:
        if wanted not in known:
            raise ValueError(
                f"{name!r} has no option {wanted!r}; its options are {', '.join(known) or '(none)'}."
                + did_you_mean(wanted, known)
            )
    if data_dir is not None and Path(data_dir).suffix.lower() in SUFFIXES and Path(data_dir).is_file():
        raise _is_a_table(Path(data_dir))
    if data_dir is not None:
        given["data_dir"] = raw_folder(Path(data_dir).expanduser(), archive_limits)
    return load(**given, **options)


def _load_published(
    name: str, data_dir: str | Path | None, report: BuildReport, options: dict[str, Any]
) -> Dataset | DatasetDict:
    """Load a dataset from disk or from the Hub, with the columns of `schema.features`."""
    if Path(name).is_file():
        raise _is_a_table(Path(name))
    if not Path(name).is_dir() and "/" not in name:
        raise ValueError(
            f"{name!r} must be one of {', '.join(DATASETS)}, a folder, or a Hub id (owner/name)."
            + did_you_mean(name, DATASETS)
        )
    posts = open_dataset(name, **{key: value for key, value in options.items() if key not in OPTIONS})
    if data_dir is not None:
        posts = _with_content(posts, name, data_dir, report.on_error)
    posts = standard_columns(posts, name, report, **{key: value for key, value in options.items() if key in OPTIONS})
    _count_kept(posts, report)
    if len(posts) == 1:
        (posts,) = posts.values()
    return posts


def _with_content(posts: DatasetDict, name: str, data_dir: str | Path, on_error: str) -> DatasetDict:
    """Join the original download of the dataset that the column `source` names."""
    splits = posts.values()
    if any(column in split.column_names for split in splits for column in CONTENT):
        raise _needless_data_dir(name, data_dir)
    sources = sorted({str(source) for split in splits if "source" in split.column_names for source in split["source"]})
    if len(sources) != 1 or sources[0] not in DATASETS:
        raise ValueError(
            f"{name!r}: the column 'source' must name one of {', '.join(DATASETS)} to join a download, got {sources}. "
            "Name the dataset yourself: join_content(posts, name, data_dir)."
        )
    return join_content(posts, sources[0], data_dir, on_missing=on_error, on_error=on_error)


def _select_present(posts: Dataset, ids: dict[str, int], problem: str, on_missing: str) -> Dataset:
    """Select the posts with one of `ids`; raise or log `problem` with the number of the others."""
    missing = [post_id for post_id in posts["id"] if post_id not in ids]
    if not missing:
        return posts
    message = f"{len(missing):,} of {len(posts):,} {problem} (first: {', '.join(missing[:3])})"
    if on_missing == "raise" or len(missing) == len(posts):
        skip = "." if len(missing) == len(posts) else ', or leave these posts out with on_missing="skip".'
        raise ValueError(f"{message}. Give the whole download of the dataset that was published{skip}")
    logger.warning("%s; left out", message)
    return posts.select([row for row, post_id in enumerate(posts["id"]) if post_id in ids])


def _compare_labels(posts: Dataset, content: Dataset, download: str) -> None:
    names, original_names = posts.features["label"].names, content.features["label"].names
    labels = zip(posts["id"], posts["label"], content["label"], strict=True)
    differing = [
        f"{post_id}: {names[label]} as published, {original_names[original]} in the download"
        for post_id, label, original in labels
        if label is not None and original is not None and names[label] != original_names[original]
    ]
    if differing:
        raise ValueError(
            f"{len(differing):,} of {len(posts):,} posts have another label in {download} (first: {differing[0]}); is "
            "this the dataset that was published? Equal ids can be other posts."
        )


def _splits(posts: Dataset | DatasetDict) -> dict[str, Dataset]:
    return posts if isinstance(posts, DatasetDict) else {"posts": posts}


def _is_a_table(file: Path) -> ValueError:
    where = load_call("folder", str(file.parent))
    return ValueError(
        f"{file} is a file. A table is read by its folder and name: {where}, {option('file', file.name)}."
    )


def _needless_data_dir(name: str, data_dir: str | Path) -> ValueError:
    return ValueError(f"{load_call(name)} takes no {option('data_dir', str(data_dir))}; leave it out.")


def _count_kept(posts: DatasetDict, report: BuildReport) -> None:
    for split in posts.values():
        label = split.features["label"]
        for value in split["label"]:
            report.keep(label.int2str(value) if value is not None else None)
        rationales = [column for column in split.column_names if column.startswith(rationale_column(""))]
        columns_of = {"text": ["text"], "image": ["image"], "one of its rationales": rationales}
        for name, columns in columns_of.items():
            if columns and (missing := len(null_rows(split, columns, any_of=True))):
                report.note(f"without {name}", missing)
