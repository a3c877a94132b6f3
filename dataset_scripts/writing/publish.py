"""Publishes posts: Parquet shards with embedded images and a card, in a folder that `load_dataset` opens."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from dataset_scripts.facts import facts_of
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import CONTENT
from dataset_scripts.splits import split_hash
from dataset_scripts.writing.card import RECORD_FILE, BuildRecord, is_config_name, read_records, render_card
from dataset_scripts.writing.parquet import ShardPlan, plan_shards, write_shards

logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 300 * 1024**2


@dataclasses.dataclass(frozen=True)
class SavedPosts:
    """What `save_posts` did: the record it wrote, the configuration's folder, and how many shards were new."""

    record: BuildRecord
    folder: Path
    shards_written: int


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
    max_shard_size: int = MAX_SHARD_BYTES,
) -> SavedPosts:
    """Writes `folder/config_name/*.parquet` and the card `folder/README.md`; other configurations there stay.

    `load_dataset(folder, config_name)` opens the result, streaming too. The folder of a configuration is replaced as a
    whole once everything is written; an interrupted call goes on where it stopped; unchanged posts are not written
    again. Memory does not grow with the number of posts.

    Args:
        splits (`DatasetDict`): posts with the columns of `schema.features`; ids unique over all splits.
        folder (`str` or `Path`): of the repository; made if need be.
        config_name (`str`): letters, digits, `_`, `-` and `.`.
        dataset (`str`, *optional*): id in `dataset_facts.FACTS`, for the card; by default `config_name`.
        report (`BuildReport`, *optional*): what was read, dropped and skipped, for the card.
        protocol, seed, split_options: how the splits were made (`splits.split_posts`), for the card.
        provenance (mapping, *optional*): how the rationales were made, e.g. `{"model": …, "prompt": …}`.
        license (`str`, *optional*): licence id; by default that of the dataset's facts (`"other"`: terms of its own).
        with_content (`bool`, defaults to `True`): `False` leaves out texts and images; see `join_content`.
        max_shard_size (`int`, defaults to 300 MiB): bytes of a shard before compression.

    Raises:
        ValueError: not a `DatasetDict`, a bad name, repeated ids, no posts, an image that cannot be read.
    """
    folder = Path(folder)
    _check(splits, config_name, max_shard_size)
    hash_of_ids = split_hash(splits)
    if not with_content:
        splits = DatasetDict(
            {
                name: posts.remove_columns([c for c in CONTENT if c in posts.column_names])
                for name, posts in splits.items()
            }
        )
    plans = {name: plan_shards(posts, max_shard_size) for name, posts in splits.items()}
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / config_name
    _recover(target)
    earlier = read_records(folder)
    current = _is_current(target, earlier.get(config_name), plans)
    place = target if current else _staging(target, plans)
    written = 0
    if not current:
        written = sum(write_shards(posts, plans[split], place, split) for split, posts in splits.items())
    dataset = dataset or config_name
    record = BuildRecord(
        config_name=config_name,
        dataset=dataset,
        with_content=with_content,
        license=license or facts_of(dataset).license,
        files={split: _sizes(place, plan.file_names(split)) for split, plan in plans.items()},
        content_hash={split: plan.content_hash for split, plan in plans.items()},
        counts={split: _label_counts(posts) for split, posts in splits.items()},
        rationales=_rationale_counts(splits),
        languages=_languages(splits),
        source=_source(report),
        split={"protocol": protocol, "seed": seed, "options": dict(split_options or {}), "hash": hash_of_ids},
        provenance=dict(provenance or {}),
        info={},
    )
    record.info = _dataset_info(record, splits, plans)
    _write_if_changed(place / RECORD_FILE, record.to_json())
    if not current:
        _swap(place, target)
    readme = folder / "README.md"
    existing = readme.read_text(encoding="utf-8") if readme.is_file() else None
    _write_if_changed(readme, render_card(earlier | {config_name: record}, existing))
    if written:
        logger.info("%s: %d shards written", target, written)
    else:
        logger.info("%s is up to date: no shard was written", target)
    return SavedPosts(record, target, written)


