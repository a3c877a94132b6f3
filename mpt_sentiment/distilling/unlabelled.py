"""Unlabelled posts for a student: read, and without those that validation or test have too."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts import load_posts_with_report
from dataset_scripts.duplicates import group_ids
from mpt_sentiment.predicting import read_table

logger = logging.getLogger(__name__)


def unlabelled_posts(
    source: str | Path | Dataset, options: Mapping[str, Any], posts: DatasetDict
) -> tuple[Dataset, dict[str, int]]:
    """Read posts whose labels, if there are any, are not used.

    Args:
        source (`str`, `Path` or `Dataset`): a table, the folder or Hub id of a dataset, or posts.
        options (mapping): of the reader, e.g. `text_column` or `rationales`.
        posts (`DatasetDict`): the labelled posts.

    Returns:
        The posts with the columns of the labelled ones, all without label, and the number of those left out by reason.

    Raises:
        ValueError: a source that cannot be read, a repeated id, or no post that is left.
    """
    if isinstance(source, Dataset):
        found = source
    elif Path(source).is_file():
        found, _ = read_table(source, **options)
    else:
        loaded, _ = load_posts_with_report(str(source), **options)
        found = concatenate_datasets(list(loaded.values())) if isinstance(loaded, DatasetDict) else loaded
    found = _like(found, posts["train"])
    dropped = {}
    known = {post_id for split in posts.values() for post_id in split["id"][:]}
    keep = [row for row, post_id in enumerate(found["id"][:]) if post_id not in known]
    dropped["id of a labelled post"] = len(found) - len(keep)
    found = found.select(keep)
    if len(set(found["id"][:])) < len(found):
        raise ValueError("Ids of the unlabelled posts occur more than once; each post needs its own.")
    held_out = concatenate_datasets([_like(posts[name], posts["train"]) for name in ("validation", "test")])
    groups = np.array(group_ids(concatenate_datasets([held_out, found])))
    keep = np.flatnonzero(~np.isin(groups[len(held_out) :], groups[: len(held_out)]))
    dropped["text or image of a validation or test post"] = len(found) - len(keep)
    found = found.select(keep)
    for reason, count in dropped.items():
        if count:
            logger.warning("%d unlabelled posts are left out: %s.", count, reason)
    if not len(found):
        raise ValueError(f"No unlabelled post is left: {', '.join(f'{v:,} {k}' for k, v in dropped.items() if v)}.")
    return found, {reason: count for reason, count in dropped.items() if count}


def _like(posts: Dataset, train: Dataset) -> Dataset:
    """Return posts with the columns of train, null where they lack one or, for labels, in all."""
    empty = [name for name in train.column_names if name == "label" or name not in posts.column_names]
    posts = posts.remove_columns([name for name in posts.column_names if name in empty])
    for name in empty:
        posts = posts.add_column(name, [None] * len(posts), feature=train.features[name])
    return posts.select_columns(train.column_names).cast(train.features)
