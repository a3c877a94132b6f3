"""Image CNN baseline: three convolutions as in the released code of MPT, or any timm model."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_visual_mpt import CnnGrid
from .packing_mpt import NO_LAYERS, EncoderLayers


class ImageCNNSentimentConfig(BaselineConfig):
    r"""Configuration of the image CNN baseline.

    Args:
        cnn_channels (`list[int]`, defaults to 16, 32, 64): channels of the plain CNN. Read only if `cnn_config` is
            `None`.
        grid_size (`int`, defaults to 28): height and width of the feature map that the plain CNN flattens. Each of its
            layers halves the image, so 28 fits images of 224 pixels. Other maps are average-pooled to this size.
        visual_provider (`str`, defaults to `"cnn_grid"`): the only choice.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "image_cnn_sentiment"
    title = "Image CNN"
    source = "Ma et al., *Multimodal Sentiment Analysis with Multi-Perspective Thinking via Large Multimodal Models*"
    remark = "the paper does not name its CNN"
    reads = ("image",)
    visual_providers = ("cnn_grid",)
    counts = (*BaselineConfig.counts, "grid_size")

    def __init__(
        self,
        cnn_channels: list[int] | tuple[int, ...] = (16, 32, 64),
        grid_size: int = 28,
        visual_provider: str = "cnn_grid",
        **kwargs: Any,
    ) -> None:
        self.grid_size = grid_size
        super().__init__(cnn_channels=cnn_channels, visual_provider=visual_provider, **kwargs)


class FlattenedCnn(CnnGrid):
    """Plain CNN whose whole feature map goes through one linear layer.

    Each layer is a 3×3 convolution, ReLU and 2×2 max pooling. The linear layer has nearly all of the 38.5 million
    parameters.
    """

    def __init__(self, config: ImageCNNSentimentConfig) -> None:
        nn.Module.__init__(self)
        self.freeze_batch_norm = config.freeze_batch_norm
        layers: list[nn.Module] = []
        for width_in, width_out in zip([3, *config.cnn_channels], config.cnn_channels, strict=False):
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.cnn = nn.Sequential(*layers)
        self.grid = nn.AdaptiveAvgPool2d(config.grid_size)
        self.projection = nn.Linear(config.cnn_channels[-1] * config.grid_size**2, config.hidden_size)
        self.size = config.hidden_size

    def encode_images(
        self, pixel_values: torch.Tensor, layers: EncoderLayers = NO_LAYERS
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        features = self.projection(self.grid(self.cnn(pixel_values)).flatten(1))
        return features.unsqueeze(1), features, None


class ImageCNNForSentimentClassification(BaselineForSentimentClassification):
    """CNN with dropout and a linear layer on its global vector."""

    config_class = ImageCNNSentimentConfig

    def __init__(self, config: ImageCNNSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        if config.cnn_config is None:
            self.visual = FlattenedCnn(config)
        self.add_head(self.image_size)

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the global vector of the CNN, `(batch, image_size)`."""
        return image.summary, {}
