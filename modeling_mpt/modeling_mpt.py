"""MPT: sentiment of image+text posts, with multi-perspective rationales as a third modality."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import is_tracing

from .backbones_mpt import remove_pooler
from .branches_mpt import STORED_IMAGES, ImageBranches, TextBranches, normalized
from .configuration_base_mpt import MODALITIES
from .configuration_mpt import MPTConfig
from .frozen_mpt import FrozenEncoder, frozen_text
from .fusion_mpt import PerspectiveAttention, new_fusion
from .inputs_mpt import stored_rationales
from .layers_mpt import freeze_first_layers, is_frozen
from .loss_mpt import classification_loss, cross_modal_contrastive_loss, supervised_contrastive_loss
from .packing_mpt import compact, compact_rationales, masked_mean, states_of_both
from .pretrained_mpt import MPTOutput, SentimentPreTrainedModel
from .words_mpt import WordBags


class MPTPreTrainedModel(SentimentPreTrainedModel):
    """Base of the models with an [`MPTConfig`]."""

    config_class = MPTConfig
    base_model_prefix = "mpt"


class MPTModel(MPTPreTrainedModel):
    """Encoders, branches and fusion of MPT (paper, Eq. 1 to 6).

    `torch.jit.trace`, `torch.export` and `torch.onnx.export(dynamo=True)` give graphs for any batch and lengths.
    `torch.compile` breaks its graph at the LSTM unless `torch._dynamo.config.allow_rnn` is set.

    Args:
        config ([`MPTConfig`])
        text_encoder, vision_encoder, cnn ([`PreTrainedModel`], *optional*): encoders to use instead of new ones from
            the configuration, see [`~SentimentPreTrainedModel.from_backbones`].
    """

    def __init__(
        self,
        config: MPTConfig,
        text_encoder: PreTrainedModel | None = None,
        vision_encoder: PreTrainedModel | None = None,
        cnn: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        config.check()
        reads = config.modalities
        token_size = getattr(config.text_config, "hidden_size", None)
        concat = config.fusion == "concat"
        self.text_encoder = self.rationale_encoder = self.text_branches = None
        self.image_branches = self.perspective_attention = None
        self.text_words = self.rationale_words = None
        sizes = dict.fromkeys(reads, config.hidden_size)
        if "text" in reads or "rationales" in reads:
            self.text_encoder = text_encoder or AutoModel.from_config(config.text_config)
            remove_pooler(self.text_encoder)
        if "text" in reads:
            self.text_branches = TextBranches(config, token_size)
            if config.word_size:
                self.text_words = WordBags(1, config.text_config.vocab_size, config.word_size)
                self.word_projection = nn.Linear(config.word_size, config.hidden_size, bias=False)
        if "rationales" in reads:
            if "text" in reads and not config.share_text_encoder:
                self.rationale_encoder = AutoModel.from_config(config.text_config)
                remove_pooler(self.rationale_encoder)
                if text_encoder is not None:
                    self.rationale_encoder.load_state_dict(text_encoder.state_dict())
            count = len(config.perspectives)
            self.perspective_attention = PerspectiveAttention(
                count, token_size + config.word_size, config.hidden_size, concat
            )
            sizes["rationales"] = self.perspective_attention.output_size
            if config.word_size:
                self.rationale_words = WordBags(count, config.text_config.vocab_size, config.word_size)
        if "image" in reads:
            if "vit" not in config.image_branches:
                vision_encoder = None
            elif vision_encoder is None:
                vision_encoder = AutoModel.from_config(config.vision_config)
            if "cnn" not in config.image_branches:
                cnn = None
            elif cnn is None and config.cnn_config is not None:
                cnn = AutoModel.from_config(config.cnn_config)
            if vision_encoder is not None:
                remove_pooler(vision_encoder)
            self.image_branches = ImageBranches(config, vision_encoder, cnn)
        # What is concatenated goes to the classifier as it is, which has the dropout.
        self.dropout = nn.Dropout(0.0 if concat else config.dropout)
        self.fusion = new_fusion(config.fusion, list(sizes.values()), config.hidden_size)
        self.sizes = sizes  # of the vectors of the modalities
        self.freeze()
        self.post_init()

    def freeze(self) -> None:
        """Freeze the encoders or layers that the configuration names."""
        for encoder in (self.text_encoder, self.rationale_encoder):
            if encoder is not None:
                freeze_first_layers(encoder, self.config.freeze_text_layers)
        if self.image_branches is not None:
            if self.image_branches.vision_encoder is not None:
                freeze_first_layers(self.image_branches.vision_encoder, self.config.freeze_vision_layers)
            if self.image_branches.cnn is not None and self.config.freeze_cnn:
                self.image_branches.cnn.requires_grad_(False)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        rationale_input_ids: torch.LongTensor | None = None,
        rationale_attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | list[int] | None = None,
        return_dict: bool | None = None,
        encoder_outputs: Mapping[str, torch.Tensor] | None = None,
    ) -> MPTOutput | tuple:
        r"""
        Compute the fused vector of each post.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, seq_len)`, *optional*): tokens of the posts.
            attention_mask (`torch.Tensor` of shape `(batch, seq_len)`, *optional*): 0 at padding, on either side; a
                row of zeros is a post without text.
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`, *optional*): images of the posts.
            image_mask (`torch.BoolTensor` of shape `(batch,)`, *optional*): false for a post without an image.
            rationale_input_ids (`torch.LongTensor` of shape `(batch, num_perspectives, rationale_len)`, *optional*):
                tokens of the rationales, in the order of `config.perspectives`.
            rationale_attention_mask (`torch.Tensor` of shape `(batch, num_perspectives, rationale_len)`, *optional*):
                0 at padding; a row of zeros is a missing rationale.
            output_attentions, output_hidden_states (`bool`, *optional*): whether to return those of the text encoder
                on text and rationales and of the vision encoder. Attentions need `attn_implementation="eager"`. A
                list such as `output_hidden_states=[0, -1]` keeps these layers and has `None` for the others.
            return_dict (`bool`, *optional*): `False` for a plain tuple.
            encoder_outputs (`dict[str, torch.Tensor]`, *optional*): outputs of the encoders that `frozen_encoders()`
                lists, which then do not run. `input_ids`, `rationale_input_ids` and `pixel_values` are required only
                for the others, see `live_inputs()`; the masks stay. `text_states` `(batch, seq_len, dim)`,
                `rationale_means` `(batch, num_perspectives, dim)`, or of an encoder whose first layers are frozen,
                `rationale_states` `(batch, num_perspectives, rationale_len, dim)`; `cnn`, `vision` `(batch, dim)` or
                `vision_states` `(batch, tokens, dim)`, any for a post without an image. Tokens come before padding.

        Raises:
            ValueError: For no input, inputs of other shapes, types or vocabularies, or attentions of another
                implementation.
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
        texts = stored.get("text_states", input_ids)
        rationales = stored_rationales(stored, rationale_input_ids, self.rationale_encoder or self.text_encoder)
        images = {name: stored[name].to(self.dtype) for name in STORED_IMAGES if name in stored}
        absent = torch.zeros(batch, dtype=torch.bool, device=device)
        embeds, masks = {}, dict.fromkeys(MODALITIES, absent)

        text, rationales = self._tokens(texts, attention_mask, rationales, rationale_attention_mask)
        text_states, rationale_states = self._states(text, rationales, layers)
        if text_states is not None:
            masks["text"] = text[1].any(dim=1)
            vector = self.text_branches(text_states, text[1])
            if self.text_words is not None:
                words = self.text_words.of_inputs("input_ids", input_ids, attention_mask)
                vector = vector + self.word_projection(words)
            embeds["text"] = vector * masks["text"].unsqueeze(-1)
        perspective_weights = None
        if rationale_states is not None:
            mask = rationales[1]  # (batch · perspectives, rationale_len)
            pooled = masked_mean(rationale_states, mask).view(batch, len(config.perspectives), -1)
            has_rationale = mask.any(dim=1).view(pooled.shape[:2])
            if config.normalize_features:
                pooled = normalized(pooled)
            if self.rationale_words is not None:
                words = self.rationale_words.of_inputs(
                    "rationale_input_ids", rationale_input_ids, rationale_attention_mask
                )
                pooled = torch.cat([pooled, words], dim=-1)
            masks["rationales"] = has_rationale.any(dim=1)
            embeds["rationales"], perspective_weights = self.perspective_attention(pooled, has_rationale)
        if (pixel_values is not None or images) and self.image_branches is not None:
            masks["image"] = ~absent if image_mask is None else image_mask.bool()
            embeds["image"] = self.image_branches.of_posts(pixel_values, masks["image"], layers, images)

        modality_mask = torch.stack([masks[name] for name in MODALITIES], dim=1)
        for name in config.modalities:
            if name not in embeds:
                embeds[name] = torch.zeros(batch, self.sizes[name], dtype=self.dtype, device=device)
        embeds = {name: embeds[name] for name in config.modalities}
        vectors = [self.dropout(vector) for vector in embeds.values()]
        columns = [MODALITIES.index(name) for name in config.modalities]
        fused, weights = self.fusion(vectors, modality_mask[:, columns])
        modality_weights = weights.new_zeros(batch, len(MODALITIES))
        modality_weights[:, columns] = weights
        output = MPTOutput(
            fused_embeds=fused,
            text_embeds=embeds.get("text"),
            image_embeds=embeds.get("image"),
            rationale_embeds=embeds.get("rationales"),
            modality_weights=modality_weights,
            modality_mask=modality_mask,
            perspective_weights=perspective_weights,
            **layers.fields,
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @property
    def reads_input_ids(self) -> bool:
        return self.text_words is not None

    @property
    def reads_rationale_input_ids(self) -> bool:
        return self.rationale_words is not None

    def encoders(self) -> dict[str, FrozenEncoder | None]:
        """Map the name of each encoder to its frozen part, `None` if it has none."""
        encoders = {}
        if self.text_branches is not None:
            encoders["text"] = frozen_text("text", "text", self.text_encoder)
        if self.perspective_attention is not None:
            encoder = self.rationale_encoder or self.text_encoder
            encoders["rationales"] = frozen_text("rationales", "rationales", encoder)
        return encoders if self.image_branches is None else encoders | self.image_branches.encoders()

    def stored_sizes(self) -> dict[str, int]:
        size, sizes = self.config.text_config.hidden_size if self.text_encoder is not None else 0, {}
        if self.text_branches is not None:
            sizes["text_states"] = size
        if self.perspective_attention is not None:
            sizes |= {"rationale_means": size, "rationale_states": size}
        return sizes if self.image_branches is None else sizes | self.image_branches.stored_sizes()

    def _tokens(self, texts, attention_mask, rationales, rationale_attention_mask):
        """Compact the text and the rationales that this network reads, ids or stored states.

        Returns:
            For each `None`, or inputs `(rows, len, …)`, mask `(rows, len)` and order, see [`compact`]. Rationales have
            `batch · num_perspectives` rows.
        """
        text = None
        if texts is not None and self.text_branches is not None:
            mask = texts.new_ones(texts.shape[:2]) if attention_mask is None else attention_mask
            text = compact(texts, mask.bool())
        if rationales is None or self.perspective_attention is None:
            return text, None
        dropout = self.config.rationale_dropout if self.training else 0.0
        return text, compact_rationales(rationales, rationale_attention_mask, self.config.perspectives, dropout)

    def _states(self, text, rationales, layers):
        """Encode text and rationales, in one pass if they share the encoder.

        Returns:
            Token states of the text `(batch, seq_len, dim)` and of the rationales `(batch · num_perspectives,
            rationale_len, dim)`.
        """
        parts = {"text": text, "rationale": rationales}
        given = {name: part for name, part in parts.items() if part is not None}
        # A graph has no buckets, and widths that an export keeps symbolic.
        if self.rationale_encoder is None and len(given) == 2 and not layers.request and not is_tracing():
            stored = {part[0].is_floating_point() for part in given.values()}
            if stored == {False} or (stored == {True} and not is_frozen(self.text_encoder)):
                return states_of_both(self.text_encoder, text, rationales)
        encoders = {"text": self.text_encoder, "rationale": self.rationale_encoder or self.text_encoder}
        states = {name: layers.token_states(name, encoders[name], *part) for name, part in given.items()}
        return states.get("text"), states.get("rationale")


class MPTForSentimentClassification(MPTPreTrainedModel):
    r"""MPT with the classifier and the joint loss (paper, Eq. 7).

    Args:
        config ([`MPTConfig`])
        encoders: see [`MPTModel`].

    For LoRA on the encoders, with the new layers trained in full, use a `LoraConfig` without a `task_type`: PEFT's
    wrappers of tasks pass `inputs_embeds`, which this model does not take.

    ```python
    >>> LoraConfig(
    ...     target_modules=r".*encoder.*\.(query|value|q_proj|v_proj|q_lin|v_lin|Wqkv)",
    ...     modules_to_save=[
    ...         "text_branches", "image_branches.cnn", "image_branches.projection", "perspective_attention", "fusion",
    ...         "classifier",
    ...     ],
    ... )
    ```
    """

    # Output fields that the joint loss reads. It is a function of the whole batch, so `MPTTrainer` gathers them over
    # data-parallel ranks and accumulation steps.
    loss_inputs = ("logits", "text_embeds", "image_embeds", "fused_embeds", "modality_mask")

    def __init__(self, config: MPTConfig, **encoders: PreTrainedModel | None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.mpt = MPTModel(config, **encoders)
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(self.mpt.fusion.output_size, config.hidden_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.num_labels),
        )
        self.post_init()

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
    ) -> MPTOutput | tuple:
        r"""
        Classify posts.

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*): index of each post's label in
                `config.id2label`.

        The other arguments are those of [`MPTModel.forward`].
        """
        output = self.mpt(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_mask=image_mask,
            rationale_input_ids=rationale_input_ids,
            rationale_attention_mask=rationale_attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            encoder_outputs=encoder_outputs,
        )
        fields = dict(output.items())
        fields["logits"] = self.classifier(output.fused_embeds)
        if labels is not None:
            fields |= self.compute_losses(labels, **{name: fields.get(name) for name in self.loss_inputs})
        output = MPTOutput(**fields)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def compute_losses(
        self,
        labels: torch.LongTensor,
        logits: torch.Tensor,
        text_embeds: torch.Tensor | None,
        image_embeds: torch.Tensor | None,
        fused_embeds: torch.Tensor,
        modality_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Compute the joint loss and its terms (paper, Eq. 7).

        Algorithm 2 compares the posts that have both text and image.

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`)
            logits, text_embeds, …: fields of [`MPTOutput`] of the same batch.

        Returns:
            The scalars `loss`, `loss_ce` and, for λ2 > 0, `loss_mlcl`.
        """
        config = self.config
        loss_ce = classification_loss(logits, labels, config.class_weights, config.label_smoothing)
        losses = {"loss": config.loss_weight_ce * loss_ce, "loss_ce": loss_ce}
        if config.loss_weight_mlcl > 0:
            if config.contrastive_view == "cross_modal":
                both = modality_mask[:, MODALITIES.index("text")] & modality_mask[:, MODALITIES.index("image")]
                loss_mlcl = cross_modal_contrastive_loss(
                    text_embeds[both],
                    image_embeds[both],
                    labels[both],
                    config.contrastive_temperature,
                    config.contrastive_epsilon,
                    config.contrastive_reduction,
                )
            else:
                loss_mlcl = supervised_contrastive_loss(
                    fused_embeds, labels, config.contrastive_temperature, config.contrastive_reduction
                )
            losses["loss"] = losses["loss"] + config.loss_weight_mlcl * loss_mlcl
            losses["loss_mlcl"] = loss_mlcl
        return losses
