"""Duplicate groups: label conflicts in them, and leaks from train into validation and test."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features

from dataset_scripts.duplicates import connected_groups
from dataset_scripts.schema import features
from dataset_scripts.splits import NUM_FOLDS, SPLITS, split_hash, split_posts

ANY_LEVEL = "any of these"


@dataclasses.dataclass
class Duplicates:
    """Duplicates at one level."""

    groups: int  # groups of at least two posts
    posts: int  # posts in these groups
    surplus: int  # posts minus groups, to be removed to keep one post per group
    conflicting: int  # groups with more than one label
    crossing: int | None  # groups with posts in more than one given split; None for a single `Dataset`
    members: list[list[str]]  # names of the posts of each group: conflicting groups first, then by size


@dataclasses.dataclass
class Leakage:
    """Duplicates of train posts in validation and test, under one protocol.

    For `folds`, counts are summed over the folds.
    """

    hash: str | list[str]  # `split_hash` of the split; a list with one per fold for `folds`
    posts: dict[str, int]  # by split
    left_out: int  # posts that the protocol assigns to no split
    leaks: dict[str, dict[str, int]]  # level -> split -> posts with a duplicate in train
    same_label: dict[str, dict[str, int]]  # level -> split -> posts with a duplicate in train that has the same label


def groups_by_key(keys: Iterable[Hashable | None]) -> np.ndarray:
    """Assign group numbers by key, (N,) int64; -1 for posts with key None."""
    numbers: dict[Hashable, int] = {}
    return np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def groups_by_pairs(groups: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Merge the groups of the two posts of each pair, transitively."""
    merged = connected_groups(groups[np.array(pairs, dtype=np.int64)], int(groups.max(initial=-1)) + 1)
    return np.where(groups < 0, -1, merged[groups]) if len(merged) else groups


def groups_by_any(levels: Sequence[np.ndarray]) -> np.ndarray:
    """Group posts that share a group in at least one level, transitively; others alone."""
    pairs: list[tuple[int, int]] = []
    for groups in levels:
        first: dict[int, int] = {}
        pairs += [(first.setdefault(group, row), row) for row, group in enumerate(groups.tolist()) if group >= 0]
    return connected_groups(pairs, len(levels[0]))


def group_members(groups: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each group of at least two posts, ascending."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    starts = np.nonzero(np.diff(groups[order]))[0] + 1
    return [rows for rows in np.split(order, starts) if len(rows) > 1]


def count_duplicates(
    groups: np.ndarray, labels: np.ndarray, splits: np.ndarray | None, names: Sequence[str]
) -> Duplicates:
    """Count the duplicates of one level; -1 in `groups` and `labels`, both (N,), is none."""
    conflicting, others = [], []
    for rows in group_members(groups):
        (conflicting if len(set(labels[rows]) - {-1}) > 1 else others).append(rows)
    members = [rows for part in (conflicting, others) for rows in sorted(part, key=lambda rows: (-len(rows), rows[0]))]
    count = sum(map(len, members))
    return Duplicates(
        groups=len(members),
        posts=count,
        surplus=count - len(members),
        conflicting=len(conflicting),
        crossing=None if splits is None else sum(len(set(splits[rows])) > 1 for rows in members),
        members=[[names[row] for row in rows] for rows in members],
    )


def count_leaks(
    levels: dict[str, np.ndarray], labels: np.ndarray, folds: Sequence[np.ndarray], hashes: list[str]
) -> Leakage:
    """Count the posts of validation and test that have a duplicate in train.

    A fold is (N,): 0 train, 1 validation, 2 test, -1 in no split; counts of several folds are summed. `hashes` are
    their `split_hash`. Groups and labels as in `count_duplicates`.
    """
    leaks = {level: dict.fromkeys(SPLITS[1:], 0) for level in (*levels, ANY_LEVEL)}
    same_label = {level: dict.fromkeys(SPLITS[1:], 0) for level in leaks}
    num_labels = max(int(labels.max(initial=-1)), 0) + 1
    for sides in folds:
        by_level = {}
        for level, groups in levels.items():
            with_label = np.where((groups >= 0) & (labels >= 0), groups * num_labels + labels, -1)
            by_level[level] = np.stack([_is_in_train(groups, sides), _is_in_train(with_label, sides)])
        by_level[ANY_LEVEL] = np.any(list(by_level.values()), axis=0)
        for level, (duplicate, duplicate_of_label) in by_level.items():
            for side, split in enumerate(SPLITS[1:], start=1):
                leaks[level][split] += int((duplicate & (sides == side)).sum())
                same_label[level][split] += int((duplicate_of_label & (sides == side)).sum())
    return Leakage(
        hash=hashes[0] if len(hashes) == 1 else hashes,
        posts={split: sum(int((sides == side).sum()) for sides in folds) for side, split in enumerate(SPLITS)},
        left_out=sum(int((sides < 0).sum()) for sides in folds),
        leaks=leaks,
        same_label=same_label,
    )


def _is_in_train(groups: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return (groups >= 0) & np.isin(groups, groups[sides == 0])


def protocol_sides(
    protocol: str, columns: dict[str, list[Any]], groups: np.ndarray, classes: list[str], seed: int, id_lists: Any
) -> tuple[list[np.ndarray], list[str]]:
    """Assign posts to splits under a protocol, without reading texts and images again.

    `groups` (N,) from `group_ids` replace text and image; `columns` are the others. Returns the folds and hashes of
    `count_leaks`.

    Raises:
        ValueError: the protocol does not suit these posts.
    """
    schema = features(classes)
    columns = columns | {"image": [None] * len(groups), "text": [f"group {group}" for group in groups]}
    dataset = Dataset.from_dict(columns, features=Features({name: schema[name] for name in columns}))
    options = {"id_lists": id_lists, "on_missing": "skip"} if protocol == "clmlf" else {}
    folds, hashes = [], []
    for fold in range(NUM_FOLDS if protocol == "folds" else 1):
        splits = split_posts(dataset, protocol, seed, fold=fold, **options)
        side_of = {post: side for side, name in enumerate(SPLITS) for post in splits[name]["id"]}
        folds.append(np.array([side_of.get(post, -1) for post in columns["id"]]))
        hashes.append(split_hash(splits))
    return folds, hashes