def _check(splits: DatasetDict, config_name: str, max_shard_size: int) -> None:
    if not isinstance(splits, DatasetDict) or not splits:
        raise ValueError(
            f"splits is a {type(splits).__name__}; give a DatasetDict with at least one split, such as "
            "split_posts(posts) or DatasetDict({'test': posts})."
        )
    if not is_config_name(config_name):
        raise ValueError(
            f"config_name={config_name!r}; use letters, digits, '_', '-' and '.', beginning with a letter or digit."
        )
    if max_shard_size < 1:
        raise ValueError(f"max_shard_size={max_shard_size}; it must be at least 1 byte.")
    for split, posts in splits.items():
        if len(posts) == 0:
            raise ValueError(f"the split {split!r} has no post, which load_dataset cannot open; leave the split out.")
    counts = Counter(post for posts in splits.values() for post in posts["id"])
    repeated = [post for post, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated):,} ids occur more than once in the splits {list(splits)} (first: {repeated[:3]}); rows "
            "are joined by id, so make ids unique."
        )


def _is_current(target: Path, record: BuildRecord | None, plans: dict[str, ShardPlan]) -> bool:
    if record is None or list(record.files) != list(plans):
        return False
    for split, plan in plans.items():
        names = plan.file_names(split)
        if record.content_hash[split] != plan.content_hash or list(record.files[split]) != names:
            return False
        if any(not (target / name).is_file() for name in names) or _sizes(target, names) != record.files[split]:
            return False
    return True


def _staging(target: Path, plans: dict[str, ShardPlan]) -> Path:
    """The folder beside `target` in which this very build is made, or was begun."""
    key = hashlib.sha256(json.dumps({split: plan.content_hash for split, plan in plans.items()}).encode()).hexdigest()
    staging = target.with_name(f".{target.name}.{key[:16]}.partial")
    for stale in target.parent.glob(f".{target.name}.*.partial"):
        if stale != staging:
            logger.info("removing %s: an unfinished build of other posts", stale)
            shutil.rmtree(stale)
    staging.mkdir(exist_ok=True)
    return staging


def _swap(staging: Path, target: Path) -> None:
    before = _set_aside(target)
    if target.exists():
        os.replace(target, before)
    os.replace(staging, target)
    if before.exists():
        shutil.rmtree(before)


def _set_aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.before")


def _recover(target: Path) -> None:
    """After a stop between the two renames: the earlier build back into its place, or away if it was replaced."""
    before = _set_aside(target)
    if before.exists():
        if target.exists():
            shutil.rmtree(before)
        else:
            os.replace(before, target)


def _sizes(folder: Path, names: list[str]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names}


def _label_counts(posts: Dataset) -> dict[str, int]:
    names = posts.features["label"].names
    counts = Counter(posts["label"])
    found = {name: counts[index] for index, name in enumerate(names)}
    return found | {"(none)": counts[None]} if counts[None] else found


def _rationale_counts(splits: DatasetDict) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for posts in splits.values():
        for column in posts.column_names:
            if column.startswith("rationale_"):
                counts[column.removeprefix("rationale_")] += sum(value is not None for value in posts[column])
    return dict(counts)


def _languages(splits: DatasetDict) -> list[str]:
    return sorted({language for posts in splits.values() for language in set(posts["language"]) if language})


def _source(report: BuildReport | None) -> dict[str, Any]:
    """Counts alone: the report's examples quote paths of this machine."""
    if report is None:
        return {}
    return {name: getattr(report, name) for name in ("read", "kept", "dropped", "skipped", "notes")}


def _dataset_info(record: BuildRecord, splits: DatasetDict, plans: dict[str, ShardPlan]) -> dict[str, Any]:
    first = next(iter(splits.values()))
    sizes = SplitDict()
    for split, posts in splits.items():
        sizes.add(SplitInfo(name=split, num_bytes=plans[split].num_bytes, num_examples=len(posts)))
    info = DatasetInfo(
        features=first.features,
        splits=sizes,
        download_size=sum(size for files in record.files.values() for size in files.values()),
        dataset_size=sum(plan.num_bytes for plan in plans.values()),
    )
    data = DatasetCardData()
    DatasetInfosDict({record.config_name: info}).to_dataset_card_data(data)
    return {"config_name": record.config_name} | data["dataset_info"]


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
