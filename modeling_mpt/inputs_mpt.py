"""Checks of the inputs of a network: shapes, types, and ids that its encoders have."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_tracing

from .layers_mpt import TRAINED, is_frozen

# Number of dimensions of the outputs of frozen encoders that a forward takes, and the mask of their rows.
STORED = {
    "text_states": (3, "attention_mask"),
    "rationale_states": (4, "rationale_attention_mask"),
    "rationale_means": (3, "rationale_attention_mask"),
    "cnn": (2, "image_mask"),
    "vision": (2, "image_mask"),
    "vision_states": (3, "image_mask"),
    "image_states": (3, "image_mask"),
    "image_summary": (2, "image_mask"),
    "image_scores": (2, "image_mask"),
    "scene_states": (3, "image_mask"),
    "scene_summary": (2, "image_mask"),
    "scene_scores": (2, "image_mask"),
}
PIXELS_REQUIRED = (
    "`pixel_values` are required with `encoder_outputs`: the network has an encoder of images whose outputs are not "
    "among these."
)


def position_limit(encoder: PreTrainedModel) -> int | None:
    """Return the number of learned positions of an encoder, `None` if it has none."""
    tables = [m for name, m in encoder.named_modules() if "position" in name and isinstance(m, nn.Embedding)]
    limit = getattr(encoder.config, "max_position_embeddings", None)
    if not tables or not limit or limit < 1:
        return None
    # The positions of RoBERTa and its relatives begin after the id of the padding token.
    return limit - max((each.padding_idx + 1 for each in tables if each.padding_idx is not None), default=0)


def check_inputs(
    encoder: nn.Module | None,
    limit: int | None,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    pixel_values: torch.Tensor | None,
    image_mask: torch.Tensor | None,
    rationale_input_ids: torch.Tensor | None,
    rationale_attention_mask: torch.Tensor | None,
    encoder_outputs: Mapping[str, torch.Tensor] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[int, torch.device]:
    """Check the inputs of a batch. Values are not checked while a graph is traced.

    Args:
        encoder (`nn.Module`, *optional*): text encoder.
        limit (`int`, *optional*): its [`position_limit`].
        input_ids, …: arguments of `forward`.
        sizes (`dict[str, int]`, *optional*): last dimension of each of the `encoder_outputs` that the network takes.

    Returns:
        The number of posts and the device of the tensors.

    Raises:
        ValueError: For no input, inputs of another shape or type, or ids that the encoder lacks.
    """
    given = {"input_ids": input_ids, "pixel_values": pixel_values, "rationale_input_ids": rationale_input_ids}
    _check_tokens("input_ids", input_ids, "attention_mask", attention_mask, "(batch, seq_len)", encoder, limit)
    _check_tokens(
        *("rationale_input_ids", rationale_input_ids, "rationale_attention_mask", rationale_attention_mask),
        *("(batch, num_perspectives, rationale_len)", encoder, limit),
    )
    if pixel_values is not None and (
        pixel_values.dim() != 4 or pixel_values.shape[1] != 3 or not pixel_values.is_floating_point()
    ):
        raise ValueError(
            "`pixel_values` must be normalized floating-point numbers of the shape (batch, 3, height, width), as the "
            f"processor returns them, got {pixel_values.dtype} of the shape {tuple(pixel_values.shape)}."
        )
    stored = encoder_outputs or {}
    for name, value in stored.items():
        _check_stored(name, value, sizes or {})
    given |= stored
    rows = {name: value.shape[0] for name, value in given.items() if value is not None}
    if not rows:
        raise ValueError(
            "At least one of `input_ids`, `pixel_values`, `rationale_input_ids` is required, or `encoder_outputs` in "
            "their place."
        )
    first = given[next(iter(rows))]
    batch = first.shape[0]  # `shape`, not `len`: an exported model keeps it symbolic
    if any(size != batch for size in rows.values()):
        raise ValueError(f"Each input must have one row per post, got {rows}.")
    if image_mask is not None and (image_mask.dim() != 1 or image_mask.shape[0] != batch):
        raise ValueError(f"`image_mask` must have the shape (batch,), got {tuple(image_mask.shape)}.")
    masks = {"attention_mask": attention_mask, "rationale_attention_mask": rationale_attention_mask}
    for name, value in stored.items():
        mask, shape = masks.get(STORED[name][1]), value.shape[: 2 if name == "rationale_means" else -1]
        if mask is not None and mask.shape[: len(shape)] != shape:
            raise ValueError(
                f"`{name}` of the shape {tuple(value.shape)} needs a `{STORED[name][1]}` that begins with "
                f"{tuple(shape)}, got {tuple(mask.shape)}."
            )
    return batch, first.device


def stored_rationales(
    stored: Mapping[str, torch.Tensor], input_ids: torch.Tensor | None, encoder: nn.Module
) -> torch.Tensor | None:
    """Return the stored means or states of rationales, or else their token ids.

    Raises:
        ValueError: For means of an encoder that is not wholly frozen.
    """
    if "rationale_means" in stored and not is_frozen(encoder):
        raise ValueError(TRAINED)
    return stored.get("rationale_means", stored.get("rationale_states", input_ids))


def _check_stored(name: str, value: torch.Tensor, sizes: Mapping[str, int]) -> None:
    """Check name, type and shape of an output of a frozen encoder."""
    if name not in sizes:
        raise ValueError(f"`encoder_outputs` may have {sorted(sizes)} in this network, got {name!r}.")
    dimensions = STORED[name][0]
    if value.dim() != dimensions or not value.is_floating_point() or value.shape[-1] != sizes[name]:
        raise ValueError(
            f"`{name}` must have floating-point numbers in {dimensions} dimensions, the last of size {sizes[name]}, "
            f"got {value.dtype} of the shape {tuple(value.shape)}."
        )


def _check_tokens(
    name: str,
    ids: torch.Tensor | None,
    mask_name: str,
    mask: torch.Tensor | None,
    shape: str,
    encoder: nn.Module | None,
    limit: int | None,
) -> None:
    """Check the ids of texts or rationales, and their mask."""
    if ids is None:
        return
    if ids.dim() != shape.count(",") + 1 or ids.is_floating_point():
        raise ValueError(f"`{name}` must be integers of the shape {shape}, got {ids.dtype} of {tuple(ids.shape)}.")
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(
            f"`{mask_name}` must have the shape of `{name}`, {tuple(ids.shape)}, got {tuple(mask.shape)}."
        )
    if is_tracing() or ids.numel() == 0 or encoder is None:
        return
    real = torch.ones_like(ids) if mask is None else mask
    values = (ids.min(), ids.max(), (real != 0).sum(dim=-1).max(), real.min())
    low, high, length, smallest = torch.stack([value.double() for value in values]).tolist()  # one transfer
    known = getattr(encoder.get_input_embeddings(), "num_embeddings", None)
    if known is not None and (low < 0 or high >= known):
        raise ValueError(
            f"`{name}` has the id {int(low if low < 0 else high)}, but the text encoder knows the ids 0 to "
            f"{known - 1}. Use the processor that was saved with this model."
        )
    if smallest < 0:
        raise ValueError(f"`{mask_name}` must be 1 at real tokens and 0 at padding, got {smallest:g}.")
    if limit is not None and length > limit:
        raise ValueError(
            f"`{name}` has {int(length)} tokens in a row, but the text encoder reads {limit}. Truncate them, in the "
            f"processor with `max_length={limit}`."
        )
