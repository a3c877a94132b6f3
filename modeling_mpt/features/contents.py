"""Contents of posts: token ids, and keys of texts and images. No image is decoded."""

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL
import torch
import transformers

from .tokens import KEY, TokenRows, digest, pool_of

# Rows of a dataset that are read at once.
CHUNK = 64


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

    def present(self) -> np.ndarray:
        """Return which posts have a text, rationale or image `(posts,)`."""
        present = np.zeros(len(self.ids), dtype=bool)
        for tokens in (self.texts, self.rationales):
            if tokens is not None and len(present):
                present |= (tokens.lengths > 0).reshape(len(present), -1).any(axis=1)
        return present if self.images is None else present | (self.images != b"")


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
    pools = {kind: pool_of(processor, kind) for kind in ("text", "rationale")}
    rows_of: dict[str, list[np.ndarray]] = {kind: [np.zeros(0, np.int64)] for kind in pools}
    images, ids, labels = [np.zeros(0, KEY)], [], []
    for rows in chunks(posts, columns):
        inputs = collator.inputs(rows)
        texts = {"text": inputs.get("text", [])}
        texts["rationale"] = [row[name] for row in inputs.get("rationales", []) for name in processor.perspectives]
        for kind, values in texts.items():
            rows_of[kind].append(pools[kind].rows(values, functools.partial(processor.token_ids, kind=kind)))
        if "images" in inputs:
            images.append(np.array([image_key(row, processor, settings) for row in rows], dtype=KEY))
        ids += [row.get("id") for row in rows]
        labels += [row.get("label") for row in rows]
    tokens = {}
    for kind, pool in pools.items():
        pool.join()
        tokens[kind] = TokenRows(pool, np.concatenate(rows_of[kind]))
    contents = Contents(
        texts=tokens["text"] if "text" in modalities else None,
        rationales=tokens["rationale"] if "rationales" in modalities else None,
        images=np.concatenate(images) if "image" in modalities else None,
        labels=_labels(collator, ids, labels),
        ids=ids,
    )
    if not contents.present().all():
        name = contents.ids[int(contents.present().argmin())]
        raise ValueError(f"Post {name!r} must have an image, a text or a rationale, but has none.")
    return contents


def _labels(collator: Any, ids: Sequence[Any], labels: Sequence[Any]) -> np.ndarray | None:
    """Check the labels of posts, see [`MPTDataCollator.labels`]."""
    labels = collator.labels([{"id": name, "label": label} for name, label in zip(ids, labels, strict=True)])
    return None if labels is None else np.array(labels, dtype=np.int64)


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
        return digest(settings, b"pixels", pixels.numpy().tobytes())
    return digest(settings, image)


def pixel_values(rows: Sequence[Mapping[str, Any]], processor: Any) -> torch.Tensor:
    """Decode and process the images of rows that all have one, to `(rows, 3, height, width)`."""
    return processor.data_collator(["image"])([{"id": row.get("id"), "image": row["image"]} for row in rows])[
        "pixel_values"
    ]
