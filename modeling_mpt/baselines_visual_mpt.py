"""Where a model's regions, objects and scenes come from: patches, a CNN's grid, a detector, a places classifier."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from .backbones_mpt import freeze_batch_statistics, freeze_first_layers, has_class_token, natural_pooling, pool_map, pixel_conversion, convert_pixels, vision_hidden_size, vision_vector
from .branches_mpt import ConvNet


class Tokens(NamedTuple):
    """What was encoded of one modality.

    Args:
        states (`torch.Tensor` of shape `(batch, tokens, dim)`): of words or regions; zero where `mask` is false.
        mask (`torch.BoolTensor` of shape `(batch, tokens)`): all false for a post without that modality.
        summary (`torch.Tensor` of shape `(batch, dim)`): of the whole: a text's first state, an image's global vector;
            zero for a post without that modality.
        scores (`torch.Tensor` of shape `(batch, classes)`, *optional*): probability of each class of object or place,
            from the providers that name them.
    """

    states: torch.Tensor
    mask: torch.Tensor
    summary: torch.Tensor
    scores: torch.Tensor | None = None


class VisualProvider(nn.Module):
    """Base of the providers: encodes the images that are there, and knows how to say that none is.

    Args:
        encoder ([`PreTrainedModel`], *optional*): the provider's network.
        config ([`BaselineConfig`])

    Attributes:
        size (`int`): size of a token's state.
        num_scores (`int`): number of classes that the provider names, 0 if it names none.
    """

    num_scores = 0

    def __init__(self, encoder: PreTrainedModel | None, config) -> None:
        super().__init__()
        self.freeze_batch_norm = config.freeze_batch_norm
        self.vision_encoder = encoder
        self.size = vision_hidden_size(encoder)

    def train(self, mode: bool = True) -> "VisualProvider":
        super().train(mode)
        if self.freeze_batch_norm:
            freeze_batch_statistics(self)
        return self

    def freeze(self, config) -> None:
        """Stop the gradients of what the configuration freezes."""
        freeze_first_layers(self.vision_encoder, config.freeze_vision_layers)

    def read(
        self, pixel_values: torch.Tensor, **by_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """`(images, 3, height, width)` to states `(images, regions, size)`, summary `(images, size)` and, where the
        provider names classes, scores `(images, num_scores)`."""
        raise NotImplementedError

    def forward(self, pixel_values: torch.Tensor | None, image_mask: torch.Tensor, **by_post: torch.Tensor) -> Tokens:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`, *optional*)
            image_mask (`torch.BoolTensor` of shape `(batch,)`): false for a post without an image.
            by_post (`torch.Tensor` of shape `(batch, …)`): what else `read` takes, of the posts that have one.
        """
        weight = next(self.parameters())
        if torch.compiler.is_compiling():  # which posts have an image is not known: encode them all
            states, summary, scores = self.read(pixel_values.to(weight.dtype), **by_post)
            there = image_mask.unsqueeze(-1)
            scores = None if scores is None else scores * there
            return Tokens(states * there.unsqueeze(-1), there.expand(states.shape[:2]), summary * there, scores)
        rows = image_mask.nonzero().squeeze(-1)
        if len(rows) == 0:
            parts = [weight.new_zeros(1, 1, self.size), weight.new_zeros(1, self.size)]
            parts.append(weight.new_zeros(1, self.num_scores) if self.num_scores else None)
            parts = [part if part is None else part.expand(len(image_mask), *part.shape[1:]) for part in parts]
        else:
            by_image = {name: values[rows] for name, values in by_post.items()}
            parts = [
                part if part is None else part.new_zeros(len(image_mask), *part.shape[1:]).index_copy(0, rows, part)
                for part in self.read(pixel_values[rows].to(weight.dtype), **by_image)
            ]
        states, summary, scores = parts
        return Tokens(states, image_mask.unsqueeze(1).expand(states.shape[:2]), summary, scores)


