"""MVAN: text, objects and scene as three memories that question each other; every reading is a view of the post."""

from typing import Any

import torch
from torch import nn

from .baselines_memory_mpt import MemoryRead, QueryUpdate
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .packing_mpt import masked_mean


class MVANSentimentConfig(BaselineConfig):
    r"""
    Args:
        num_hops (`int`, defaults to 2): how often the memories are read.
        hidden_size (`int`, defaults to 300): of memories, questions and views; half of it in each direction of the
            LSTM.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): on the words, between the layers of the LSTM and before the classifier.
        kwargs: see [`BaselineConfig`]. The paper's scenes are of a network trained on Places365: give one as
            `scene_config`, with `scene_provider="places"`.
    """

    model_type = "mvan_sentiment"
    title = "MVAN"
    source = (
        "Yang et al., *Image-Text Multimodal Emotion Classification via Multi-View Attentional Network*, TMM 2021; a "
        "reconstruction, its code was not published"
    )
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
        if self.num_hops < 1 or self.hidden_size % 2:
            raise ValueError(
                f"num_hops={self.num_hops}, hidden_size={self.hidden_size}: write a positive number of hops and an "
                "even size, e.g. 2 and 300."
            )


class MVANForSentimentClassification(BaselineForSentimentClassification):
    """A reconstruction. Known of the paper: an image is seen as objects and as a scene, a memory network that is
    updated again and again relates text and objects, and text and scene, and what it read is fused by a perceptron and
    "stacking-pooling". The text's encoder and size are those of the same authors' MGNNS; reading and updating are
    those of [`CoMemForSentimentClassification`]; number of hops and shape of the fusion are ours.

    Without a scene provider objects and scene are the same cells through layers of their own. The scene's memory also
    holds the global vector of its network."""

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
        """[mean; max] over the views of the last hop: the text as objects and as scene ask for it, objects and scene
        as the text asks for them; each through one perceptron. Questions start as the means of their memories; within
        a hop all memories are read before any question changes."""
        has_text, has_objects, has_scene = (tokens.mask.any(dim=1) for tokens in (text, image, scene))
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        objects = self.object_memory(image.states)
        scenes = self.scene_memory(torch.cat([scene.summary.unsqueeze(1), scene.states], dim=1))
        scene_mask = torch.cat([has_scene.unsqueeze(1), scene.mask], dim=1)
        of_text, of_objects = masked_mean(words, text.mask), masked_mean(objects, image.mask)
        of_scene = masked_mean(scenes, scene_mask)
        for _ in range(self.config.num_hops):
            views = [
                self.read_text_by_objects(words, text.mask, of_objects),
                self.read_text_by_scene(words, text.mask, of_scene),
                self.read_objects(objects, image.mask, of_text),
                self.read_scene(scenes, scene_mask, of_text),
            ]
            of_text = self.update_text(torch.cat(views[:2], dim=-1), of_text, has_text)
            of_objects = self.update_objects(views[2], of_objects, has_objects)
            of_scene = self.update_scene(views[3], of_scene, has_scene)
        stack = self.view(torch.stack(views, dim=1))
        there = torch.stack([has_text, has_text, has_objects, has_scene], dim=1)
        lowest = stack.masked_fill(~there.unsqueeze(-1), -1.0)  # of a tanh; where no view is there, the mean's 0
        strongest = lowest.amax(dim=1) * there.any(dim=1, keepdim=True)
        return torch.cat([masked_mean(stack, there), strongest], dim=-1), {}
