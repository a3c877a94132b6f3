"""Feature extractors of MPT: SKNet, LSTM and mean for the text, CNN and ViT for the image."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_tracing

from .backbones_mpt import (
    convert_pixels,
    freeze_batch_statistics,
    natural_pooling,
    pixel_conversion,
    pool_map,
    vision_hidden_size,
    vision_vector,
)
from .frozen_mpt import FrozenEncoder, frozen_image_layers, frozen_images
from .inputs_mpt import PIXELS_REQUIRED
from .layers_mpt import TRAINED, is_frozen
from .packing_mpt import NO_LAYERS, EncoderLayers, masked_mean
from .recurrent_mpt import last_states

# Outputs of frozen encoders that [`ImageBranches`] takes.
STORED_IMAGES = ("cnn", "vision", "vision_states")


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors `(…, size)` to mean 0 and variance 1 over their entries."""
    return nn.functional.layer_norm(vectors, vectors.shape[-1:])


class SelectiveKernel(nn.Module):
    """SKNet over tokens: convolutions of several widths, mixed per channel.

    The content of the whole text determines the mix (Li et al., *Selective Kernel Networks*; h1 of the paper's Eq. 1).
    That network normalizes each convolution and the squeezed vector over the batch; here nothing is, because the
    statistics of a batch would include padding and change with the other posts.

    The kernel sizes are odd widths in tokens; the `input_size` E is squeezed to `max(E // reduction, 32)`.
    """

    def __init__(self, input_size: int, output_size: int, kernel_sizes: list[int], reduction: int) -> None:
        super().__init__()
        squeezed = max(input_size // reduction, 32)
        self.convolutions = nn.ModuleList(nn.Conv1d(input_size, input_size, k, padding=k // 2) for k in kernel_sizes)
        self.squeeze = nn.Sequential(nn.Linear(input_size, squeezed), nn.ReLU())
        self.excitations = nn.ModuleList(nn.Linear(squeezed, input_size) for _ in kernel_sizes)
        self.projection = nn.Linear(input_size, output_size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Extract h1 `(batch, output_size)` from states `(batch, seq_len, input_size)`.

        The states are zero at the padding.
        """
        # Pooling is linear: the mean of the weighted sum is the weighted sum of the means.
        # Of a frozen encoder, the branches take most of a step: without padding they take less than half.
        means = self._means if states.requires_grad or is_tracing() else self._means_without_padding
        pooled = torch.stack(means(states, mask), dim=1)  # (batch, branch, channel)
        squeezed = self.squeeze(pooled.sum(dim=1))
        selection = torch.stack([excite(squeezed) for excite in self.excitations], dim=1).softmax(dim=1)
        return self.projection((selection * pooled).sum(dim=1))

    def _means(self, states, mask):
        """Return the mean `(batch, input_size)` of each convolution."""
        branches = [torch.relu(conv(states.transpose(1, 2))).transpose(1, 2) for conv in self.convolutions]
        return [masked_mean(branch, mask) for branch in branches]

    def _means_without_padding(self, states, mask):
        """Compute the means of [`_means`] from the windows of the real tokens alone."""
        lengths, (rows, columns) = mask.sum(dim=1), mask.nonzero(as_tuple=True)
        reach = max(conv.padding[0] for conv in self.convolutions)
        padded = nn.functional.pad(states, (0, 0, reach, reach))
        means = []
        for conv in self.convolutions:
            offsets = torch.arange(conv.kernel_size[0], device=states.device) - conv.padding[0] + reach
            windows = padded[rows.unsqueeze(1), columns.unsqueeze(1) + offsets].flatten(1)
            weight = conv.weight.transpose(1, 2).flatten(1)
            values = torch.relu(nn.functional.linear(windows, weight, conv.bias))
            exact = torch.promote_types(values.dtype, torch.float32)  # under autocast they have 8 bits
            sums = values.new_zeros(len(mask), values.shape[1], dtype=exact).index_add(0, rows, values.to(exact))
            means.append((sums / lengths.clamp(min=1).unsqueeze(1)).to(values.dtype))
        return means


class TextBranches(nn.Module):
    """Text features t' = [h1; h2]: SKNet and LSTM on token states (paper, Eq. 1 and 2).

    The optional branch "mean" is not in the paper: a linear layer on the mean of the states, which is the vector that
    encoders of sentences are trained for. The branches have equal shares of t', in this order.
    """

    def __init__(self, config, input_size: int) -> None:
        super().__init__()
        size = config.hidden_size // len(config.text_branches)
        self.normalize = config.normalize_features
        self.sknet = self.lstm = self.mean = None
        if "sknet" in config.text_branches:
            self.sknet = SelectiveKernel(input_size, size, config.sknet_kernel_sizes, config.sknet_reduction)
        if "lstm" in config.text_branches:
            self.lstm = nn.LSTM(input_size, size, batch_first=True)
        if "mean" in config.text_branches:
            self.mean = nn.Linear(input_size, size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Extract t' `(batch, hidden)` from states `(batch, seq_len, input_size)`.

        Real tokens come first, and the states are zero at the padding.
        """
        features = []
        if self.sknet is not None:
            features.append(self.sknet(states, mask))
        if self.lstm is not None:
            features.append(self._last(states, mask))
        if self.mean is not None:
            mean = states.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # the padding is zero
            features.append(self.mean(normalized(mean) if self.normalize else mean))
        return torch.cat(features, dim=-1)

    def _last(self, states, mask):
        """Return the LSTM's output at the last real token."""
        on_stored_states = (
            self.lstm.weight_hh_l0.requires_grad and torch.is_grad_enabled() and not states.requires_grad
        )
        if on_stored_states and states.device.type == "cpu" and not is_tracing():
            return last_states(self.lstm, states, mask)
        outputs, _ = self.lstm(states)
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        return outputs[torch.arange(outputs.shape[0], device=outputs.device), last]


class ConvNet(nn.Module):
    """Plain CNN with global average pooling.

    It is not that of the authors' code, which is [`authors_convnet`]. Each layer has a 3×3 convolution of stride 2,
    group normalization (no batch statistics), ReLU and max pooling.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in zip([3, *channels], channels, strict=False):
            groups = next(g for g in (8, 4, 2, 1) if width_out % g == 0)
            layers += [
                nn.Conv2d(width_in, width_out, 3, stride=2, padding=1),
                nn.GroupNorm(groups, width_out),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Extract features `(batch, channels[-1])` from pixels `(batch, 3, height, width)`."""
        return self.layers(pixel_values).mean(dim=(2, 3))


def authors_convnet(channels: list[int], grid_size: int, output_size: int) -> nn.Sequential:
    """Build the CNN of the authors' code: its whole feature map goes through one linear layer.

    Each layer has a 3×3 convolution of stride 1, ReLU and 2×2 max pooling, without normalization. It halves the image:
    three give 28×28 cells for 224 pixels. A map of another size is average-pooled to `grid_size`, which repeats the
    cells of a smaller one. With 16, 32 and 64 channels and 768 outputs, the linear layer has nearly all of the 38.5
    million parameters.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in zip([3, *channels], channels, strict=False):
        layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    parts = {
        "layers": nn.Sequential(*layers),
        "grid": nn.AdaptiveAvgPool2d(grid_size),
        "flatten": nn.Flatten(),
        "projection": nn.Linear(channels[-1] * grid_size**2, output_size),
    }
    return nn.Sequential(OrderedDict(parts))


class ImageBranches(nn.Module):
    """Image features v' = W_p [h3; h4] + b_p: CNN, ViT and projection (paper, Eq. 3 and 4).

    Args:
        config ([`MPTConfig`])
        vision_encoder ([`PreTrainedModel`], *optional*): `None` if `image_branches` lacks "vit".
        cnn ([`PreTrainedModel`], *optional*): a [`TimmWrapperModel`]; `None` for a plain CNN or none.
    """

    def __init__(self, config, vision_encoder: PreTrainedModel | None, cnn: PreTrainedModel | None) -> None:
        super().__init__()
        self.pooling = config.vision_pooling
        self.freeze_batch_norm = config.freeze_batch_norm
        self.normalize = config.normalize_features
        self.vision_encoder = vision_encoder
        self.cnn = cnn
        self.scale, self.shift = [1.0] * 3, [0.0] * 3
        self.sizes: dict[str, int] = {}  # of the vectors of the branches, in the order of their outputs
        if cnn is not None:
            self.scale, self.shift = pixel_conversion(cnn, config)
            self.sizes["cnn"] = cnn.timm_model.num_features
        elif "cnn" in config.image_branches and config.cnn_variant == "authors":
            self.cnn = authors_convnet(config.cnn_channels, config.grid_size, config.hidden_size)
            self.sizes["cnn"] = config.hidden_size
        elif "cnn" in config.image_branches:
            self.cnn = ConvNet(config.cnn_channels)
            self.sizes["cnn"] = config.cnn_channels[-1]
        if vision_encoder is not None:
            self.natural_pooling = natural_pooling(vision_encoder, self.pooling)
            self.sizes["vision"] = vision_hidden_size(vision_encoder)
        self.projection = nn.Linear(sum(self.sizes.values()), config.hidden_size)

    def train(self, mode: bool = True) -> "ImageBranches":
        super().train(mode)
        if self.freeze_batch_norm and self.cnn is not None:
            freeze_batch_statistics(self.cnn)
        return self

    def encoders(self) -> dict[str, FrozenEncoder | None]:
        """Map "cnn" and "vision" to the frozen encoder, `None` if it is trained."""
        encoders = {}
        if "cnn" in self.sizes:
            settings = {"scale": self.scale, "shift": self.shift}
            encoders["cnn"] = frozen_images(
                "cnn", self.cnn, settings, lambda pixels: {"cnn": self.cnn_vectors(pixels)}
            )
        if "vision" in self.sizes:
            settings = {"pooling": self.pooling, "natural_pooling": self.natural_pooling}
            encoders["vision"] = frozen_images(
                "vision", self.vision_encoder, settings, lambda pixels: {"vision": self.vision_vectors(pixels)}
            ) or frozen_image_layers("vision", self.vision_encoder)
        return encoders

    def stored_sizes(self) -> dict[str, int]:
        """Map the names of the stored outputs to their last dimension."""
        return self.sizes | ({"vision_states": self.sizes["vision"]} if "vision" in self.sizes else {})

    def cnn_vectors(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Extract h3 `(images, size)`."""
        maps = self.cnn(convert_pixels(pixel_values, self.scale, self.shift))
        return maps if isinstance(maps, torch.Tensor) else pool_map(maps.last_hidden_state)

    def vision_vectors(self, pixel_values: torch.Tensor, layers: EncoderLayers = NO_LAYERS) -> torch.Tensor:
        """Extract h4 `(images, size)` from pixels, or from the states after the frozen first layers."""
        output = layers.images(self.vision_encoder, pixel_values)
        return vision_vector(output, self.pooling, self.natural_pooling)

    def forward(
        self,
        pixel_values: torch.Tensor | None,
        layers: EncoderLayers = NO_LAYERS,
        stored: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Extract v' `(images, hidden)` from pixels `(images, 3, height, width)`.

        `stored` has the vectors `(images, size)` of the branches "cnn" and "vision" that do not run, or as
        "vision_states" the states `(images, tokens, size)` after the first layers of the ViT.

        Raises:
            ValueError: For no pixels, if a branch needs them, or vectors of a branch that is trained.
        """
        features = dict(stored or {})
        states = features.pop("vision_states", None)
        running = self.sizes.keys() - features.keys()
        if running - ({"vision"} if states is not None else set()) and pixel_values is None:
            raise ValueError(PIXELS_REQUIRED)
        encoders = {"cnn": self.cnn, "vision": self.vision_encoder}
        if any(not is_frozen(encoders[name]) for name in features):
            raise ValueError(TRAINED)
        if "cnn" in running:
            features["cnn"] = self.cnn_vectors(pixel_values)
        if "vision" in running:
            features["vision"] = self.vision_vectors(pixel_values if states is None else states, layers)
        vectors = [normalized(features[name]) if self.normalize else features[name] for name in self.sizes]
        return self.projection(torch.cat(vectors, dim=-1))

    def of_posts(
        self,
        pixel_values: torch.Tensor | None,
        mask: torch.Tensor,
        layers: EncoderLayers,
        stored: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Extract v' `(batch, hidden)` of posts, zero where `mask` `(batch,)` has no image.

        Pixels and `stored` vectors have a row for each post; see [`forward`].
        """
        weight = self.projection.weight
        pixel_values = None if pixel_values is None else pixel_values.to(weight.dtype)
        if is_tracing():  # the mask is unknown: all images are encoded
            return self(pixel_values, layers, stored) * mask.unsqueeze(-1)
        rows = mask.nonzero().squeeze(-1)
        if len(rows) == 0:
            return weight.new_zeros(len(mask), weight.shape[0])
        pixel_values = None if pixel_values is None else pixel_values[rows]
        embeds = self(pixel_values, layers, {name: vectors[rows] for name, vectors in stored.items()})
        return embeds.new_zeros(len(mask), embeds.shape[-1]).index_copy(0, rows, embeds)
