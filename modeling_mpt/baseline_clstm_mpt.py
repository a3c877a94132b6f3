"""C-LSTM baseline: LSTM over the features of a convolution over words (Zhou et al., 2015)."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import final_states, run_rnn


class CLSTMSentimentConfig(BaselineConfig):
    r"""Configuration of the C-LSTM baseline.

    Args:
        kernel_size (`int`, defaults to 3): width of the convolution in words.
        num_filters (`int`, defaults to 150): number of filters.
        hidden_size (`int`, defaults to 150): size of the LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): dropout on the words and before the classifier.
        kwargs: other fields of [`BaselineConfig`].
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


class CLSTMForSentimentClassification(BaselineForSentimentClassification):
    """Convolution over words, without pooling, followed by an LSTM.

    The text is padded on the left so that one window ends at each word; the paper has no window for a text shorter
    than the kernel. Weight decay replaces the paper's L2 penalty on the classifier.
    """

    config_class = CLSTMSentimentConfig

    def __init__(self, config: CLSTMSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.dropout = nn.Dropout(config.dropout)
        self.convolution = nn.Conv1d(self.text_size, config.num_filters, config.kernel_size)
        self.lstm = nn.LSTM(config.num_filters, config.hidden_size, batch_first=True)
        self.add_head(config.hidden_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the final state of the LSTM over ReLU(w · window + b), `(batch, hidden)`."""
        words = nn.functional.pad(self.dropout(text.states).transpose(1, 2), (self.config.kernel_size - 1, 0))
        features = torch.relu(self.convolution(words)).transpose(1, 2)
        return final_states(run_rnn(self.lstm, features, text.mask), text.mask, bidirectional=False), {}
