"""Configuration of MPT: which encoders, which branches, which modalities, how they are fused and trained."""

import copy
import difflib
import inspect
import os
from numbers import Real
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

MODALITIES = ("text", "image", "rationales")
TEXT_BRANCHES = ("sknet", "lstm")
IMAGE_BRANCHES = ("cnn", "vit")
CONTRASTIVE_VIEWS = ("cross_modal", "fused")
VISION_POOLINGS = ("cls", "mean")
SENTIMENTS = ("positive", "neutral", "negative")
COUNTS = ("hidden_size", "sknet_reduction", "freeze_text_layers", "freeze_vision_layers")
NUMBERS = (
    "dropout",
    "rationale_dropout",
    "loss_weight_ce",
    "loss_weight_mlcl",
    "contrastive_temperature",
    "contrastive_epsilon",
    "label_smoothing",
)
SWITCHES = ("share_text_encoder", "freeze_cnn", "freeze_batch_norm")

# Each Auto class must be named: `save_pretrained` records only the class that is being saved.
AUTO_MAP = {
    "AutoConfig": "configuration_mpt.MPTConfig",
    "AutoModel": "modeling_mpt.MPTModel",
    "AutoModelForSequenceClassification": "modeling_mpt.MPTForSentimentClassification",
}
# The processor, saved beside the model, brings this file.
CUSTOM_PIPELINES = {
    "multimodal-sentiment": {"impl": "pipeline_mpt.MPTPipeline", "pt": ["AutoModelForSequenceClassification"]}
}


