"""Contents of posts: token ids, and keys of texts and images. No image is decoded."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL
import torch
import transformers

KEY_BYTES = 16
KEY = np.dtype(f"S{KEY_BYTES}")
# Rows of a dataset that are read at once.
CHUNK = 64


@dataclass
class TokenRows:
    """Token ids of the texts or of the rationales of posts.

    Args:
        ids (`np.ndarray` of shape `(tokens,)`): ids of all rows, one after the other.
        offsets (`np.ndarray` of shape `(rows + 1,)`): where each row begins and ends; a missing text is empty.
        keys (`np.ndarray` of shape `(rows,)`): hash of the ids of each row, empty for a missing text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> "TokenRows":
        """Join rows of ids."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return cls(
            np.concatenate([np.zeros(0, np.int32), *rows]),
            np.concatenate([[0], lengths.cumsum()]),
            np.array([_digest(row.tobytes()) if len(row) else b"" for row in rows], dtype=KEY),
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask `(len(rows), longest)`, padded on the right."""
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        spans = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        ids[mask] = np.concatenate([self.ids[start:stop] for start, stop in spans] or [self.ids[:0]])
        return ids, mask


@dataclass
class Contents:
    """Texts, images and labels of posts, and the keys under which each content is looked up.

    Args:
        texts, rationales ([`TokenRows`], *optional*): one row per post, and one per post and perspective.
        images (`np.ndarray` of shape `(posts,)`, *optional*): keys of the images, empty for a missing one.
        labels (`np.ndarray` of shape `(posts,)`, *optional*): `None` for posts without labels.
        ids (`list[str]`): the column `id` of the posts.
    """

    texts: TokenRows | None
    rationales: TokenRows | None
    images: np.ndarray | None
    labels: np.ndarray | None
    ids: list[Any]

    def keys(self, reads: str) -> np.ndarray:
        """Return the keys of the texts, rationales or images."""
        return self.images if reads == "image" else self.tokens(reads).keys

    def tokens(self, reads: str) -> TokenRows:
        """Return the token ids of the texts or rationales."""
        return self.texts if reads == "text" else self.rationales


def read_contents(posts: Any, processor: Any, modalities: Sequence[str]) -> Contents:
    """Tokenize the posts and hash what is read of them.

    Args:
        posts: a dataset, or a list of rows, as for the collator.
        processor ([`MPTProcessor`])
        modalities (`list[str]`): those that the network reads.

    Raises:
        ValueError: For a row that the collator refuses.
    """
    collator = processor.data_collator(modalities)
    columns = {"id", "label", "text", "image", *(f"rationale_{name}" for name in processor.perspectives)}
    if "image" not in modalities:
        columns.remove("image")
    settings = image_settings(processor) if "image" in modalities else b""
    texts, rationales, images, marks = [], [], [], []
    for rows in chunks(posts, columns):
        inputs = collator.inputs(rows)
        count = len(rows)
        present = np.zeros(count, dtype=bool)
        if "text" in inputs:
            tokens = _as_arrays(processor.token_ids(inputs["text"]))
            present |= np.array([len(row) > 0 for row in tokens])
            texts += tokens
        if "rationales" in inputs:
            flat = [row[name] for row in inputs["rationales"] for name in processor.perspectives]
            tokens = _as_arrays(processor.token_ids(flat, "rationale"))
            present |= np.array([len(row) > 0 for row in tokens]).reshape(count, -1).any(axis=1)
            rationales += tokens
        if "images" in inputs:
            keys = [image_key(row, processor, settings) for row in rows]
            present |= np.array([key != b"" for key in keys])
            images += keys
        for row, found in zip(rows, present, strict=True):
            if not found:
                raise ValueError(f"Post {row.get('id')!r} must have an image, a text or a rationale, but has none.")
        marks += [{"id": row.get("id"), "label": row.get("label")} for row in rows]
    labels = collator.labels(marks)
    return Contents(
        texts=TokenRows.of(texts) if "text" in modalities else None,
        rationales=TokenRows.of(rationales) if "rationales" in modalities else None,
        images=np.array(images, dtype=KEY) if "image" in modalities else None,
        labels=None if labels is None else np.array(labels, dtype=np.int64),
        ids=[mark["id"] for mark in marks],
    )


def chunks(posts: Any, columns: set[str]) -> Iterable[list[Mapping[str, Any]]]:
    """Read the rows of posts in their order, a few at once, without decoding images."""
    posts = with_undecoded_images(posts)
    if isinstance(posts, datasets.Dataset):
        posts = posts.select_columns([name for name in posts.column_names if name in columns])
    for start in range(0, len(posts), CHUNK):
        yield rows_at(posts, range(start, min(start + CHUNK, len(posts))))


def rows_at(posts: Any, indices: Iterable[int]) -> list[Mapping[str, Any]]:
    """Return rows of posts."""
    return posts.__getitems__(list(indices)) if hasattr(posts, "__getitems__") else [posts[i] for i in indices]


def with_undecoded_images(dataset: Any) -> Any:
    """Return a dataset whose images the processor decodes.

    `datasets` itself fails on malformed metadata.
    """
    feature = (getattr(dataset, "features", None) or {}).get("image")
    if isinstance(feature, datasets.Image) and feature.decode:
        return dataset.cast_column("image", datasets.Image(decode=False))
    return dataset


def image_settings(processor: Any) -> bytes:
    """Describe all but the file that determines the pixels of an image."""
    settings = {name: value for name, value in processor.image_processor.to_dict().items() if name != "auto_map"}
    settings["class"] = type(processor.image_processor).__name__
    versions = {library.__name__: library.__version__.split(".")[0] for library in (PIL, torch, transformers)}
    return json.dumps([settings, versions], sort_keys=True, default=str).encode()


def image_key(row: Mapping[str, Any], processor: Any, settings: bytes) -> bytes:
    """Hash the image of a row: the content of its file, or its pixels if it has no file."""
    image = row.get("image")
    if image is None:
        return b""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path") or image
    if isinstance(image, str | Path) and os.path.isfile(image):
        image = Path(image).read_bytes()
    if not isinstance(image, bytes):
        pixels = pixel_values([row], processor)
        return _digest(settings, b"pixels", pixels.numpy().tobytes())
    return _digest(settings, image)


def pixel_values(rows: Sequence[Mapping[str, Any]], processor: Any) -> torch.Tensor:
    """Decode and process the images of rows that all have one, to `(rows, 3, height, width)`."""
    return processor.data_collator(["image"])([{"id": row.get("id"), "image": row["image"]} for row in rows])[
        "pixel_values"
    ]


def _as_arrays(rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.int32) for row in rows]


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
