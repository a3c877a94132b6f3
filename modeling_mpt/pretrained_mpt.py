"""What all models share: their output, initialisation, and how they start from pretrained or saved weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .backbones_mpt import has_class_token


@dataclass
class MPTOutput(ModelOutput):
    """
    Args:
        loss (`torch.Tensor` of shape `()`): λ1·CE + λ2·MLCL (paper, Eq. 7), where labels are given.
        logits (`torch.Tensor` of shape `(batch, num_labels)`): of the classifier; [`MPTModel`] has none.
        loss_ce, loss_mlcl (`torch.Tensor` of shape `()`): parts of the loss, unweighted; `loss_mlcl` where λ2 > 0.
        fused_embeds (`torch.Tensor` of shape `(batch, hidden)`): f, the fused post (paper, Eq. 6).
        text_embeds, image_embeds, rationale_embeds (`torch.Tensor` of shape `(batch, hidden)`): t', v' and r'; zero
            where a post lacks the modality, `None` where the network does.
        modality_weights (`torch.Tensor` of shape `(batch, 3)`): α of text, image, rationales; 0 where absent.
        modality_mask (`torch.BoolTensor` of shape `(batch, 3)`): which of text, image, rationales a post has.
        perspective_weights (`torch.Tensor` of shape `(batch, num_perspectives)`): weights of the rationales.
        text_hidden_states, text_attentions (`tuple` of `torch.Tensor`): of the text encoder on the post's text, on
            request, at the positions of `input_ids`.
        vision_hidden_states, vision_attentions (`tuple` of `torch.Tensor`): of the vision encoder, on request, for the
            posts of the batch that have an image.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    loss_ce: torch.Tensor | None = None
    loss_mlcl: torch.Tensor | None = None
    fused_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    rationale_embeds: torch.Tensor | None = None
    modality_weights: torch.Tensor | None = None
    modality_mask: torch.Tensor | None = None
    perspective_weights: torch.Tensor | None = None
    text_hidden_states: tuple[torch.Tensor, ...] | None = None
    text_attentions: tuple[torch.Tensor, ...] | None = None
    vision_hidden_states: tuple[torch.Tensor, ...] | None = None
    vision_attentions: tuple[torch.Tensor, ...] | None = None


class SentimentPreTrainedModel(PreTrainedModel):
    """Base of MPT and of the baselines. A subclass has `text_encoder` and `rationale_encoder` (`None` without one) and
    `freeze()`, which stops the gradients of what the configuration freezes."""

    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer must divide it by accumulation steps
    # The encoders decide for themselves; without these the parent would report (and demand) eager attention.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fan-in initialisation of the new layers: their sizes are free, no fixed standard deviation suits them all.
        The encoders initialise themselves."""
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As [`PreTrainedModel.from_pretrained`], which gives every weight it loads a gradient: freeze them again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True it is a pair
        model.base_model.freeze()
        return loaded

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """As [`PreTrainedModel.resize_token_embeddings`], for the rationales' own encoder too."""
        if self.base_model.rationale_encoder is not None:
            self.base_model.rationale_encoder.resize_token_embeddings(*args, **kwargs)
        return super().resize_token_embeddings(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module | None:
        """Of the text encoder; `None` in a network that reads images alone."""
        return None if self.base_model.text_encoder is None else self.base_model.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_model.text_encoder.set_input_embeddings(value)

    @classmethod
    def from_backbones(
        cls,
        text: str | PreTrainedConfig | None = None,
        vision: str | PreTrainedConfig | None = None,
        cnn: str | PreTrainedConfig | None = None,
        **config_kwargs: Any,
    ) -> "SentimentPreTrainedModel":
        r"""A model whose encoders start from pretrained weights and whose new layers are initialised at random.

        Args:
            text, vision, cnn (`str` or [`PreTrainedConfig`]):
                A Hub id or a folder: that encoder with its weights (of a dual encoder such as CLIP, its vision part).
                A configuration: the encoder it describes, at random. `text=None` is BERT-base and `vision=None`
                ViT-B/16 at random, `cnn=None` the plain ConvNet. The CNN is a timm model of the Hub, e.g.
                `"timm/resnet50.a1_in1k"`.
            config_kwargs:
                Any other field of the configuration, e.g. `num_labels=2, loss_weight_mlcl=0.05`.

        Example:

        ```python
        >>> model = MPTForSentimentClassification.from_backbones(
        ...     "google-bert/bert-base-uncased", "google/vit-base-patch16-224-in21k", "timm/resnet50.a1_in1k"
        ... )
        ```
        """
        return cls._from_sources({"text_config": text, "vision_config": vision, "cnn_config": cnn}, config_kwargs)

    @classmethod
    def _from_sources(
        cls,
        sources: dict[str, str | PreTrainedConfig | None],
        config_kwargs: dict[str, Any],
        auto_classes: dict[str, type] | None = None,
    ) -> "SentimentPreTrainedModel":
        """`from_backbones` with the encoders, and the Auto classes that open them, by their field of the
        configuration."""
        encoders = {}
        for field, source in sources.items():
            if isinstance(source, str):
                config = AutoConfig.from_pretrained(source)
                config = getattr(config, "vision_config", config) if field == "vision_config" else config
                auto_class = (auto_classes or {}).get(field, AutoModel)
                encoders[field] = auto_class.from_pretrained(source, config=config, dtype=torch.float32)
                config_kwargs[field] = encoders[field].config
            elif source is not None:
                config_kwargs[field] = source
        if "vision_config" in encoders and not has_class_token(encoders["vision_config"]):
            config_kwargs.setdefault("vision_pooling", "mean")
        # A new config resets the attention of its sub-configs; keep the one each encoder was loaded with.
        attention = {field: encoder.config._attn_implementation for field, encoder in encoders.items()}
        config_kwargs.setdefault("attn_implementation", attention)
        arguments = {
            field: "cnn" if field == "cnn_config" else field.replace("config", "encoder") for field in sources
        }
        ready = {argument: encoders.get(field) for field, argument in arguments.items()}
        return cls(cls.config_class(**config_kwargs), **ready)


def batch_and_device(**given: torch.Tensor | None) -> tuple[int, torch.device]:
    """The number of posts of a batch and the device of its tensors.

    Raises:
        ValueError: where nothing is given, or not for equally many posts.
    """
    sizes = {name: value.shape[0] for name, value in given.items() if value is not None}
    if not sizes:
        raise ValueError("Nothing to read: give at least one of `input_ids`, `pixel_values`, `rationale_input_ids`.")
    first = given[next(iter(sizes))]
    batch = first.shape[0]  # `shape`, not `len`: an exported model keeps it symbolic
    if any(size != batch for size in sizes.values()):
        raise ValueError(f"Rows of the batch: {sizes}. Give each of them one row a post.")
    return batch, first.device
