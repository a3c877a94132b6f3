"""BERT baseline: classification of the first token's state (Devlin et al., NAACL 2019)."""

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
    """Text encoder of transformers with dropout and a linear layer on its first state."""

    config_class = BertSentimentConfig

    def __init__(self, config: BertSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.text_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the state of the first token, `(batch, text_size)`."""
        return text.summary, {}
