"""ITIN baseline: region-word alignment with gating, attention pooling and context fusion."""

from typing import Any

import torch
from torch import nn

from .baselines_attention_mpt import SingleHeadAttention
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .baselines_words_mpt import run_rnn
from .fusion_mpt import masked_softmax
from .packing_mpt import masked_mean


class ITINSentimentConfig(BaselineConfig):
    r"""Configuration of the ITIN baseline.

    Args:
        hidden_size (`int`, defaults to 1024): size d of aligned regions and words.
        num_heads (`int`, defaults to 4): number of attention heads over the regions, which are averaged.
        context_size (`int`, defaults to 64): size of the fused vectors. With `use_rationales`, r' has `hidden_size`,
            and is fused with them in that size.
        visual_share (`float`, defaults to 0.2): weight λ of the visual context; the textual context has the rest.
        dropout (`float`, defaults to 0.25): dropout between the layers of the GRU.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "itin_sentiment"
    title = "ITIN"
    source = "Zhu et al., *Multimodal Sentiment Analysis With Image-Text Interaction Network*, IEEE TMM 2022"
    remark = "partly a reconstruction, its training code and regions were not published"
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
        if not 0.0 <= self.visual_share <= 1.0:
            raise ValueError(f"`visual_share` must be between 0 and 1, got {self.visual_share}.")


class ITINForSentimentClassification(BaselineForSentimentClassification):
    """Image-text interaction network with the equations of the published inference code.

    Reconstructed or changed:

    - Regions. The paper's come from a detector trained on Visual Genome; the released features have two per image.
      Here they are those of the visual provider: all patches, or at most `max_regions` objects with
      `visual_provider="detector"`.
    - Visual context. The paper's is a ResNet-18; here it is the global vector of the visual provider, or of a separate
      network with `scene_provider`.
    - Words. The released code reads padding as words in the alignment and in the sentence; here both are masked. It
      has a second text encoder and GRU for the sentence; here the sentence is the mean of the same words.
    - The released code has a branch of words that attend to regions. It does not reach the prediction and is left out.
    - The two classifiers share one layer and are mixed 0.2 to 0.8. Mixing before that layer gives the same logits.
    """

    config_class = ITINSentimentConfig

    def __init__(self, config: ITINSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.gru = nn.GRU(
            self.text_size, size, num_layers=2, dropout=config.dropout, batch_first=True, bidirectional=True
        )
        self.regions = nn.Linear(self.image_size, size)
        self.align, self.relate = (SingleHeadAttention(size, project_values=False) for _ in range(2))
        self.mix = nn.Linear(2 * size, size, bias=False)
        self.scorer = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, config.num_heads))
        self.in_image = nn.Linear(size + self.scene_size, config.context_size)
        self.in_text = nn.Linear(2 * size, config.context_size)
        # 64 dimensions suit layers that are trained for them, but r' comes from an encoder that its recipe freezes.
        fused_size = size if config.use_rationales else config.context_size
        self.add_head(config.context_size, nn.Linear(fused_size, config.num_labels), fusion_size=size)

    def pool(self, text: Tokens, image: Tokens, scene: Tokens) -> tuple[torch.Tensor, dict]:
        """Return λ·ReLU(W_v [c; v]) + (1 - λ)·ReLU(W_s [c; s]), `(batch, context_size)`.

        c are the attended regions, v is the visual context and s the sentence.
        """
        words = run_rnn(self.gru, text.states, text.mask)
        words = sum(words.chunk(2, dim=-1)) / 2  # the mean of both directions
        regions = l2_normalize(self.regions(image.states)) * image.mask.unsqueeze(-1)
        aligned = self.align(regions, words, text.mask)
        aligned = l2_normalize(self.relate(aligned, aligned, image.mask))
        attended = self.attend(self.gate(regions, aligned), image.mask)
        in_image = torch.relu(self.in_image(torch.cat([attended, scene.summary], dim=-1)))
        in_text = torch.relu(self.in_text(torch.cat([attended, masked_mean(words, text.mask)], dim=-1)))
        share = self.config.visual_share
        return share * in_image + (1 - share) * in_text, {}

    def gate(self, regions: torch.Tensor, aligned: torch.Tensor) -> torch.Tensor:
        """Add gated words to their regions, `(batch, regions, d)`.

        z_i = r_i + ReLU(W g_i [r_i; u_i]) with the gate g_i = σ(r_iᵀu_i).
        """
        gates = torch.sigmoid((regions * aligned).sum(dim=-1, keepdim=True))
        return regions + torch.relu(self.mix(gates * torch.cat([regions, aligned], dim=-1)))

    def attend(self, regions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool regions by attention, `(batch, d)`.

        c is the L2-normalized mean over heads of Σ_i a_i z_i with a = softmax_i(MLP(z_i)).
        """
        weights = masked_softmax(self.scorer(regions).transpose(1, 2), mask.unsqueeze(1))  # (batch, heads, regions)
        return l2_normalize((weights.to(regions.dtype) @ regions).mean(dim=1))


def l2_normalize(vectors: torch.Tensor) -> torch.Tensor:
    """L2-normalize the last axis. `eps` bounds the gradient at zero vectors."""
    return nn.functional.normalize(vectors, dim=-1, eps=1e-6)
