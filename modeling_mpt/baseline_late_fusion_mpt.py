"""Late fusion baseline: sum of the logits of a text encoder and a vision encoder."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class LateFusionSentimentConfig(BaselineConfig):
    r"""Configuration of the late fusion baseline.

    Args:
        kwargs: fields of [`BaselineConfig`]. `hidden_size` has no effect.
    """

    model_type = "late_fusion_sentiment"
    title = "BERT + ViT"
    source = "a common reference of multimodal comparisons"
    remark = "not in the paper"
    reads = ("text", "image")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class LateFusionForSentimentClassification(BaselineForSentimentClassification):
    """Linear layer on the concatenated vectors of text and image.

    This equals the sum of the logits of two linear classifiers, one on the text's vector and one on the image's global
    vector.
    """

    config_class = LateFusionSentimentConfig
    reads_regions = False

    def __init__(self, config: LateFusionSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.text_size + self.image_size)

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Concatenate both vectors, `(batch, text_size + image_size)`."""
        return torch.cat([text.summary, image.summary], dim=-1), {}
