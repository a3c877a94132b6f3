"""MVAN baseline: attention between memories of text, objects and scene (TMM 2021)."""

from typing import Any

import torch
from torch import nn

from .baselines_configuration_mpt import check_even_hidden_size
from .baselines_memory_mpt import MemoryRead, QueryUpdate
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .packing_mpt import masked_mean


class MVANSentimentConfig(BaselineConfig):
    r"""Configuration of the MVAN baseline.

    Args:
        num_hops (`int`, defaults to 2): number of times that the memories are read.
        hidden_size (`int`, defaults to 300): size of memory entries, queries and views; half of it for each direction
            of the LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): dropout on the words, between the LSTM's layers and before the classifier.
        kwargs: other fields of [`BaselineConfig`]. The paper's scene network was trained on Places365: pass one as
            `scene_config` with `scene_provider="places"`.
    """

    model_type = "mvan_sentiment"
    title = "MVAN"
    source = "Yang et al., *Image-Text Multimodal Emotion Classification via Multi-View Attentional Network*, TMM 2021"
    remark = "a reconstruction, its code was not published"
    reads = ("text", "image", "scene")
    counts = (*BaselineConfig.counts, "num_hops")

    def __init__(
        self,
        num_hops: int = 2,
        hidden_size: int = 300,
        text_provider: str = "embeddings",
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.num_hops = num_hops
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        check_even_hidden_size(self)


class MVANForSentimentClassification(BaselineForSentimentClassification):
    """Multi-view attentional network, reconstructed because its code was not published.

    From the paper: an image has an object view and a scene view; a memory network with several hops relates text and
    objects, and text and scene; a perceptron and "stacking-pooling" fuse the results. From MGNNS by the same authors:
    the text encoder and its size. From [`CoMemForSentimentClassification`]: reading and updating. The number of hops
    and the shape of the fusion are assumptions.

    Without a scene provider, objects and scene are the same regions through separate layers. The scene memory also has
    the global vector of its network as an entry.
    """

    config_class = MVANSentimentConfig

    def __init__(self, config: MVANSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(
            self.text_size, size // 2, num_layers=2, dropout=config.dropout, batch_first=True, bidirectional=True
        )
        self.object_memory = nn.Linear(self.image_size, size)
        self.scene_memory = nn.Linear(self.scene_size, size)
        self.read_text_by_objects, self.read_text_by_scene = MemoryRead(size), MemoryRead(size)
        self.read_objects, self.read_scene = MemoryRead(size), MemoryRead(size)
        self.update_text = QueryUpdate(2 * size, size)
        self.update_objects, self.update_scene = QueryUpdate(size, size), QueryUpdate(size, size)
        self.view = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, size), nn.Tanh())
        self.add_head(2 * size)

    def pool(self, text: Tokens, image: Tokens, scene: Tokens) -> tuple[torch.Tensor, dict]:
        """Return [mean; max] over the views of the last hop, `(batch, 2 · hidden)`.

        The four views are the text read with the object query and with the scene query, and objects and scene read
        with the text query, each through the same perceptron. Queries start as the means of their memories. In each
        hop, all memories are read before any query is updated.
        """
        has_text, has_objects, has_scene = (tokens.mask.any(dim=1) for tokens in (text, image, scene))
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        objects = self.object_memory(image.states)
        scenes = self.scene_memory(torch.cat([scene.summary.unsqueeze(1), scene.states], dim=1))
        scene_mask = torch.cat([has_scene.unsqueeze(1), scene.mask], dim=1)
        text_query, object_query = masked_mean(words, text.mask), masked_mean(objects, image.mask)
        scene_query = masked_mean(scenes, scene_mask)
        reads = [
            (self.read_text_by_objects, words, text.mask),
            (self.read_text_by_scene, words, text.mask),
            (self.read_objects, objects, image.mask),
            (self.read_scene, scenes, scene_mask),
        ]
        keys = [read.memory(memory) for read, memory, _ in reads]
        for _ in range(self.config.num_hops):
            queries = [object_query, scene_query, text_query, text_query]
            views = [
                read(memory, key, mask, query)
                for (read, memory, mask), key, query in zip(reads, keys, queries, strict=True)
            ]
            text_query = self.update_text(torch.cat(views[:2], dim=-1), text_query, has_text)
            object_query = self.update_objects(views[2], object_query, has_objects)
            scene_query = self.update_scene(views[3], scene_query, has_scene)
        stack = self.view(torch.stack(views, dim=1))
        present = torch.stack([has_text, has_text, has_objects, has_scene], dim=1)
        maximum = stack.masked_fill(~present.unsqueeze(-1), -1.0).amax(dim=1)  # -1 is the minimum of tanh
        maximum = maximum * present.any(dim=1, keepdim=True)
        return torch.cat([masked_mean(stack, present), maximum], dim=-1), {}
