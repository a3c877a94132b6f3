"""Reproducible splits into train, validation and test, and hashes that identify them."""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

from dataset_scripts.duplicates import group_ids
from dataset_scripts.reading.id_lists import SPLITS, listed_splits, split_of_name
from dataset_scripts.reading.option_names import option, option_name
from dataset_scripts.reading.report import BuildReport, check_on_error, did_you_mean
from dataset_scripts.schema import CONTENT, GROUP, null_rows

logger = logging.getLogger(__name__)

DEFAULT_PROTOCOL = "grouped"
# Protocol: its options.
PROTOCOLS = {
    "grouped": ("group_column",),
    "paper": (),
    "clmlf": ("id_lists", "on_missing"),
    "folds": ("fold", "group_column"),
    "consistent": ("group_column",),
}
NUM_FOLDS = 10
_DEFAULTS = {"fold": 0, "id_lists": None, "on_missing": "raise", "group_column": None}

# Size of validation and of test in Table 1 of the paper, by number of posts. For Memotion and CH-Mits it is a tenth,
# rounded down.
_PAPER_TENTHS = {4511: 450, 17024: 1700}


def split_posts(
    dataset: Dataset,
    protocol: str = DEFAULT_PROTOCOL,
    seed: int = 42,
    *,
    fold: int = 0,
    id_lists: str | Path | Mapping[str, str | Path] | None = None,
    on_missing: str = "raise",
    group_column: str | None = None,
    on_error: str = "raise",
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
        group_column (`str`, *optional*):
            `"grouped"`, `"folds"` and `"consistent"` only. Posts with the same value in this column, such as the same
            author, stay in one split; null joins no group. By default the column `group` if there is one.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out posts without label, and logs their number.

    Raises:
        ValueError: unknown protocol, posts without label, too few posts of a class, ids repeated or missing, or an
            option of another protocol.
    """
    options = {"fold": fold, "id_lists": id_lists, "on_missing": on_missing, "group_column": group_column}
    check_split_options(protocol, {name: value for name, value in options.items() if value != _DEFAULTS[name]})
    if protocol == "folds":
        if not isinstance(fold, int):
            raise ValueError(f"{option_name('fold')} must be one number, got {fold!r}: one split has one test fold.")
        return split_folds(dataset, seed, folds=[fold], group_column=group_column, on_error=on_error)[fold]
    _check_columns(dataset)
    if protocol == "consistent":
        dataset = _with_agreeing_labels(dataset)
    if protocol != "clmlf":
        dataset = labelled_posts(dataset, on_error)
    ids = _unique_ids(dataset)
    if protocol == "clmlf":
        return _named_splits(dataset, listed_splits(ids, id_lists, on_missing))
    if protocol == "paper":
        return _named_splits(dataset, _random_splits(ids, seed))
    labels, groups = list(dataset["label"]), group_ids(dataset, groups_in(dataset, group_column))
    sides = _assign_groups(ids, labels, groups, _tenth_quotas(labels, dataset), seed)
    return _named_splits(dataset, sides, groups)


def split_folds(
    dataset: Dataset,
    seed: int = 42,
    *,
    folds: Sequence[int] = range(NUM_FOLDS),
    group_column: str | None = None,
    on_error: str = "raise",
) -> dict[int, DatasetDict]:
    """Split posts into train, validation and test once per fold, for cross-validation.

    Every post is in the test split of one of the ten folds. In fold i, the posts of fold i + 1 are validation (of fold
    0 in the last one), and those of the other eight are train.

    Args:
        dataset, seed, group_column, on_error: see [`split_posts`].
        folds (sequence of `int`, defaults to all ten): indices of the test folds.

    Returns:
        Index of the fold → its splits.

    Raises:
        ValueError: see [`split_posts`].
    """
    _check_columns(dataset)
    dataset = labelled_posts(dataset, on_error)
    ids, labels = _unique_ids(dataset), list(dataset["label"])
    quotas, groups = _fold_quotas(labels, dataset), group_ids(dataset, groups_in(dataset, group_column))
    fold_of_row = _assign_groups(ids, labels, groups, quotas, seed)
    splits = {}
    for fold in folds:
        side_of_fold = {fold: 2, (fold + 1) % NUM_FOLDS: 1}
        splits[fold] = _named_splits(dataset, [side_of_fold.get(row_fold, 0) for row_fold in fold_of_row], groups)
    return splits


def _check_columns(dataset: Dataset) -> None:
    missing = [column for column in ("id", "label", *CONTENT) if column not in dataset.column_names]
    if missing:
        raise ValueError(
            f"The posts have no column {' and '.join(map(repr, missing))}; their columns are "
            f"{', '.join(dataset.column_names)}. load_posts gives a table or a dataset all columns."
        )


def _unique_ids(dataset: Dataset) -> list[str]:
    ids = list(dataset["id"])
    repeated = [post_id for post_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated):,} ids occur more than once (first: {repeated[:3]}); ids must be unique. Correct them or "
            f"number the posts with {option('id_column', '')}."
        )
    return ids


def _named_splits(dataset: Dataset, split_of_row: Sequence[int], groups: Sequence[int] | None = None) -> DatasetDict:
    rows_of = {name: np.flatnonzero(np.equal(split_of_row, side)).tolist() for side, name in enumerate(SPLITS)}
    empty = [name for name, rows in rows_of.items() if not rows]
    if empty and groups is not None:
        raise ValueError(
            f"No post is left for {' and '.join(empty)}: duplicates and posts of one group stay in one split, and the "
            f"largest such set has {max(Counter(groups).values()):,} of {len(dataset):,} posts. Add posts, or use "
            f"{option('protocol', 'paper')}, which ignores duplicates."
        )
    return DatasetDict({name: dataset.select(rows) for name, rows in rows_of.items()})


def check_split_options(protocol: str, options: Mapping[str, Any]) -> None:
    """Check the protocol of a split and the names and values of its options.

    Raises:
        ValueError: unknown protocol, an option that it does not have, or an unusable value.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"{option_name('protocol')} must be one of {', '.join(PROTOCOLS)}, got {protocol!r}."
            + did_you_mean(protocol, PROTOCOLS)
        )
    for name in options:
        if name not in PROTOCOLS[protocol]:
            owners = [other for other, names in PROTOCOLS.items() if name in names]
            hint = f" It is an option of {' and '.join(owners)}." if owners else ""
            hint = hint or did_you_mean(name, PROTOCOLS[protocol]) or did_you_mean(name, _DEFAULTS)
            listed = ", ".join(PROTOCOLS[protocol]) or "(none)"
            raise ValueError(f"The split {protocol!r} has no option {name!r}; its options are {listed}.{hint}")
    folds_of(options)


