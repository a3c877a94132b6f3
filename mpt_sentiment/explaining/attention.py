"""Attention of the encoders' last layer, as in the paper's Fig. 8: no attribution."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mpt_sentiment.explaining.post import RATIONALE_WORDS, REGIONS, WORDS, PostParts

_FIELDS = {WORDS: "text_attentions", RATIONALE_WORDS: "rationale_attentions", REGIONS: "vision_attentions"}


def last_attention(model: PreTrainedModel, post: PostParts) -> dict[str, np.ndarray]:
    """Compute the share of attention that words and regions get in an encoder's last layer.

    It is the mean over heads and over the positions that attend. Special tokens have the rest of the shares. The
    patches of the image are averaged in the regions of the post.

    Returns:
        By kind of parts (words, rationale words, regions): `np.ndarray` of shape `(parts,)`; without those whose
        encoder has no attention.
    """
    with torch.no_grad(), _eager(model) as has_attention:
        output = model(**post.inputs, output_attentions=True) if has_attention else None
    layers = {kind: getattr(output, field, None) for kind, field in _FIELDS.items() if kind in post.names}
    received = {kind: layer[-1].float().mean(dim=1) for kind, layer in layers.items() if layer}
    shares = {}
    for kind, weights in received.items():
        if kind == REGIONS:
            shares[kind] = _of_regions(weights[0].mean(dim=0), post.grid)
            continue
        masks = post.inputs["attention_mask" if kind == WORDS else "rationale_attention_mask"].flatten(0, -2)
        real = masks.unsqueeze(-1).to(weights.dtype)
        of_tokens = (weights * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)  # (sequences, len)
        shares[kind] = _of_words(of_tokens, kind, post)
    return {kind: values.cpu().numpy().astype(np.float64) for kind, values in shares.items()}


def _of_words(of_tokens: torch.Tensor, kind: str, post: PostParts) -> torch.Tensor:
    """Sum the shares of tokens `(sequences, len)` over each word."""
    sums = []
    for name, word in [(None, word) for word in post.names[kind]] if kind == WORDS else post.names[kind]:
        words = post.words if name is None else post.rationales[name]
        row = 0 if name is None else post.perspectives.index(name)
        sums.append(of_tokens[row, words.tokens[word]].sum())
    return torch.stack(sums)


def _of_regions(of_positions: torch.Tensor, grid: int) -> torch.Tensor:
    """Average the shares of patches `(positions,)`, after the special positions, in each region."""
    side = math.isqrt(len(of_positions))
    patches = of_positions[-(side**2) :].view(1, 1, side, side)
    return nn.functional.adaptive_avg_pool2d(patches, grid).flatten()


@contextlib.contextmanager
def _eager(model: nn.Module) -> Iterator[bool]:
    """Let the encoders of a model return their attention, and say whether one of them can."""
    encoders = [each for each in model.modules() if isinstance(each, PreTrainedModel) and each is not model]
    used = [(each, each.config._attn_implementation) for each in encoders if not hasattr(each, "timm_model")]
    for each, _ in used:
        each.set_attn_implementation("eager")
    try:
        yield any(hasattr(each.config, "num_attention_heads") for each, _ in used)
    finally:
        for each, implementation in used:
            each.set_attn_implementation(implementation)
