"""Posts of any dataset by its name, with the columns of `schema.features`."""

import inspect
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk

from dataset_scripts.loaders.authors import load_authors
from dataset_scripts.loaders.ch_mits import load_ch_mits
from dataset_scripts.loaders.folder import load_folder
from dataset_scripts.loaders.memotion import load_memotion
from dataset_scripts.loaders.mvsa import load_mvsa_multiple, load_mvsa_single
from dataset_scripts.rationales.join import join_rationales
from dataset_scripts.reading.archives import ArchiveLimits, raw_folder
from dataset_scripts.reading.report import BuildReport, check_on_error, did_you_mean
from dataset_scripts.schema import CONTENT, features

logger = logging.getLogger(__name__)

_FOLDER_LOADERS: dict[str, Callable[..., tuple[Dataset, BuildReport]]] = {
    "mvsa_single": load_mvsa_single,
    "mvsa_multiple": load_mvsa_multiple,
    "memotion": load_memotion,
    "ch_mits": load_ch_mits,
    "authors": load_authors,
    "folder": load_folder,
}
_NAMES = ("sample", *_FOLDER_LOADERS)
_PASSED_APART = ("data_dir", "on_error", "archive_limits")


def load_posts(
    name: str,
    data_dir: str | Path | None = None,
    *,
    rationales: str | Path | None = None,
    on_error: str = "raise",
    archive_limits: ArchiveLimits | None = None,
    **options: Any,
) -> Dataset | DatasetDict:
    """Loads posts by the name of their dataset; the columns are those of `schema.features`.

    Args:
        name (`str`):
            `"sample"` (drawn by code, needs nothing), `"mvsa_single"`, `"mvsa_multiple"`, `"memotion"`, `"ch_mits"`,
            `"authors"`, `"folder"`, or a folder or Hub id that `datasets.load_dataset` (or `load_from_disk`) opens
            and that has these columns.
        data_dir (`str` or `Path`, *optional*):
            The raw data: a folder, or an archive as downloaded (ZIP, TAR, compressed TAR), which is unpacked once,
            into the datasets cache (`archives.unpack`). Not for `"sample"`; for what `load_dataset` opens, only where
            it was published without texts and images, which are then taken from here (`publish.join_content`).
        rationales (`str` or `Path`, *optional*):
            TSV, CSV, JSONL or Parquet file of rationales, or the folder of a store of them, joined by `id`
            (`rationale_files.join_rationales`).
        on_error (`str`, defaults to `"raise"`):
            `"raise"` stops at a faulty row and says how to mend it; `"skip"` leaves it out, counted and logged.
        archive_limits (`ArchiveLimits`, *optional*):
            What an archive may unpack to; more is taken for a bomb.
        options:
            Options of the loader, e.g. `num_proc` (images decoded at a time): see `load_mvsa_single`,
            `load_mvsa_multiple`, `load_memotion`, `load_ch_mits`, `load_authors`, `load_folder`,
            `sample.load_sample`, or `datasets.load_dataset` (whose `name` is `config_name` here).

    Returns:
        A `Dataset`; a `DatasetDict` only where a published dataset brings several splits of its own.

    Raises:
        ValueError: unknown name or option, or a fault in the data (the message names file, row and remedy).
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
    """As `load_posts`, with the account of what was read, dropped and skipped."""
    check_on_error(on_error)
    if name in _FOLDER_LOADERS:
        if data_dir is None:
            raise ValueError(f"load_posts({name!r}) needs data_dir: the folder of the raw data, or its archive.")
        loader = _FOLDER_LOADERS[name]
        _check_options(name, loader, options)
        data_dir = raw_folder(Path(data_dir).expanduser(), archive_limits)
        if loader is load_ch_mits:  # its parts are archives inside
            options = options | {"archive_limits": archive_limits}
        posts, report = loader(data_dir, on_error=on_error, **options)
    elif name == "sample":
        if data_dir is not None:
            raise _needless(name, data_dir)
        posts = _load_sample(on_error, options)
        report = _report_of(name, posts)
    else:
        posts = _load_published(name, data_dir, on_error, options)
        report = _report_of(name, posts)
    if rationales is not None:
        posts = _with_rationales(posts, Path(rationales).expanduser(), on_error, report)
    logger.log(logging.WARNING if report.skipped else logging.INFO, "%s", report.summary())
    return posts, report


def _load_sample(on_error: str, options: dict[str, Any]) -> Dataset:
    from dataset_scripts.loaders.sample.posts import (
        load_sample,  # drawing needs fonts and a grammar that no other dataset needs
    )

    _check_options("sample", load_sample, options)
    return load_sample(on_error=on_error, **options)


def _needless(name: str, data_dir: str | Path) -> ValueError:
    return ValueError(f"load_posts({name!r}) takes no data_dir (given: {str(data_dir)!r}); leave it out.")


def _load_published(
    name: str, data_dir: str | Path | None, on_error: str, options: dict[str, Any]
) -> Dataset | DatasetDict:
    """A dataset that already has our columns, on disk or on the Hub."""
    folder = Path(name)
    options = dict(options)
    config_name = options.pop("config_name", None)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        posts = load_from_disk(name, **options)
    elif folder.is_dir() or "/" in name:
        posts = load_dataset(name, config_name, **options)
    else:
        raise ValueError(
            f"{name!r} is neither one of {', '.join(_NAMES)} nor a folder nor a Hub id (owner/name)."
            + did_you_mean(name, _NAMES)
        )
    if isinstance(posts, DatasetDict) and len(posts) == 1:
        (posts,) = posts.values()
    if data_dir is not None:
        posts = _with_content(posts, name, data_dir, on_error)
    for split in posts.values() if isinstance(posts, DatasetDict) else [posts]:
        missing = [column for column in features(perspectives=()) if column not in split.column_names]
        if missing == ["image", "text"]:
            raise ValueError(
                f"{name!r} was published without texts and images; give the original download, from which they are "
                "taken, as data_dir=…."
            )
        if missing:
            raise ValueError(
                f"{name!r} lacks the columns {missing} (found: {split.column_names}); for a table of your own use "
                "load_posts('folder', data_dir, text_column=…), which takes any column names."
            )
        if not isinstance(split.features["label"], ClassLabel):
            raise ValueError(
                f"{name!r}: the column 'label' is {split.features['label']}; it must be a ClassLabel. Use "
                "dataset.class_encode_column('label')."
            )
    return posts


def _with_content(
    posts: Dataset | DatasetDict, name: str, data_dir: str | Path, on_error: str
) -> Dataset | DatasetDict:
    splits = list(posts.values()) if isinstance(posts, DatasetDict) else [posts]
    if any("text" in split.column_names or "image" in split.column_names for split in splits):
        raise _needless(name, data_dir)
    sources = sorted({str(source) for split in splits if "source" in split.column_names for source in split["source"]})
    if len(sources) != 1 or sources[0] not in _FOLDER_LOADERS:
        raise ValueError(
            f"{name!r}: its column 'source' names {sources}; data_dir can be joined to posts of exactly one of "
            f"{', '.join(_FOLDER_LOADERS)}. Name the loader yourself: publish.join_content(posts, loader, data_dir)."
        )
    return join_content(posts, sources[0], data_dir, on_missing=on_error, on_error=on_error)


def join_content(
    published: Dataset | DatasetDict,
    name: str,
    data_dir: str | Path,
    *,
    on_missing: str = "raise",
    **options: Any,
) -> Dataset | DatasetDict:
    """Puts the texts and images of an original download into posts that were published without them.

    Args:
        published (`Dataset` or `DatasetDict`): ids, labels and rationales, as `load_dataset` opens them.
        name (`str`): loader of the original: `"mvsa_single"`, `"ch_mits"`, … as for `load_posts`.
        data_dir (`str` or `Path`): folder of the original download.
        on_missing (`str`, defaults to `"raise"`):
            `"skip"` leaves out, counted and logged, the posts that the download does not have.
        options: of `load_posts`, e.g. `on_error="skip"` where the download has faulty posts.

    Returns:
        As `published`, with `image` and `text` in the places that `schema.features` gives them.

    Raises:
        ValueError: posts already have their content, ids that the download lacks, or another label in the download
            (ids alone do not tell MVSA-Single from MVSA-Multiple).
    """
    if on_missing not in ("raise", "skip"):
        raise ValueError(f'on_missing={on_missing!r}; write "raise" or "skip".')
    parts = published if isinstance(published, DatasetDict) else {"posts": published}
    for posts in parts.values():
        if any(column in posts.column_names for column in CONTENT):
            raise ValueError(
                f"the posts already have {CONTENT} (columns: {posts.column_names}); there is nothing to join."
            )
    original = load_posts(name, data_dir, **options)
    if isinstance(original, DatasetDict):
        original = concatenate_datasets(list(original.values()))
    place = {post: row for row, post in enumerate(original["id"])}
    joined = {
        split: _join(posts, split, original, place, name, data_dir, on_missing) for split, posts in parts.items()
    }
    return DatasetDict(joined) if isinstance(published, DatasetDict) else joined["posts"]


def _join(
    posts: Dataset,
    split: str,
    original: Dataset,
    place: dict[str, int],
    name: str,
    data_dir: str | Path,
    on_missing: str,
) -> Dataset:
    ids = list(posts["id"])
    missing = [post for post in ids if post not in place]
    if missing:
        message = (
            f"{len(missing):,} of {len(ids):,} posts of {split!r} are not in {name} of {data_dir} (first: "
            f"{', '.join(missing[:3])})"
        )
        if on_missing == "raise" or len(missing) == len(ids):
            raise ValueError(
                f"{message}. Give the whole download of the dataset that was published"
                + ("." if len(missing) == len(ids) else ', or leave such posts out with on_missing="skip".')
            )
        logger.warning("%s; left out", message)
        posts = posts.select([row for row, post in enumerate(ids) if post in place])
        ids = list(posts["id"])
    content = original.select([place[post] for post in ids])
    _compare_labels(posts, content, ids, name, data_dir)
    order = [column for column in original.column_names if column in CONTENT or column in posts.column_names]
    order += [column for column in posts.column_names if column not in order]
    return concatenate_datasets([posts, content.select_columns(list(CONTENT))], axis=1).select_columns(order)


def _compare_labels(posts: Dataset, content: Dataset, ids: list[str], name: str, data_dir: str | Path) -> None:
    names, original_names = posts.features["label"].names, content.features["label"].names
    differing = [
        f"{post} is {names[ours]} here, {original_names[theirs]} there"
        for post, ours, theirs in zip(ids, posts["label"], content["label"], strict=True)
        if ours is not None and theirs is not None and names[ours] != original_names[theirs]
    ]
    if differing:
        raise ValueError(
            f"{len(differing):,} of {len(ids):,} posts have another label in {name} of {data_dir} (first: "
            f"{differing[0]}); is this the dataset that was published? Equal ids can be other posts."
        )


def _with_rationales(
    posts: Dataset | DatasetDict, rationales: Path, on_error: str, report: BuildReport
) -> Dataset | DatasetDict:
    """Joined to all splits at once: what the file lacks, and what it has too much, is known of the whole only."""
    if isinstance(posts, Dataset):
        return join_rationales(posts, rationales, on_error=on_error, report=report)
    joined = join_rationales(concatenate_datasets([*posts.values()]), rationales, on_error=on_error, report=report)
    ends = list(itertools.accumulate(map(len, posts.values()), initial=0))
    return DatasetDict(
        {name: joined.select(range(*span)) for name, span in zip(posts, itertools.pairwise(ends), strict=True)}
    )


def _check_options(name: str, loader: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [option for option in inspect.signature(loader).parameters if option not in _PASSED_APART]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name!r} has no option {option!r}; its options are {', '.join(known) or '(none)'}."
                + did_you_mean(option, known)
            )


def _report_of(name: str, posts: Dataset | DatasetDict) -> BuildReport:
    report = BuildReport(source=name)
    for split in posts.values() if isinstance(posts, DatasetDict) else [posts]:
        report.read += len(split)
        label = split.features["label"]
        for value in split["label"]:
            report.keep(label.int2str(value) if value is not None else None)
    return report
