"""BiLSTM baseline: final hidden states of a bidirectional LSTM over the text."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import final_states, run_rnn


class BiLSTMSentimentConfig(BaselineConfig):
    r"""Configuration of the BiLSTM baseline.

    Args:
        hidden_size (`int`, defaults to 150): size of each direction.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): dropout on the words and before the classifier.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "bilstm_sentiment"
    title = "BiLSTM"
    # The scores of the row "LSTM" in Table 3 of the MPT paper are those that other papers report for a BiLSTM.
    source = "Hochreiter and Schmidhuber, *Long Short-Term Memory*, 1997"
    reads = ("text",)

    def __init__(
        self, hidden_size: int = 150, text_provider: str = "embeddings", dropout: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)


class BiLSTMForSentimentClassification(BaselineForSentimentClassification):
    """Bidirectional LSTM with dropout and a linear layer on its final states."""

    config_class = BiLSTMSentimentConfig

    def __init__(self, config: BiLSTMSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(self.text_size, config.hidden_size, batch_first=True, bidirectional=True)
        self.add_head(2 * config.hidden_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Concatenate the forward state at the last word and the backward state at the first.

        The result is `(batch, 2 · hidden)`.
        """
        outputs = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        return final_states(outputs, text.mask, bidirectional=True), {}
