"""FeatureDataset: posts whose frozen encoders' outputs are read from a store."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .contents import Contents, pixel_values, rows_at, with_undecoded_images
from .shards import PER_TOKEN, Shards


class StoredOutputs:
    """Outputs of one frozen encoder, by post.

    Args:
        name (`str`): of the encoder.
        reads (`str`): `"text"`, `"rationales"` or `"image"`.
        shards ([`Shards`]): they hold all contents of the posts.
        keys (`np.ndarray` of shape `(rows,)`): of the posts' texts, rationales or images, empty for a missing one.
        dtype (`torch.dtype`): of the stored numbers.
    """

    def __init__(self, name: str, reads: str, shards: Shards, keys: np.ndarray, dtype: torch.dtype) -> None:
        self.name, self.reads, self.shards, self.dtype = name, reads, shards, dtype
        self.shard, self.row = shards.find(keys)
        self.first, self.length = shards.spans(self.shard, self.row)

    def read(self, rows: np.ndarray, width: int) -> dict[str, torch.Tensor]:
        """Return the outputs of rows `(n, …)` by name, zero where a content is missing.

        States of tokens are padded to `(n, width, dim)`.
        """
        outputs: dict[str, np.ndarray] = {}
        places = zip(
            *(values[rows].tolist() for values in (self.shard, self.row, self.first, self.length)), strict=True
        )
        for position, (shard, row, first, length) in enumerate(places):
            if shard < 0:
                continue
            for name, bits in self.shards.outputs(shard).items():
                if name not in outputs:
                    shape = (width, *bits.shape[1:]) if name in PER_TOKEN else bits.shape[1:]
                    outputs[name] = np.zeros((len(rows), *shape), dtype=bits.dtype)
                if name in PER_TOKEN:
                    outputs[name][position, :length] = bits[first : first + length]
                else:
                    outputs[name][position] = bits[row]
        return {name: torch.from_numpy(values).view(self.dtype) for name, values in outputs.items()}


class FeatureDataset(Dataset):
    """Posts with stored outputs of frozen encoders. Built by [`FeatureStore.build`].

    A row is the position of a post; `collate` reads the features of a batch at once:

    ```python
    >>> features = FeatureStore.default().build(network, processor, posts)
    >>> loader = DataLoader(features, batch_size=16, shuffle=True, collate_fn=features.collate)
    ```

    Args:
        posts: the dataset or list of rows.
        contents ([`Contents`]): of the posts.
        processor ([`MPTProcessor`])
        stored (list of [`StoredOutputs`])
        live (`set[str]`): those of `input_ids`, `rationale_input_ids`, `pixel_values` that encoders of the network
            read in every step.
        dtype (`torch.dtype`): of the outputs in a batch.
    """

    def __init__(
        self,
        posts: Any,
        contents: Contents,
        processor: Any,
        stored: Sequence[StoredOutputs],
        live: set[str],
        dtype: torch.dtype,
    ) -> None:
        self.posts = with_undecoded_images(posts)
        self.contents, self.processor, self.stored, self.live, self.dtype = contents, processor, stored, live, dtype
        self.perspectives = len(processor.perspectives)
        self.pad = processor.tokenizer.pad_token_id or 0

    def __len__(self) -> int:
        return len(self.contents.ids)

    def __getitem__(self, index: int) -> int:
        return range(len(self))[index]

    def __getitems__(self, indices: Sequence[int]) -> list[int]:
        return list(indices)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens that the network reads of each post.

        Those of rationales count if these are read token by token.
        """
        lengths = np.zeros(len(self), dtype=np.int64)
        if self.contents.texts is not None:
            lengths += self.contents.texts.lengths
        if "rationale_input_ids" in self.live:
            lengths += self.contents.rationales.lengths.reshape(len(self), -1).sum(axis=1)
        return lengths

    def collate(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return a batch: arguments of the network's forward, and `labels` if the posts have them."""
        posts = np.asarray(indices)
        batch: dict[str, Any] = {}
        outputs: dict[str, torch.Tensor] = {}
        contents = self.contents
        if contents.texts is not None:
            self._add_tokens("text", posts, (len(posts),), batch, outputs)
        if contents.rationales is not None:
            rows = (posts[:, None] * self.perspectives + np.arange(self.perspectives)).ravel()
            self._add_tokens("rationales", rows, (len(posts), self.perspectives), batch, outputs)
        if contents.images is not None:
            present = contents.images[posts] != b""
            if present.any():
                batch["image_mask"] = torch.from_numpy(present)
                if "pixel_values" in self.live:
                    batch["pixel_values"] = self._pixels(posts, present)
                outputs |= self._read("image", posts, 0)
        if outputs:
            batch["encoder_outputs"] = {name: values.to(self.dtype) for name, values in outputs.items()}
        if contents.labels is not None:
            batch["labels"] = torch.from_numpy(contents.labels[posts])
        return batch

    def pooled(self) -> dict[str, np.ndarray]:
        """Return one vector per text, rationale and image, for learners outside of torch.

        States are averaged over their tokens or regions. The type is float32.

        Returns:
            `text` `(posts, dim)`, `rationales` `(posts, perspectives, dim)`, and each output of image encoders
            `(posts, dim)` by its name; zero for a missing one. `text_mask`, `rationales_mask`, `image_mask` say what
            a post has.
        """
        result: dict[str, np.ndarray] = {}
        for stored in self.stored:
            parts: dict[str, list[np.ndarray]] = {}
            for start in range(0, len(stored.shard), 256):
                rows = np.arange(start, min(start + 256, len(stored.shard)))
                width = int(stored.length[rows].max(initial=0))
                for name, values in stored.read(rows, width).items():
                    values = values.float()
                    if values.dim() == 3 and stored.reads == "image":
                        values = values.mean(dim=1)
                    elif values.dim() == 3:
                        values = values.sum(dim=1) / torch.from_numpy(stored.length[rows]).clamp(min=1).unsqueeze(1)
                    parts.setdefault(name, []).append((rows, values.numpy()))
            for name, pieces in parts.items():
                vectors = np.zeros((len(stored.shard), pieces[0][1].shape[1]), dtype=np.float32)
                for rows, values in pieces:
                    vectors[rows] = values
                shape = (len(self), self.perspectives, -1) if stored.reads == "rationales" else (len(self), -1)
                result[name if stored.reads == "image" else stored.reads] = vectors.reshape(shape)
        contents = self.contents
        if contents.texts is not None:
            result["text_mask"] = contents.texts.lengths > 0
        if contents.rationales is not None:
            result["rationales_mask"] = contents.rationales.lengths.reshape(len(self), -1) > 0
        if contents.images is not None:
            result["image_mask"] = contents.images != b""
        return result

    def _add_tokens(
        self, reads: str, rows: np.ndarray, shape: tuple[int, ...], batch: dict[str, Any], outputs: dict[str, Any]
    ) -> None:
        """Add ids, mask and stored outputs of texts or rationales, unless all are missing."""
        prefix = "" if reads == "text" else "rationale_"
        tokens = self.contents.tokens(reads)
        width = int(tokens.lengths[rows].max(initial=0))
        if width == 0:
            return
        if f"{prefix}input_ids" in self.live:
            ids, mask = tokens.padded(rows, self.pad)
            batch[f"{prefix}input_ids"] = torch.from_numpy(ids).view(*shape, -1)
        else:
            mask = np.arange(width) < tokens.lengths[rows][:, None]
        batch[f"{prefix}attention_mask"] = torch.from_numpy(mask).long().view(*shape, -1)
        for name, values in self._read(reads, rows, width).items():
            outputs[name] = values.view(*shape, *values.shape[1:])

    def _read(self, reads: str, rows: np.ndarray, width: int) -> dict[str, torch.Tensor]:
        """Read all stored outputs of texts, rationales or images."""
        outputs: dict[str, torch.Tensor] = {}
        for stored in self.stored:
            if stored.reads == reads:
                outputs |= stored.read(rows, width)
        return outputs

    def _pixels(self, posts: np.ndarray, present: np.ndarray) -> torch.Tensor:
        """Return pixels `(posts, 3, height, width)`, zero without an image."""
        given = pixel_values(rows_at(self.posts, posts[present].tolist()), self.processor)
        pixels = given.new_zeros(len(posts), *given.shape[1:])
        pixels[torch.from_numpy(present)] = given
        return pixels
