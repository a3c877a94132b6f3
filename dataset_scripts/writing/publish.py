"""Saved posts: a folder of Parquet files and a dataset card that `load_dataset` opens."""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from dataset_scripts.output import write_text_atomically
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.registry import facts_of
from dataset_scripts.schema import CONTENT, rationale_column
from dataset_scripts.splits import split_hash
from dataset_scripts.writing.card import render_card
from dataset_scripts.writing.card_edits import CARD, read_card
from dataset_scripts.writing.parquet import ParquetPlan, plan_parquet, write_parquet
from dataset_scripts.writing.record import RECORD_FILE, BuildRecord, read_records

logger = logging.getLogger(__name__)

MAX_FILE_SIZE = 300 * 1024**2


@dataclasses.dataclass(frozen=True)
class SavedPosts:
    """Record and folder of a saved configuration, and the number of Parquet files written."""

    record: BuildRecord
    folder: Path
    files_written: int


def save_posts(
    splits: DatasetDict,
    folder: str | Path,
    config_name: str,
    *,
    dataset: str | None = None,
    report: BuildReport | None = None,
    protocol: str | None = None,
    seed: int | None = None,
    split_options: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str] | None = None,
    license: str | None = None,
    with_content: bool = True,
    max_file_size: int = MAX_FILE_SIZE,
) -> SavedPosts:
    """Save posts as `folder/config_name/*.parquet`, and describe them in `folder/README.md`.

    `load_dataset(folder, config_name)` opens the result, also for streaming. Other configurations in the folder are
    kept. A configuration is replaced as a whole when all its files are complete; a repeated call resumes an
    interrupted one; unchanged posts are not written again. Memory does not grow with the number of posts.

    Args:
        splits (`DatasetDict`): posts with the columns of `schema.features`; ids unique in all splits.
        folder (`str` or `Path`): folder of the repository, created if it does not exist.
        config_name (`str`): name of letters, digits, `_`, `-` and `.`.
        dataset (`str`, *optional*): id of the dataset, for the card; defaults to `config_name`.
        report (`BuildReport`, *optional*): numbers of rows read, dropped and skipped, for the card.
        protocol, seed, split_options: arguments of `splits.split_posts`, for the card.
        provenance (mapping, *optional*): origin of the rationales, e.g. `{"model": …, "prompt": …}`.
        license (`str`, *optional*): license id; defaults to that of the dataset (`"other"`: terms of its own).
        with_content (`bool`, defaults to `True`): `False` omits texts and images; see `join_content`.
        max_file_size (`int`, defaults to 300 MiB): maximum number of bytes in a file before compression.

    Raises:
        ValueError: not a `DatasetDict`, a bad name, repeated ids, an empty split, or an unreadable image.
    """
    folder = Path(folder)
    _check(splits, config_name, max_file_size)
    hash_of_ids = split_hash(splits)
    if not with_content:
        splits = DatasetDict(
            {
                name: posts.remove_columns([column for column in CONTENT if column in posts.column_names])
                for name, posts in splits.items()
            }
        )
    plans = {name: plan_parquet(posts, max_file_size) for name, posts in splits.items()}
    folder.mkdir(parents=True, exist_ok=True)
    existing = read_card(folder)
    target = folder / config_name
    _restore_previous(target)
    earlier = read_records(folder)
    current = _is_current(target, earlier.get(config_name), plans)
    files_folder = target if current else _partial_folder(target, plans)
    files_written = 0
    if not current:
        files_written = sum(write_parquet(posts, plans[split], files_folder, split) for split, posts in splits.items())
    dataset = dataset or config_name
    record = BuildRecord(
        config_name=config_name,
        dataset=dataset,
        with_content=with_content,
        license=license or facts_of(dataset).license,
        files={split: _file_sizes(files_folder, plan.file_names(split)) for split, plan in plans.items()},
        content_hash={split: plan.content_hash for split, plan in plans.items()},
        counts={split: _label_counts(posts) for split, posts in splits.items()},
        rationales=_rationale_counts(splits),
        languages=sorted({language for posts in splits.values() for language in posts["language"] if language}),
        source=_source(report),
        split={"protocol": protocol, "seed": seed, "options": dict(split_options or {}), "hash": hash_of_ids},
        provenance=dict(provenance or {}),
        info={},
    )
    record.info = _dataset_info(record, splits, plans)
    _write_if_changed(files_folder / RECORD_FILE, record.to_json())
    if not current:
        _replace(target, files_folder)
    readme = folder / CARD
    card = render_card(earlier | {config_name: record})
    if existing is not None:
        card = card.keep_edits(existing)
    _write_if_changed(readme, card.render())
    logger.info("%s: %s", target, f"{files_written} Parquet files written" if files_written else "unchanged")
    return SavedPosts(record, target, files_written)


