"""Posts of a dataset by shard, reduced to the columns that a model may see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import content_hashes

if TYPE_CHECKING:
    from dataset_scripts.rationales.store.store import RationaleStore

# The label must not reach the model.
COLUMNS = ("id", "text", "image", "language")

Row = Mapping[str, Any]


class PostsByShard:
    """Posts of a dataset by shard, in the order of the dataset.

    Args:
        posts: a `Dataset` or a sequence of rows, which is read once to find each post's shard (four bytes of memory a
            post) and then by row; or an iterable, which is read once per shard.
        store: assigns posts to shards.
        shard_ids: shards to be read.
        progress: show a progress bar while shards are assigned.

    Attributes:
        total: number of posts in `shard_ids`; `None` for an iterable.

    Raises:
        ValueError: `posts` has no column `id` or `text`, or is an iterator and `shard_ids` has several shards.
    """

    def __init__(
        self, posts: Iterable[Row], store: RationaleStore, shard_ids: Sequence[int], progress: bool = False
    ) -> None:
        if iter(posts) is posts and len(shard_ids) > 1:
            raise ValueError("`posts` is an iterator and can be read for one shard only; pass a dataset or a list.")
        self._posts = without_decoding(posts)
        self._store = store
        self._shard_ids: np.ndarray | None = None
        self.total: int | None = None
        if hasattr(posts, "__getitem__") and hasattr(posts, "__len__"):
            self.total = len(posts)
            if store.num_shards > 1:
                self._shard_ids = self._assign(progress)
                self.total = int(np.isin(self._shard_ids, shard_ids).sum())

    def rows(self, shard_id: int) -> Iterator[Row]:
        """Yield the posts of a shard with the columns `COLUMNS`."""
        if self._shard_ids is not None:
            for index in np.flatnonzero(self._shard_ids == shard_id):
                yield _visible_columns(self._posts[int(index)])
        else:
            for row in self._posts:
                if self._store.num_shards == 1 or self._shard_of(row) == shard_id:
                    yield _visible_columns(row)

    def _assign(self, progress: bool) -> np.ndarray:
        shard_ids = np.empty(len(self._posts), dtype=np.int32)
        bar = tqdm(_texts(self._posts), "Assigning shards", len(shard_ids), unit=" posts", disable=not progress)
        for index, text in enumerate(bar):
            shard_ids[index] = self._shard_of({"text": text} if text else self._posts[index])
        return shard_ids

    def _shard_of(self, row: Row) -> int:
        # the image is read only if there is no text
        _, text_sha256 = content_hashes({"id": "", "text": row.get("text"), "image": None})
        if text_sha256 is not None:
            return self._store.shard_of(text_sha256, None)
        try:
            return self._store.shard_of(None, content_hashes(row)[0])
        except PreparationError:
            return self._store.shard_of(None, None)


def _visible_columns(row: Row) -> dict[str, Any]:
    if row.get("id") is None:
        raise ValueError("A post has no `id`; give each post a unique one, because rationales are joined by it.")
    return {column: row.get(column) for column in COLUMNS}


def _texts(posts: Any) -> Iterator[str | None]:
    """Yield the texts. A `Dataset` is read in batches of this column alone."""
    if not hasattr(posts, "select_columns"):
        yield from (row.get("text") for row in posts)
        return
    for batch in posts.select_columns(["text"]).iter(1000):
        yield from batch["text"]


def without_decoding(posts: Any) -> Any:
    """Keep the images of a `Dataset` as file content, which is hashed and decoded later."""
    features = getattr(posts, "features", None)
    if not features:
        return posts
    from datasets import Image

    if "id" not in features or "text" not in features:
        raise ValueError(f"`posts` must have the columns 'id' and 'text', got {', '.join(features)}.")
    posts = posts.select_columns([column for column in COLUMNS if column in features])
    return posts.cast_column("image", Image(decode=False)) if isinstance(features.get("image"), Image) else posts
