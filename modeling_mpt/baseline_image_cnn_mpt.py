"""Image CNN baseline: three convolutions as in the released code of MPT, or any timm model."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_visual_mpt import CnnGrid
from .branches_mpt import authors_convnet
from .packing_mpt import NO_LAYERS, EncoderLayers


class ImageCNNSentimentConfig(BaselineConfig):
    r"""Configuration of the image CNN baseline.

    Args:
        cnn_channels (`list[int]`, defaults to 16, 32, 64): channels of the plain CNN. Read only if `cnn_config` is
            `None`.
        grid_size (`int`, defaults to 28): height and width of the feature map that the plain CNN flattens. Each of its
            layers halves the image, so 28 fits images of 224 pixels. Other maps are average-pooled to this size: of 64
            pixels, 28 repeats each cell about twelve times, and 8 fits.
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
    """CNN of the authors' code, see [`authors_convnet`]. Its vector is the only region."""

    def __init__(self, config: ImageCNNSentimentConfig) -> None:
        nn.Module.__init__(self)
        self.freeze_batch_norm = config.freeze_batch_norm
        network = authors_convnet(config.cnn_channels, config.grid_size, config.hidden_size)
        self.cnn, self.grid, self.projection = network.layers, network.grid, network.projection
        self.size = config.hidden_size

    def encode_images(
        self, pixel_values: torch.Tensor, layers: EncoderLayers = NO_LAYERS
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        features = self.projection(self.grid(self.cnn(pixel_values)).flatten(1))
        return features.unsqueeze(1), features, None


class ImageCNNForSentimentClassification(BaselineForSentimentClassification):
    """CNN with dropout and a linear layer on its global vector."""

    config_class = ImageCNNSentimentConfig
    reads_regions = False

    def __init__(self, config: ImageCNNSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        if config.cnn_config is None:
            self.visual = FlattenedCnn(config)
        self.add_head(self.image_size)

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the global vector of the CNN, `(batch, image_size)`."""
        return image.summary, {}