class MPTConfig(PreTrainedConfig):
    r"""
    Configuration of [`MPTModel`] and [`MPTForSentimentClassification`].

    Args:
        text_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to BERT-base):
            The text encoder: any encoder of `AutoModel` that takes `input_ids` and returns token states.
        vision_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to ViT-B/16):
            The vision encoder: any of `AutoModel` that takes `pixel_values`; of a dual encoder such as CLIP, its
            vision part.
        cnn_config (`dict` or [`TimmWrapperConfig`], *optional*):
            The CNN: any timm model. `None` builds the plain three-layer ConvNet of the paper's authors.
        hidden_size (`int`, defaults to 768):
            Size H of each modality's vector and of the fused one (paper, Table 2: "Embedding Size"). Even, because
            SKNet and LSTM give half of it each.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales of a post, in the order of the rationale axis. Any number, at least one.
        modalities (`list[str]`, defaults to text, image, rationales):
            The modalities the network reads. A modality that is left out is not built.
        text_branches (`list[str]`, defaults to sknet, lstm):
            Parallel feature extractors on the token states (paper, Eq. 1). One or both.
        image_branches (`list[str]`, defaults to cnn, vit):
            Parallel feature extractors on the image (paper, Eq. 3). One or both.
        share_text_encoder (`bool`, defaults to `True`):
            Whether rationales go through the same text encoder as the post. `False` doubles its parameters.
        sknet_kernel_sizes (`list[int]`, defaults to 3, 5):
            Odd widths of SKNet's convolutions over tokens.
        sknet_reduction (`int`, defaults to 16):
            SKNet squeezes E channels to `max(E // sknet_reduction, 32)`.
        cnn_channels (`list[int]`, defaults to 64, 128, 256):
            Channels of the plain ConvNet. Read only when `cnn_config` is `None`.
        vision_pooling (`str`, defaults to `"cls"`):
            `"cls"` takes the class token of the vision encoder, `"mean"` averages its states (encoders without a class
            token, such as SigLIP or ConvNeXt, need `"mean"`).
        pixel_mean, pixel_std (`list[float]`, default 0.5 each):
            Statistics with which the processor normalised `pixel_values`. A timm CNN that was trained with others gets
            the pixels renormalised to its own.
        dropout (`float`, defaults to 0.1):
            Dropout on the modality vectors before fusion and in the classifier.
        rationale_dropout (`float`, defaults to 0.0):
            Probability that a training post loses all its rationales, which makes a model that also serves without
            a language model behind it.
        freeze_text_layers, freeze_vision_layers (`int`, default 0):
            Freeze the embeddings and the first k layers of the encoder; -1 freezes all of it.
        freeze_cnn (`bool`, defaults to `False`):
            Freeze the CNN.
        freeze_batch_norm (`bool`, defaults to `True`):
            Keep the running statistics of the CNN's batch normalisation, so that a post's features do not depend on
            its batch. Set it to `False` for a timm CNN that is trained from scratch.
        loss_weight_ce (`float`, defaults to 1.0):
            λ1, the weight of the cross-entropy (paper, Eq. 7).
        loss_weight_mlcl (`float`, defaults to 0.1):
            λ2, the weight of the contrastive loss, 0 < λ2 < λ1 ≤ 1 (paper, Eq. 7; Fig. 7 finds 0.05 to 0.10 best). 0
            switches it off.
        contrastive_view (`str`, defaults to `"cross_modal"`):
            `"cross_modal"`: Algorithm 2, between text and image vectors. `"fused"`: the supervised contrastive loss
            (Khosla et al., *Supervised Contrastive Learning*) on the fused vectors.
        contrastive_temperature (`float`, defaults to 0.1):
            Divides the cosines. Lower values weigh the hardest pairs more. The paper's Algorithm 2 has none, i.e. 1.0.
        contrastive_epsilon (`float`, defaults to 1e-8):
            ε of Algorithm 2's denominator. The fused view has none.
        class_weights (`list[float]`, *optional*):
            Weight of each label in the cross-entropy, for imbalanced data. `None`: all equal.
        label_smoothing (`float`, defaults to 0.0):
            Label smoothing of the cross-entropy.
        kwargs:
            `id2label`, `label2id`, `num_labels` and what [`PreTrainedConfig`] takes. The labels default to positive,
            neutral, negative; with `num_labels` other than 3, to LABEL_0, LABEL_1, … One of `id2label` and `label2id`
            is enough.

    Raises:
        ValueError: where a value is outside what is documented above; the message says what to write instead.
    """

    model_type = "mpt_sentiment"  # "mpt" is MosaicML's
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig, "cnn_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "loss_ce",
        "loss_mlcl",
        "fused_embeds",
        "text_embeds",
        "image_embeds",
        "rationale_embeds",
        "modality_mask",
        "modality_weights",
        "perspective_weights",
        "text_hidden_states",
        "text_attentions",
        "vision_hidden_states",
        "vision_attentions",
    ]

    def __init__(
        self,
        text_config: dict[str, Any] | PreTrainedConfig | None = None,
        vision_config: dict[str, Any] | PreTrainedConfig | None = None,
        cnn_config: dict[str, Any] | PreTrainedConfig | None = None,
        hidden_size: int = 768,
        perspectives: list[str] | tuple[str, ...] = SENTIMENTS,
        modalities: list[str] | tuple[str, ...] = MODALITIES,
        text_branches: list[str] | tuple[str, ...] = TEXT_BRANCHES,
        image_branches: list[str] | tuple[str, ...] = IMAGE_BRANCHES,
        share_text_encoder: bool = True,
        sknet_kernel_sizes: list[int] | tuple[int, ...] = (3, 5),
        sknet_reduction: int = 16,
        cnn_channels: list[int] | tuple[int, ...] = (64, 128, 256),
        vision_pooling: str = "cls",
        pixel_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
        pixel_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
        dropout: float = 0.1,
        rationale_dropout: float = 0.0,
        freeze_text_layers: int = 0,
        freeze_vision_layers: int = 0,
        freeze_cnn: bool = False,
        freeze_batch_norm: bool = True,
        loss_weight_ce: float = 1.0,
        loss_weight_mlcl: float = 0.1,
        contrastive_view: str = "cross_modal",
        contrastive_temperature: float = 0.1,
        contrastive_epsilon: float = 1e-8,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.text_config = _sub_config("text_config", text_config, default="bert")
        vision_config = _sub_config("vision_config", vision_config, default="vit")
        self.vision_config = getattr(vision_config, "vision_config", vision_config)
        self.cnn_config = _sub_config("cnn_config", cnn_config, default=None)
        self.hidden_size = hidden_size
        self.perspectives = _list("perspectives", perspectives)
        self.modalities = _list("modalities", modalities)
        self.text_branches = _list("text_branches", text_branches)
        self.image_branches = _list("image_branches", image_branches)
        self.share_text_encoder = share_text_encoder
        self.sknet_kernel_sizes = _list("sknet_kernel_sizes", sknet_kernel_sizes)
        self.sknet_reduction = sknet_reduction
        self.cnn_channels = _list("cnn_channels", cnn_channels)
        self.vision_pooling = vision_pooling
        self.pixel_mean = _list("pixel_mean", pixel_mean)
        self.pixel_std = _list("pixel_std", pixel_std)
        self.dropout = dropout
        self.rationale_dropout = rationale_dropout
        self.freeze_text_layers = freeze_text_layers
        self.freeze_vision_layers = freeze_vision_layers
        self.freeze_cnn = freeze_cnn
        self.freeze_batch_norm = freeze_batch_norm
        self.loss_weight_ce = loss_weight_ce
        self.loss_weight_mlcl = loss_weight_mlcl
        self.contrastive_view = contrastive_view
        self.contrastive_temperature = contrastive_temperature
        self.contrastive_epsilon = contrastive_epsilon
        self.class_weights = class_weights if class_weights is None else _list("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        _check_names(kwargs, known=list(inspect.signature(MPTConfig.__init__).parameters))
        _complete_labels(kwargs)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", copy.deepcopy(CUSTOM_PIPELINES))
        super().__init__(**kwargs)
        self.check()

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As [`PreTrainedConfig.save_pretrained`]. The code is saved beside it, so `auto_map` names the files there,
        also where this config came from a Hub repository (whose name is then in front of each entry)."""
        self.auto_map = {**AUTO_MAP, **{k: v.split("--")[-1] for k, v in self.auto_map.items() if k not in AUTO_MAP}}
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As [`PreTrainedConfig.to_dict`]. `pipeline` puts classes into `custom_pipelines`, which JSON cannot hold.
        Where an encoder was read from a folder, that folder's name stays on this machine."""
        fields = super().to_dict() | {"custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}
        for encoder in (fields.get(f"{part}_config") for part in ("text", "vision", "cnn")):
            if encoder and os.path.isdir(encoder.get("_name_or_path") or ""):
                del encoder["_name_or_path"]
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """As [`PreTrainedConfig.to_diff_dict`], which leaves out LABEL_0 and LABEL_1 as its own defaults: not ours."""
        return super().to_diff_dict() | {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}

    def check(self) -> None:
        """Raise a `ValueError` that says what to write instead. The models call it too: `from_pretrained(folder,
        dropout=2)` sets fields after construction."""
        for name in NUMBERS:
            if not isinstance(getattr(self, name), Real) or isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: write a number (in YAML 1.0e-8: it reads 1e-8 as text)."
                )
        for name in COUNTS:
            if not isinstance(getattr(self, name), int) or isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: write a whole number.")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: write true or false.")
        _check_subset("modalities", self.modalities, MODALITIES)
        _check_subset("text_branches", self.text_branches, TEXT_BRANCHES)
        _check_subset("image_branches", self.image_branches, IMAGE_BRANCHES)
        _check_choice("contrastive_view", self.contrastive_view, CONTRASTIVE_VIEWS)
        _check_choice("vision_pooling", self.vision_pooling, VISION_POOLINGS)
        if not self.perspectives or len(set(self.perspectives)) < len(self.perspectives):
            raise ValueError(
                f"perspectives={self.perspectives}: write one distinct name or more, e.g. {list(SENTIMENTS)}. To "
                "train without rationales, leave 'rationales' out of `modalities`."
            )
        if self.hidden_size < 2 or self.hidden_size % 2:
            raise ValueError(f"hidden_size={self.hidden_size}: write an even number, e.g. 768.")
        if not self.sknet_kernel_sizes or any(k < 1 or k % 2 == 0 for k in self.sknet_kernel_sizes):
            raise ValueError(f"sknet_kernel_sizes={self.sknet_kernel_sizes}: write odd numbers, e.g. [3, 5].")
        if not self.cnn_channels or any(c < 1 for c in self.cnn_channels) or self.sknet_reduction < 1:
            raise ValueError(
                f"cnn_channels={self.cnn_channels}, sknet_reduction={self.sknet_reduction}: write positive numbers, "
                "e.g. [64, 128, 256] and 16."
            )
        for name in ("dropout", "rationale_dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: write a probability from 0.0 to below 1.0.")
        if not 0.0 < self.loss_weight_ce <= 1.0 or not 0.0 <= self.loss_weight_mlcl < self.loss_weight_ce:
            raise ValueError(
                f"loss_weight_ce={self.loss_weight_ce}, loss_weight_mlcl={self.loss_weight_mlcl}: Eq. 7 requires "
                "0 < λ2 < λ1 ≤ 1. Write e.g. loss_weight_ce=1.0 and loss_weight_mlcl=0.1, or loss_weight_mlcl=0 to "
                "switch the contrastive loss off."
            )
        if self.contrastive_temperature <= 0 or self.contrastive_epsilon <= 0:
            raise ValueError(
                f"contrastive_temperature={self.contrastive_temperature}, contrastive_epsilon="
                f"{self.contrastive_epsilon}: write positive numbers, e.g. 0.1 and 1e-8."
            )
        if self.loss_weight_mlcl > 0 and self.contrastive_view == "cross_modal":
            missing = [name for name in ("text", "image") if name not in self.modalities]
            if missing:
                raise ValueError(
                    f"contrastive_view='cross_modal' compares text with images, but modalities={self.modalities} "
                    f"lacks {missing}. Write contrastive_view='fused', or loss_weight_mlcl=0 to switch the "
                    "contrastive loss off."
                )
        if self.class_weights is not None and (
            len(self.class_weights) != self.num_labels or min(self.class_weights) < 0 or sum(self.class_weights) == 0
        ):
            raise ValueError(
                f"class_weights={self.class_weights}: write one non-negative number for each of the {self.num_labels} "
                f"labels, in the order {list(self.id2label.values())}."
            )
        for name in ("freeze_text_layers", "freeze_vision_layers"):
            if getattr(self, name) < -1:
                raise ValueError(f"{name}={getattr(self, name)}: write 0 (none), k (the first k layers) or -1 (all).")
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3 or min(self.pixel_std) <= 0:
            raise ValueError(
                f"pixel_mean={self.pixel_mean}, pixel_std={self.pixel_std}: write three numbers each, as `image_mean` "
                "and `image_std` of the image processor, e.g. [0.5, 0.5, 0.5]."
            )


def _sub_config(name: str, value: dict | PreTrainedConfig | None, default: str | None) -> PreTrainedConfig | None:
    """A config object from an object, from a dict with its `model_type`, or from the default's name."""
    if value is None:
        return None if default is None else AutoConfig.for_model(default)
    if isinstance(value, PreTrainedConfig):
        return value
    if not isinstance(value, dict) or "model_type" not in value:
        raise ValueError(
            f"{name}={value!r}: write a configuration object of transformers or a dict with its 'model_type', e.g. "
            "{'model_type': 'bert', 'hidden_size': 128}. To start from pretrained weights, use "
            "MPTForSentimentClassification.from_backbones."
        )
    value = dict(value)
    config_class = type(AutoConfig.for_model(value.pop("model_type")))
    # TimmWrapperConfig writes its labels in a form that only its `from_dict` reads, and that requires them.
    return config_class.from_dict(value) if "num_classes" in value else config_class(**value)


def _list(name: str, values: Any) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name}={values!r}: write a list, e.g. [{values!r}].")
    return list(values)