def _check(splits: DatasetDict, config_name: str, max_file_size: int) -> None:
    if not isinstance(splits, DatasetDict) or not splits:
        raise ValueError(
            f"`splits` must be a DatasetDict with at least one split, got {type(splits).__name__}. Use "
            "split_posts(posts) or DatasetDict({'test': posts})."
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", config_name):
        raise ValueError(
            "`config_name` must have letters, digits, '_', '-' and '.' only and begin with a letter or digit, got "
            f"{config_name!r}."
        )
    if max_file_size < 1:
        raise ValueError(f"`max_file_size` must be at least 1 byte, got {max_file_size}.")
    for split, posts in splits.items():
        if len(posts) == 0:
            raise ValueError(f"The split {split!r} has no posts; load_dataset cannot open it. Leave the split out.")
    counts = Counter(post for posts in splits.values() for post in posts["id"])
    repeated = [post for post, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated):,} ids occur more than once in the splits {list(splits)} (first: {repeated[:3]}). Make "
            "them unique: rows are joined by id."
        )


def _is_current(target: Path, record: BuildRecord | None, plans: dict[str, ParquetPlan]) -> bool:
    """Return whether `target` holds the files of `plans` with the recorded hashes and sizes."""
    if record is None or record.content_hash != {split: plan.content_hash for split, plan in plans.items()}:
        return False
    try:
        sizes = {split: _file_sizes(target, plan.file_names(split)) for split, plan in plans.items()}
    except OSError:
        return False
    return sizes == record.files


def _partial_folder(target: Path, plans: dict[str, ParquetPlan]) -> Path:
    """Create or find the temporary folder of this build; delete those of builds of other posts."""
    hashes = json.dumps({split: plan.content_hash for split, plan in plans.items()})
    partial = target.with_name(f".{target.name}.{hashlib.sha256(hashes.encode()).hexdigest()[:16]}.partial")
    for stale in target.parent.glob(f".{target.name}.*.partial"):
        if stale != partial:
            logger.info("Removing %s, an unfinished build of other posts", stale)
            shutil.rmtree(stale)
    partial.mkdir(exist_ok=True)
    return partial


def _replace(target: Path, replacement: Path) -> None:
    """Replace the folder `target`; a stop in between is undone by `_restore_previous`."""
    previous = target.with_name(f".{target.name}.before")
    if target.exists():
        os.replace(target, previous)
    os.replace(replacement, target)
    shutil.rmtree(previous, ignore_errors=True)


def _restore_previous(target: Path) -> None:
    """Restore the earlier build after a stop within `_replace`, or delete it if replaced."""
    previous = target.with_name(f".{target.name}.before")
    if previous.exists() and not target.exists():
        os.replace(previous, target)
    shutil.rmtree(previous, ignore_errors=True)


def _file_sizes(folder: Path, names: list[str]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names}


def _label_counts(posts: Dataset) -> dict[str, int]:
    by_id = Counter(posts["label"])
    counts = {name: by_id[label] for label, name in enumerate(posts.features["label"].names)}
    return counts | ({"(none)": by_id[None]} if by_id[None] else {})


def _rationale_counts(splits: DatasetDict) -> dict[str, int]:
    prefix = rationale_column("")
    counts: Counter[str] = Counter()
    for posts in splits.values():
        for column in posts.column_names:
            if column.startswith(prefix):
                counts[column.removeprefix(prefix)] += sum(value is not None for value in posts[column])
    return dict(counts)


def _source(report: BuildReport | None) -> dict[str, Any]:
    """Select the counts of a report; its examples contain local paths."""
    return {name: getattr(report, name) for name in ("read", "kept", "dropped", "skipped", "notes")} if report else {}


def _dataset_info(record: BuildRecord, splits: DatasetDict, plans: dict[str, ParquetPlan]) -> dict[str, Any]:
    sizes = SplitDict()
    for split, posts in splits.items():
        sizes.add(SplitInfo(name=split, num_bytes=plans[split].num_bytes, num_examples=len(posts)))
    info = DatasetInfo(
        features=next(iter(splits.values())).features,
        splits=sizes,
        download_size=sum(size for files in record.files.values() for size in files.values()),
        dataset_size=sum(plan.num_bytes for plan in plans.values()),
    )
    data = DatasetCardData()
    DatasetInfosDict({record.config_name: info}).to_dataset_card_data(data)
    return {"config_name": record.config_name} | data["dataset_info"]


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text_atomically(path, text)
