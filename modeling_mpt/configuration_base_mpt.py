"""Base configuration of all models: shared fields, labels, encoders, and validation."""

import copy
import difflib
import inspect
import os
from numbers import Real
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

MODALITIES = ("text", "image", "rationales")
SENTIMENTS = ("positive", "neutral", "negative")
VISION_POOLINGS = ("cls", "mean")
# Model types of encoders that are not given. Without a CNN, the plain ConvNet is built.
DEFAULT_ENCODERS = {"text_config": "bert", "vision_config": "vit", "scene_config": "vit"}
# The processor, saved in the same folder, carries this file.
CUSTOM_PIPELINES = {
    "multimodal-sentiment": {"impl": "pipeline_mpt.MPTPipeline", "pt": ["AutoModelForSequenceClassification"]}
}


class SentimentConfig(PreTrainedConfig):
    """
    Base of [`MPTConfig`] and [`BaselineConfig`] with the fields of all models.

    A subclass sets its own fields first and then calls this `__init__`, which validates all of them.

    Args:
        text_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to BERT-base):
            Text encoder: any encoder of `AutoModel` that takes `input_ids` and returns token states.
        vision_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to ViT-B/16):
            Vision encoder: any of `AutoModel` that takes `pixel_values`; the vision part of a dual encoder such as
            CLIP. A baseline with another visual provider has an object detector or an image classifier here.
        cnn_config (`dict` or [`TimmWrapperConfig`], *optional*):
            CNN: any timm model. `None` builds a plain ConvNet of a few layers.
        hidden_size (`int`, defaults to 768):
            Size H of the vectors of modalities and of the fused post (paper, Table 2: "Embedding Size"). MPT needs a
            multiple of the number of its `text_branches`. In a baseline, the size of its own layers.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales of a post, in the order of the rationale axis. Any number, at least one.
        share_text_encoder (`bool`, defaults to `True`):
            Whether rationales are encoded by the text encoder of the post. `False` doubles its parameters.
        cnn_channels (`list[int]`, defaults to 64, 128, 256):
            Channels of the plain ConvNet. Read only if `cnn_config` is `None`.
        vision_pooling (`str`, defaults to `"cls"`):
            `"cls"` takes the class token of the vision encoder, `"mean"` averages its states. Encoders without a class
            token, such as SigLIP or ConvNeXt, need `"mean"`.
        pixel_mean, pixel_std (`list[float]`, default 0.5 each):
            Statistics with which the processor normalized `pixel_values`. The pixels of a timm CNN are converted to
            the statistics that it was trained with.
        dropout (`float`, defaults to 0.1):
            Dropout in the new layers.
        rationale_dropout (`float`, defaults to 0.0):
            Probability that a training post loses all its rationales, which trains the model for posts without any.
        freeze_text_layers, freeze_vision_layers (`int`, default 0):
            Freeze the embeddings and the first k layers of the encoder; -1 freezes all of it. Static word embeddings
            (`text_provider="embeddings"` of a baseline) have no layers and are always trained.
        freeze_cnn (`bool`, defaults to `False`):
            Freeze the CNN.
        freeze_batch_norm (`bool`, defaults to `True`):
            Keep the running statistics of batch normalization, so that the features of a post do not depend on its
            batch. Set it to `False` for a timm CNN that is trained from scratch.
        class_weights (`list[float]`, *optional*):
            Weight of each label in the cross-entropy, for imbalanced data. `None` weighs all equally.
        label_smoothing (`float`, defaults to 0.0):
            Label smoothing of the cross-entropy.
        random_encoders (`list[str]`, defaults to none):
            Encoders that started at random, of text, vision, cnn, scene. `MPTTrainer` trains them at the rate of new
            layers, also in a resumed run or when a saved model is trained further. `from_backbones` sets it; a model
            that is built in another way counts as pretrained.
        calibration_temperature (`float`, defaults to 1.0):
            Divisor of the logits before the softmax of the pipeline, fitted on validation when training ends. It
            changes the probabilities, but no predicted label, and not the logits that the model returns.
        kwargs:
            `id2label`, `label2id`, `num_labels` and the arguments of [`PreTrainedConfig`]. The labels default to
            positive, neutral, negative; with `num_labels` other than 3, to LABEL_0, LABEL_1, … One of `id2label` and
            `label2id` is enough.

    Raises:
        ValueError: For a misspelt field, or a value outside the documented range.
    """

    # Name in tables and cards, paper, and a reservation that a table must print next to the scores.
    title = source = remark = ""
    # Names of the fields that hold a number, an integer, a switch. Subclasses extend them.
    numbers = ("dropout", "rationale_dropout", "label_smoothing", "calibration_temperature")
    counts = ("hidden_size", "freeze_text_layers", "freeze_vision_layers")
    switches = ("share_text_encoder", "freeze_cnn", "freeze_batch_norm")

    def __init__(
        self,
        text_config: dict[str, Any] | PreTrainedConfig | None = None,
        vision_config: dict[str, Any] | PreTrainedConfig | None = None,
        cnn_config: dict[str, Any] | PreTrainedConfig | None = None,
        hidden_size: int = 768,
        perspectives: list[str] | tuple[str, ...] = SENTIMENTS,
        share_text_encoder: bool = True,
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
        class_weights: list[float] | tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
        random_encoders: list[str] | tuple[str, ...] = (),
        calibration_temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        _check_names(type(self).__name__, kwargs, known=self.field_names())
        self.text_config = self.encoder_config("text_config", text_config)
        self.vision_config = self.encoder_config("vision_config", vision_config)
        self.cnn_config = self.encoder_config("cnn_config", cnn_config)
        self.hidden_size = hidden_size
        self.perspectives = as_list("perspectives", perspectives)
        self.share_text_encoder = share_text_encoder
        self.cnn_channels = as_list("cnn_channels", cnn_channels)
        self.vision_pooling = vision_pooling
        self.pixel_mean = as_list("pixel_mean", pixel_mean)
        self.pixel_std = as_list("pixel_std", pixel_std)
        self.dropout = dropout
        self.rationale_dropout = rationale_dropout
        self.freeze_text_layers = freeze_text_layers
        self.freeze_vision_layers = freeze_vision_layers
        self.freeze_cnn = freeze_cnn
        self.freeze_batch_norm = freeze_batch_norm
        self.class_weights = class_weights if class_weights is None else as_list("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        self.random_encoders = as_list("random_encoders", random_encoders)
        self.calibration_temperature = calibration_temperature
        _complete_labels(kwargs)
        kwargs.setdefault("auto_map", self.own_auto_map())
        kwargs.setdefault("custom_pipelines", copy.deepcopy(CUSTOM_PIPELINES))
        super().__init__(**kwargs)
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Create a configuration from the fields of `config.json`.

        Raises:
            ValueError: For those of another type of model, whose weights would all be ignored.
        """
        saved = config_dict.get("model_type") or cls.model_type
        if saved != cls.model_type:
            raise ValueError(
                f"The configuration is of the model type {saved!r}, not {cls.model_type!r}. Open it with "
                "`AutoModelForSequenceClassification.from_pretrained`; to train on a pretrained encoder, use the "
                "model's `from_backbones`."
            )
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def field_names(cls) -> list[str]:
        """List the documented fields, those of the class before those of its bases."""
        classes = [each for each in cls.__mro__ if issubclass(each, SentimentConfig) and "__init__" in vars(each)]
        names = [name for each in classes for name in inspect.signature(each.__init__).parameters]
        return list(dict.fromkeys(name for name in names if name not in ("self", "kwargs")))

    @property
    def providers(self) -> dict[str, str]:
        """Map text, image and scene to the provider of their tokens, in systems that offer several."""
        return {}

    @property
    def untrained_images(self) -> bool:
        """Return whether the network reads images, and every encoder of them started at random."""
        encoders = [field for field in self.encoder_classes() if field != "text_config"]
        pretrained = [
            field
            for field in encoders
            if getattr(self, field) is not None and field.removesuffix("_config") not in self.random_encoders
        ]
        return "image" in self.modalities and not pretrained

    @property
    def weights_returned(self) -> list[str]:
        """List the output fields with weights that explain a prediction."""
        return []

    def encoder_classes(self) -> dict[str, type]:
        """Map the configuration fields of the encoders that the network has to their Auto classes."""
        raise NotImplementedError

    def encoder_config(self, field: str, value: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig | None:
        """Return the configuration object of an encoder, `None` if the network has no such encoder."""
        if field not in self.encoder_classes():
            return None
        config = sub_config(field, value, DEFAULT_ENCODERS.get(field))
        return config if field == "text_config" else getattr(config, "vision_config", config)

    def own_auto_map(self) -> dict[str, str]:
        """Map each Auto class to the file and class that open a saved folder.

        All are listed because `save_pretrained` records only the class that is being saved.
        """
        raise NotImplementedError

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the configuration with an `auto_map` that names the files saved in the same folder.

        The entries of a configuration loaded from the Hub begin with the name of its repository, which is removed.
        """
        self.auto_map = {k: v.split("--")[-1] for k, v in self.auto_map.items()} | self.own_auto_map()
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values, without the local folders of encoders."""
        # `pipeline` puts classes into `custom_pipelines`, which JSON cannot hold.
        fields = super().to_dict() | {"custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}
        for encoder in (fields.get(name) for name in self.sub_configs):
            if encoder and os.path.isdir(encoder.get("_name_or_path") or ""):
                del encoder["_name_or_path"]
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults, and always the labels."""
        # PreTrainedConfig omits LABEL_0 and LABEL_1, which are its defaults and not ours.
        return super().to_diff_dict() | {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}

    def check(self) -> None:
        """Validate all fields.

        The models call it too, because `from_pretrained(folder, dropout=2)` sets fields after construction.

        Raises:
            ValueError: For a value outside the documented range.
        """
        yaml_hint = " (YAML reads 1e-8 as text: write 1.0e-8.)"
        for names, kind, description, hint in (
            (self.numbers, Real, "a number", yaml_hint),
            (self.counts, int, "an integer", ""),
            (self.switches, bool, "true or false", ""),
        ):
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
                    raise ValueError(f"`{name}` must be {description}, got {value!r}.{hint}")
        check_choice("vision_pooling", self.vision_pooling, VISION_POOLINGS)
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(
                "A post has one label: `problem_type` must be 'single_label_classification', got "
                f"{self.problem_type!r}."
            )
        if not self.perspectives or len(set(self.perspectives)) < len(self.perspectives):
            raise ValueError(
                f"`perspectives` must be one or more distinct names, e.g. {list(SENTIMENTS)}, got "
                f"{self.perspectives}. To train without rationales, {self.without_rationales}."
            )
        if not self.cnn_channels or any(c < 1 for c in self.cnn_channels):
            raise ValueError(
                f"`cnn_channels` must be positive integers, e.g. [64, 128, 256], got {self.cnn_channels}."
            )
        for name in ("dropout", "rationale_dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be at least 0 and below 1, got {getattr(self, name)}.")
        if not 0.0 < self.calibration_temperature < float("inf"):
            raise ValueError(f"`calibration_temperature` must be positive, got {self.calibration_temperature}.")
        if self.class_weights is not None and (
            len(self.class_weights) != self.num_labels or min(self.class_weights) < 0 or sum(self.class_weights) == 0
        ):
            raise ValueError(
                f"`class_weights` must be one non-negative number for each of the {self.num_labels} labels "
                f"{list(self.id2label.values())}, not all 0, got {self.class_weights}."
            )
        if self.random_encoders:
            check_subset("random_encoders", self.random_encoders, ("text", "vision", "cnn", "scene"))
        for name in ("freeze_text_layers", "freeze_vision_layers"):
            if getattr(self, name) < -1:
                raise ValueError(
                    f"`{name}` must be 0 (none), k (the first k layers) or -1 (all), got {getattr(self, name)}."
                )
        if len(self.pixel_mean) != 3 or len(self.pixel_std) != 3 or min(self.pixel_std) <= 0:
            raise ValueError(
                "`pixel_mean` and `pixel_std` must be three numbers each, those of `pixel_std` positive, as "
                f"`image_mean` and `image_std` of the image processor, got {self.pixel_mean} and {self.pixel_std}."
            )


def sub_config(name: str, value: dict | PreTrainedConfig | None, default: str | None) -> PreTrainedConfig | None:
    """Build an encoder's configuration from an object, a dict with `model_type`, or a default."""
    if value is None:
        return None if default is None else AutoConfig.for_model(default)
    if isinstance(value, PreTrainedConfig):
        return value
    if not isinstance(value, dict) or "model_type" not in value:
        raise ValueError(
            f"`{name}` must be a configuration object of transformers or a dict with its 'model_type', e.g. "
            f"{{'model_type': 'bert', 'hidden_size': 128}}, got {value!r}. For pretrained weights, use the model's "
            "`from_backbones`."
        )
    value = dict(value)
    if value["model_type"] not in CONFIG_MAPPING:
        close = difflib.get_close_matches(str(value["model_type"]), CONFIG_MAPPING, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "See the documentation of `AutoConfig`."
        raise ValueError(f"`{name}` has the 'model_type' {value['model_type']!r}, which transformers lacks. {hint}")
    config_class = type(AutoConfig.for_model(value.pop("model_type")))
    # TimmWrapperConfig writes its labels in a form that only its `from_dict` reads, and that requires them.
    return config_class.from_dict(value) if "num_classes" in value else config_class(**value)


def as_list(name: str, values: Any) -> list:
    """Return a list or tuple as a new list."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"`{name}` must be a list, e.g. [{values!r}], got {values!r}.")
    return list(values)


def check_subset(name: str, values: list[str], known: tuple[str, ...]) -> None:
    """Raise an error unless `values` are distinct names out of `known`, at least one."""
    if not values or len(set(values)) < len(values) or not set(values) <= set(known):
        raise ValueError(f"`{name}` must be one or more of {list(known)}, each at most once, got {values}.")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise an error unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"`{name}` must be one of {list(known)}, got {value!r}.")


def _check_names(config: str, kwargs: dict[str, Any], known: list[str]) -> None:
    """Raise an error for a misspelt field.

    Other unknown fields become attributes, because transformers and later versions of this file add some.
    """
    for name in kwargs:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            raise ValueError(f"{config} has no field `{name}`. Did you mean `{close[0]}`?")


def _complete_labels(kwargs: dict[str, Any]) -> None:
    """Set `id2label` and `label2id` in `kwargs` from one of them, or to the default labels."""
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
        raise ValueError(
            f"`id2label` must number distinct labels from 0, e.g. {dict(enumerate(SENTIMENTS))}, got {id2label!r}."
        )
    kwargs["id2label"] = {int(index): name for index, name in id2label.items()}
    kwargs["label2id"] = label2id or {name: index for index, name in kwargs["id2label"].items()}