def folds_of(options: Mapping[str, Any]) -> list[int]:
    """Return the test folds that the options of `"folds"` name, by default all ten.

    Raises:
        ValueError: a value that is not 0 to 9 or a list of such numbers.
    """
    given = options.get("fold", list(range(NUM_FOLDS)))
    folds = list(given) if isinstance(given, list | tuple) else [given]
    valid = all(isinstance(fold, int) and not isinstance(fold, bool) and 0 <= fold < NUM_FOLDS for fold in folds)
    if not folds or not valid or len(set(folds)) < len(folds):
        raise ValueError(f"{option_name('fold')} must be 0 to {NUM_FOLDS - 1}, got {given!r}.")
    return folds


def labelled_posts(
    posts: Dataset, on_error: str = "raise", report: BuildReport | None = None, *, split: str | None = None
) -> Dataset:
    """Return the posts that have a label, as training needs them.

    Args:
        posts (`Dataset`): posts with the columns `id` and `label`.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out posts without label, and logs their number.
        report (`BuildReport`, *optional*): receives that number.
        split (`str`, *optional*): name of these posts, for messages.

    Raises:
        ValueError: a post has no label, unless skipped.
    """
    check_on_error(on_error)
    check_label_type(posts, "The dataset" if split is None else f"The split {split!r}")
    unlabelled = sorted(null_rows(posts, ["label"]))
    if not unlabelled:
        return posts
    name = "" if split is None else f" of the split {split!r}"
    first = _first_ids(posts, unlabelled)
    message = f"{len(unlabelled):,} of {len(posts):,} posts{name} have no label (first ids: {first})"
    if len(unlabelled) == len(posts):
        raise ValueError(f"{message}; training needs labels. Name their column with {option('label_column')}.")
    if on_error == "raise":
        raise ValueError(f"{message}. Label them, or leave them out with {option('on_error', 'skip')}.")
    logger.warning("%s; left out", message)
    if report is not None:
        report.skip_kept("no label", len(unlabelled), message)
    left_out = set(unlabelled)
    return posts.select([row for row in range(len(posts)) if row not in left_out])


