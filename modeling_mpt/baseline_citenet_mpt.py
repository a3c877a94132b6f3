"""CiteNet: how far text and image disagree decides between what each says and what both say (Wang et al., 2024)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_configuration_mpt import BaselineOutput, ignored_at_inference
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .loss_mpt import classification_loss, instance_contrastive_loss
from .packing_mpt import masked_mean

# A deviation is never smaller: the divergence divides by it.
MIN_DEVIATION = 1e-2


@dataclass
class CiteNetOutput(BaselineOutput):
    """
    Args:
        loss_alignment, loss_unimodal (`torch.Tensor` of shape `()`): contrast of texts and images, and cross-entropy
            of the two unimodal classifiers.
        aligned_text_embeds, aligned_image_embeds (`torch.Tensor` of shape `(batch, alignment_size)`): in the space in
            which both are compared.
        text_logits, image_logits (`torch.Tensor` of shape `(batch, num_labels)`): what the text alone and the image
            alone say.
        incongruity (`torch.Tensor` of shape `(batch,)`): from 0 to below 1; 0 for a post with one modality.
    """

    loss_alignment: torch.Tensor | None = None
    loss_unimodal: torch.Tensor | None = None
    aligned_text_embeds: torch.Tensor | None = None
    aligned_image_embeds: torch.Tensor | None = None
    text_logits: torch.Tensor | None = None
    image_logits: torch.Tensor | None = None
    incongruity: torch.Tensor | None = None


class CiteNetSentimentConfig(BaselineConfig):
    r"""
    Args:
        hidden_size (`int`, defaults to 256): of text, image and their integration.
        integration_layers (`int`, defaults to 2): layers in which words and regions attend to one another.
        head_size (`int`, defaults to 32): size of an attention head.
        alignment_size (`int`, defaults to 128): of the space in which text and image are aligned.
        distribution_size (`int`, defaults to 64): dimensions of the normal distributions that are compared.
        loss_weight_alignment (`float`, defaults to 0.1): weight of the contrastive alignment.
        loss_weight_unimodal (`float`, defaults to 0.5): weight of the unimodal classifiers.
        contrastive_temperature (`float`, defaults to 0.07): τ of the alignment.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "citenet_sentiment"
    title = "CiteNet"
    source = (
        "Wang et al., *CiteNet: Cross-modal incongruity perception network for multimodal sentiment prediction*, "
        "Knowledge-Based Systems 2024; a reconstruction from its abstract"
    )
    keys_to_ignore_at_inference = ignored_at_inference(CiteNetOutput)
    counts = (*BaselineConfig.counts, "integration_layers", "head_size", "alignment_size", "distribution_size")
    numbers = (
        *BaselineConfig.numbers,
        "loss_weight_alignment",
        "loss_weight_unimodal",
        "contrastive_temperature",
    )

    def __init__(
        self,
        hidden_size: int = 256,
        integration_layers: int = 2,
        head_size: int = 32,
        alignment_size: int = 128,
        distribution_size: int = 64,
        loss_weight_alignment: float = 0.1,
        loss_weight_unimodal: float = 0.5,
        contrastive_temperature: float = 0.07,
        **kwargs: Any,
    ) -> None:
        self.integration_layers = integration_layers
        self.head_size = head_size
        self.alignment_size = alignment_size
        self.distribution_size = distribution_size
        self.loss_weight_alignment = loss_weight_alignment
        self.loss_weight_unimodal = loss_weight_unimodal
        self.contrastive_temperature = contrastive_temperature
        super().__init__(hidden_size=hidden_size, **kwargs)

    def check(self) -> None:
        super().check()
        check_heads(self.hidden_size, self.head_size)
        sizes = {name: getattr(self, name) for name in ("integration_layers", "alignment_size", "distribution_size")}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name}={value}: write a positive number.")
        if self.contrastive_temperature <= 0:
            raise ValueError(
                f"contrastive_temperature={self.contrastive_temperature}: write a positive number, e.g. 0.07."
            )


