"""ViT baseline: classification of the image's class token (Dosovitskiy et al., ICLR 2021)."""

import math
from typing import Any

import torch
from torch import nn

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import NormalEmbedding


class ViTSentimentConfig(BaselineConfig):
    r"""Configuration of the ViT baseline.

    Args:
        visual_provider (`str`, defaults to `"vit_patches"`): with `"cnn_grid"`, the paper's hybrid: the cells of a CNN
            are the patches of a small Transformer that starts at random. The following fields are of that Transformer
            and have no effect otherwise.
        hidden_size (`int`, defaults to 768): size of a cell and of the class token.
        num_layers (`int`, defaults to 2): number of layers.
        head_size (`int`, defaults to 64): size of an attention head; divides `hidden_size`.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "vit_sentiment"
    title = "ViT"
    source = "Dosovitskiy et al., *An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale*, 2021"
    reads = ("image",)
    counts = (*BaselineConfig.counts, "num_layers", "head_size")

    def __init__(self, num_layers: int = 2, head_size: int = 64, **kwargs: Any) -> None:
        self.num_layers = num_layers
        self.head_size = head_size
        super().__init__(**kwargs)

    def check(self) -> None:
        super().check()
        if self.visual_provider == "cnn_grid":
            check_heads(self.hidden_size, self.head_size)


class ViTForSentimentClassification(BaselineForSentimentClassification):
    """Vision encoder of transformers with dropout and a linear layer on its global vector.

    With `visual_provider="cnn_grid"`, the paper's hybrid architecture: a Transformer over the cells of a CNN's feature
    map. Its layers are post-normalized as in BERT, and positions are sines and cosines for grids of any size.
    """

    config_class = ViTSentimentConfig

    def __init__(self, config: ViTSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.transformer = None
        if config.visual_provider == "cnn_grid":
            self.cell_projection = nn.Linear(self.image_size, size)
            self.class_token = NormalEmbedding(1, size, std=0.02)
            layers = (TransformerLayer(size, config.head_size, config.dropout) for _ in range(config.num_layers))
            self.transformer = nn.ModuleList(layers)
        self.add_head(self.image_size if self.transformer is None else size)

    @property
    def reads_regions(self) -> bool:
        """Return whether the network is the hybrid, which reads the cells."""
        return self.transformer is not None

    def pool(self, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the class token or mean, by `vision_pooling`: `(batch, image_size)`.

        Of the hybrid, the class token, `(batch, hidden)`.
        """
        if self.transformer is None:
            return image.summary, {}
        cells = self.cell_projection(image.states)
        cells = cells + positions(*cells.shape[1:]).to(cells)
        token = self.class_token.weight.to(cells.dtype).expand(cells.shape[0], 1, -1)
        states = torch.cat([token, cells], dim=1)
        mask = torch.cat([image.mask.any(dim=1, keepdim=True), image.mask], dim=1)
        for layer in self.transformer:
            states = layer(states, states, mask)
        return states[:, 0] * mask[:, :1], {}


def positions(count: int, size: int) -> torch.Tensor:
    """Compute sines and cosines of positions, `(count, size)`, as in the first Transformer."""
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000.0) / size))
    angles = torch.arange(count).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]
