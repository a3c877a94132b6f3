"""ViT baseline: classification of the image's class token (Dosovitskiy et al., ICLR 2021)."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class ViTSentimentConfig(BaselineConfig):
    r"""Configuration of the ViT baseline.

    Args:
        kwargs: fields of [`BaselineConfig`]. `hidden_size` has no effect.
    """

    model_type = "vit_sentiment"
    title = "ViT"
    source = "Dosovitskiy et al., *An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale*, 2021"
    reads = ("image",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class ViTForSentimentClassification(BaselineForSentimentClassification):
    """Vision encoder of transformers with dropout and a linear layer on its global vector."""

    config_class = ViTSentimentConfig

    def __init__(self, config: ViTSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.image_size)

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the class token or mean, by `vision_pooling`: `(batch, image_size)`."""
        return image.summary, {}
