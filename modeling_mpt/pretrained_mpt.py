"""Base of all models: output, initialization, and loading of pretrained or saved weights."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput

from .backbones_mpt import has_class_token, sentence_pooling
from .frozen_mpt import FrozenEncoder
from .inputs_mpt import check_inputs, position_limit
from .layers_mpt import encoders_in, frozen_parts_evaluated
from .packing_mpt import EncoderLayers
from .processor_match_mpt import (
    check_image_size,
    check_vocabulary,
    fitted_to_tokenizer,
    processor_fields,
    set_unless_contradicted,
)

# Arguments of a model's `__init__` by the configuration field of the encoder.
ENCODERS = {
    "text_config": "text_encoder",
    "vision_config": "vision_encoder",
    "cnn_config": "cnn",
    "scene_config": "scene_encoder",
}


@dataclass
class MPTOutput(ModelOutput):
    """
    Output of MPT.

    Args:
        loss (`torch.Tensor` of shape `()`): λ1·CE + λ2·MLCL (paper, Eq. 7), for inputs with labels.
        logits (`torch.Tensor` of shape `(batch, num_labels)`): scores of the labels; not in [`MPTModel`].
        loss_ce, loss_mlcl (`torch.Tensor` of shape `()`): unweighted terms of the loss; `loss_mlcl` for λ2 > 0.
        fused_embeds (`torch.Tensor` of shape `(batch, hidden)`): f, the fused post (paper, Eq. 6).
        text_embeds, image_embeds, rationale_embeds (`torch.Tensor` of shape `(batch, hidden)`): t', v' and r'; zero
            for a post without the modality, `None` for a network without it.
        modality_weights (`torch.Tensor` of shape `(batch, 3)`): α of text, image, rationales; 0 for a missing one.
        modality_mask (`torch.BoolTensor` of shape `(batch, 3)`): modalities that a post has: text, image, rationales.
        perspective_weights (`torch.Tensor` of shape `(batch, num_perspectives)`): weights of the rationales.
        text_hidden_states, text_attentions (`tuple` of `torch.Tensor`): states of the text encoder on the post's text,
            on request, `(batch, seq_len, dim)` and `(batch, heads, seq_len, seq_len)` at the positions of `input_ids`.
        vision_hidden_states, vision_attentions (`tuple` of `torch.Tensor`): states of the vision encoder, on request,
            for the posts of the batch that have an image.
        rationale_hidden_states, rationale_attentions (`tuple` of `torch.Tensor`): those of the rationales, on request,
            `(batch · num_perspectives, rationale_len, dim)` and `(batch · num_perspectives, heads, rationale_len,
            rationale_len)`. States of text and rationales have gradients if all padding is on the right.
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
    rationale_hidden_states: tuple[torch.Tensor, ...] | None = None
    rationale_attentions: tuple[torch.Tensor, ...] | None = None


class MismatchedSizesError(ValueError, RuntimeError):
    """Weights of other sizes than the network; transformers raises a `RuntimeError`."""


def apply_umask(folder: Any) -> None:
    """Give weights the permissions of new files: safetensors lets their owner alone read them."""
    umask = os.umask(0o077)  # it can be read only by setting it
    os.umask(umask)
    for path in Path(folder).glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def ignored_at_inference(output_class: type) -> list[str]:
    """List all fields of an output but loss and logits, which a Trainer gathers."""
    return [field.name for field in fields(output_class) if field.name not in ("loss", "logits")]


