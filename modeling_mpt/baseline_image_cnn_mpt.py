"""Image CNN: the three convolutions of the paper's authors, or any timm model."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_visual_mpt import VisualProvider


class ImageCNNSentimentConfig(BaselineConfig):
    r"""
    Args:
        cnn_channels (`list[int]`, defaults to 16, 32, 64): of the plain network, read where `cnn_config` is `None`.
        grid_size (`int`, defaults to 28): cells on a side of the map that the plain network flattens; each of its
            layers halves the image, so 28 is that of 224 pixels. Other images are averaged to it.
        visual_provider (`str`, defaults to `"cnn_grid"`): only this.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "image_cnn_sentiment"
    title = "Image CNN"
    source = "which CNN the paper does not say: the one in its authors' released code, or any of timm"
    reads = ("image",)
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

    def check(self) -> None:
        super().check()
        if self.visual_provider != "cnn_grid":
            raise ValueError(
                f"visual_provider={self.visual_provider!r}: an image CNN has a CNN. Write visual_provider='cnn_grid', "
                "or take the system vit."
            )
        if self.grid_size < 1:
            raise ValueError(f"grid_size={self.grid_size}: write a positive number, e.g. 28.")


class FlattenedCnn(VisualProvider):
    """For each width a 3×3 convolution, ReLU and a halving; then all cells of the map through one layer, which holds
    nearly all of the 38.5 million parameters."""

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

    def freeze(self, config: ImageCNNSentimentConfig) -> None:
        if config.freeze_cnn:
            self.cnn.requires_grad_(False)

    def encode_images(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        features = self.projection(self.grid(self.cnn(pixel_values)).flatten(1))
        return features.unsqueeze(1), features, None


class ImageCNNForSentimentClassification(BaselineForSentimentClassification):
    """A timm model's global average, or the plain network's one vector, with dropout and one layer on it."""

    config_class = ImageCNNSentimentConfig

    def __init__(self, config: ImageCNNSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        if config.cnn_config is None:
            self.visual = FlattenedCnn(config)
        self.add_head(self.image_size)

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        return image.summary, {}
