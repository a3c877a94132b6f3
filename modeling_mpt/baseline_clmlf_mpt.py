"""CLMLF baseline: joint Transformer over words and regions, two contrastive losses (2022)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_configuration_mpt import BaselineOutput
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts, Tokens
from .fusion_mpt import masked_softmax
from .loss_mpt import instance_contrastive_loss, supervised_contrastive_loss
from .pretrained_mpt import ignored_at_inference


@dataclass
class CLMLFOutput(BaselineOutput):
    """Output of CLMLF.

    Args:
        loss_lbcl, loss_dbcl (`torch.Tensor` of shape `()`): label-based and data-based contrastive loss; the latter
            only in training.
        contrastive_embeds, view_embeds (`torch.Tensor` of shape `(batch, hidden)`): inputs of the contrastive losses,
            from the post and from its second view.
    """

    loss_lbcl: torch.Tensor | None = None
    loss_dbcl: torch.Tensor | None = None
    contrastive_embeds: torch.Tensor | None = None
    view_embeds: torch.Tensor | None = None


class CLMLFSentimentConfig(BaselineConfig):
    r"""Configuration of the CLMLF baseline.

    Args:
        image_layers (`int`, defaults to 2): layers of the Transformer over the image.
        fusion_layers (`int`, defaults to 3): layers of the Transformer over words and regions. The paper has 3 for
            MVSA-Single and 4 for MVSA-Multiple.
        head_size (`int`, defaults to 64): size of an attention head; divides `hidden_size`.
        loss_weight_lbcl, loss_weight_dbcl (`float`, default 1.0 each): weights of the label-based and the data-based
            contrastive loss. With 0 for the latter, no second view is computed.
        contrastive_temperature (`float`, defaults to 0.07): temperature τ of both losses.
        view_deletion (`float`, defaults to 0.2): probability that a word or region is deleted in the second view.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "clmlf_sentiment"
    title = "CLMLF"
    source = (
        "Li et al., *CLMLF: A Contrastive Learning and Multi-Layer Fusion Method for Multimodal Sentiment Detection*, "
        "NAACL 2022"
    )
    remark = "words and regions are deleted where the paper translates back and augments images of both views"
    keys_to_ignore_at_inference = ignored_at_inference(CLMLFOutput)
    counts = (*BaselineConfig.counts, "image_layers", "fusion_layers", "head_size")
    minima = {**BaselineConfig.minima, "image_layers": 0, "fusion_layers": 0}
    numbers = (
        *BaselineConfig.numbers,
        "loss_weight_lbcl",
        "loss_weight_dbcl",
        "contrastive_temperature",
        "view_deletion",
    )

    def __init__(
        self,
        image_layers: int = 2,
        fusion_layers: int = 3,
        head_size: int = 64,
        loss_weight_lbcl: float = 1.0,
        loss_weight_dbcl: float = 1.0,
        contrastive_temperature: float = 0.07,
        view_deletion: float = 0.2,
        **kwargs: Any,
    ) -> None:
        self.image_layers = image_layers
        self.fusion_layers = fusion_layers
        self.head_size = head_size
        self.loss_weight_lbcl = loss_weight_lbcl
        self.loss_weight_dbcl = loss_weight_dbcl
        self.contrastive_temperature = contrastive_temperature
        self.view_deletion = view_deletion
        super().__init__(**kwargs)

    def check(self) -> None:
        super().check()
        check_heads(self.hidden_size, self.head_size)
        if not 0.0 <= self.view_deletion < 1.0:
            raise ValueError(f"`view_deletion` must be at least 0 and below 1, got {self.view_deletion}.")


