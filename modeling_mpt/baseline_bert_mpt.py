"""BERT baseline: classification of a pooled text encoder (Devlin et al., NAACL 2019)."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class BertSentimentConfig(BaselineConfig):
    r"""Configuration of the BERT baseline.

    Args:
        kwargs: fields of [`BaselineConfig`]. `hidden_size` has no effect.
    """

    model_type = "bert_sentiment"
    title = "BERT"
    source = "Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding*, 2019"
    reads = ("text",)
    text_providers = ("encoder",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class BertForSentimentClassification(BaselineForSentimentClassification):
    """Text encoder of transformers with dropout and a linear layer on the vector of a text.

    That vector is the first state, as in the paper, or the mean of an encoder that was trained with it, see
    `text_pooling`.
    """

    config_class = BertSentimentConfig

    def __init__(self, config: BertSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.text_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the vector of the text, `(batch, text_size)`."""
        return text.summary, {}
