"""Text CNN baseline: max-pooled convolutions of several widths over words (Kim, EMNLP 2014)."""

from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .configuration_base_mpt import as_list


class TextCNNSentimentConfig(BaselineConfig):
    r"""Configuration of the Text CNN baseline.

    Args:
        kernel_sizes (`list[int]`, defaults to 3, 4, 5): widths of the convolutions in words.
        num_filters (`int`, defaults to 100): number of filters of each width.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings of a text encoder, where the paper has
            word2vec vectors of size 300; or `"encoder"` for the encoder's states, as in some later papers.
        dropout (`float`, defaults to 0.5): dropout before the classifier.
        kwargs: other fields of [`BaselineConfig`].
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
        if not self.kernel_sizes or min(self.kernel_sizes) < 1:
            raise ValueError(f"`kernel_sizes` must be positive integers, e.g. [3, 4, 5], got {self.kernel_sizes}.")


class TextCNNForSentimentClassification(BaselineForSentimentClassification):
    """Parallel convolutions over words, each followed by ReLU and max pooling.

    The text is padded on both sides, so that a text shorter than a kernel has windows too. Weight decay replaces the
    paper's bound on the norm of the classifier's weights.
    """

    config_class = TextCNNSentimentConfig

    def __init__(self, config: TextCNNSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(self.text_size, config.num_filters, width, padding=width - 1) for width in config.kernel_sizes
        )
        self.add_head(config.num_filters * len(config.kernel_sizes))

    def pool(self, text: Tokens) -> tuple[torch.Tensor, dict]:
        """Return max over windows of ReLU(w · words + b), `(batch, num_filters · widths)`.

        Windows without a real word are ignored.
        """
        words, lengths = text.states.transpose(1, 2), text.mask.sum(dim=1)
        pooled = []
        for convolution in self.convolutions:
            features = torch.relu(convolution(words))  # (batch, filters, seq_len + width - 1), window i ends at word i
            windows = torch.arange(features.shape[-1], device=words.device)
            inside = windows < (lengths + convolution.kernel_size[0] - 1).unsqueeze(1)
            inside = inside & (lengths > 0).unsqueeze(1)
            pooled.append((features * inside.unsqueeze(1)).amax(dim=-1))  # features are at least 0
        return torch.cat(pooled, dim=-1), {}
