"""Layers of an encoder: freezing, evaluation mode of frozen ones, running a part of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

TRAINED = (
    "`encoder_outputs` has outputs of an encoder that is trained, or whose frozen layers changed after they were "
    "computed. Compute them again with the encoders that `frozen_encoders()` lists."
)


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
    waiting = [module]  # `parameters()` takes several times as long, and every step with stored outputs asks
    while waiting:
        part = waiting.pop()
        for parameter in part._parameters.values():
            if parameter is not None and parameter.requires_grad:
                return False
        waiting += [child for child in part._modules.values() if child is not None]
    return True


def frozen_depth(encoder: nn.Module) -> int:
    """Return how many of the first layers are frozen, 0 if the embeddings are trained."""
    layers = layers_of(encoder)
    if not all(map(is_frozen, embeddings_of(encoder))):
        return 0
    return next((position for position, layer in enumerate(layers) if not is_frozen(layer)), len(layers))


def stored_depth(encoder: nn.Module) -> int | None:
    """Return after how many layers stored states were taken, `None` if after the whole encoder.

    Raises:
        ValueError: For an encoder that is trained, or whose frozen layers are others than when they were stored.
    """
    recorded = vars(encoder).get("stored_depth", 0)  # by `frozen_encoders()`
    current = None if is_frozen(encoder) else frozen_depth(encoder)
    if current == 0 or recorded not in (0, current):
        raise ValueError(TRAINED)
    return current


def encoders_in(module: nn.Module) -> Iterator[PreTrainedModel]:
    """Yield the outermost pretrained models inside a module."""
    for child in module.children():
        if isinstance(child, PreTrainedModel):
            yield child
        else:
            yield from encoders_in(child)


@contextmanager
def frozen_parts_evaluated(encoders: Iterable[nn.Module]) -> Iterator[None]:
    """Leave frozen encoders in evaluation mode where the body puts a network into training mode.

    So do the embeddings and first layers that are frozen in the others. Their outputs are then those of inference:
    without dropout, and with the running statistics of batches.
    """
    encoders = list(encoders)
    frozen = [each for each in encoders if is_frozen(each)]
    # The body does not visit their modules: a Trainer calls `train()` in every step.
    with replaced_methods("train", {each: lambda mode=True: None for each in frozen}):
        yield
    for each in frozen:
        if each.training:
            each.eval()
    for each in encoders:
        depth = 0 if each in frozen else frozen_depth(each)
        for module in (*embeddings_of(each), *layers_of(each)[:depth]) if depth else ():
            module.eval()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts into its own mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def replaced_methods(name: str, functions: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Replace a method of modules."""
    previous = {module: vars(module).get(name) for module in functions}
    try:
        for module, function in functions.items():
            setattr(module, name, function)
        yield
    finally:
        for module, function in previous.items():
            if function is None:
                delattr(module, name)
            else:
                setattr(module, name, function)


def skipped_layer(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return the states unchanged, in place of a layer."""
    return hidden_states


def first_layers(encoder: PreTrainedModel, depth: int, **inputs: torch.Tensor) -> torch.Tensor:
    """Return the states after the first `depth` layers, `(rows, tokens, dim)`."""
    layers = layers_of(encoder)
    outputs = []
    hook = layers[depth - 1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with replaced_methods("forward", dict.fromkeys(layers[depth:], skipped_layer)):
            encoder(**inputs)
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
    with replaced_methods("forward", forwards):
        return encoder(inputs_embeds=inputs, attention_mask=attention_mask).last_hidden_state


def remaining_image_layers(encoder: PreTrainedModel, depth: int, states: torch.Tensor) -> Any:
    """Return the output of an encoder of images, given the states after `depth` layers."""
    layers = layers_of(encoder)

    def given(*args: Any, **kwargs: Any) -> torch.Tensor:
        return states

    forwards = dict.fromkeys([*embeddings_of(encoder), layers[depth - 1]], given)
    pixels = states.new_zeros(len(states), 3, 1, 1)  # only the embeddings read them
    with replaced_methods("forward", dict.fromkeys(layers[: depth - 1], skipped_layer) | forwards):
        return encoder(pixel_values=pixels)


def can_resume_images(encoder: PreTrainedModel, depth: int) -> bool:
    """Return whether an encoder of images can continue from the states after `depth` layers.

    See [`can_resume`]. It is tried on three short sequences in place of embedded patches: encoders that are not
    sequences of layers over them, such as Swin or ConvNeXt, fail.
    """
    weight = next(encoder.parameters())
    size = getattr(encoder.config, "hidden_size", None)
    if not isinstance(size, int) or not embeddings_of(encoder):
        return False
    embedded = torch.linspace(-1, 1, 3 * 4 * size, device=weight.device, dtype=weight.dtype).view(3, 4, size).sin()
    embeddings = dict.fromkeys(embeddings_of(encoder), lambda *args, **kwargs: embedded)
    pixels = embedded.new_zeros(3, 3, 1, 1)
    with evaluation_mode(encoder):
        try:
            with replaced_methods("forward", embeddings):
                with torch.enable_grad():
                    states = first_layers(encoder, depth, pixel_values=pixels)
                if not isinstance(states, torch.Tensor) or states.requires_grad or states.shape != embedded.shape:
                    return False
                with torch.no_grad():
                    expected = encoder(pixel_values=pixels).last_hidden_state
            with torch.no_grad():
                resumed = remaining_image_layers(encoder, depth, states).last_hidden_state
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False
    return resumed.shape == expected.shape and torch.allclose(resumed, expected, atol=1e-4)


def can_resume(encoder: PreTrainedModel, depth: int) -> bool:
    """Return whether the layers after `depth` can continue from the states before them.

    Those must be frozen. A layer of another form, or one that reads more than the states before it, makes this
    impossible. It is tried on two short sequences.
    """
    device = next(encoder.parameters()).device
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    ids = mask * torch.arange(3, 7, device=device).clamp(max=encoder.get_input_embeddings().num_embeddings - 1)
    with evaluation_mode(encoder):
        with torch.enable_grad():
            states = first_layers(encoder, depth, input_ids=ids, attention_mask=mask)
        if not isinstance(states, torch.Tensor) or states.requires_grad or states.shape[:2] != ids.shape:
            return False
        with torch.no_grad():
            expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            resumed = remaining_layers(encoder, depth, states, mask)
    real = mask.bool()
    return resumed.shape == expected.shape and torch.allclose(resumed[real], expected[real], atol=1e-4)
