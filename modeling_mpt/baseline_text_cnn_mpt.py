"""Text CNN: convolutions of several widths over words, each filter's strongest answer (Kim, EMNLP 2014)."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .configuration_base_mpt import as_list


class TextCNNSentimentConfig(BaselineConfig):
    r"""
    Args:
        kernel_sizes (`list[int]`, defaults to 3, 4, 5): widths of the convolutions, in words.
        num_filters (`int`, defaults to 100): filters of each width.
        text_provider (`str`, defaults to `"embeddings"`): the paper's words are word2vec vectors of size 300; here,
            the word embeddings of a text encoder. `"encoder"` gives the filters its states, as some later papers do.
        dropout (`float`, defaults to 0.5)
        kwargs: see [`BaselineConfig`].
    """

    model_type = "text_cnn_sentiment"
    title = "Text CNN"
    source = "Kim, *Convolutional Neural Networks for Sentence Classification*, EMNLP 2014"
    reads = ("text",)
    counts = (*BaselineConfig.counts, "num_filters")

    def __init__(
        self,
        kernel_sizes: list[int] | tuple[int, ...] = (3, 4, 5),
        num_filters: int = 100,
        text_provider: str = "embeddings",
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.kernel_sizes = as_list("kernel_sizes", kernel_sizes)
        self.num_filters = num_filters
        super().__init__(text_provider=text_provider, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if not self.kernel_sizes or min(self.kernel_sizes) < 1 or self.num_filters < 1:
            raise ValueError(
                f"kernel_sizes={self.kernel_sizes}, num_filters={self.num_filters}: write positive numbers, e.g. "
                "[3, 4, 5] and 100."
            )


class TextCNNForSentimentClassification(BaselineForSentimentClassification):
    """Zeros surround a text and windows reach over its ends, so that one shorter than a filter has windows too. The
    paper's bound on the norm of the classifier's weights is left to weight decay."""

    config_class = TextCNNSentimentConfig

    def __init__(self, config: TextCNNSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(self.text_size, config.num_filters, width, padding=width - 1) for width in config.kernel_sizes
        )
        self.add_head(config.num_filters * len(config.kernel_sizes))

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """max over windows of ReLU(w · words + b), for each filter; a window must hold a real word."""
        words, lengths = text.states.transpose(1, 2), text.mask.sum(dim=1)
        pooled = []
        for convolution in self.convolutions:
            answers = torch.relu(convolution(words))  # (batch, filters, seq_len + width - 1), window i ends at word i
            windows = torch.arange(answers.shape[-1], device=words.device)
            inside = windows < (lengths + convolution.kernel_size[0] - 1).unsqueeze(1)
            inside = inside & (lengths > 0).unsqueeze(1)
            # After a ReLU, 0 is what no window says.
            pooled.append((answers * inside.unsqueeze(1)).amax(dim=-1))
        return torch.cat(pooled, dim=-1), {}
