"""PEMNet: two extractors side by side for each modality, joined by light attention; the extractors are MPT's too."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .baseline_image_cnn_mpt import FlattenedCnn
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts
from .baselines_words_mpt import final_states, run_rnn
from .branches_mpt import SelectiveKernel
from .configuration_base_mpt import as_list
from .fusion_mpt import LightweightAttentionFusion, masked_softmax


class PEMNetSentimentConfig(BaselineConfig):
    r"""
    Args:
        sknet_kernel_sizes (`list[int]`, defaults to 3, 5): odd widths of SKNet's convolutions, in tokens.
        sknet_reduction (`int`, defaults to 24): SKNet squeezes E channels to `max(E // sknet_reduction, 32)`.
        cnn_channels (`list[int]`, defaults to 16, 32, 64): of the plain CNN.
        grid_size (`int`, defaults to 28): cells on a side of the map that the plain CNN flattens.
        hidden_size (`int`, defaults to 768): of what each extractor gives; twice that are a text, an image and a post.
        dropout (`float`, defaults to 0.5): in the classifier.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "pemnet_sentiment"
    title = "PEMNet"
    source = (
        "Ma et al., *CH-Mits: A Cross-Modal Dataset for User Sentiment Analysis on Chinese Social Media*, CIKM 2024; "
        "reconstructed as one network, its code trains three in turn"
    )
    reads = ("text", "image")
    counts = (*BaselineConfig.counts, "sknet_reduction", "grid_size")

    def __init__(
        self,
        sknet_kernel_sizes: list[int] | tuple[int, ...] = (3, 5),
        sknet_reduction: int = 24,
        cnn_channels: list[int] | tuple[int, ...] = (16, 32, 64),
        grid_size: int = 28,
        hidden_size: int = 768,
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.sknet_kernel_sizes = as_list("sknet_kernel_sizes", sknet_kernel_sizes)
        self.sknet_reduction = sknet_reduction
        self.grid_size = grid_size
        super().__init__(cnn_channels=cnn_channels, hidden_size=hidden_size, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if not self.sknet_kernel_sizes or any(width < 1 or width % 2 == 0 for width in self.sknet_kernel_sizes):
            raise ValueError(f"sknet_kernel_sizes={self.sknet_kernel_sizes}: write odd numbers, e.g. [3, 5].")
        if self.sknet_reduction < 1 or self.grid_size < 1:
            raise ValueError(
                f"sknet_reduction={self.sknet_reduction}, grid_size={self.grid_size}: write positive numbers, e.g. 24 "
                "and 28."
            )


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √size) V among the real tokens, with one head and nothing around it.

    Args:
        size (`int`): size of a token's state.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(batch, tokens, size)` and `(batch, tokens)` -> `(batch, tokens, size)`, zero at the padding."""
        scores = self.query(states) @ self.key(states).transpose(1, 2) / math.sqrt(states.shape[-1])
        values = self.value(states)
        weights = masked_softmax(scores, mask.unsqueeze(1)).to(values.dtype)
        return weights @ values * mask.unsqueeze(-1)


class PEMNetForSentimentClassification(BaselineForSentimentClassification):
    """One network, trained at once and whole. The released code trains a text and an image classifier, stores their
    vectors of size 1536 and trains a third network on them; as each of the three draws its own split, most test posts
    of the last were training posts of the first two. Where else it differs, and why not so here:

    - SKNet there is a 3×3 and a 5×5 convolution with one channel over the plane of tokens and features, though
      features have no order, and one number selects between them. Here it is that of *Selective Kernel Networks*, as
      in MPT.
    - SKNet and LSTM there end at the last position, which in most posts is padding. Here it is the mean over tokens
      and the last token.
    - LAFF there scores by a layer that starts anew at each call, never learns, and averages; here it is learnt, with
      a layer for each modality, and adds up.
    - The classifier there is four linear layers in a row and a softmax under the loss's own; here two layers with a
      GELU between.
    """

    config_class = PEMNetSentimentConfig

    def __init__(self, config: PEMNetSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.attention = SelfAttention(self.text_size)
        self.sknet = SelectiveKernel(self.text_size, size, config.sknet_kernel_sizes, config.sknet_reduction)
        self.lstm = nn.LSTM(self.text_size, size, batch_first=True)
        self.flattened = FlattenedCnn(config)
        self.projection = nn.Linear(size + self.image_size, 2 * size)
        self.fusion = LightweightAttentionFusion(2, 2 * size)
        dropout = nn.Dropout(config.dropout)
        layers = [dropout, nn.Linear(2 * size, size), nn.GELU(), dropout, nn.Linear(size, config.num_labels)]
        self.add_head(2 * size, classifier=nn.Sequential(*layers))

    def freeze(self) -> None:
        super().freeze()
        self.flattened.freeze(self.config)

    def represent(self, posts: Posts) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """LAFF of text [SKNet; LSTM] over attended states, and image W [CNN; ViT]."""
        tokens = self.encode(posts)
        text, image = tokens["text"], tokens["image"]
        states = self.attention(text.states, text.mask)
        ends = final_states(run_rnn(self.lstm, states, text.mask), text.mask, bidirectional=False)
        of_text = torch.cat([self.sknet(states, text.mask), ends], dim=-1)
        cells = self.flattened(posts.pixel_values, posts.image_mask).summary
        of_image = self.projection(torch.cat([cells, image.summary], dim=-1))
        there = torch.stack([text.mask.any(dim=1), posts.image_mask], dim=1)
        fused, _ = self.fusion([of_text, of_image], there)
        return fused, {"text_embeds": of_text * there[:, :1], "image_embeds": of_image * there[:, 1:]}
