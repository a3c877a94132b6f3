"""Base model of the baselines: encoders, rationales, classifier, and losses."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from .backbones_mpt import remove_pooler
from .baselines_configuration_mpt import BaselineConfig, BaselineOutput
from .baselines_visual_mpt import PROVIDERS, Tokens
from .baselines_words_mpt import WordEmbeddings
from .configuration_base_mpt import MODALITIES
from .frozen_mpt import FrozenEncoder, frozen_text
from .fusion_mpt import LightweightAttentionFusion, PerspectiveAttention
from .inputs_mpt import STORED, stored_rationales
from .layers_mpt import freeze_first_layers
from .loss_mpt import classification_loss
from .packing_mpt import NO_LAYERS, EncoderLayers, compact, compact_rationales, masked_mean
from .pretrained_mpt import ENCODERS, SentimentPreTrainedModel


class Posts(NamedTuple):
    """Posts of a batch. Missing modalities are masked.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, seq_len)`): `None` if only stored outputs are given.
        attention_mask (`torch.BoolTensor` of shape `(batch, seq_len)`)
        pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): `None` if no post has an image, or only
            stored outputs are given.
        image_mask (`torch.BoolTensor` of shape `(batch,)`)
        layers ([`EncoderLayers`]): layers of the encoders that the output will contain.
        stored (`Mapping[str, torch.Tensor]`): outputs of frozen encoders, see `frozen_encoders`.
    """

    input_ids: torch.Tensor | None
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor | None
    image_mask: torch.Tensor
    layers: EncoderLayers = NO_LAYERS
    stored: Mapping[str, torch.Tensor] = MappingProxyType({})

    @property
    def texts(self) -> torch.Tensor:
        """Return the token ids, or the stored states in their place."""
        return self.stored.get("text_states", self.input_ids)

    def stored_images(self, name: str) -> dict[str, torch.Tensor]:
        """Return the stored outputs of the provider of "image" or "scene"."""
        prefix = f"{name}_"
        own = {key.removeprefix(prefix): value for key, value in self.stored.items() if key.startswith(prefix)}
        first_layers = {"layers": self.stored["vision_states"]} if "vision_states" in self.stored else {}
        return own | first_layers if name == "image" else own


class BaselineForSentimentClassification(SentimentPreTrainedModel):
    r"""Base class of the baselines.

    A system is a subclass that

    - builds its layers in `__init__`, between `super().__init__` and `add_head(pooled_size)`;
    - computes one vector per post from the encoded tokens in `pool`, and optional fields of its output class;
    - names in `loss_inputs` the fields that its `auxiliary_losses` needs, after `"logits"`.

    Args:
        config ([`BaselineConfig`])
        text_encoder, vision_encoder, cnn, scene_encoder ([`PreTrainedModel`], *optional*): encoders to use instead of
            new ones from the configuration. `from_backbones` passes pretrained ones.
    """

    config_class = BaselineConfig
    output_class = BaselineOutput
    loss_inputs = ("logits",)
    reads_regions = True  # of an image, or else only its summary

    def __init__(
        self,
        config: BaselineConfig,
        text_encoder: PreTrainedModel | None = None,
        vision_encoder: PreTrainedModel | None = None,
        cnn: PreTrainedModel | None = None,
        scene_encoder: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        config.check()
        self.num_labels = config.num_labels
        encoders = dict(zip(ENCODERS, (text_encoder, vision_encoder, cnn, scene_encoder), strict=True))
        classes = config.encoder_classes()
        for field, auto_class in classes.items():
            if encoders[field] is None and getattr(config, field) is not None and field != "text_config":
                encoders[field] = auto_class.from_config(getattr(config, field))
            if encoders[field] is not None and auto_class is AutoModel:
                remove_pooler(encoders[field])
        self.text_encoder = self.rationale_encoder = self.visual = self.scene = None
        if "text" in config.reads:
            if config.text_provider == "embeddings":
                self.text_encoder = WordEmbeddings(config.text_config, text_encoder)
            else:
                self.text_encoder = text_encoder or self._new_text_encoder()
        shared = "text" in config.reads and config.text_provider == "encoder" and config.share_text_encoder
        if config.use_rationales and not shared:
            self.rationale_encoder = self._new_text_encoder()
            if text_encoder is not None:
                self.rationale_encoder.load_state_dict(text_encoder.state_dict())
        if "image" in config.reads:
            field = "cnn_config" if config.visual_provider == "cnn_grid" else "vision_config"
            self.visual = PROVIDERS[config.visual_provider](encoders[field], config)
        if "scene_config" in classes:
            self.scene = PROVIDERS[config.scene_provider](encoders["scene_config"], config)

    def _new_text_encoder(self) -> PreTrainedModel:
        encoder = AutoModel.from_config(self.config.text_config)
        remove_pooler(encoder)
        return encoder

    @property
    def text_size(self) -> int:
        """Return the size of a word's state."""
        config = self.config
        return self.text_encoder.size if config.text_provider == "embeddings" else config.text_config.hidden_size

    @property
    def image_size(self) -> int:
        """Return the size of a region's state."""
        return self.visual.size

    @property
    def scene_size(self) -> int:
        """Return the size of a scene token's state."""
        return (self.scene or self.visual).size

    def add_head(self, pooled_size: int, classifier: nn.Module | None = None, fusion_size: int | None = None) -> None:
        """Add the classifier and the fusion with rationales, then initialize all new layers.

        Args:
            pooled_size (`int`): size of the vector that `pool` returns.
            classifier (`nn.Module`, *optional*): maps that size, or with rationales `fusion_size`, to `num_labels`; by
                default dropout and one layer.
            fusion_size (`int`, *optional*): with rationales, size of r' and of the fused vector; by default that of
                the pooled vector.
        """
        config = self.config
        self.fusion_size = fusion_size or pooled_size
        if classifier is None:
            fused_size = self.fusion_size if config.use_rationales else pooled_size
            classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(fused_size, config.num_labels))
        self.classifier = classifier
        if config.use_rationales:
            rationale_size = config.text_config.hidden_size
            self.perspective_attention = PerspectiveAttention(
                len(config.perspectives), rationale_size, self.fusion_size
            )
            self.rationale_fusion = LightweightAttentionFusion(
                2, self.fusion_size, input_sizes=(pooled_size, self.fusion_size)
            )
        self.freeze()
        self.post_init()

    def freeze(self) -> None:
        """Stop the gradients of the parameters that the configuration freezes."""
        count = self.config.freeze_text_layers
        if self.text_encoder is not None and self.config.text_provider == "encoder":  # static words have no layers
            freeze_first_layers(self.text_encoder, count)
        if self.rationale_encoder is not None:
            freeze_first_layers(self.rationale_encoder, count)
        for provider in (self.visual, self.scene):
            if provider is not None:
                provider.freeze(self.config)

    # ---- Defined by a system ----

    def pool(self, **tokens: Tokens) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Compute one vector per post.

        A system defines it with the arguments that its configuration `reads`, e.g. `pool(self, text, image)`.

        Args:
            text, image, scene ([`Tokens`]): encoded tokens; padding and missing modalities are masked.

        Returns:
            The pooled vector `(batch, pooled_size)`, and fields of `output_class` by name.
        """
        raise NotImplementedError

    def auxiliary_losses(self, labels: torch.LongTensor, **inputs: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Compute the losses of the system apart from the cross-entropy, by name.

        The loss x is weighted by `config.loss_weight_x` and returned as `loss_x`. Its gradient must flow through the
        arguments only, because the trainer computes it over all posts of an optimizer step.

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`)
            inputs: fields named in `loss_inputs`, without the logits; `None` if `pool` did not return the field.
        """
        return {}

    # ---- Used and overridden by a system ----

    def encoders(self) -> dict[str, FrozenEncoder | None]:
        """Map the name of each encoder to its frozen part, `None` if it has none."""
        encoders = {}
        if "text" in self.config.reads:
            encoders["text"] = frozen_text("text", "text", self.text_encoder)
        if self.config.use_rationales:
            encoder = self.rationale_encoder or self.text_encoder
            encoders["rationales"] = frozen_text("rationales", "rationales", encoder)
        for name, provider in (("image", self.visual), ("scene", self.scene)):
            if provider is not None:
                encoders[name] = provider.frozen(name, self.reads_regions) if provider.reads_pixels_alone else None
        return encoders

    def stored_sizes(self) -> dict[str, int]:
        config, sizes = self.config, {}
        if "text" in config.reads and config.text_provider == "encoder":
            sizes["text_states"] = config.text_config.hidden_size
        if config.use_rationales:
            sizes |= dict.fromkeys(("rationale_means", "rationale_states"), config.text_config.hidden_size)
        for name, provider in (("image", self.visual), ("scene", self.scene)):
            if provider is not None and provider.reads_pixels_alone:
                sizes |= provider.stored_sizes(name)
        return sizes

    def encode(self, posts: Posts) -> dict[str, Tokens]:
        """Encode the modalities that the system reads, as arguments of `pool`."""
        tokens = {}
        if "text" in self.config.reads:
            tokens["text"] = self.encode_text(posts.texts, posts.attention_mask, posts.layers)
        if "image" in self.config.reads:
            stored = posts.stored_images("image")
            tokens["image"] = self.visual(posts.pixel_values, posts.image_mask, posts.layers, stored)
        if "scene" in self.config.reads:
            tokens["scene"] = tokens["image"]
            if self.scene is not None:
                stored = posts.stored_images("scene")
                tokens["scene"] = self.scene(posts.pixel_values, posts.image_mask, stored=stored)
        return tokens

    def encode_text(
        self, texts: torch.Tensor, attention_mask: torch.Tensor, layers: EncoderLayers = NO_LAYERS
    ) -> Tokens:
        """Encode texts.

        They are token ids `(batch, seq_len)` or their stored states, with a further dimension. The encoded states are
        `(batch, seq_len, text_size)`, real tokens first.
        """
        texts, mask, order = compact(texts, attention_mask.bool())
        states = layers.token_states("text", self.text_encoder, texts, mask, order)
        return Tokens(states, mask, states[:, 0] if self.config.text_pooling == "cls" else masked_mean(states, mask))

    def represent(self, posts: Posts) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Encode and pool the posts. Systems that encode in their own way override it."""
        return self.pool(**self.encode(posts))

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        rationale_input_ids: torch.LongTensor | None = None,
        rationale_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | list[int] | None = None,
        return_dict: bool | None = None,
        encoder_outputs: Mapping[str, torch.Tensor] | None = None,
    ) -> BaselineOutput | tuple:
        """Classify posts. The arguments are those of [`MPTForSentimentClassification.forward`].

        Modalities that the system does not read are ignored. In place of `cnn` and `vision`, `encoder_outputs` has
        `image_states` `(batch, regions, dim)` and `image_summary` `(batch, dim)`, of a provider with classes
        `image_scores` `(batch, classes)`, and the same of a scene provider, e.g. `scene_states`.
        """
        config = self.config
        layers = self.requested_layers(output_hidden_states, output_attentions)
        batch, device = self.check_inputs(
            layers,
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_mask=image_mask,
            rationale_input_ids=rationale_input_ids,
            rationale_attention_mask=rationale_attention_mask,
            encoder_outputs=encoder_outputs,
        )
        stored = dict(encoder_outputs or {})
        states = stored.get("text_states")
        if self.reads_input_ids and states is not None and input_ids is None:
            raise ValueError(
                f"`input_ids` are required with the `text_states` of `encoder_outputs`: {config.title} reads both."
            )
        if input_ids is None and states is None:
            input_ids = torch.zeros(batch, 1, dtype=torch.long, device=device)
            attention_mask = torch.zeros_like(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids) if states is None else states.new_ones(states.shape[:2])
        has_images = pixel_values is not None or any(STORED[name][1] == "image_mask" for name in stored)
        if image_mask is None or not has_images:
            constant = torch.ones if has_images else torch.zeros
            image_mask = constant(batch, dtype=torch.bool, device=device)
        posts = Posts(input_ids, attention_mask.bool(), pixel_values, image_mask.bool(), layers, stored)
        fused, extras = self.represent(posts)
        outputs = dict(extras)
        present = dict.fromkeys(MODALITIES, torch.zeros(batch, dtype=torch.bool, device=device))
        if "text" in config.reads:
            present["text"] = posts.attention_mask.any(dim=1)
        if "image" in config.reads:
            present["image"] = posts.image_mask
        if config.use_rationales:
            rationales = stored_rationales(stored, rationale_input_ids, self.rationale_encoder or self.text_encoder)
            embeds, weights, present["rationales"] = self._rationales(
                fused, rationales, rationale_attention_mask, layers
            )
            mask = torch.stack([present["text"] | present["image"], present["rationales"]], dim=1)
            fused, outputs["system_weights"] = self.rationale_fusion([fused, embeds], mask)
            outputs |= {"rationale_embeds": embeds, "perspective_weights": weights}
        outputs["fused_embeds"] = fused
        outputs["modality_mask"] = torch.stack([present[name] for name in MODALITIES], dim=1)
        outputs["logits"] = self.classifier(fused)
        if labels is not None:
            outputs |= self.compute_losses(labels, **{name: outputs.get(name) for name in self.loss_inputs})
        output = self.output_class(**outputs, **layers.fields)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _rationales(
        self,
        pooled: torch.Tensor,
        inputs: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        layers: EncoderLayers,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return r' `(batch, fusion_size)`, its weights, and the mask of posts with rationales."""
        shape = (pooled.shape[0], len(self.config.perspectives))
        if inputs is None:
            embeds = pooled.new_zeros(shape[0], self.fusion_size)
            return embeds, pooled.new_zeros(shape), pooled.new_zeros(shape[0], dtype=torch.bool)
        dropout = self.config.rationale_dropout if self.training else 0.0
        inputs, mask, order = compact_rationales(inputs, attention_mask, self.config.perspectives, dropout)
        encoder = self.rationale_encoder or self.text_encoder
        states = layers.token_states("rationale", encoder, inputs, mask, order)
        present = mask.any(dim=1).view(shape)
        embeds, weights = self.perspective_attention(masked_mean(states, mask).view(*shape, -1), present)
        return embeds, weights, present.any(dim=1)

    def compute_losses(
        self, labels: torch.LongTensor, logits: torch.Tensor, **inputs: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted sum of the cross-entropy and the auxiliary losses.

        Returns:
            `loss`, `loss_ce` and `loss_x` for each auxiliary loss x: scalars.
        """
        config = self.config
        loss_ce = classification_loss(logits, labels, config.class_weights, config.label_smoothing)
        losses = {"loss": loss_ce, "loss_ce": loss_ce}
        for name, value in self.auxiliary_losses(labels, **inputs).items():
            losses["loss"] = losses["loss"] + getattr(config, f"loss_weight_{name}") * value
            losses[f"loss_{name}"] = value
        return losses
