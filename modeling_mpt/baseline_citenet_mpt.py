"""CiteNet baseline: fusion by the incongruity of text and image (Wang et al., 2024)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_configuration_mpt import BaselineOutput
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Tokens
from .loss_mpt import classification_loss, instance_contrastive_loss, matching_loss
from .packing_mpt import masked_mean
from .pretrained_mpt import ignored_at_inference

MIN_DEVIATION = 1e-2  # bounds the divergence, which divides by deviations


@dataclass
class CiteNetOutput(BaselineOutput):
    """Output of CiteNet.

    Args:
        loss_alignment, loss_unimodal (`torch.Tensor` of shape `()`): contrastive loss of texts and images, of their
            vectors and of their distributions, and mean cross-entropy of the two unimodal classifiers.
        aligned_text_embeds, aligned_image_embeds (`torch.Tensor` of shape `(batch, alignment_size)`): L2-normalized
            vectors in the common space of text and image.
        text_normal, image_normal (`torch.Tensor` of shape `(batch, 2, distribution_size)`): mean and deviation of the
            normal distributions of text and image.
        text_logits, image_logits (`torch.Tensor` of shape `(batch, num_labels)`): logits of the unimodal classifiers.
        incongruity (`torch.Tensor` of shape `(batch,)`): score in [0, 1); 0 for a post with one modality.
    """

    loss_alignment: torch.Tensor | None = None
    loss_unimodal: torch.Tensor | None = None
    aligned_text_embeds: torch.Tensor | None = None
    aligned_image_embeds: torch.Tensor | None = None
    text_normal: torch.Tensor | None = None
    image_normal: torch.Tensor | None = None
    text_logits: torch.Tensor | None = None
    image_logits: torch.Tensor | None = None
    incongruity: torch.Tensor | None = None


class CiteNetSentimentConfig(BaselineConfig):
    r"""Configuration of the CiteNet baseline.

    Args:
        hidden_size (`int`, defaults to 256): size of the vectors of text, image and their integration.
        integration_layers (`int`, defaults to 2): layers in which words and regions attend to each other.
        head_size (`int`, defaults to 32): size of an attention head; divides `hidden_size`.
        alignment_size (`int`, defaults to 128): size of the common space of text and image.
        distribution_size (`int`, defaults to 64): dimensions of the normal distributions that are compared.
        loss_weight_alignment (`float`, defaults to 0.1): weight of the contrastive losses.
        loss_weight_unimodal (`float`, defaults to 0.5): weight of the unimodal classifiers' loss.
        contrastive_temperature (`float`, defaults to 0.07): temperature τ of the contrastive losses.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "citenet_sentiment"
    title = "CiteNet"
    source = (
        "Wang et al., *CiteNet: Cross-modal incongruity perception network for multimodal sentiment prediction*, "
        "Knowledge-Based Systems 2024"
    )
    remark = "a reconstruction from its abstract"
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


def normal_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    r"""Compute the symmetric KL divergence of diagonal normal distributions, per dimension.

    It is ½ [KL(p‖q) + KL(q‖p)] divided by the number D of dimensions. The logarithms cancel:

    $$\frac1{4D} \sum_d \frac{\sigma_{p,d}^2 + (\mu_{p,d} - \mu_{q,d})^2}{\sigma_{q,d}^2}
      + \frac{\sigma_{q,d}^2 + (\mu_{p,d} - \mu_{q,d})^2}{\sigma_{p,d}^2} - 2$$

    p and q are `(…, 2, D)`, mean and deviation, and broadcast; the result is `(…)`, at least 0.
    """
    (mean_p, deviation_p), (mean_q, deviation_q) = first.unbind(dim=-2), second.unbind(dim=-2)
    square = (mean_p - mean_q) ** 2
    variance_p, variance_q = deviation_p**2, deviation_q**2
    both = (variance_p + square) / variance_q + (variance_q + square) / variance_p
    return (both - 2).mean(dim=-1) / 4


