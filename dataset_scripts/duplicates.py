"""Groups of duplicate posts, which must not be split between train and test."""

import hashlib
import html
import re
import unicodedata

from datasets import Dataset, Image

from dataset_scripts.reading.images import image_digest

# A URL ends at the first character that is not ASCII: Chinese text may follow without a space.
_URL = re.compile(r"https?[!-~]*|www\.[!-~]+", re.IGNORECASE)
_MENTION = re.compile(r"[@＠]\w+")
_RETWEET = re.compile(r"\brt\b")
_NOT_WORD = re.compile(r"[\W_]+")


def normalize_text(text: str) -> str:
    """Reduce a text to lower-case words: no URLs, mentions, "RT", `#`, punctuation, emoji."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    text = _MENTION.sub(" ", _URL.sub(" ", text)).lower()
    return _NOT_WORD.sub(" ", _RETWEET.sub(" ", text)).strip()


def group_ids(dataset: Dataset) -> list[int]:
    """Assign a group number to every post; posts with the same image or text share it.

    Texts are normalized, and images are compared by the stored bytes. Groups are transitive: a third post may connect
    two. A missing image or a text without words joins no group. Numbers count from 0 in order of first appearance.

    Raises:
        ValueError: an image file of the posts cannot be read.
    """
    parent = list(range(len(dataset)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # path halving
            row = parent[row]
        return row

    first_row_with: dict[bytes, int] = {}
    columns = dataset.select_columns(["id", "image", "text"]).cast_column("image", Image(decode=False))
    for row, post in enumerate(columns):
        words = normalize_text(post["text"] or "")
        keys = [b"text" + hashlib.sha256(words.encode()).digest()] if words else []
        if post["image"] is not None:
            keys.append(b"image" + image_digest(post["image"], post["id"]))
        for key in keys:
            parent[root(row)] = root(first_row_with.setdefault(key, row))

    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(dataset))]
