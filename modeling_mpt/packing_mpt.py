"""Padding-free encoding: compacted tokens, length buckets, and masked pooling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_tracing

from .layers_mpt import TRAINED, first_layers, remaining_image_layers, remaining_layers, stored_depth

# Minimum length in a bucket: a share of the longest sequence, or this many tokens less. This keeps padding below about
# a quarter of an encoder call, and the calls few.
BUCKET_RATIO = 0.75
BUCKET_SLACK = 8
AFTER_ALL_POSITIONS = 2**32


def compact(inputs: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Move the real tokens of each row to its front, in order.

    Positions and results then depend neither on the side nor on the amount of padding.

    Args:
        inputs: token ids `(rows, seq_len)`, or stored states `(rows, seq_len, dim)`, which are compact already.

    Returns:
        The moved inputs and mask, and the order `(rows, seq_len)` with which `torch.gather` moved them.
    """
    # The keys differ, so that any sort keeps the order: ONNX has no stable one.
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    order = (positions + ~attention_mask.bool() * AFTER_ALL_POSITIONS).argsort(dim=1)
    moved = inputs if inputs.is_floating_point() else inputs.gather(1, order)
    return moved, attention_mask.gather(1, order), order


def compact_rationales(
    inputs: torch.Tensor, attention_mask: torch.Tensor | None, perspectives: list[str], dropout: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compact rationales `(batch, num_perspectives, len)` to `batch · num_perspectives` rows.

    See [`compact`].

    Args:
        inputs: token ids `(batch, num_perspectives, len)`, their stored states, with a further dimension, or their
            stored means `(batch, num_perspectives, dim)`, which become sequences of one state.
        dropout: probability that a post loses all its rationales.

    Raises:
        ValueError: For another number of rationales than of perspectives.
    """
    stored = inputs.is_floating_point()
    if stored and inputs.dim() == 3:
        inputs = inputs.unsqueeze(2)
        attention_mask = None if attention_mask is None else attention_mask.any(dim=2, keepdim=True)
    if inputs.dim() != 3 + stored or inputs.shape[1] != len(perspectives):
        raise ValueError(
            f"`rationale_input_ids` must have the shape (batch, {len(perspectives)}, rationale_len) for "
            f"{perspectives}, got {tuple(inputs.shape)}."
        )
    mask = (inputs.new_ones(inputs.shape[:3]) if attention_mask is None else attention_mask).bool()
    if dropout > 0:
        kept = torch.rand(mask.shape[0], device=mask.device) >= dropout
        mask = mask & kept.view(-1, 1, 1)
    return compact(inputs.flatten(0, 1), mask.flatten(0, 1))


def undo_compact(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Invert [`compact`]: restore encoder outputs to the original token positions.

    The outputs are states `(rows, seq_len, dim)` or attentions `(rows, heads, seq_len, seq_len)`.
    """
    back = order.argsort(dim=1)
    if states.dim() == 4:
        states = states.gather(2, back[:, None, :, None].expand_as(states))
        return states.gather(3, back[:, None, None, :].expand_as(states))
    return states.gather(1, back.unsqueeze(-1).expand_as(states))


def nonempty_mask(mask: torch.Tensor) -> torch.Tensor:
    """Set the first token in empty rows of a mask: attention over nothing is NaN."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return (mask | (first & ~mask.any(dim=1, keepdim=True))).long()


def length_buckets(lengths: list[int]) -> list[list[int]]:
    """Group the row numbers of non-empty sequences by length, longest first."""
    buckets: list[list[int]] = []
    longest = 0
    for row in sorted((r for r, length in enumerate(lengths) if length > 0), key=lambda r: -lengths[r]):
        if not buckets or lengths[row] < min(longest * BUCKET_RATIO, longest - BUCKET_SLACK):
            buckets.append([])
            longest = lengths[row]
        buckets[-1].append(row)
    return buckets


def token_states(
    encoder: PreTrainedModel, inputs: torch.Tensor, attention_mask: torch.Tensor, depth: int | None = None
) -> torch.Tensor:
    """Encode compacted sequences `(rows, seq_len)` with one encoder call per length bucket.

    Empty sequences are not encoded. The states `(rows, seq_len, encoder_hidden)` are zero at the padding.

    Args:
        inputs: token ids `(rows, seq_len)`, or stored states `(rows, seq_len, encoder_hidden)` of a frozen encoder
            (which are returned) or of its frozen first layers (from which the others continue).
        depth (`int`, *optional*): number of layers to run; all by default.
    """
    mask = attention_mask.bool()
    stored = inputs.is_floating_point()
    if stored:
        inputs = inputs.to(encoder.dtype) * mask.unsqueeze(-1)
        depth = stored_depth(encoder)
        if depth is None:
            return inputs

    def encoded(rows: torch.Tensor, row_mask: torch.Tensor) -> torch.Tensor:
        if stored:
            return remaining_layers(encoder, depth, rows, row_mask)
        if depth is not None:
            return first_layers(encoder, depth, input_ids=rows, attention_mask=row_mask)
        return encoder(input_ids=rows, attention_mask=row_mask).last_hidden_state

    if is_tracing():  # lengths are unknown: one call, in which an empty row reads one token
        return encoded(inputs, nonempty_mask(mask)) * mask.unsqueeze(-1)
    lengths = mask.sum(dim=1).tolist()
    states = None
    for bucket in length_buckets(lengths):
        rows, width = torch.tensor(bucket, device=mask.device), lengths[bucket[0]]
        part = encoded(inputs[rows, :width], attention_mask[rows, :width]) * mask[rows, :width].unsqueeze(-1)
        if states is None:
            states = part.new_zeros(*mask.shape, part.shape[-1])
        states[rows, :width] = part
    if states is None:
        states = next(encoder.parameters()).new_zeros(*mask.shape, encoder.config.hidden_size)
    return states


def states_of_both(
    encoder: PreTrainedModel,
    text: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rationales: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> list[torch.Tensor]:
    """Encode text and rationales in one pass, with length buckets over both.

    Each is as [`compact`] returns it, ids or stored states. See [`token_states`].
    """
    parts = (text, rationales)
    width = max(mask.shape[1] for _, mask, _ in parts)
    pad = encoder.config.pad_token_id or 0
    inputs = [
        nn.functional.pad(rows, (0, 0) * (rows.dim() - 2) + (0, width - rows.shape[1]), value=pad)
        for rows, _, _ in parts
    ]
    mask = torch.cat([nn.functional.pad(mask, (0, width - mask.shape[1])) for _, mask, _ in parts])
    states = token_states(encoder, torch.cat(inputs), mask).split([len(rows) for rows in inputs])
    return [part[:, : mask.shape[1]] for part, (_, mask, _) in zip(states, parts, strict=True)]


@dataclass
class EncoderLayers:
    """Hidden states and attentions that a caller requests from the encoders.

    Args:
        request (`dict[str, bool | list[int]]`): arguments of an encoder; empty without a request. A list has the
            layers to keep; the others are `None`.
        fields (`dict[str, tuple[torch.Tensor | None]]`): fields of the output, e.g. `text_hidden_states`.
    """

    request: dict[str, bool | list[int]] = field(default_factory=dict)
    fields: dict[str, tuple[torch.Tensor | None, ...]] = field(default_factory=dict)

    def run(self, name: str, encoder: nn.Module, order: torch.Tensor | None = None, **inputs: Any) -> Any:
        """Call an encoder and keep its layers.

        The `order` of [`compact`] restores the positions of its inputs.
        """
        output = encoder(**self.request | inputs)
        self.add(name, output, order)
        return output

    def images(self, encoder: nn.Module, inputs: torch.Tensor) -> Any:
        """Encode images from their pixels, or from stored states after the frozen first layers.

        Args:
            inputs (`torch.Tensor`): pixels `(images, 3, height, width)`, or states `(images, tokens, dim)`.

        Raises:
            ValueError: For states of other layers than those that are frozen.
        """
        if inputs.dim() == 4:
            return self.run("vision", encoder, pixel_values=inputs)
        depth = stored_depth(encoder)
        if depth is None:
            raise ValueError(TRAINED)
        return remaining_image_layers(encoder, depth, inputs)

    def add(self, name: str, output: Mapping[str, Any], order: torch.Tensor | None = None) -> None:
        """Keep the requested layers of the output of an encoder."""
        if order is not None and not is_tracing() and order.equal(order.sort(dim=1).values):
            order = None  # nothing was moved: the encoder's own tensors have gradients
        for kind in ("hidden_states", "attentions"):
            chosen, layers = self.request.get(f"output_{kind}"), output.get(kind)
            if not chosen or all(layer is None for layer in layers or ()):
                continue
            if not isinstance(chosen, bool):  # some encoders return all
                positions = {position % len(layers) for position in chosen}
                layers = [layer if position in positions else None for position, layer in enumerate(layers)]
            kept = [layer if order is None or layer is None else undo_compact(layer, order) for layer in layers]
            self.fields[f"{name}_{kind}"] = tuple(kept)

    def token_states(
        self, name: str, encoder: nn.Module, inputs: torch.Tensor, mask: torch.Tensor, order: torch.Tensor
    ) -> torch.Tensor:
        """Encode compacted sequences, in one call if their layers are requested.

        See [`token_states`].
        """
        if not self.request:
            return token_states(encoder, inputs, mask)
        output = self.run(name, encoder, order, input_ids=inputs, attention_mask=nonempty_mask(mask))
        return output.last_hidden_state * mask.unsqueeze(-1)


NO_LAYERS = EncoderLayers()


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average states `(rows, seq_len, dim)` over the tokens in `mask`, to 0 if there is none."""
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