def check_label_type(posts: Dataset, name: str) -> None:
    """Check that labels are class indices with names.

    Raises:
        ValueError: another type, such as the texts that `label_as_text` keeps.
    """
    label = posts.features["label"]
    if not isinstance(label, ClassLabel):
        raise ValueError(
            f"{name} has a column 'label' of the type {str(label)[:80]}, not ClassLabel. Leave out "
            f"{option_name('label_as_text')} if it was given, or convert it: posts.class_encode_column('label')."
        )


def check_labels(posts: Dataset, split: str) -> None:
    """Check that all posts of a split have a label.

    Raises:
        ValueError: a post has none.
    """
    unlabelled = sorted(null_rows(posts, ["label"]))
    if unlabelled:
        raise ValueError(
            f"The split {split!r} has {len(unlabelled):,} posts without label (first ids: "
            f"{_first_ids(posts, unlabelled)}); leave them out: posts.filter(lambda post: post['label'] is not None)."
        )


def _first_ids(posts: Dataset, rows: list[int]) -> str:
    return ", ".join(map(repr, posts.select(rows[:3])["id"]))


def complete_splits(posts: DatasetDict, seed: int = 42) -> DatasetDict:
    """Name the splits that posts have train, validation and test.

    Splits named dev, val or valid are validation. Without one, a tenth of train is taken for it as by `"grouped"`,
    which is logged.

    Raises:
        ValueError: validation is missing, and a post of train has no label or a class has too few posts.
    """
    named = {split_of_name(name) or name: split for name, split in posts.items()}
    if len(named) < len(posts):
        raise ValueError(f"The posts have several splits of the same kind: {', '.join(posts)}. Rename or remove one.")
    if "train" in named and "test" in named and "validation" not in named:
        train = named["train"]
        check_labels(train, "train")
        labels = list(train["label"])
        groups = group_ids(train, groups_in(train, None))
        sides = _assign_groups(list(train["id"]), labels, groups, _tenth_quotas(labels, train, parts=2), seed)
        rows_of = [np.flatnonzero(np.equal(sides, side)).tolist() for side in (0, 1)]
        named["train"], named["validation"] = (train.select(rows) for rows in rows_of)
        logger.warning("The posts have no validation split: %d of the train posts are it.", len(rows_of[1]))
    return DatasetDict({name: named[name] for name in (*SPLITS, *named) if name in named})


def split_hash(splits: DatasetDict) -> str:
    """Hash the ids of each split, in any order, to 16 hex digits."""
    content = {name: sorted(split["id"]) for name, split in splits.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def groups_in(dataset: Dataset, given: str | None) -> str | None:
    """Return the column of groups that stay in one split, by default `group` if there is one."""
    if given is None:
        return GROUP if GROUP in dataset.column_names else None
    if given not in dataset.column_names:
        raise ValueError(
            f"The posts have no column {given!r}; their columns are {', '.join(dataset.column_names)}. Load it as the "
            f"column {GROUP!r}: {option('group_column', given)}."
        )
    return given


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


def _tenth_quotas(labels: list[int], dataset: Dataset, parts: int = 3) -> list[dict[int, int]]:
    """Compute the posts of each class in train and in each tenth, rounded down as by CLMLF."""
    counts = _class_counts(labels, dataset, minimum=parts)
    tenth = {label: max(1, count // 10) for label, count in counts.items()}
    rest = {label: count - (parts - 1) * tenth[label] for label, count in counts.items()}
    return [rest, *(dict(tenth) for _ in range(parts - 1))]


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
            f"{option('protocol', 'consistent')} needs posts with an equal text_label and image_label, and there are "
            f"none; only MVSA has these labels. Use {option('protocol', 'grouped')}."
        )
    logger.info("consistent: kept %d of %d posts, whose text and image labels agree", len(agreeing), len(dataset))
    return dataset.select(agreeing)
