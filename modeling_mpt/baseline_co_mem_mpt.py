"""Co-Mem baseline: memories of words and regions, read in several hops (SIGIR 2018)."""

from typing import Any

import torch
from torch import nn

from .baselines_configuration_mpt import check_even_hidden_size
from .baselines_memory_mpt import MemoryRead, QueryUpdate
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .packing_mpt import masked_mean


class CoMemSentimentConfig(BaselineConfig):
    r"""Configuration of the Co-Mem baseline.

    Args:
        num_hops (`int`, defaults to 6): number of times that the memories are read. Some tables call the system
            "CoMN-Hop6".
        hidden_size (`int`, defaults to 256): size of memory entries and queries; half of it for each direction of the
            LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): dropout on the words and before the classifier.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "co_mem_sentiment"
    title = "Co-Mem"
    source = "Xu et al., *A Co-Memory Network for Multimodal Sentiment Analysis*, SIGIR 2018"
    remark = "a reconstruction, its code was not published"
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
        check_even_hidden_size(self)


class CoMemForSentimentClassification(BaselineForSentimentClassification):
    """Co-memory network, reconstructed because its code was not published.

    From the paper: the outputs of a recurrent network over words and the cells of a CNN's feature map are two
    memories; in each hop, the image guides the reading of the words and the text that of the image; the final states
    of both are concatenated and classified.

    From *Multi-Interactive Memory Network* (AAAI 2019) by the same authors: additive attention and the GRU that
    updates the queries. That network also reads each memory with its own query and sums projected entries; here only
    the query of the other modality reads a memory, and the entries are not projected. All hops share their weights.
    """

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
        """Return [q_t; q_v] after the last hop, `(batch, 2 · hidden)`.

        Both queries start as the means of their memories. In each hop, both memories are read before any query is
        updated.
        """
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        regions = torch.tanh(self.region_memory(image.states))
        text_query, image_query = masked_mean(words, text.mask), masked_mean(regions, image.mask)
        word_keys, region_keys = self.read_words.memory(words), self.read_regions.memory(regions)
        for _ in range(self.config.num_hops):
            words_read = self.read_words(words, word_keys, text.mask, image_query)
            regions_read = self.read_regions(regions, region_keys, image.mask, text_query)
            text_query = self.update_text(words_read, text_query, text.mask.any(dim=1))
            image_query = self.update_image(regions_read, image_query, image.mask.any(dim=1))
        return torch.cat([text_query, image_query], dim=-1), {}
