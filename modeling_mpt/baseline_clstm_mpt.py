"""C-LSTM: an LSTM over the windows of a convolution (Zhou et al., 2015)."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import final_states, run_rnn


class CLSTMSentimentConfig(BaselineConfig):
    r"""
    Args:
        kernel_size (`int`, defaults to 3): width of the windows, in words.
        num_filters (`int`, defaults to 150): filters of the convolution.
        hidden_size (`int`, defaults to 150): size of the LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): on the words and before the classifier.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "clstm_sentiment"
    title = "C-LSTM"
    source = "Zhou et al., *A C-LSTM Neural Network for Text Classification*, 2015"
    reads = ("text",)
    counts = (*BaselineConfig.counts, "kernel_size", "num_filters")

    def __init__(
        self,
        kernel_size: int = 3,
        num_filters: int = 150,
        hidden_size: int = 150,
        text_provider: str = "embeddings",
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.kernel_size = kernel_size
        self.num_filters = num_filters
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if self.kernel_size < 1 or self.num_filters < 1:
            raise ValueError(
                f"kernel_size={self.kernel_size}, num_filters={self.num_filters}: write positive numbers, e.g. 3 and "
                "150."
            )


class CLSTMForSentimentClassification(BaselineForSentimentClassification):
    """The windows are not pooled, so that the LSTM reads them in order. There is one for each word, which it ends at:
    zeros stand before the text, or one of two words would have no window of three. The paper's L2 penalty on the
    classifier is left to weight decay."""

    config_class = CLSTMSentimentConfig

    def __init__(self, config: CLSTMSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.dropout = nn.Dropout(config.dropout)
        self.convolution = nn.Conv1d(self.text_size, config.num_filters, config.kernel_size)
        self.lstm = nn.LSTM(config.num_filters, config.hidden_size, batch_first=True)
        self.add_head(config.hidden_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """LSTM(ReLU(w · window + b)), its state at the last window."""
        words = nn.functional.pad(self.dropout(text.states).transpose(1, 2), (self.config.kernel_size - 1, 0))
        windows = torch.relu(self.convolution(words)).transpose(1, 2)
        return final_states(run_rnn(self.lstm, windows, text.mask), text.mask, bidirectional=False), {}