class VitPatches(VisualProvider):
    """The patch states of a vision encoder; its class token, or the mean, is the summary."""

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.pooling = config.vision_pooling
        self.natural_pooling = natural_pooling(encoder, self.pooling)
        self.first_patch = first_patch(encoder)

    def read(self, pixel_values):
        output = self.vision_encoder(pixel_values=pixel_values)
        summary = vision_vector(output, self.pooling, self.natural_pooling)
        return as_tokens(output.last_hidden_state, self.first_patch), summary, None


class CnnGrid(VisualProvider):
    """The cells of a CNN's last map, of a timm model or the plain ConvNet; their mean is the summary."""

    def __init__(self, encoder: PreTrainedModel | None, config) -> None:
        nn.Module.__init__(self)
        self.freeze_batch_norm = config.freeze_batch_norm
        self.scale, self.shift = [1.0] * 3, [0.0] * 3
        if encoder is None:
            self.cnn, self.size = ConvNet(config.cnn_channels), config.cnn_channels[-1]
        else:
            self.cnn, self.size = encoder, vision_hidden_size(encoder)
            self.scale, self.shift = pixel_conversion(encoder, config)

    def freeze(self, config) -> None:
        if config.freeze_cnn:
            self.cnn.requires_grad_(False)

    def read(self, pixel_values):
        pixels = convert_pixels(pixel_values, self.scale, self.shift)
        maps = self.cnn.layers(pixels) if isinstance(self.cnn, ConvNet) else self.cnn(pixels).last_hidden_state
        return as_tokens(maps, 0), pool_map(maps), None


class DetectedObjects(VisualProvider):
    """The objects that a detector of the DETR family is surest of, at most `config.max_regions`; their mean, weighted
    by that sureness, is the summary. Pixels must be normalised as the detector's own image processor does."""

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.max_regions = config.max_regions
        self.num_scores = encoder.config.num_labels

    def read(self, pixel_values):
        output = self.vision_encoder(pixel_values=pixel_values)
        logits = output.logits  # (images, queries, classes), or one more for "no object"
        if logits.shape[-1] > self.num_scores:
            scores = logits.softmax(dim=-1)[..., : self.num_scores]
        else:
            scores = logits.sigmoid()
        states = output.last_hidden_state[:, -logits.shape[1] :]  # YOLOS has its patches in front of its queries
        sureness, best = scores.amax(dim=-1).topk(min(self.max_regions, states.shape[1]), dim=1)
        states = states.gather(1, best.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        shares = sureness / sureness.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return states, (shares.unsqueeze(-1) * states).sum(dim=1), scores.amax(dim=1)


class ClassifiedPlaces(VisualProvider):
    """The last states of an image classifier, e.g. one trained on Places365, and the probabilities of its classes; the
    mean of the states is the summary."""

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.num_scores = encoder.config.num_labels
        self.first_patch = first_patch(encoder)

    def read(self, pixel_values):
        output = self.vision_encoder(pixel_values=pixel_values, output_hidden_states=True)
        states = as_tokens(output.hidden_states[-1], self.first_patch)
        return states, states.mean(dim=1), output.logits.softmax(dim=-1)


PROVIDERS = {
    "vit_patches": VitPatches,
    "cnn_grid": CnnGrid,
    "detector": DetectedObjects,
    "places": ClassifiedPlaces,
}


def as_tokens(states: torch.Tensor, first: int) -> torch.Tensor:
    """`(images, dim, height, width)` or `(images, tokens, dim)`, less the first tokens -> `(images, regions, dim)`."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states[:, first:]


def first_patch(encoder: PreTrainedModel) -> int:
    """How many states of a vision encoder stand before its first patch: class, register and distillation tokens."""
    names = {name.split(".")[-1] for name, _ in encoder.named_parameters()}
    registers = getattr(encoder.config, "num_register_tokens", 0) or 0
    return int(has_class_token(encoder)) + registers + int("distillation_token" in names)
