"""Late fusion: what BERT says of the text plus what ViT says of the image."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class LateFusionSentimentConfig(BaselineConfig):
    r"""
    Args:
        kwargs: see [`BaselineConfig`]. The sizes are those of the encoders.
    """

    model_type = "late_fusion_sentiment"
    title = "BERT + ViT"
    source = "the usual floor of multimodal tables; not in the paper"
    reads = ("text", "image")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class LateFusionForSentimentClassification(BaselineForSentimentClassification):
    """The text's first state beside the image's global vector, and one layer: its logits are the sum of those that
    text and image would get alone."""

    config_class = LateFusionSentimentConfig

    def __init__(self, config: LateFusionSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.text_size + self.image_size)

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        return torch.cat([text.summary, image.summary], dim=-1), {}
