"""Cost of a post: operations of a network, tokens of a large multimodal model."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.backends import mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dataset_scripts.rationales.store.store import RationaleStore, is_store
from modeling_mpt.features.contents import with_undecoded_images
from processing_mpt import MPTProcessor

# Posts over which operations are averaged.
SAMPLE = 32


@torch.no_grad()
def operations_per_post(network: nn.Module, processor: MPTProcessor, posts: Dataset) -> float:
    """Count the floating-point operations of a forward, mean of the first posts.

    Matrix products and convolutions are counted, whatever the device; encoders run, also frozen ones.

    Args:
        network ([`SentimentPreTrainedModel`])
        processor ([`MPTProcessor`]): its own.
        posts (`Dataset`): posts with what the network reads.
    """
    collate = processor.data_collator(network.config.modalities)
    rows = with_undecoded_images(posts).remove_columns("label")
    rows = [rows[index] for index in range(min(SAMPLE, len(rows)))]
    counter = FlopCounterMode(display=False)
    network.eval()
    # Fused kernels of attention and LSTM have no count.
    with warnings.catch_warnings(action="ignore"), mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
        for row in rows:  # alone: padding of a batch is no cost of a post
            network(**{name: values.to(network.device) for name, values in collate([row]).items()})
    return counter.get_total_flops() / len(rows)


def tokens_per_post(rationales: str | Path | None, posts: Dataset, processor: MPTProcessor) -> dict[str, Any]:
    """Return the tokens that the rationales of a post cost, as means over posts.

    Args:
        rationales (`str` or `Path`, *optional*): the posts' table or store of rationales; a store has counts.
        posts (`Dataset`): posts with their rationales.
        processor ([`MPTProcessor`]): its tokenizer counts the rationales without a store.

    Returns:
        `read` and `written` tokens of a post, and their `source`; `read` is `None` if it is unknown.
    """
    if rationales is not None and is_store(rationales):
        kept = set(posts["id"][:])
        counts = [_counts(row) for row in RationaleStore.open(rationales).rows() if row["id"] in kept]
        read, written = (np.array(column) for column in zip(*counts, strict=True)) if counts else (np.zeros(0),) * 2
        if written.sum() > 0:
            source = f"counts of the server in {Path(rationales).name}, answers that were asked again not included"
            return {"read": float(read.mean()) or None, "written": float(written.mean()), "source": source}
    columns = [f"rationale_{name}" for name in processor.perspectives]
    texts = [text or "" for name in columns for text in posts[name][:]]
    encoded = processor.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return {
        "read": None,
        "written": sum(map(len, encoded)) / len(posts),
        "source": "rationales counted with the teacher's tokenizer; prompt, image and thinking tokens are unknown",
    }


def _counts(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the tokens read and written for the rationales of one row of a store."""
    return tuple(
        sum(value or 0 for name, value in row.items() if name.startswith(kind))
        for kind in ("prompt_tokens_", "completion_tokens_")
    )
