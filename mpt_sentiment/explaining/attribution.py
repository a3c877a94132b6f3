"""Effect of each part of a post on a prediction: leave-one-out and integrated gradients."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from mpt_sentiment.explaining.network import log_odds, log_odds_without
from mpt_sentiment.explaining.post import RATIONALE_WORDS, REGIONS, WORDS, PostParts

# Steps of the path of integrated gradients.
NUM_STEPS = 50


def leave_one_out(model: PreTrainedModel, post: PostParts, kind: str, label: int, batch_size: int) -> np.ndarray:
    """Compute the fall of the log-odds of a class when one part is deleted.

    Args:
        model: a network in evaluation mode.
        post ([`PostParts`])
        kind (`str`): kind of the parts.
        label (`int`): the class.
        batch_size (`int`): variants of the post per forward pass.

    Returns:
        `np.ndarray` of shape `(parts,)`: positive for a part that supports the class.
    """
    count = len(post.names[kind])
    deleted = np.concatenate([np.zeros((1, count), dtype=bool), np.eye(count, dtype=bool)])
    values = log_odds_without(model, post, kind, deleted, label, batch_size)
    return values[0] - values[1:]


def integrated_gradients(
    model: PreTrainedModel, post: PostParts, label: int, batch_size: int, num_steps: int = NUM_STEPS
) -> dict[str, np.ndarray]:
    """Compute integrated gradients (Sundararajan et al., 2017) of the log-odds of a class.

    The path goes from a post whose words are all the mask token, or the padding token where there is none, and whose
    image has its mean colour, to the post itself. Each part has one gate between both ends. The gradient of a gate is
    the sum over the part's embedding or pixels, so that these are the usual integrated gradients, summed per part.

    Args:
        num_steps (`int`, defaults to 50): points of the Gauss-Legendre quadrature.

    Returns:
        By kind of parts (words, rationale words, regions): `np.ndarray` of shape `(parts,)`. Their sum is the
        difference of the log-odds between both ends of the path.

    Raises:
        ImportError: Captum is missing.
        ValueError: a network that does not look its words up once, in an embedding layer.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ImportError("Integrated gradients need `pip install 'mpt-sentiment[explain]'`.", name="captum") from None
    kinds = _gated_kinds(post)
    if not kinds:
        return {}
    gates = tuple(torch.ones(1, len(post.names[kind]), device=post.device) for kind in kinds)

    def gated(*values: torch.Tensor) -> torch.Tensor:
        return gated_log_odds(model, post, dict(zip(kinds, values, strict=True)), label)

    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTM has no gradient in evaluation
        attributions = IntegratedGradients(gated).attribute(gates, n_steps=num_steps, internal_batch_size=batch_size)
    return {
        kind: part[0].detach().cpu().numpy().astype(np.float64) for kind, part in zip(kinds, attributions, strict=True)
    }


def path_ends(model: PreTrainedModel, post: PostParts, label: int) -> tuple[float, float]:
    """Compute the log-odds of a class at both ends of the path of integrated gradients.

    Their difference is the sum of the attributions, but for the numerical error of the quadrature.
    """
    steps = torch.tensor([[0.0], [1.0]], device=post.device)
    gates = {kind: steps.repeat(1, len(post.names[kind])) for kind in _gated_kinds(post)}
    with torch.no_grad():
        start, end = gated_log_odds(model, post, gates, label).tolist()
    return start, end


def _gated_kinds(post: PostParts) -> list[str]:
    return [kind for kind in (WORDS, RATIONALE_WORDS, REGIONS) if kind in post.names]


def gated_log_odds(
    model: PreTrainedModel, post: PostParts, gates: dict[str, torch.Tensor], label: int
) -> torch.Tensor:
    """Compute the log-odds of a class for a post whose parts are mixed with their baseline.

    Args:
        gates (`dict[str, torch.Tensor]`): by kind, `(variants, parts)`: 1 for the part, 0 for its baseline.

    Returns:
        `torch.Tensor` of shape `(variants,)`.
    """
    count = len(next(iter(gates.values())))
    batch = {name: value.expand(count, *value.shape[1:]) for name, value in post.inputs.items()}
    if REGIONS in gates:
        batch["pixel_values"] = post.blend(gates[REGIONS].view(count, 1, post.grid, post.grid))
    tokens = [post.token_gates(kind, gates[kind]) for kind in (WORDS, RATIONALE_WORDS) if kind in gates]
    with _gated_embeddings(model, tokens, post.blank_id):
        # With requested layers, text and rationales are one call each, with the rows of the batch in their order.
        logits = model(**batch, output_hidden_states=[0])["logits"]
    return log_odds(logits, label)


@contextlib.contextmanager
def _gated_embeddings(
    model: nn.Module, tokens: list[tuple[torch.Tensor, torch.Tensor]], blank_id: int
) -> Iterator[None]:
    """Mix the embeddings of tokens with that of the token `blank_id`.

    Args:
        tokens (`list[tuple[torch.Tensor, torch.Tensor]]`): ids and gates `(rows, len)` of each call of an encoder.

    Raises:
        ValueError: the network looks up other tokens, or does so in another order.
    """
    waiting = list(tokens)
    refusal = ValueError(
        f"A {type(model).__name__} does not look up each word once in an embedding layer, as integrated gradients "
        "need. Use the method leave_one_out."
    )

    def mix(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor) -> torch.Tensor:
        ids = args[0] if args else next(iter(kwargs.values()))
        if not waiting or not torch.equal(ids, waiting[0][0]):
            raise refusal
        gates = waiting.pop(0)[1].unsqueeze(-1).to(output.dtype)
        blank = module.forward(torch.full_like(ids[:1, :1], blank_id))
        return blank + gates * (output - blank)

    encoders = [
        part for name, part in model.named_modules() if name.split(".")[-1] in ("text_encoder", "rationale_encoder")
    ]
    layers = {id(layer): layer for layer in (encoder.get_input_embeddings() for encoder in encoders)}
    handles = [layer.register_forward_hook(mix, with_kwargs=True) for layer in layers.values()]
    try:
        yield
        if waiting:
            raise refusal
    finally:
        for handle in handles:
            handle.remove()
