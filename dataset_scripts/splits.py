"""Reproducible splits into train, validation and test, and hashes that identify them."""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, Image

from dataset_scripts.duplicates import group_ids
from dataset_scripts.reading.id_lists import SPLITS, id_list_files, read_id_list
from dataset_scripts.reading.images import image_digest
from dataset_scripts.reading.report import did_you_mean

logger = logging.getLogger(__name__)

PROTOCOLS = ("grouped", "paper", "clmlf", "folds", "consistent")
NUM_FOLDS = 10

# Size of validation and of test in Table 1 of the paper, by number of posts. For Memotion and CH-Mits it is a tenth,
# rounded down.
_PAPER_TENTHS = {4511: 450, 17024: 1700}


def split_posts(
    dataset: Dataset,
    protocol: str = "grouped",
    seed: int = 42,
    *,
    fold: int = 0,
    id_lists: str | Path | Mapping[str, str | Path] | None = None,
    on_missing: str = "raise",
) -> DatasetDict:
    """Split posts into train, validation and test.

    The split depends on the ids, labels, texts and images of the posts and on `seed`, not on the order of the rows.

    Args:
        dataset (`Dataset`): posts with the columns of `schema.features`; every post needs a label.
        protocol (`str`, defaults to `"grouped"`):
            - `"grouped"`: 8:1:1, stratified by label; duplicates (`duplicates.group_ids`) stay in one split.
            - `"paper"`: random with the sizes of Table 1 of the paper; duplicates may leak.
            - `"clmlf"`: the id lists of the CLMLF project, from `id_lists`.
            - `"folds"`: ten folds, stratified, grouped; fold `fold` is test, the next one validation.
            - `"consistent"`: `"grouped"` over the posts whose text and image labels agree (MVSA only).
        seed (`int`, defaults to 42): of the random draws; without effect for `"clmlf"`.
        fold (`int`, defaults to 0): index of the test fold, 0 to 9; `"folds"` only.
        id_lists (`str`, `Path` or mapping, *optional*):
            `"clmlf"` only. `{"train": file, "validation": file, "test": file}`, or the folder (or `folder/prefix`)
            whose files have `train`, `dev` and `test` in their names. A file is a JSON list of objects with `id`, or
            text with one id per line.
        on_missing (`str`, defaults to `"raise"`):
            `"clmlf"` only. `"skip"` leaves out listed ids without a post and posts in no list, and logs both.

    Raises:
        ValueError: unknown protocol, posts without label, too few posts of a class, ids repeated or missing.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}." + did_you_mean(protocol, PROTOCOLS)
        )
    if not 0 <= fold < NUM_FOLDS:
        raise ValueError(f"`fold` must be 0 to {NUM_FOLDS - 1}, got {fold}.")
    if protocol == "consistent":
        dataset = _with_agreeing_labels(dataset)
    ids = list(dataset["id"])
    repeated = [post_id for post_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} ids occur more than once (first: {repeated[:3]}); ids must be unique.")

    labels = _required_labels(dataset) if protocol != "clmlf" else []
    if protocol == "clmlf":
        split_of_row = _listed_splits(ids, id_lists, on_missing)
    elif protocol == "paper":
        split_of_row = _random_splits(ids, seed)
    else:
        quotas = _fold_quotas(labels, dataset) if protocol == "folds" else _tenth_quotas(labels, dataset)
        split_of_row = _assign_groups(ids, labels, group_ids(dataset), quotas, seed)
        if protocol == "folds":
            split_of_fold = {fold: 2, (fold + 1) % NUM_FOLDS: 1}
            split_of_row = [split_of_fold.get(row_fold, 0) for row_fold in split_of_row]

    rows_of = {name: np.flatnonzero(np.equal(split_of_row, side)).tolist() for side, name in enumerate(SPLITS)}
    return DatasetDict({name: dataset.select(rows) for name, rows in rows_of.items()})


def split_hash(splits: DatasetDict) -> str:
    """Hash the ids of each split, in any order, to 16 hex digits."""
    content = {name: sorted(split["id"]) for name, split in splits.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def content_hash(splits: DatasetDict) -> str:
    """Hash everything that training reads to 16 hex digits.

    These are, for each split and post in order: id, label, text, `rationale_*` columns and the bytes of the image.
    Paths, cache files and the storage of the rows have no effect. Rows are read in small batches.

    Raises:
        ValueError: an image file of the posts cannot be read.
    """
    digest = hashlib.sha256()
    for name, posts in splits.items():
        columns = [name for name in ("id", "label", "text") if name in posts.column_names]
        columns += sorted(column for column in posts.column_names if column.startswith("rationale_"))
        label = posts.features.get("label")
        digest.update(json.dumps([name, len(posts), columns, getattr(label, "names", None)]).encode())
        has_image = isinstance(posts.features.get("image"), Image)
        if has_image:
            posts = posts.cast_column("image", Image(decode=False))
        for batch in posts.select_columns(columns + ["image"] * has_image).with_format(None).iter(batch_size=64):
            for row in zip(*(batch[column] for column in columns), strict=True):
                digest.update(json.dumps(row).encode())
            if has_image:
                for image, post_id in zip(batch["image"], batch["id"], strict=True):
                    digest.update(bytes(32) if image is None else image_digest(image, post_id))
    return digest.hexdigest()[:16]


def _required_labels(dataset: Dataset) -> list[int]:
    labels = list(dataset["label"])
    unlabelled = labels.count(None)
    if unlabelled:
        raise ValueError(
            f"{unlabelled:,} of {len(labels):,} posts have no label; a split is stratified by label. Label them, or "
            "leave them out first: dataset.filter(lambda label: label is not None, input_columns='label')."
        )
    return labels


def _class_counts(labels: list[int], dataset: Dataset, minimum: int) -> dict[int, int]:
    counts = dict(sorted(Counter(labels).items()))
    for label, count in counts.items():
        if count < minimum:
            name = dataset.features["label"].int2str(label)
            raise ValueError(
                f"label {name!r} has {count} posts; this protocol needs at least {minimum} of each class. Add posts, "
                "merge classes, or use a dataset with its own train, validation and test."
            )
    return counts


def _tenth_quotas(labels: list[int], dataset: Dataset) -> list[dict[int, int]]:
    """Compute the posts of each class in each split, with tenths rounded down as by CLMLF."""
    counts = _class_counts(labels, dataset, minimum=3)
    tenth = {label: max(1, count // 10) for label, count in counts.items()}
    return [{label: count - 2 * tenth[label] for label, count in counts.items()}, tenth, dict(tenth)]


def _fold_quotas(labels: list[int], dataset: Dataset) -> list[dict[int, int]]:
    """Compute the posts of each class in each fold; fold sizes differ by at most one."""
    quotas: list[dict[int, int]] = [{} for _ in range(NUM_FOLDS)]
    first = 0  # the first fold with one post more: continues after the last such fold of the previous class
    for label, count in _class_counts(labels, dataset, minimum=NUM_FOLDS).items():
        share, surplus = divmod(count, NUM_FOLDS)
        for step in range(NUM_FOLDS):
            quotas[(first + step) % NUM_FOLDS][label] = share + (step < surplus)
        first += surplus
    return quotas


def _assign_groups(
    ids: list[str], labels: list[int], groups: list[int], quotas: list[dict[int, int]], seed: int
) -> list[int]:
    """Assign every row to a part, with groups together and each class close to its quota.

    Groups of several posts are assigned first, from the largest to the smallest, each to the part that lacks most of
    its classes. Single posts then fill the quotas exactly.
    """
    members: dict[int, list[int]] = {}
    for row in sorted(range(len(ids)), key=lambda row: ids[row]):
        members.setdefault(groups[row], []).append(row)
    shuffled = list(members.values())
    random.Random(seed).shuffle(shuffled)
    shuffled.sort(key=len, reverse=True)

    remaining = [dict(quota) for quota in quotas]
    part_of_row = [0] * len(ids)
    for rows in shuffled:
        counts = Counter(labels[row] for row in rows)

        def need(part: int, counts: Counter = counts) -> tuple[bool, float]:
            fits = all(remaining[part][label] >= count for label, count in counts.items())
            # Relative to the quota, so that 8:1:1 also holds among duplicates.
            return fits, sum(count * remaining[part][label] / quotas[part][label] for label, count in counts.items())

        best = max(range(len(quotas)), key=need)
        for row in rows:
            part_of_row[row] = best
            remaining[best][labels[row]] -= 1
    return part_of_row


def _random_splits(ids: list[str], seed: int) -> list[int]:
    tenth = _PAPER_TENTHS.get(len(ids), len(ids) // 10)
    if tenth == 0:
        raise ValueError(f"{len(ids)} posts are too few for 8:1:1; at least 10 are needed.")
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    random.Random(seed).shuffle(order)
    split_of = dict(zip(order, [1] * tenth + [2] * tenth, strict=False))
    return [split_of.get(row, 0) for row in range(len(ids))]


def _with_agreeing_labels(dataset: Dataset) -> Dataset:
    label_pairs = zip(dataset["text_label"], dataset["image_label"], strict=True)
    agreeing = [row for row, (text, image) in enumerate(label_pairs) if text is not None and text == image]
    if not agreeing:
        raise ValueError(
            "protocol='consistent' needs posts with an equal text_label and image_label, and there are none; only "
            "MVSA has these labels. Use protocol='grouped'."
        )
    logger.info("consistent: kept %d of %d posts, whose text and image labels agree", len(agreeing), len(dataset))
    return dataset.select(agreeing)


def _listed_splits(
    ids: list[str], id_lists: str | Path | Mapping[str, str | Path] | None, on_missing: str
) -> list[int]:
    """Return the index into `SPLITS` of each post, -1 for a post in no list."""
    if on_missing not in ("raise", "skip"):
        raise ValueError(f"`on_missing` must be 'raise' or 'skip', got {on_missing!r}.")
    split_of_id: dict[str, int] = {}
    for split, file in enumerate(id_list_files(id_lists)):
        for post_id in read_id_list(file):
            if post_id in split_of_id:
                raise ValueError(
                    f"{file}: id {post_id!r} is listed twice (also in {SPLITS[split_of_id[post_id]]}); remove one."
                )
            split_of_id[post_id] = split
    present = set(ids)
    without_post = [post_id for post_id in split_of_id if post_id not in present]
    if len(without_post) == len(split_of_id):
        raise ValueError("clmlf: no listed id has a post; are these the lists of another dataset?")
    unlisted = [post_id for post_id in ids if post_id not in split_of_id]
    for problem, post_ids in (("listed ids have no post", without_post), ("posts are in no list", unlisted)):
        if not post_ids:
            continue
        message = f"clmlf: {len(post_ids):,} {problem} (first: {', '.join(post_ids[:3])})"
        if on_missing == "raise":
            raise ValueError(
                f'{message}. Load the whole download and its lists, or leave them out with on_missing="skip".'
            )
        logger.warning("%s; left out", message)
    return [split_of_id.get(post_id, -1) for post_id in ids]
