"""Duplicate groups and what follows from them: conflicting labels, and posts of a test set that train has too."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_scripts.schema import features
from dataset_scripts.splits import NUM_FOLDS, SPLITS, split_hash, split_posts

ANY_LEVEL = "any of these"


@dataclasses.dataclass
class Duplicates:
    """Duplicates of one level.

    Attributes:
        groups: groups of two posts or more.
        posts: posts in them.
        surplus: posts that would go if one of each group stayed.
        conflicting: groups with more than one label.
        crossing: groups with posts in more than one of the given splits; None where none were given.
        members: names of the posts of each group, conflicting groups first, then the largest.
    """

    groups: int
    posts: int
    surplus: int
    conflicting: int
    crossing: int | None
    members: list[list[str]]


@dataclasses.dataclass
class Leakage:
    """What train knows of validation and test under one split; for `folds` summed over the ten folds.

    Attributes:
        hash: `split_hash` of the split, for `folds` one of each fold.
        posts: posts of train, validation, test.
        left_out: posts that the protocol uses in no split.
        leaks: level -> split -> posts that have a duplicate in train.
        same_label: the same, counting only those with a duplicate in train that has their label.
    """

    hash: str | list[str]
    posts: dict[str, int]
    left_out: int
    leaks: dict[str, dict[str, int]]
    same_label: dict[str, dict[str, int]]


def groups_by_key(keys: Iterable[Hashable | None]) -> np.ndarray:
    """Group number of each post, (N,) int64; -1 for posts whose key is None: they are no one's duplicate."""
    numbers: dict[Hashable, int] = {}
    return np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def groups_by_pairs(groups: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """`groups`, merged where a pair of posts connects two of them. Pairs chain."""
    joined = groups.copy()
    if pairs:
        first, second = groups[np.array(pairs)].T
        size = int(groups.max()) + 1
        edges = coo_array((np.ones(len(pairs)), (first, second)), shape=(size, size))
        _, component = connected_components(edges, directed=False)
        joined[groups >= 0] = component[groups[groups >= 0]]
    return joined


def duplicates(groups: np.ndarray, labels: np.ndarray, splits: np.ndarray | None, names: Sequence[str]) -> Duplicates:
    """Counts one level. `groups`, `labels` (-1: none) and `splits` are (N,), `names` the posts' names."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    starts = np.nonzero(np.diff(groups[order], prepend=-2))[0] if len(order) else np.array([], dtype=int)
    members = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    conflicting = {id(rows) for rows in members if len(set(labels[rows]) - {-1}) > 1}
    members.sort(key=lambda rows: (id(rows) not in conflicting, -len(rows), rows[0]))
    count = sum(len(rows) for rows in members)
    return Duplicates(
        groups=len(members),
        posts=count,
        surplus=count - len(members),
        conflicting=len(conflicting),
        crossing=None if splits is None else sum(len(set(splits[rows])) > 1 for rows in members),
        members=[[names[row] for row in rows] for rows in members],
    )


def leakage(
    levels: dict[str, np.ndarray], labels: np.ndarray, folds: Sequence[np.ndarray], hashes: list[str]
) -> Leakage:
    """Counts leaks. A fold is (N,): 0 train, 1 validation, 2 test, -1 left out; more than one are summed."""
    posts = dict.fromkeys(SPLITS, 0)
    leaks = {level: dict.fromkeys(SPLITS[1:], 0) for level in (*levels, ANY_LEVEL)}
    same_label = {level: dict.fromkeys(SPLITS[1:], 0) for level in leaks}
    num_labels = max(int(labels.max(initial=-1)), 0) + 1
    for sides in folds:
        for side, name in enumerate(SPLITS):
            posts[name] += int((sides == side).sum())
        anywhere = np.zeros((2, len(labels)), dtype=bool)
        for level, groups in levels.items():
            labelled = np.where((groups >= 0) & (labels >= 0), groups * num_labels + labels, -1)
            in_train = np.stack([_known(groups, sides), _known(labelled, sides)])
            anywhere |= in_train
            _count(level, in_train, sides, leaks, same_label)
        _count(ANY_LEVEL, anywhere, sides, leaks, same_label)
    return Leakage(
        hash=hashes[0] if len(hashes) == 1 else hashes,
        posts=posts,
        left_out=sum(int((sides < 0).sum()) for sides in folds),
        leaks=leaks,
        same_label=same_label,
    )


def _known(groups: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return (groups >= 0) & np.isin(groups, groups[sides == 0])


def _count(
    level: str,
    in_train: np.ndarray,
    sides: np.ndarray,
    leaks: dict[str, dict[str, int]],
    same_label: dict[str, dict[str, int]],
) -> None:
    for side, name in enumerate(SPLITS[1:], start=1):
        leaks[level][name] += int((in_train[0] & (sides == side)).sum())
        same_label[level][name] += int((in_train[1] & (sides == side)).sum())


def protocol_sides(
    protocol: str, posts: dict[str, list[Any]], groups: Sequence[int], classes: list[str], seed: int, id_lists: Any
) -> tuple[list[np.ndarray], list[str]]:
    """The sides of every post under a protocol of `split_posts`, and the split's hash; ten of each for `folds`.

    Args:
        posts: the columns `id`, `label`, `text_label`, `image_label`.
        groups: a group number of each post, as of `group_ids`. It stands in for text and image, which are then not
            read again, and a missing image does not matter.

    Raises:
        ValueError: the protocol does not suit these posts.
    """
    schema = features(classes)
    stand_ins = posts | {"image": [None] * len(groups), "text": [f"group {group}" for group in groups]}
    dataset = Dataset.from_dict(stand_ins, features=Features({name: schema[name] for name in stand_ins}))
    options = {"id_lists": id_lists, "on_missing": "skip"} if protocol == "clmlf" else {}
    row_of = {post: row for row, post in enumerate(posts["id"])}
    folds, hashes = [], []
    for fold in range(NUM_FOLDS if protocol == "folds" else 1):
        splits = split_posts(dataset, protocol, seed, **options | ({"fold": fold} if protocol == "folds" else {}))
        sides = np.full(len(groups), -1)
        for side, name in enumerate(SPLITS):
            sides[[row_of[post] for post in splits[name]["id"]]] = side
        folds.append(sides)
        hashes.append(split_hash(splits))
    return folds, hashes
