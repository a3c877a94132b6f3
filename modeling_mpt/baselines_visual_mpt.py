"""Visual providers: ViT patches, a CNN grid, detected objects, classified places."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_tracing

from .backbones_mpt import (
    convert_pixels,
    freeze_batch_statistics,
    has_class_token,
    natural_pooling,
    pixel_conversion,
    pool_map,
    vision_hidden_size,
    vision_vector,
)
from .branches_mpt import ConvNet
from .frozen_mpt import FrozenEncoder, frozen_image_layers, frozen_images
from .inputs_mpt import PIXELS_REQUIRED
from .layers_mpt import TRAINED, freeze_first_layers, is_frozen
from .packing_mpt import NO_LAYERS, EncoderLayers

OUTPUTS = ("states", "summary", "scores")  # of a provider


class Tokens(NamedTuple):
    """Encoded tokens of one modality.

    Args:
        states (`torch.Tensor` of shape `(batch, tokens, dim)`): states of words or regions, zero where masked.
        mask (`torch.BoolTensor` of shape `(batch, tokens)`): all false for a post without that modality.
        summary (`torch.Tensor` of shape `(batch, dim)`): vector of a text by `text_pooling`, or global vector of an
            image; zero for a post without that modality.
        scores (`torch.Tensor` of shape `(batch, classes)`, *optional*): probabilities of the object or place classes,
            from providers that have them.
    """

    states: torch.Tensor
    mask: torch.Tensor
    summary: torch.Tensor
    scores: torch.Tensor | None = None


class VisualProvider(nn.Module):
    """Base class of visual providers.

    It encodes present images and returns masked zeros for missing ones.

    Attributes:
        size (`int`): size of a token's state.
        num_scores (`int`): number of classes that the provider predicts, 0 if none.
        reads_pixels_alone (`bool`): whether the outputs depend on the image only, so that they can be stored.
    """

    num_scores = 0
    reads_pixels_alone = True

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
        """Stop the gradients of the parameters that the configuration freezes."""
        freeze_first_layers(self.vision_encoder, config.freeze_vision_layers)

    def encode_images(
        self, pixel_values: torch.Tensor, layers: EncoderLayers, **by_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Encode pixels `(images, 3, height, width)`, with further inputs `(images, …)`.

        `layers` keeps the requested layers of a vision encoder; a CNN or a detector has none.

        Returns:
            States `(images, regions, size)`, summary `(images, size)`, and scores `(images, num_scores)` or `None`.
        """
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor | None,
        image_mask: torch.Tensor,
        layers: EncoderLayers = NO_LAYERS,
        stored: Mapping[str, torch.Tensor] | None = None,
        **by_post: torch.Tensor,
    ) -> Tokens:
        """Encode the images `(batch, 3, height, width)` of posts that have one by `image_mask`.

        Args:
            stored: outputs "states", "summary" and "scores" of `encode_images`, with one row per post, or the input
                "layers" of those after the first layers of a vision encoder.
            by_post: further inputs `(batch, …)` of `encode_images`.

        Raises:
            ValueError: For posts that have an image, but neither pixels nor stored outputs.
        """
        weight = next(self.parameters())
        if stored and "layers" in stored:
            pixel_values = stored["layers"]
        elif stored:
            return self._stored_tokens({name: values.to(weight.dtype) for name, values in stored.items()}, image_mask)
        if pixel_values is None and not is_tracing() and image_mask.any():
            raise ValueError(PIXELS_REQUIRED)
        if is_tracing() and pixel_values is not None:  # data-dependent shapes break the graph: encode all images
            states, summary, scores = self.encode_images(pixel_values.to(weight.dtype), layers, **by_post)
            present = image_mask.unsqueeze(-1)
            scores = None if scores is None else scores * present
            return Tokens(states * present.unsqueeze(-1), present.expand(states.shape[:2]), summary * present, scores)
        rows = None if pixel_values is None else image_mask.nonzero().squeeze(-1)
        if rows is None or len(rows) == 0:
            posts = image_mask.shape[0]
            states, summary = weight.new_zeros(posts, 1, self.size), weight.new_zeros(posts, self.size)
            scores = weight.new_zeros(posts, self.num_scores) if self.num_scores else None
        else:
            by_image = {name: values[rows] for name, values in by_post.items()}
            states, summary, scores = (
                part if part is None else part.new_zeros(len(image_mask), *part.shape[1:]).index_copy(0, rows, part)
                for part in self.encode_images(pixel_values[rows].to(weight.dtype), layers, **by_image)
            )
        return Tokens(states, image_mask.unsqueeze(1).expand(states.shape[:2]), summary, scores)

    def _stored_tokens(self, stored: Mapping[str, torch.Tensor], image_mask: torch.Tensor) -> Tokens:
        required = OUTPUTS if self.num_scores else OUTPUTS[:2]
        if set(required) != stored.keys():
            raise ValueError(
                f"The `encoder_outputs` of an image must be its {', '.join(required)}, got {', '.join(stored)} alone."
            )
        if not is_frozen(self):
            raise ValueError(TRAINED)
        parts = {name: values * image_mask.view(-1, *[1] * (values.dim() - 1)) for name, values in stored.items()}
        return Tokens(mask=image_mask.unsqueeze(1).expand(parts["states"].shape[:2]), **parts)

    def frozen(self, name: str, regions: bool) -> FrozenEncoder | None:
        """Return this provider as a frozen encoder, `None` if it is trained.

        Its outputs are called `NAME_states`, …. Without `regions`, the summary is the only one.
        """

        def run(pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
            states, summary, scores = self.encode_images(pixel_values, NO_LAYERS)
            parts = zip(OUTPUTS, (states if regions else summary.unsqueeze(1), summary, scores), strict=True)
            return {f"{name}_{output}": part for output, part in parts if part is not None}

        settings = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        for unread in ("training", "freeze_batch_norm"):  # the same in evaluation mode
            settings.pop(unread, None)
        settings |= {"provider": type(self).__name__, "regions": regions}
        return frozen_images(name, self, settings, run) or self.frozen_layers(name)

    def frozen_layers(self, name: str) -> FrozenEncoder | None:
        """Return the frozen first layers, `None` for a provider that does not store them."""
        return None

    def stored_sizes(self, name: str) -> dict[str, int]:
        """Map the names of the stored outputs to their last dimension."""
        scores = {f"{name}_scores": self.num_scores} if self.num_scores else {}
        return {f"{name}_states": self.size, f"{name}_summary": self.size} | scores


class VitPatches(VisualProvider):
    """Patch states of a vision encoder. The summary is its class token or the mean."""

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.pooling = config.vision_pooling
        self.natural_pooling = natural_pooling(encoder, self.pooling)
        self.first_patch = first_patch(encoder)

    def frozen_layers(self, name):
        return frozen_image_layers(name, self.vision_encoder)

    def stored_sizes(self, name):
        return super().stored_sizes(name) | {"vision_states": self.size}

    def encode_images(self, pixel_values, layers):
        output = layers.images(self.vision_encoder, pixel_values)
        summary = vision_vector(output, self.pooling, self.natural_pooling)
        return as_tokens(output.last_hidden_state, self.first_patch), summary, None


class CnnGrid(VisualProvider):
    """Cells of a CNN's last feature map. The summary is their mean.

    The CNN is a timm model, or the plain ConvNet if `cnn_config` is `None`.
    """

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

    def encode_images(self, pixel_values, layers):
        pixels = convert_pixels(pixel_values, self.scale, self.shift)
        maps = self.cnn.layers(pixels) if isinstance(self.cnn, ConvNet) else self.cnn(pixels).last_hidden_state
        return as_tokens(maps, 0), pool_map(maps), None


class DetectedObjects(VisualProvider):
    """Most confident objects of a DETR-like detector, at most `config.max_regions`.

    The summary is their mean, weighted by confidence. Pixels must be normalized as by the detector's image processor.
    """

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.max_regions = config.max_regions
        self.num_scores = encoder.config.num_labels

    def encode_images(self, pixel_values, layers):
        output = self.vision_encoder(pixel_values=pixel_values)
        logits = output.logits  # (images, queries, classes), or one more for "no object"
        if logits.shape[-1] > self.num_scores:
            scores = logits.softmax(dim=-1)[..., : self.num_scores]
        else:
            scores = logits.sigmoid()
        states = output.last_hidden_state[:, -logits.shape[1] :]  # the states of YOLOS begin with its patches
        confidence, queries = scores.amax(dim=-1).topk(min(self.max_regions, states.shape[1]), dim=1)
        states = states.gather(1, queries.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        weights = confidence / confidence.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return states, (weights.unsqueeze(-1) * states).sum(dim=1), scores.amax(dim=1)


class ClassifiedPlaces(VisualProvider):
    """Last states and class probabilities of an image classifier, e.g. one trained on Places365.

    The summary is the mean of the states.
    """

    def __init__(self, encoder: PreTrainedModel, config) -> None:
        super().__init__(encoder, config)
        self.num_scores = encoder.config.num_labels
        self.first_patch = first_patch(encoder)

    def encode_images(self, pixel_values, layers):
        output = layers.run("vision", self.vision_encoder, pixel_values=pixel_values, output_hidden_states=True)
        states = as_tokens(output.hidden_states[-1], self.first_patch)
        return states, states.mean(dim=1), output.logits.softmax(dim=-1)


PROVIDERS = {
    "vit_patches": VitPatches,
    "cnn_grid": CnnGrid,
    "detector": DetectedObjects,
    "places": ClassifiedPlaces,
}


def as_tokens(states: torch.Tensor, first: int) -> torch.Tensor:
    """Convert a feature map, or states from token `first` on, to `(images, regions, dim)`."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states[:, first:]


def first_patch(encoder: PreTrainedModel) -> int:
    """Return the position of the first patch, after class, register and distillation tokens."""
    names = {name.split(".")[-1] for name, _ in encoder.named_parameters()}
    registers = getattr(encoder.config, "num_register_tokens", 0) or 0
    return int(has_class_token(encoder)) + registers + int("distillation_token" in names)