class CLMLFForSentimentClassification(BaselineForSentimentClassification):
    """CLMLF with the layers, sizes and temperature of the authors' code, `Link-Li/CLMLF`.

    Differences from that code:

    - It flattens the CNN's feature map in an order that mixes cells with channels. Here a cell is a region.
    - Its label-based loss divides the logarithm of the softmax by τ, which only scales it, and includes the pair of a
      post with itself. Here τ divides the similarities, and pairs are of different posts.
    - Its similarities are dot products of unnormalized vectors, which saturate the softmax at τ = 0.07. Here they are
      cosines.
    - It freezes BERT for the first 20 of 50 epochs. Here all layers are trained from the start.
    - Its second view of a post is a back-translated text and a RandAugment image. Here words are deleted before the
      text encoder and regions after the image encoder.
    - Its first view, from which it classifies in training, is a flipped and randomly augmented image too. Here the
      first view is the post.
    """

    config_class = CLMLFSentimentConfig
    output_class = CLMLFOutput
    loss_inputs = ("logits", "contrastive_embeds", "view_embeds")

    def __init__(self, config: CLMLFSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(TransformerLayer(size, config.head_size, config.dropout) for _ in range(count))

        self.word_projection = nn.Sequential(nn.Linear(self.text_size, size), nn.GELU())
        self.region_projection = nn.Sequential(nn.Linear(self.image_size, size), nn.GELU())
        self.summary_projection = nn.Sequential(nn.Linear(self.image_size, size), nn.GELU())
        self.image_transformer = layers(config.image_layers)
        self.fusion_transformer = layers(config.fusion_layers)
        self.token_scorer = nn.Sequential(nn.Linear(size, size // 2), nn.GELU(), nn.Linear(size // 2, 1))
        self.contrastive_head, self.view_head = (
            nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size)) for _ in range(2)
        )
        classifier = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(size, size // 2), nn.GELU(), nn.Linear(size // 2, config.num_labels)
        )
        self.add_head(size, classifier)

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Return the attention-weighted mean of the fused tokens, `(batch, hidden)`.

        The image summary and regions pass the image Transformer; they and the words pass the fusion Transformer.
        """
        regions = torch.cat(
            [self.summary_projection(image.summary).unsqueeze(1), self.region_projection(image.states)], 1
        )
        region_mask = torch.cat([image.mask.any(dim=1, keepdim=True), image.mask], dim=1)
        for layer in self.image_transformer:
            regions = layer(regions, regions, region_mask)
        states = torch.cat([self.word_projection(text.states), regions], dim=1)
        mask = torch.cat([text.mask, region_mask], dim=1)
        for layer in self.fusion_transformer:
            states = layer(states, states, mask)
        weights = masked_softmax(self.token_scorer(states).squeeze(-1), mask).to(states.dtype)
        pooled = (weights.unsqueeze(-1) * states).sum(dim=1)
        return pooled, {"contrastive_embeds": self.contrastive_head(pooled)}

    @property
    def reads_input_ids(self) -> bool:
        """Return whether the network encodes thinned texts in training."""
        return self.config.loss_weight_dbcl > 0

    def represent(self, posts: Posts) -> tuple[torch.Tensor, dict]:
        tokens = self.encode(posts)
        pooled, fields = self.pool(**tokens)
        if self.training and self.config.loss_weight_dbcl > 0:
            view, _ = self.pool(**self.second_view(posts, tokens["image"]))
            fields["view_embeds"] = self.view_head(view)
        return pooled, fields

    def second_view(self, posts: Posts, image: Tokens) -> dict[str, Tokens]:
        """Delete words and regions at random.

        A text keeps its first token; an image keeps its summary and first region, so that it counts as present.
        """
        text = self.encode_text(posts.input_ids, self._thinned(posts.attention_mask))
        mask = self._thinned(image.mask)
        return {"text": text, "image": image._replace(states=image.states * mask.unsqueeze(-1), mask=mask)}

    def _thinned(self, mask: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(mask.shape, device=mask.device) >= self.config.view_deletion
        return mask & (kept | (mask.cumsum(dim=1) == 1))

    def auxiliary_losses(
        self, labels: torch.LongTensor, contrastive_embeds: torch.Tensor, view_embeds: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Compute the label-based contrastive loss and, with second views, the data-based one."""
        temperature = self.config.contrastive_temperature
        losses = {"lbcl": supervised_contrastive_loss(contrastive_embeds, labels, temperature)}
        if view_embeds is not None:
            losses["dbcl"] = instance_contrastive_loss(contrastive_embeds, view_embeds, temperature)
        return losses
