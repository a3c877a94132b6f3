"""ITIN: each region with the words that fit it, let through by a gate, weighed, and set beside the whole post."""

import math
from typing import Any

import torch
from torch import nn

from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .fusion_mpt import masked_softmax
from .packing_mpt import masked_mean


class ITINSentimentConfig(BaselineConfig):
    r"""
    Args:
        hidden_size (`int`, defaults to 1024): size d of aligned regions and words.
        num_heads (`int`, defaults to 4): attentions over the regions, whose results are averaged.
        context_size (`int`, defaults to 64): size of regions in context.
        visual_share (`float`, defaults to 0.2): share of the regions in the visual context; the rest is that of the
            regions in the textual context.
        dropout (`float`, defaults to 0.25): between the layers of the GRU.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "itin_sentiment"
    title = "ITIN"
    source = (
        "Zhu et al., *Multimodal Sentiment Analysis With Image-Text Interaction Network*, IEEE TMM 2022; partly a "
        "reconstruction, its training code and regions were not published"
    )
    reads = ("text", "image", "scene")
    counts = (*BaselineConfig.counts, "num_heads", "context_size")
    numbers = (*BaselineConfig.numbers, "visual_share")

    def __init__(
        self,
        hidden_size: int = 1024,
        num_heads: int = 4,
        context_size: int = 64,
        visual_share: float = 0.2,
        dropout: float = 0.25,
        **kwargs: Any,
    ) -> None:
        self.num_heads = num_heads
        self.context_size = context_size
        self.visual_share = visual_share
        super().__init__(hidden_size=hidden_size, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if self.num_heads < 1 or self.context_size < 1:
            raise ValueError(
                f"num_heads={self.num_heads}, context_size={self.context_size}: write positive numbers, e.g. 4 and 64."
            )
        if not 0.0 <= self.visual_share <= 1.0:
            raise ValueError(f"visual_share={self.visual_share}: write a share from 0.0 to 1.0, e.g. 0.2.")


class WordsOfRegions(nn.Module):
    """Reads a memory for each question: u_i = Σ_j α_ij m_j, α_i = softmax_j((W_q q_i)ᵀ(W_k m_j) / √d). Values are the
    memory itself.

    Args:
        size (`int`): d.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, questions: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(batch, questions, d)`, `(batch, entries, d)` and its mask to `(batch, questions, d)`; zero of an empty
        memory."""
        scores = self.query(questions) @ self.key(memory).transpose(1, 2) / math.sqrt(memory.shape[-1])
        return masked_softmax(scores, mask.unsqueeze(1)).to(memory.dtype) @ memory


class ITINForSentimentClassification(BaselineForSentimentClassification):
    """The equations are those of the published inference code. What had to be reconstructed, or is mended here:

    - Regions. The paper's come from a detector trained on Visual Genome, two an image in the released features. Here
      they are the visual provider's: all patches, or with `visual_provider="detector"` the `max_regions` surest ones.
    - Visual context. The paper's is a ResNet-18; here the provider's global vector, or that of a network of its own
      with `scene_provider`.
    - Words. The released code reads padding as words, in the alignment and in the sentence; here both are masked. It
      gives the sentence a second text encoder and GRU; here the sentence is the mean of the same words.
    - Its other branch, words that attend to regions, does not reach the prediction there and is left out.
    - Its two classifiers share one layer and are mixed 0.2 to 0.8; mixing before that layer gives the same logits.
    """

    config_class = ITINSentimentConfig

    def __init__(self, config: ITINSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.gru = nn.GRU(
            self.text_size, size, num_layers=2, dropout=config.dropout, batch_first=True, bidirectional=True
        )
        self.regions = nn.Linear(self.image_size, size)
        self.align, self.relate = WordsOfRegions(size), WordsOfRegions(size)
        self.mix = nn.Linear(2 * size, size, bias=False)
        self.scorer = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, config.num_heads))
        self.in_image = nn.Linear(size + self.scene_size, config.context_size)
        self.in_text = nn.Linear(2 * size, config.context_size)
        self.add_head(config.context_size, nn.Linear(config.context_size, config.num_labels))

    def pool(self, text: Tokens, image: Tokens, scene: Tokens) -> tuple[torch.Tensor, dict]:
        """λ·ReLU(W_v [c; v]) + (1 - λ)·ReLU(W_s [c; s]): the regions c beside the image v and the sentence s."""
        words = run_rnn(self.gru, text.states, text.mask)
        words = sum(words.chunk(2, dim=-1)) / 2  # the mean of both directions
        regions = unit(self.regions(image.states)) * image.mask.unsqueeze(-1)
        aligned = self.align(regions, words, text.mask)
        aligned = unit(self.relate(aligned, aligned, image.mask))
        attended = self.attend(self.gate(regions, aligned), image.mask)
        in_image = torch.relu(self.in_image(torch.cat([attended, scene.summary], dim=-1)))
        in_text = torch.relu(self.in_text(torch.cat([attended, masked_mean(words, text.mask)], dim=-1)))
        share = self.config.visual_share
        return share * in_image + (1 - share) * in_text, {}

    def gate(self, regions: torch.Tensor, aligned: torch.Tensor) -> torch.Tensor:
        """z_i = r_i + ReLU(W g_i [r_i; u_i]), g_i = σ(r_iᵀu_i): words that do not fit their region are held back."""
        fit = torch.sigmoid((regions * aligned).sum(dim=-1, keepdim=True))
        return regions + torch.relu(self.mix(fit * torch.cat([regions, aligned], dim=-1)))

    def attend(self, regions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """c: the mean over heads of Σ_i a_i z_i, a = softmax_i(MLP(z_i)), at length 1; `(batch, d)`."""
        weights = masked_softmax(self.scorer(regions).transpose(1, 2), mask.unsqueeze(1))  # (batch, heads, regions)
        return unit((weights.to(regions.dtype) @ regions).mean(dim=1))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Each vector at length 1; zero stays zero, with a gradient that is no larger than it must be."""
    return nn.functional.normalize(vectors, dim=-1, eps=1e-6)
