"""Layers of an encoder: freezing, evaluation mode of frozen ones, and running a part of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def freeze_first_layers(encoder: PreTrainedModel, count: int) -> None:
    """Freeze the embeddings and the first `count` layers of an encoder, or all of it for -1.

    Raises:
        ValueError: For an encoder with fewer layers, or without a list of layers.
    """
    for name, parameter in encoder.named_parameters():
        if name.split(".")[-1] == "mask_token":  # of DINOv2 and BEiT, used in their pretraining alone
            parameter.requires_grad_(False)
    if count == 0:
        return
    if count == -1:
        encoder.requires_grad_(False)
        return
    layers = layers_of(encoder)
    if count > len(layers):
        depth = getattr(encoder.config, "num_hidden_layers", None) or getattr(encoder.config, "num_stages", None)
        raise ValueError(
            f"Cannot freeze {count} layers of a {type(encoder).__name__} with {depth or 'unknown'} layers. Use -1 to "
            "freeze all of it."
        )
    for module in (*embeddings_of(encoder), *layers[:count]):
        module.requires_grad_(False)


def layers_of(encoder: nn.Module) -> list[nn.Module]:
    """Return the layers of an encoder, none for one without a list of them."""
    config = getattr(encoder, "config", None)
    # ConvNeXt has stages.
    depth = getattr(config, "num_hidden_layers", None) or getattr(config, "num_stages", None)
    return list(next((m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), ()))


def embeddings_of(encoder: nn.Module) -> list[nn.Module]:
    """Return the modules that embed tokens or patches."""
    return [module for name, module in encoder.named_modules() if name.split(".")[-1] == "embeddings"]


def is_frozen(module: nn.Module) -> bool:
    """Return whether no parameter of a module is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def frozen_depth(encoder: nn.Module) -> int:
    """Return how many of the first layers are frozen, 0 if the embeddings are trained."""
    layers = layers_of(encoder)
    if not all(map(is_frozen, embeddings_of(encoder))):
        return 0
    return next((position for position, layer in enumerate(layers) if not is_frozen(layer)), len(layers))


def evaluate_frozen_parts(encoder: nn.Module) -> None:
    """Put a frozen encoder, or its frozen embeddings and first layers, into evaluation mode.

    Their outputs are then those of inference: without dropout, and with the running statistics of batches.
    """
    if is_frozen(encoder):
        encoder.eval()
        return
    depth = frozen_depth(encoder)
    for module in (*embeddings_of(encoder), *layers_of(encoder)[:depth]) if depth else ():
        module.eval()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its parts back into its own mode afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Replace the forward of modules."""
    previous = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, forward in previous.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def skipped_layer(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return the states unchanged, in place of a layer."""
    return hidden_states


def first_layers(
    encoder: PreTrainedModel, depth: int, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Return the states after the first `depth` layers, `(rows, seq_len, dim)`."""
    layers = layers_of(encoder)
    outputs = []
    hook = layers[depth - 1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with replaced_forwards(dict.fromkeys(layers[depth:], skipped_layer)):
            encoder(input_ids=input_ids, attention_mask=attention_mask)
    finally:
        hook.remove()
    return outputs[0]


def remaining_layers(
    encoder: PreTrainedModel, depth: int, states: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Return the encoder's last states, given those after its first `depth` layers.

    Both are `(rows, seq_len, dim)`.
    """
    layers = layers_of(encoder)
    forwards = dict.fromkeys(layers[: depth - 1], skipped_layer) | {layers[depth - 1]: lambda *args, **kwargs: states}
    # The encoder still embeds its inputs, and makes masks and positions of their shape.
    inputs = states.new_zeros(*states.shape[:2], encoder.get_input_embeddings().embedding_dim)
    with replaced_forwards(forwards):
        return encoder(inputs_embeds=inputs, attention_mask=attention_mask).last_hidden_state


def can_resume(encoder: PreTrainedModel, depth: int) -> bool:
    """Return whether the states after `depth` layers are frozen, and the others continue from them exactly.

    A layer of another form, or one that reads more than the states before it, makes this impossible. It is tried on
    two short sequences.
    """
    device = next(encoder.parameters()).device
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    ids = mask * torch.arange(3, 7, device=device).clamp(max=encoder.get_input_embeddings().num_embeddings - 1)
    with evaluation_mode(encoder):
        with torch.enable_grad():
            states = first_layers(encoder, depth, ids, mask)
        if not isinstance(states, torch.Tensor) or states.requires_grad or states.shape[:2] != ids.shape:
            return False
        with torch.no_grad():
            expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            resumed = remaining_layers(encoder, depth, states, mask)
    real = mask.bool()
    return resumed.shape == expected.shape and torch.allclose(resumed[real], expected[real], atol=1e-4)
