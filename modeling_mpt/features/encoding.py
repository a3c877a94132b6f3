"""Encoding of contents in batches that depend on nothing but the contents."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from .contents import Contents, pixel_values, rows_at, with_undecoded_images
from .errors import FeatureStoreError
from .shards import PER_TOKEN

# Tokens and images of a batch: on a CPU they fill its caches, on an accelerator its cores.
TOKENS, IMAGES = {"cpu": 2048}, {"cpu": 16}
TOKENS_OF_ACCELERATOR, IMAGES_OF_ACCELERATOR = 32768, 64


class Source:
    """Contents of several datasets, as inputs of encoders.

    Args:
        posts: the datasets.
        contents (list of [`Contents`]): of each.
        processor ([`MPTProcessor`])
        reads (`str`): `"text"`, `"rationales"` or `"image"`.
    """

    def __init__(self, posts: Sequence[Any], contents: Sequence[Contents], processor: Any, reads: str) -> None:
        self.posts, self.contents, self.processor, self.reads = posts, contents, processor, reads
        keys = [part.keys(reads) for part in contents]
        self.keys, first = np.unique(np.concatenate(keys), return_index=True)
        if len(self.keys) and self.keys[0] == b"":  # missing
            self.keys, first = self.keys[1:], first[1:]
        starts = np.cumsum([0, *map(len, keys)])
        self.part = np.searchsorted(starts, first, side="right") - 1  # dataset of each key, and its row there
        self.row = first - starts[self.part]

    def lengths(self, places: np.ndarray) -> np.ndarray:
        """Return the number of tokens of contents `(n,)`, 0 for images."""
        lengths = np.zeros(len(places), dtype=np.int64)
        for number, part in enumerate(self.contents if self.reads != "image" else ()):
            own = self.part[places] == number
            lengths[own] = part.tokens(self.reads).lengths[self.row[places][own]]
        return lengths

    def batches(
        self, places: np.ndarray, device: torch.device
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Yield positions in `places` and inputs of an encoder, texts of similar length together."""
        if self.reads == "image":
            size = IMAGES.get(device.type, IMAGES_OF_ACCELERATOR)
            for start in range(0, len(places), size):
                chosen = np.arange(start, min(start + size, len(places)))
                yield chosen, {"pixel_values": self._pixels(places[chosen])}
            return
        lengths = self.lengths(places)
        order = np.argsort(-lengths, kind="stable")
        budget = TOKENS.get(device.type, TOKENS_OF_ACCELERATOR)
        start = 0
        while start < len(order):
            chosen = order[start : start + max(1, budget // lengths[order[start]])]
            start += len(chosen)
            yield chosen, self._tokens(places[chosen])

    def _tokens(self, places: np.ndarray) -> dict[str, torch.Tensor]:
        rows = []
        for place in places:
            tokens = self.contents[self.part[place]].tokens(self.reads)
            rows.append(torch.from_numpy(tokens.ids(self.row[place]).astype(np.int64)))
        pad = self.processor.tokenizer.pad_token_id or 0
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        return {"input_ids": ids, "attention_mask": mask.long()}

    def _pixels(self, places: np.ndarray) -> torch.Tensor:
        rows = []
        for place in places:
            rows += rows_at(with_undecoded_images(self.posts[self.part[place]]), [self.row[place].item()])
        return pixel_values(rows, self.processor)


@torch.no_grad()
def encode(
    encoders: Sequence[Any],
    source: Source,
    places: np.ndarray,
    device: torch.device,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
) -> list[dict[str, torch.Tensor]]:
    """Encode contents with each encoder; an image is decoded once for all of them.

    Args:
        encoders (list of [`FrozenEncoder`]): encoders of what the source reads.
        source ([`Source`])
        places (`np.ndarray` of shape `(n,)`): positions of the contents in `source.keys`.
        device (`torch.device`): of the encoders.
        dtype (`torch.dtype`): of the results.
        autocast (`torch.dtype`, *optional*): in which the encoders compute.

    Returns:
        For each encoder its outputs by name: `(n, …)`, or states `(tokens, dim)` of the texts one after the other.

    Raises:
        FeatureStoreError: For a number that `dtype` cannot hold.
    """
    lengths = source.lengths(places)
    results: list[dict[str, list[torch.Tensor]]] = [{} for _ in encoders]
    for chosen, inputs in source.batches(places, device):
        inputs = {name: values.to(device) for name, values in inputs.items()}
        context = nullcontext() if autocast is None else torch.autocast(device.type, autocast)
        for encoder, parts in zip(encoders, results, strict=True):
            with context:
                outputs = encoder.encode(**inputs)
            for name, values in outputs.items():
                values = _rounded(values, dtype, name).cpu()
                rows = parts.setdefault(name, [None] * len(places))
                for place, value in zip(chosen.tolist(), values, strict=True):
                    rows[place] = value[: lengths[place]] if name in PER_TOKEN else value.unsqueeze(0)
    return [{name: torch.cat(rows) for name, rows in parts.items()} for parts in results]


def _rounded(values: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    rounded = values.to(dtype)
    if dtype == torch.float16 and not torch.isfinite(rounded).all():
        raise FeatureStoreError(f"float16 cannot hold `{name}`. Use `feature_store_dtype='bfloat16'`.")
    return rounded