class CiteNetForSentimentClassification(BaselineForSentimentClassification):
    """Cross-modal incongruity perception network, reconstructed from the abstract.

    The code was not published. From the abstract: text and image are aligned by contrastive learning, integrated with
    each other, and compared as distributions; the estimated incongruity score governs the adaptive fusion of unimodal
    and multimodal representations, supervised by unimodal predictions. All sizes, layers and weights are assumptions.

    The use of the score follows Chen et al., *Cross-modal Ambiguity Learning for Multimodal Fake News Detection*
    (CAFE): a higher score gives less weight to the unimodal and more to the multimodal part. CAFE estimates the
    divergence from one sample of each distribution, and its score is the sigmoid, at least ½; here the divergence is
    in closed form and per dimension, and the score is 1 - exp(-divergence), which uses all of [0, 1). As in CAFE, each
    modality has its encoder to a distribution, on the aligned vectors. The classification alone does not teach them
    which texts and images belong together. The contrastive loss is therefore over the divergences too: a text diverges
    less from its own image than from those of other posts.
    """

    config_class = CiteNetSentimentConfig
    output_class = CiteNetOutput
    loss_inputs = (
        "logits",
        "aligned_text_embeds",
        "aligned_image_embeds",
        "text_normal",
        "image_normal",
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
        self.text_distribution, self.image_distribution = (two_layers(aligned, 2 * dimensions) for _ in range(2))
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
        """Return [(1 - a) t; (1 - a) v; a m] with text t, image v, integration m and incongruity a.

        The result is `(batch, 3 · hidden)`. Missing modalities contribute zeros; a is 0 unless both are present.
        """
        has_text, has_image = text.mask.any(dim=1), image.mask.any(dim=1)
        text_vector = self.text_projection(text.summary) * has_text.unsqueeze(-1)
        image_vector = self.image_projection(image.summary) * has_image.unsqueeze(-1)
        text_aligned = F.normalize(self.text_alignment(text_vector).float(), dim=-1)
        image_aligned = F.normalize(self.image_alignment(image_vector).float(), dim=-1)
        text_normal = self.distribution(self.text_distribution, text_aligned)
        image_normal = self.distribution(self.image_distribution, image_aligned)
        score = (1 - torch.exp(-normal_divergence(text_normal, image_normal))) * (has_text & has_image)
        share = score.to(text_vector.dtype).unsqueeze(-1)
        integrated = self.integrate(text, image)
        fused = torch.cat([(1 - share) * text_vector, (1 - share) * image_vector, share * integrated], dim=-1)
        return fused, {
            "aligned_text_embeds": text_aligned,
            "aligned_image_embeds": image_aligned,
            "text_normal": text_normal,
            "image_normal": image_normal,
            "text_logits": self.text_classifier(text_vector),
            "image_logits": self.image_classifier(image_vector),
            "incongruity": score,
        }

    def distribution(self, encoder: nn.Sequential, aligned: torch.Tensor) -> torch.Tensor:
        """Map aligned vectors to mean and deviation, `(batch, 2, distribution_size)`."""
        # The entries of a normalized vector are small: scaled to unit variance, they give distributions that differ.
        scaled = (aligned * aligned.shape[-1] ** 0.5).to(next(encoder.parameters()).dtype)
        mean, deviation = encoder(scaled).float().chunk(2, dim=-1)
        return torch.stack([mean, F.softplus(deviation) + MIN_DEVIATION], dim=1)

    def integrate(self, text: Tokens, image: Tokens) -> torch.Tensor:
        """Let words and regions attend to each other and project both means, `(batch, hidden)`."""
        words, regions = self.word_projection(text.states), self.region_projection(image.states)
        for to_regions, to_words in zip(self.words_to_regions, self.regions_to_words, strict=True):
            words, regions = to_regions(words, regions, image.mask), to_words(regions, words, text.mask)
        return self.integration(torch.cat([masked_mean(words, text.mask), masked_mean(regions, image.mask)], dim=-1))

    def auxiliary_losses(
        self,
        labels: torch.LongTensor,
        aligned_text_embeds: torch.Tensor,
        aligned_image_embeds: torch.Tensor,
        text_normal: torch.Tensor,
        image_normal: torch.Tensor,
        text_logits: torch.Tensor,
        image_logits: torch.Tensor,
        modality_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Compute the alignment loss and the unimodal loss.

        The alignment loss is contrastive, over the posts with both modalities, and the mean of both directions: the
        loss of the cosines of aligned vectors plus that of the negative divergences of the distributions. The unimodal
        loss is the mean of two cross-entropies, each over the posts that have the modality.
        """
        has_text, has_image = modality_mask[:, 0], modality_mask[:, 1]
        both, temperature = has_text & has_image, self.config.contrastive_temperature
        texts, images = aligned_text_embeds[both], aligned_image_embeds[both]
        text_to_image = instance_contrastive_loss(texts, images, temperature)
        image_to_text = instance_contrastive_loss(images, texts, temperature)
        scores = -normal_divergence(text_normal[both].unsqueeze(1), image_normal[both].unsqueeze(0)) / temperature
        text_to_image, image_to_text = text_to_image + matching_loss(scores), image_to_text + matching_loss(scores.T)
        text_loss = self._unimodal_loss(text_logits[has_text], labels[has_text])
        image_loss = self._unimodal_loss(image_logits[has_image], labels[has_image])
        return {"alignment": (text_to_image + image_to_text) / 2, "unimodal": (text_loss + image_loss) / 2}

    def _unimodal_loss(self, logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
        if len(labels) == 0:
            return logits.float().sum()  # 0 with a gradient; the mean would be NaN
        return classification_loss(logits, labels, self.config.class_weights, self.config.label_smoothing)
