"""ViT: the image's class token, classified (Dosovitskiy et al., ICLR 2021)."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class ViTSentimentConfig(BaselineConfig):
    r"""
    Args:
        kwargs: see [`BaselineConfig`]. `hidden_size` is the vision encoder's.
    """

    model_type = "vit_sentiment"
    title = "ViT"
    source = "Dosovitskiy et al., *An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale*, 2021"
    reads = ("image",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class ViTForSentimentClassification(BaselineForSentimentClassification):
    """Any vision encoder of transformers, with dropout and one layer on its global vector."""

    config_class = ViTSentimentConfig

    def __init__(self, config: ViTSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.image_size)

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        """The class token, or the mean of the states where `vision_pooling` says so."""
        return image.summary, {}