class SentimentPreTrainedModel(PreTrainedModel):
    """Base of MPT and the baselines.

    A subclass has `text_encoder` and `rationale_encoder` (`None` without one), and `freeze()`, which freezes the
    layers that the configuration names.
    """

    supports_gradient_checkpointing = True  # in a network with an encoder that does, see `post_init`
    reads_input_ids = reads_rationale_input_ids = False  # in addition to what the encoders give
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer must divide it by accumulation steps
    # Each encoder has its own implementation; without these, the model would report and require eager attention.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Return `True`, where transformers guesses by the names of the classes in the file."""
        return True

    def post_init(self) -> None:
        """Initialize new layers, and declare what the network reads and supports."""
        inputs = {"text": "input_ids", "image": "pixel_values", "rationales": "rationale_input_ids"}
        self.main_input_name = next(name for modality, name in inputs.items() if modality in self.config.modalities)
        self.supports_gradient_checkpointing = any(
            hasattr(module, "gradient_checkpointing") for module in self.modules()
        )
        encoder = self.base_model.rationale_encoder or self.base_model.text_encoder
        self.text_limit = position_limit(encoder) if isinstance(encoder, PreTrainedModel) else None
        super().post_init()

    def init_weights(self) -> None:
        """Initialize new layers, but keep the values that the constructor of a GRU drew."""
        # A second draw would shift those of all later layers. ZeRO-3 constructs layers without values.
        if not is_deepspeed_zero3_enabled():
            for module in self.modules():
                if isinstance(module, nn.GRU | nn.GRUCell):
                    for parameter in module.parameters():
                        parameter._is_hf_initialized = not parameter.is_meta
        super().init_weights()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize new layers by their fan-in; the encoders initialize themselves.

        Layers have any size, so no fixed standard deviation suits all. A layer of ours with other values or buffers
        has a method `init_weights`.
        """
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GRU | nn.GRUCell):
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif hasattr(module, "init_weights") and not isinstance(module, PreTrainedModel):
            module.init_weights()
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save a model with files that the umask makes readable.

        See [`PreTrainedModel.save_pretrained`].
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        apply_umask(save_directory)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model, see [`PreTrainedModel.from_pretrained`].

        Saved weights have other names than those in memory (of a ViT, nearly all), which this method converts.
        `load_state_dict` does not, nor does transformers' `Trainer` when it resumes or loads the best model: it skips
        these weights with a warning. `MPTTrainer` restores all.

        Raises:
            ValueError: For damaged weights, or weights of other sizes than those of the network.
        """
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        try:
            loaded = super().from_pretrained(*args, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"The weights in {source} are damaged: {error}. Copy or download them again.") from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise MismatchedSizesError(
                f"The weights in {source} have other sizes than this network: the report above lists them. Leave out "
                "the fields that change sizes, e.g. `num_labels`, or pass `ignore_mismatched_sizes=True`, which "
                "initializes these layers anew."
            ) from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info=True it is a pair
        model.base_model.freeze()  # loaded weights require gradients
        return loaded

    def train(self, mode: bool = True) -> "SentimentPreTrainedModel":
        """Set the mode of the network; frozen encoders and layers stay in evaluation mode."""
        encoders = (each for each in encoders_in(self) if mode and not isinstance(each, SentimentPreTrainedModel))
        with frozen_parts_evaluated(encoders):
            return super().train(mode)

    def encoders(self) -> dict[str, FrozenEncoder | None]:
        """Map the name of each encoder that runs on text, rationales or images to its frozen part.

        The value is `None` for an encoder that is trained from its first layer.
        """
        return self.base_model.encoders()

    def frozen_encoders(self) -> list[FrozenEncoder]:
        """List the encoders whose outputs can be stored: frozen wholly, or in their first layers.

        Their outputs take the place of the encoders as `encoder_outputs` of `forward`. There are none for a
        configuration that asks for hidden states or attentions in every output.
        """
        if self.config.output_hidden_states or self.config.output_attentions:
            return []
        return [encoder for encoder in self.encoders().values() if encoder is not None]

    def live_inputs(self) -> list[str]:
        """List the inputs of `forward` that the outputs of all frozen encoders do not replace.

        They are among `input_ids`, `rationale_input_ids` and `pixel_values`.
        """
        inputs = {"text": "input_ids", "rationales": "rationale_input_ids"}
        stored = {encoder.name for encoder in self.frozen_encoders()}
        live = {inputs.get(name, "pixel_values") for name in self.encoders() if name not in stored}
        own = {name for name in inputs.values() if getattr(self.base_model, f"reads_{name}")}
        return sorted(live | own)

    def check_inputs(self, layers: EncoderLayers, **inputs: Any) -> tuple[int, torch.device]:
        """Check the tensors of a batch, see [`check_inputs`].

        Raises:
            ValueError: For layers of encoders that do not run.
        """
        if layers.request and inputs.get("encoder_outputs"):
            raise ValueError(
                "`output_hidden_states` and `output_attentions` need encoders that run: leave out `encoder_outputs`."
            )
        return check_inputs(self._encoder_of_text(), self.text_limit, sizes=self.stored_sizes(), **inputs)

    def stored_sizes(self) -> dict[str, int]:
        """Map the names of the `encoder_outputs` that the network takes to their last dimension."""
        raise NotImplementedError

    def requested_layers(
        self, output_hidden_states: bool | list[int] | None, output_attentions: bool | None
    ) -> EncoderLayers:
        """Return which layers of the encoders a call requests.

        `None` is the value of the configuration.

        Raises:
            ValueError: For attentions, if no encoder returns them.
        """
        given = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        chosen = {name: getattr(self.config, name) if value is None else value for name, value in given.items()}
        if chosen["output_attentions"]:
            encoders = (each for each in self.modules() if isinstance(each, PreTrainedModel) and each is not self)
            used = {each.config._attn_implementation for each in encoders if not hasattr(each, "timm_model")}
            if not used:
                raise ValueError(
                    f"`output_attentions=True` needs an encoder with attention: {self.config.title} has none."
                )
            if "eager" not in used:
                raise ValueError(
                    f"`output_attentions=True` needs the attention 'eager', got {sorted(used)}. Call "
                    "`model.set_attn_implementation('eager')` or pass `attn_implementation='eager'` to "
                    "`from_pretrained`."
                )
        return EncoderLayers({name: value for name, value in chosen.items() if value})

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the embeddings of the text encoder, and of the rationales' own if there is one.

        Raises:
            ValueError: For a network that reads no text.
        """
        if self.get_input_embeddings() is None:
            raise ValueError(f"This {self.config.title} reads no text, and has no token embeddings to resize.")
        if self.base_model.text_encoder is not None and self.base_model.rationale_encoder is not None:
            self.base_model.rationale_encoder.resize_token_embeddings(*args, **kwargs)
        return super().resize_token_embeddings(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module | None:
        """Return the embeddings of the text encoder, `None` in a network without one."""
        encoder = self._encoder_of_text()
        return None if encoder is None else encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embeddings of the text encoder."""
        self._encoder_of_text().set_input_embeddings(value)

    def _encoder_of_text(self) -> nn.Module | None:
        """Return the encoder of texts, or that of rationales where no text is read."""
        return self.base_model.text_encoder or self.base_model.rationale_encoder

    @classmethod
    def from_backbones(
        cls,
        text: str | PreTrainedConfig | None = None,
        vision: str | PreTrainedConfig | None = None,
        cnn: str | PreTrainedConfig | None = None,
        scene: str | PreTrainedConfig | None = None,
        *,
        processor: Any = None,
        labels: Sequence[str] | None = None,
        **config_kwargs: Any,
    ) -> "SentimentPreTrainedModel":
        r"""
        Create a model with pretrained encoders and randomly initialized new layers.

        The model is in evaluation mode, as that of `from_pretrained`.

        An encoder that the model does not read is neither loaded nor built: `image_branches=["cnn"]` needs no vision
        encoder, `modalities=["text"]` none of images.

        Args:
            text, vision, cnn, scene (`str` or [`PreTrainedConfig`], *optional*):
                A Hub id or folder: that encoder with its weights (of a dual encoder such as CLIP, its vision part). A
                configuration: the encoder it describes, at random. `text=None` is BERT-base and `vision=None`
                ViT-B/16, both at random, `cnn=None` the plain ConvNet. The CNN is a timm model, e.g.
                `"timm/resnet50.a1_in1k"`. `scene` is for baselines that read scenes.
            processor ([`MPTProcessor`], *optional*):
                Processor of the posts. It determines perspectives, pixel statistics and modalities, and for a `text`
                configuration the size of the vocabulary and the padding token.
            labels (`list[str]`, *optional*):
                Names of the labels in the order of their indices.
            config_kwargs:
                Any other field of the configuration, e.g. `loss_weight_mlcl=0.05`.

        Raises:
            ValueError: For a value that contradicts the processor or the labels.

        Example:

        ```python
        >>> model = MPTForSentimentClassification.from_backbones(
        ...     "google-bert/bert-base-uncased",
        ...     "google/vit-base-patch16-224-in21k",
        ...     "timm/resnet50.a1_in1k",
        ...     processor=processor,
        ...     labels=["positive", "neutral", "negative"],
        ... )
        ```
        """
        if labels is not None:
            id2label = dict(enumerate(labels))
            label_fields = {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}
            set_unless_contradicted(config_kwargs, label_fields | {"num_labels": len(labels)}, "`labels`")
        if processor is not None:
            given = processor_fields(processor)
            if "modalities" not in cls.config_class.field_names() or "modalities" in config_kwargs:
                del given["modalities"]
            set_unless_contradicted(config_kwargs, given, "the processor")
            if not isinstance(text, str):
                text = fitted_to_tokenizer(text or AutoConfig.for_model("bert"), processor.tokenizer)
        draft = cls.config_class(**config_kwargs)
        classes = draft.encoder_classes()
        if processor is not None and not set(draft.modalities) <= set(processor.modalities):
            raise ValueError(
                f"The model reads {draft.modalities}, but the processor makes {processor.modalities}. Pass "
                "`modalities` to the processor's `from_backbones`."
            )
        encoders = {}
        for field, source in zip(ENCODERS, (text, vision, cnn, scene), strict=True):
            if field not in classes or source is None:
                continue
            if isinstance(source, str):
                config = AutoConfig.from_pretrained(source)
                config = getattr(config, "vision_config", config) if field == "vision_config" else config
                if processor is not None and field == "text_config":
                    check_vocabulary(config, processor.tokenizer)
                encoders[field] = classes[field].from_pretrained(source, config=config, dtype=torch.float32)
                if field == "text_config" and "text_pooling" in draft.field_names():
                    config_kwargs.setdefault("text_pooling", sentence_pooling(source) or draft.text_pooling)
                source = encoders[field].config
            config_kwargs[field] = source
        if "vision_config" in encoders and not has_class_token(encoders["vision_config"]):
            config_kwargs.setdefault("vision_pooling", "mean")
        # A new config resets the attention of its sub-configs; keep the one each encoder was loaded with.
        attention = {field: encoder.config._attn_implementation for field, encoder in encoders.items()}
        config_kwargs.setdefault("attn_implementation", attention)
        loaded = {ENCODERS[field]: encoder for field, encoder in encoders.items()}
        config = cls.config_class(**config_kwargs)
        at_random = [field for field in classes if field not in encoders and getattr(config, field) is not None]
        config.random_encoders = [field.removesuffix("_config") for field in at_random]
        model = cls(config, **loaded).eval()
        if processor is not None and "image" in draft.modalities:
            check_image_size(model, processor)
        return model
