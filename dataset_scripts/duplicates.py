"""Which posts are the same post twice: MVSA is full of retweets, and they leak from train into test."""

import hashlib
import html
import re
import unicodedata
from pathlib import Path

from datasets import Dataset, Image

# A link ends at the first character that is not ASCII: Chinese goes on without a space.
_URL = re.compile(r"https?[!-~]*|www\.[!-~]+", re.IGNORECASE)
_MENTION = re.compile(r"[@＠]\w+")
_RETWEET = re.compile(r"\brt\b")
# Everything but letters and digits, of any script: punctuation, the hash of a hashtag (its word stays), emoji, space.
_NOT_WORD = re.compile(r"[\W_]+")


def normalize_text(text: str) -> str:
    """The words of a post, lower-case: without URLs, mentions, RT, hashes, punctuation. May be empty."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    text = _MENTION.sub(" ", _URL.sub(" ", text)).lower()
    return _NOT_WORD.sub(" ", _RETWEET.sub(" ", text)).strip()


def group_ids(dataset: Dataset) -> list[int]:
    """A group number for every row; two posts with the same image bytes or the same normalised text share one.

    Sharing is transitive. A text that is empty once normalised, or an absent image, joins nothing. Numbers count from
    0 in order of first appearance. Images are hashed as stored, never decoded.

    Raises:
        ValueError: an image file of the dataset does not exist any more.
    """
    parent = list(range(len(dataset)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # path halving
            row = parent[row]
        return row

    first_with: dict[bytes, int] = {}
    columns = dataset.select_columns(["id", "image", "text"]).cast_column("image", Image(decode=False))
    for row, post in enumerate(columns):
        words = normalize_text(post["text"] or "")
        keys = [b"text" + hashlib.sha256(words.encode()).digest()] if words else []
        if post["image"] is not None:
            keys.append(b"image" + _image_hash(post["image"], post["id"]))
        for key in keys:
            other = first_with.setdefault(key, row)
            parent[root(row)] = root(other)

    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(dataset))]


def _image_hash(image: dict, post: str) -> bytes:
    if image["bytes"] is not None:
        return hashlib.sha256(image["bytes"]).digest()
    try:
        return hashlib.sha256(Path(image["path"]).read_bytes()).digest()
    except OSError as error:
        raise ValueError(
            f"post {post!r}: its image {image['path']} cannot be read ({error}); load the posts again."
        ) from None