def _check_names(kwargs: dict[str, Any], known: list[str]) -> None:
    """Refuse a misspelt field, which `PreTrainedConfig` would keep as an attribute that nothing reads. Other unknown
    ones stay: transformers and later versions of this file add some."""
    for name in kwargs:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            raise ValueError(f"{name}={kwargs[name]!r}: MPTConfig has no such field. Did you mean {close[0]!r}?")


def _complete_labels(kwargs: dict[str, Any]) -> None:
    """Set `id2label` and `label2id` in `kwargs` from whichever is there, or from the default."""
    id2label, label2id = kwargs.get("id2label"), kwargs.get("label2id")
    if id2label is None and label2id is not None:
        id2label = {index: name for name, index in label2id.items()}
    if id2label is None:
        count = kwargs.pop("num_labels", None) or len(SENTIMENTS)
        id2label = dict(enumerate(SENTIMENTS if count == len(SENTIMENTS) else [f"LABEL_{i}" for i in range(count)]))
    if (
        not isinstance(id2label, dict)
        or sorted(map(int, id2label)) != list(range(len(id2label)))
        or len(set(id2label.values())) < len(id2label)
    ):
        raise ValueError(f"id2label={id2label!r}: number distinct labels from 0, e.g. {dict(enumerate(SENTIMENTS))}.")
    kwargs["id2label"] = {int(index): name for index, name in id2label.items()}
    kwargs["label2id"] = label2id or {name: index for index, name in kwargs["id2label"].items()}


def _check_subset(name: str, values: list[str], known: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values) or not set(values) <= set(known):
        raise ValueError(f"{name}={values}: write one or more of {list(known)}, each at most once.")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: write one of {list(known)}.")
