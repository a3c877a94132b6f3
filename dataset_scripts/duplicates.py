"""Groups of duplicate posts, which must not be split between train and test."""

import hashlib
import html
import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from datasets import Dataset, Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_scripts.reading.images import image_digest

# A URL ends at the first character that is not ASCII: Chinese text may follow without a space.
URL = re.compile(r"https?[!-~]*|www\.[!-~]+", re.IGNORECASE)
MENTION = re.compile(r"[@＠]\w+")
RETWEET = re.compile(r"\brt\b", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")


def normalize_text(text: str) -> str:
    """Reduce a text to lower-case words: no URLs, mentions, "RT", `#`, punctuation, emoji."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    text = MENTION.sub(" ", URL.sub(" ", text)).lower()
    return _NOT_WORD.sub(" ", RETWEET.sub(" ", text)).strip()


def group_ids(dataset: Dataset, group_column: str | None = None) -> list[int]:
    """Assign a group number to every post; posts with the same image or text share it.

    So do posts with the same value in `group_column`. Texts are normalized, and images are compared by the stored
    bytes. Groups are transitive: a third post may connect two. A missing image or a text without words joins no
    group. Numbers count from 0 in order of first appearance.

    Raises:
        ValueError: an image file of the posts cannot be read.
    """
    first_row_with: dict[bytes, int] = {}
    pairs = []
    values = dataset[group_column] if group_column else itertools.repeat(None)
    columns = dataset.select_columns(["id", "image", "text"]).cast_column("image", Image(decode=False))
    for row, (post, value) in enumerate(zip(columns, values, strict=False)):
        words = normalize_text(post["text"] or "")
        keys = [b"text" + hashlib.sha256(words.encode()).digest()] if words else []
        if post["image"] is not None:
            keys.append(b"image" + image_digest(post["image"], post["id"]))
        if value is not None:
            keys.append(b"group" + str(value).encode())
        pairs += [(row, first_row_with.setdefault(key, row)) for key in keys]
    return connected_groups(pairs, len(dataset)).tolist()


def connected_groups(pairs: Sequence[tuple[int, int]], size: int) -> np.ndarray:
    """Assign group numbers, (size,), in order of appearance; pairs connect their two items."""
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    _, groups = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)), False)
    return groups