def normal_divergence(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    r"""The symmetric divergence ½ [KL(p‖q) + KL(q‖p)] of two normal distributions with independent dimensions, in
    closed form; the logarithms of both directions cancel:

    $$\frac14 \sum_d \frac{\sigma_{p,d}^2 + (\mu_{p,d} - \mu_{q,d})^2}{\sigma_{q,d}^2}
      + \frac{\sigma_{q,d}^2 + (\mu_{p,d} - \mu_{q,d})^2}{\sigma_{p,d}^2} - 2$$

    Args:
        mean, deviation (`torch.Tensor` of shape `(2, batch, dimensions)`): μ and σ of p and of q.

    Returns:
        `torch.Tensor` of shape `(batch,)`, from 0.
    """
    square = (mean[0] - mean[1]) ** 2
    variance_p, variance_q = deviation[0] ** 2, deviation[1] ** 2
    both = (variance_p + square) / variance_q + (variance_q + square) / variance_p
    return (both - 2).sum(dim=-1) / 4


class CiteNetForSentimentClassification(BaselineForSentimentClassification):
    """A reconstruction. Known of the paper, whose code was not published, are the parts that its abstract names: text
    and image are aligned by contrastive learning, integrated with each other, and compared as distributions; the
    incongruity score so estimated governs the adaptive fusion of unimodal and multimodal representations, under the
    supervision of unimodal predictions. All sizes, layers and weights are assumptions.

    How the score acts follows Chen et al., *Cross-modal Ambiguity Learning for Multimodal Fake News Detection* (CAFE):
    the more incongruous, the less the unimodal and the more the multimodal part counts. There, the divergence is an
    estimate from one sample of each distribution and the score its sigmoid, which is never below ½; here, it is the
    closed form and the score 1 - exp(-divergence), which uses all of [0, 1). There, each modality has its own encoder
    to a distribution; here both have the same, on the aligned vectors, so that equal ones score 0.
    """

    config_class = CiteNetSentimentConfig
    output_class = CiteNetOutput
    loss_inputs = (
        "logits",
        "aligned_text_embeds",
        "aligned_image_embeds",
        "text_logits",
        "image_logits",
        "modality_mask",
    )

    def __init__(self, config: CiteNetSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size, aligned, dimensions = config.hidden_size, config.alignment_size, config.distribution_size

        def two_layers(size_in: int, size_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(size_in, size_in), nn.GELU(), nn.Linear(size_in, size_out))

        def layers() -> nn.ModuleList:
            count = config.integration_layers
            return nn.ModuleList(TransformerLayer(size, config.head_size, config.dropout) for _ in range(count))

        self.text_projection, self.image_projection = nn.Linear(self.text_size, size), nn.Linear(self.image_size, size)
        self.word_projection, self.region_projection = (
            nn.Linear(self.text_size, size),
            nn.Linear(self.image_size, size),
        )
        self.text_alignment, self.image_alignment = two_layers(size, aligned), two_layers(size, aligned)
        self.words_to_regions, self.regions_to_words = layers(), layers()
        self.integration = nn.Linear(2 * size, size)
        self.distribution = two_layers(aligned, 2 * dimensions)
        self.text_classifier = nn.Linear(size, config.num_labels)
        self.image_classifier = nn.Linear(size, config.num_labels)
        classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(3 * size, 2 * size),
            nn.GELU(),
            nn.Linear(2 * size, config.num_labels),
        )
        self.add_head(3 * size, classifier)

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """[(1 - a) t; (1 - a) v; a m] with the incongruity a, from what text, image and both together say. What is
        absent says nothing; one modality alone is not incongruous."""
        has_text, has_image = text.mask.any(dim=1), image.mask.any(dim=1)
        of_text = self.text_projection(text.summary) * has_text.unsqueeze(-1)
        of_image = self.image_projection(image.summary) * has_image.unsqueeze(-1)
        aligned = torch.stack([self.text_alignment(of_text), self.image_alignment(of_image)])
        aligned = F.normalize(aligned.float(), dim=-1)
        score = self.incongruity(aligned) * (has_text & has_image)
        share = score.to(of_text.dtype).unsqueeze(-1)
        both = self.integrate(text, image)
        fused = torch.cat([(1 - share) * of_text, (1 - share) * of_image, share * both], dim=-1)
        return fused, {
            "aligned_text_embeds": aligned[0],
            "aligned_image_embeds": aligned[1],
            "text_logits": self.text_classifier(of_text),
            "image_logits": self.image_classifier(of_image),
            "incongruity": score,
        }

    def incongruity(self, aligned: torch.Tensor) -> torch.Tensor:
        """`(2, batch, alignment_size)`, texts and images, to the score `(batch,)`."""
        mean, deviation = self.distribution(aligned.to(self.distribution[0].weight.dtype)).float().chunk(2, dim=-1)
        return 1 - torch.exp(-normal_divergence(mean, F.softplus(deviation) + MIN_DEVIATION))

    def integrate(self, text: Tokens, image: Tokens) -> torch.Tensor:
        """m `(batch, hidden)`: words attend to regions and regions to words, both as the layer before left them; their
        means are put together."""
        words, regions = self.word_projection(text.states), self.region_projection(image.states)
        for to_regions, to_words in zip(self.words_to_regions, self.regions_to_words, strict=True):
            words, regions = to_regions(words, regions, image.mask), to_words(regions, words, text.mask)
        return self.integration(torch.cat([masked_mean(words, text.mask), masked_mean(regions, image.mask)], dim=-1))

    def auxiliary_losses(
        self,
        labels: torch.LongTensor,
        aligned_text_embeds: torch.Tensor,
        aligned_image_embeds: torch.Tensor,
        text_logits: torch.Tensor,
        image_logits: torch.Tensor,
        modality_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Alignment: of all images, a text finds its own, and the other way round, among posts with both. Unimodal:
        mean of the cross-entropies of both classifiers, each over the posts that have its modality."""
        has_text, has_image = modality_mask[:, 0], modality_mask[:, 1]
        texts, images = (embeds[has_text & has_image] for embeds in (aligned_text_embeds, aligned_image_embeds))
        temperature = self.config.contrastive_temperature
        forth = instance_contrastive_loss(texts, images, temperature)
        back = instance_contrastive_loss(images, texts, temperature)
        of_text = self._unimodal_loss(text_logits[has_text], labels[has_text])
        of_image = self._unimodal_loss(image_logits[has_image], labels[has_image])
        return {"alignment": (forth + back) / 2, "unimodal": (of_text + of_image) / 2}

    def _unimodal_loss(self, logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
        if len(labels) == 0:
            return logits.float().sum()  # 0, where the mean would be NaN
        return classification_loss(logits, labels, self.config.class_weights, self.config.label_smoothing)
