"""BiLSTM: one LSTM in each direction, and what each ends with."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import final_states, run_rnn


class BiLSTMSentimentConfig(BaselineConfig):
    r"""
    Args:
        hidden_size (`int`, defaults to 150): size of each direction.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): on the words and before the classifier.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "bilstm_sentiment"
    title = "BiLSTM"
    # The row "LSTM" of Table 3 has the scores that other papers list for a BiLSTM.
    source = "Hochreiter and Schmidhuber, *Long Short-Term Memory*, 1997, in both directions"
    reads = ("text",)

    def __init__(
        self, hidden_size: int = 150, text_provider: str = "embeddings", dropout: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)


class BiLSTMForSentimentClassification(BaselineForSentimentClassification):
    config_class = BiLSTMSentimentConfig

    def __init__(self, config: BiLSTMSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(self.text_size, config.hidden_size, batch_first=True, bidirectional=True)
        self.add_head(2 * config.hidden_size)

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Forward state at the last word, backward state at the first."""
        outputs = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        return final_states(outputs, text.mask, bidirectional=True), {}
