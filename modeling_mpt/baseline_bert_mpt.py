"""BERT: the state of the first token, classified (Devlin et al., NAACL 2019)."""

from typing import Any

import torch

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens


class BertSentimentConfig(BaselineConfig):
    r"""
    Args:
        kwargs: see [`BaselineConfig`]. `hidden_size` is the text encoder's.
    """

    model_type = "bert_sentiment"
    title = "BERT"
    source = "Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding*, 2019"
    reads = ("text",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def check(self) -> None:
        super().check()
        if self.text_provider != "encoder":
            raise ValueError(
                f"text_provider={self.text_provider!r}: BERT is an encoder. Write text_provider='encoder'."
            )


class BertForSentimentClassification(BaselineForSentimentClassification):
    """Any text encoder of transformers, with dropout and one layer on its first state."""

    config_class = BertSentimentConfig

    def __init__(self, config: BertSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.add_head(self.text_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """The state of the first token."""
        return text.summary, {}
