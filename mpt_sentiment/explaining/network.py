"""Outputs of a network for variants of a post, with each distinct input encoded once."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mpt_sentiment.explaining.post import PostParts


def log_odds(logits: torch.Tensor, label: int) -> torch.Tensor:
    """Compute the log-odds `(rows,)` of a class from logits `(rows, classes)`."""
    logits = logits.float()
    others = [index for index in range(logits.shape[-1]) if index != label]
    return logits[:, label] - logits[:, others].logsumexp(dim=-1)


def log_odds_without(
    model: PreTrainedModel, post: PostParts, kind: str, deleted: np.ndarray, label: int, batch_size: int
) -> np.ndarray:
    """Compute the log-odds of a class for variants of a post without some parts.

    Args:
        deleted (`np.ndarray` of shape `(variants, parts)`): see [`PostParts.without`].

    Returns:
        `np.ndarray` of shape `(variants,)`.
    """
    values = []
    with torch.inference_mode(), distinct_inputs(model):
        for start in range(0, len(deleted), batch_size):
            batch = post.without(kind, deleted[start : start + batch_size])
            values.append(log_odds(model(**batch)["logits"], label).cpu().numpy())
    return np.concatenate(values).astype(np.float64)


@contextlib.contextmanager
def distinct_inputs(model: nn.Module) -> Iterator[None]:
    """Let each pretrained encoder of a model encode equal rows of a batch once.

    Variants of a post differ in one part: without this, its image would be encoded for each deleted word.
    """
    # Our own models have perspectives; the encoders within them are of transformers or timm.
    pretrained = [each for each in model.modules() if isinstance(each, PreTrainedModel)]
    encoders = [each for each in pretrained if not hasattr(each.config, "perspectives")]
    nested = {id(part) for each in encoders for part in each.modules() if part is not each}
    handles = [handle for each in encoders if id(each) not in nested for handle in _encode_distinct_rows(each)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _encode_distinct_rows(encoder: nn.Module) -> tuple[Any, Any]:
    """Add hooks that encode the distinct rows of the inputs and repeat their outputs."""
    repeats: list[torch.Tensor | None] = []

    def select(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if any(part._forward_hooks for part in module.modules() if part is not module):
            repeats.append(None)  # CGAFT mixes layers with weights of each row, which the encoder does not receive
            return args, kwargs
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        flat = [value.flatten(1).cpu().contiguous().view(torch.uint8).numpy() for value in tensors]
        keys = [b"".join(values[row].tobytes() for values in flat) for row in range(len(flat[0]))]
        place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        repeats.append(torch.tensor([place[key] for key in keys], device=tensors[0].device))
        chosen = torch.tensor([keys.index(key) for key in place], device=tensors[0].device)
        return _rows(args, chosen), _rows(kwargs, chosen)

    def repeat(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        rows = repeats.pop()
        return output if rows is None else _rows(output, rows)

    return (
        encoder.register_forward_pre_hook(select, with_kwargs=True),
        encoder.register_forward_hook(repeat, with_kwargs=True),
    )


def _rows(value: Any, rows: torch.Tensor) -> Any:
    """Select rows of all tensors in the inputs or the output of an encoder."""
    if isinstance(value, torch.Tensor):
        return value[rows]
    if isinstance(value, Mapping):
        selected = {name: _rows(part, rows) for name, part in value.items()}
        return selected if type(value) is dict else type(value)(**selected)
    if isinstance(value, tuple | list):
        return type(value)(_rows(part, rows) for part in value)
    return value
