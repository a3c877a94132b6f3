"""Agreement of a model and a processor: common fields, and contradictions."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig


def processor_fields(processor: Any) -> dict[str, Any]:
    """Return the fields of a configuration that follow from a processor."""
    images = processor.image_processor
    normalizes = getattr(images, "do_normalize", True) and getattr(images, "image_mean", None) is not None
    return {
        "perspectives": list(processor.perspectives),
        "modalities": list(processor.modalities),
        "pixel_mean": list(images.image_mean) if normalizes else [0.0] * 3,
        "pixel_std": list(images.image_std) if normalizes else [1.0] * 3,
    }


def set_unless_contradicted(config_kwargs: dict[str, Any], fields: dict[str, Any], source: str) -> None:
    """Add `fields` to `config_kwargs`.

    Raises:
        ValueError: For a field of `config_kwargs` with another value.
    """
    for name, value in fields.items():
        given = config_kwargs.get(name)
        plain = list(given) if isinstance(given, tuple) else given
        if plain is not None and plain != value:
            raise ValueError(f"`{name}` is {given}, but {source} has {value}. Pass one of the two.")
        config_kwargs[name] = value


def fitted_to_tokenizer(config: PreTrainedConfig, tokenizer: Any) -> PreTrainedConfig:
    """Return a text encoder's configuration that fits the vocabulary of a tokenizer."""
    config = copy.deepcopy(config)
    config.pad_token_id = tokenizer.pad_token_id
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    return config


def check_vocabulary(config: PreTrainedConfig, tokenizer: Any) -> None:
    """Raise an error if a pretrained text encoder has fewer embeddings than a tokenizer tokens."""
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the text encoder has embeddings of {config.vocab_size}. "
            "Use the tokenizer of this encoder."
        )


@torch.no_grad()
def check_image_size(model: nn.Module, processor: Any) -> None:
    """Raise an error if a model's vision encoder cannot read images of the processor's size."""
    encoder = next((m.vision_encoder for m in model.modules() if getattr(m, "vision_encoder", None) is not None), None)
    size = getattr(getattr(encoder, "config", None), "image_size", None)
    if size is None:
        return
    expected = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if processor.image_size == expected:
        return
    try:  # some encoders interpolate their position embeddings
        encoder(pixel_values=torch.zeros(1, 3, *processor.image_size))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"The vision encoder reads images of {expected[0]}×{expected[1]} pixels, but the processor makes "
            f"{processor.image_size[0]}×{processor.image_size[1]}. Create the processor with the same `vision`, or "
            "pass `image_branches=['cnn']` to read images with the CNN alone."
        ) from error
