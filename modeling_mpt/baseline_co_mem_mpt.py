"""Co-Mem: words and regions as two memories, each read by what is known of the other, hop after hop."""

from typing import Any

import torch
from torch import nn

from .baselines_memory_mpt import MemoryRead, QueryUpdate
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .packing_mpt import masked_mean


class CoMemSentimentConfig(BaselineConfig):
    r"""
    Args:
        num_hops (`int`, defaults to 6): how often the memories are read; in tables the system is also "CoMN-Hop6".
        hidden_size (`int`, defaults to 256): of both memories and questions; half of it in each direction of the LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): on the words and before the classifier.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "co_mem_sentiment"
    title = "Co-Mem"
    source = (
        "Xu et al., *A Co-Memory Network for Multimodal Sentiment Analysis*, SIGIR 2018; a reconstruction, its code "
        "was not published"
    )
    reads = ("text", "image")
    counts = (*BaselineConfig.counts, "num_hops")

    def __init__(
        self,
        num_hops: int = 6,
        hidden_size: int = 256,
        text_provider: str = "embeddings",
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.num_hops = num_hops
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if self.num_hops < 1 or self.hidden_size % 2:
            raise ValueError(
                f"num_hops={self.num_hops}, hidden_size={self.hidden_size}: write a positive number of hops and an "
                "even size, e.g. 6 and 256."
            )


class CoMemForSentimentClassification(BaselineForSentimentClassification):
    """A reconstruction. Known of the paper: words through a recurrent network and cells of a CNN's map are two
    memories, the image guides how the words are read and the text how the image is, iteratively, and both states are
    classified together at the end. Additive attention and the GRU that updates the questions are those of the same
    authors' *Multi-Interactive Memory Network* (AAAI 2019). That one reads each memory under its own guidance too, and
    adds up projected entries; here only the other's, and the entries themselves. All hops share their weights."""

    config_class = CoMemSentimentConfig

    def __init__(self, config: CoMemSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(self.text_size, size // 2, batch_first=True, bidirectional=True)
        self.region_memory = nn.Linear(self.image_size, size)
        self.read_words, self.read_regions = MemoryRead(size), MemoryRead(size)
        self.update_text, self.update_image = QueryUpdate(size, size), QueryUpdate(size, size)
        self.add_head(2 * size)

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """[q_t; q_v] after the last hop. Both start as the means of their memories; within a hop both memories are
        read before either question changes."""
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        regions = torch.tanh(self.region_memory(image.states))
        of_text, of_image = masked_mean(words, text.mask), masked_mean(regions, image.mask)
        for _ in range(self.config.num_hops):
            words_read = self.read_words(words, text.mask, of_image)
            regions_read = self.read_regions(regions, image.mask, of_text)
            of_text = self.update_text(words_read, of_text, text.mask.any(dim=1))
            of_image = self.update_image(regions_read, of_image, image.mask.any(dim=1))
        return torch.cat([of_text, of_image], dim=-1), {}
