"""Which posts belong to which shard, and what a model may see of them: nothing else leaves the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import content_hashes

if TYPE_CHECKING:
    from dataset_scripts.rationales.store.store import RationaleStore

# The label, and whatever else a dataset has, is not among them.
COLUMNS = ("id", "text", "image", "language")

Row = Mapping[str, Any]


class Intake:
    """The posts of a dataset, shard by shard, in their order.

    Args:
        posts: a `Dataset` or any sequence of rows, which is read once to find each post's shard (four bytes of memory
            a post) and then by row; or an iterable, which is read once per shard.
        store: which knows the shard of a post.
        shard_ids: those wanted.
        progress: show how far the finding is.

    Raises:
        ValueError: `posts` lacks a column, or is an iterator, which can be read only once, and several shards are
            wanted of it.
    """

    def __init__(
        self, posts: Iterable[Row], store: RationaleStore, shard_ids: Sequence[int], progress: bool = False
    ) -> None:
        if iter(posts) is posts and len(shard_ids) > 1:
            raise ValueError("posts is an iterator, which ends after one shard; give a dataset or a list.")
        self._posts = _undecoded(posts)
        self._store = store
        self._shards: np.ndarray | None = None
        self.total: int | None = None
        if hasattr(posts, "__getitem__") and hasattr(posts, "__len__"):
            self.total = len(posts)
            if store.num_shards > 1:
                self._shards = self._find(progress)
                self.total = int(np.isin(self._shards, shard_ids).sum())

    def rows(self, shard_id: int) -> Iterator[Row]:
        if self._shards is not None:
            for index in np.flatnonzero(self._shards == shard_id):
                yield _visible(self._posts[int(index)])
        else:
            for row in self._posts:
                if self._store.num_shards == 1 or self._shard_of(row) == shard_id:
                    yield _visible(row)

    def _find(self, progress: bool) -> np.ndarray:
        shards = np.empty(len(self._posts), dtype=np.int32)
        bar = tqdm(_texts(self._posts), "Finding shards", len(shards), unit=" posts", disable=not progress)
        for index, text in enumerate(bar):
            shards[index] = self._shard_of({"text": text} if text else self._posts[index])
        return shards

    def _shard_of(self, row: Row) -> int:
        text = row.get("text")
        # an image is read only where there is nothing else to tell the post by
        _, text_sha256 = content_hashes({"id": "", "text": text, "image": None})
        if text_sha256 is not None:
            return self._store.shard_of(text_sha256, None)
        try:
            return self._store.shard_of(None, content_hashes(row)[0])
        except PreparationError:
            return self._store.shard_of(None, None)


def _visible(row: Row) -> dict[str, Any]:
    if row.get("id") is None:
        raise ValueError("A post has no id; give each post one of its own, so that its rationales find it.")
    return {column: row.get(column) for column in COLUMNS}


def _texts(posts: Any) -> Iterator[str | None]:
    """Of a `Dataset` by whole batches of the one column."""
    if not hasattr(posts, "select_columns"):
        yield from (row.get("text") for row in posts)
        return
    for batch in posts.select_columns(["text"]).iter(1000):
        yield from batch["text"]


def _undecoded(posts: Any) -> Any:
    """Images as the files that they are: their hash is that of the file, and nothing is decoded twice."""
    features = getattr(posts, "features", None)
    if not features:
        return posts
    from datasets import Image

    if "id" not in features or "text" not in features:
        raise ValueError(f"posts have the columns {', '.join(features)}; 'id' and 'text' are needed.")
    posts = posts.select_columns([column for column in COLUMNS if column in features])
    return posts.cast_column("image", Image(decode=False)) if isinstance(features.get("image"), Image) else posts
