"""Frozen encoders of a network, whose outputs can be computed once and stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .layers_mpt import (
    can_resume,
    can_resume_images,
    evaluation_mode,
    first_layers,
    frozen_depth,
    is_frozen,
    layers_of,
)
from .packing_mpt import compact, masked_mean, token_states


@dataclass(frozen=True)
class FrozenEncoder:
    """Encoder without trained parameters, or the first layers of one.

    Args:
        name (`str`): name of the encoder in its network.
        reads (`str`): "text", "rationales" or "image".
        encoder (`nn.Module`): the whole encoder.
        modules (`list[nn.Module]`): its parts whose weights determine the outputs.
        settings (`dict`): what else determines them, as in JSON: layer, pooling, scale of the pixels, configuration.
        run (`Callable`): function of the inputs of [`encode`].
    """

    name: str
    reads: str
    encoder: nn.Module
    modules: list[nn.Module]
    settings: dict[str, Any]
    run: Callable[..., dict[str, torch.Tensor]]

    @torch.no_grad()
    def encode(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the outputs in evaluation mode.

        Args:
            inputs: `input_ids` and `attention_mask` `(rows, len)` of texts or rationales, or `pixel_values`
                `(rows, 3, height, width)` of images.

        Returns:
            Tensors with one row per text, rationale or image, by their name in `encoder_outputs`: `text_states` and
            `rationale_states` `(rows, len, dim)`, real tokens first and zero at the padding; `rationale_means`, `cnn`,
            `vision` and `…_summary` `(rows, dim)`; `image_states` and `scene_states` `(rows, regions, dim)`;
            `…_scores` `(rows, classes)`; `vision_states` `(rows, tokens, dim)` after the first layers of a vision
            encoder.
        """
        device = next(self.encoder.parameters()).device
        with evaluation_mode(self.encoder):
            return self.run(**{name: value.to(device) for name, value in inputs.items()})


def frozen_text(name: str, reads: str, encoder: nn.Module) -> FrozenEncoder | None:
    """Return the frozen part of an encoder of texts or rationales, `None` if it has none.

    Its outputs are the states of texts, but the means of rationales if the whole encoder is frozen. Static word
    embeddings are not stored.
    """
    if not isinstance(encoder, PreTrainedModel):
        return None
    if is_frozen(encoder):
        depth, modules = None, [encoder]
    else:
        depth = frozen_depth(encoder)
        if depth == 0 or not can_resume(encoder, depth):
            return None
        modules = first_modules(encoder, depth)
    encoder.stored_depth = depth
    output = {"text": "text_states", "rationales": "rationale_states" if depth else "rationale_means"}[reads]

    def run(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        ids, mask, _ = compact(input_ids, attention_mask.bool())
        states = token_states(encoder, ids, mask, depth)
        return {output: masked_mean(states, mask) if output == "rationale_means" else states}

    return FrozenEncoder(name, reads, encoder, modules, description(encoder) | {"layers": depth}, run)


def frozen_images(
    name: str,
    encoder: nn.Module,
    settings: dict[str, Any],
    run: Callable[[torch.Tensor], dict[str, torch.Tensor]],
) -> FrozenEncoder | None:
    """Return an encoder of images if it is frozen.

    Args:
        settings (`dict`): how pixels are converted and outputs pooled, as in JSON.
        run (`Callable`): function of `pixel_values` in the type of the encoder's weights.
    """
    if not is_frozen(encoder):
        return None

    def run_on_pixels(pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return run(pixel_values.to(next(encoder.parameters()).dtype))

    return FrozenEncoder(name, "image", encoder, [encoder], description(encoder) | settings, run_on_pixels)


def frozen_image_layers(name: str, encoder: nn.Module) -> FrozenEncoder | None:
    """Return the frozen first layers of an encoder of images, `None` if it has none."""
    depth = frozen_depth(encoder) if isinstance(encoder, PreTrainedModel) and not is_frozen(encoder) else 0
    if depth == 0 or not can_resume_images(encoder, depth):
        return None
    encoder.stored_depth = depth

    def run(pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = pixel_values.to(next(encoder.parameters()).dtype)
        return {"vision_states": first_layers(encoder, depth, pixel_values=pixels)}

    settings = description(encoder) | {"layers": depth}
    return FrozenEncoder(name, "image", encoder, first_modules(encoder, depth), settings, run)


def first_modules(encoder: nn.Module, depth: int) -> list[nn.Module]:
    """List the modules with frozen weights that are not in the layers after `depth`."""
    later = {part for layer in layers_of(encoder)[depth:] for part in layer.modules()}
    own = [part for part in encoder.modules() if part not in later and [*part.parameters(recurse=False)]]
    return [part for part in own if is_frozen(part)]


def description(encoder: nn.Module) -> dict[str, Any]:
    """Describe what an encoder computes, apart from its weights."""
    network = next((part for part in encoder.modules() if isinstance(part, PreTrainedModel)), None)
    if network is None:
        return {"network": str(encoder)}
    return {"network": type(network).__name__, "config": own_fields(network.config.to_dict())}


def own_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields of a configuration that all models have, such as folder and labels."""
    general = PreTrainedConfig().to_dict().keys() - {"model_type"}
    return {
        name: own_fields(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in general and not name.startswith("_")
    }
