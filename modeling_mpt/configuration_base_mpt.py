"""What the configurations of all models of this package share: labels, perspectives, encoders, and their checks."""

import copy
import difflib
import inspect
import os
from numbers import Real
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

MODALITIES = ("text", "image", "rationales")
SENTIMENTS = ("positive", "neutral", "negative")
VISION_POOLINGS = ("cls", "mean")
# The processor, saved beside the model, brings this file.
CUSTOM_PIPELINES = {
    "multimodal-sentiment": {"impl": "pipeline_mpt.MPTPipeline", "pt": ["AutoModelForSequenceClassification"]}
}


class SentimentConfig(PreTrainedConfig):
    """Base of [`MPTConfig`] and of [`BaselineConfig`]. A subclass sets its fields in an `__init__` of its own and then
    calls this one, which completes the labels and checks everything.

    Args:
        kwargs: what the subclass did not take: `id2label`, `label2id`, `num_labels`, and what [`PreTrainedConfig`]
            takes.

    Raises:
        ValueError: for a misspelt field, or one that [`~SentimentConfig.check`] refuses.
    """

    # Its name in tables and cards, and the paper it is from; behind "; " what a table must say of it beside scores.
    title = source = ""
    # Names of the fields that hold one number, whole number or switch; a subclass adds its own.
    numbers = ("dropout", "rationale_dropout", "label_smoothing")
    counts = ("hidden_size", "freeze_text_layers", "freeze_vision_layers")
    switches = ("share_text_encoder", "freeze_cnn", "freeze_batch_norm")

    def __init__(self, **kwargs: Any) -> None:
        _check_names(type(self).__name__, kwargs, known=self.field_names())
        _complete_labels(kwargs)
        kwargs.setdefault("auto_map", self.own_auto_map())
        kwargs.setdefault("custom_pipelines", copy.deepcopy(CUSTOM_PIPELINES))
        super().__init__(**kwargs)
        self.check()

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of the documented fields, those of the class's parents after its own."""
        classes = [each for each in cls.__mro__ if issubclass(each, SentimentConfig) and "__init__" in vars(each)]
        names = [name for each in classes for name in inspect.signature(each.__init__).parameters]
        return list(dict.fromkeys(name for name in names if name not in ("self", "kwargs")))

    @property
    def providers(self) -> dict[str, str]:
        """Of text, image and scene, which provider's tokens the model reads, where there is a choice."""
        return {}

    @property
    def weights_returned(self) -> list[str]:
        """Which weights, by which a user sees what decided, the model returns beside its logits."""
        return []

    def own_auto_map(self) -> dict[str, str]:
        """For each Auto class the file and the class that open a saved folder. Each must be named: `save_pretrained`
        records only the class that is being saved."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As [`PreTrainedConfig.save_pretrained`]. The code is saved beside it, so `auto_map` names the files there,
        also where this config came from a Hub repository (whose name is then in front of each entry)."""
        self.auto_map = {k: v.split("--")[-1] for k, v in self.auto_map.items()} | self.own_auto_map()
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As [`PreTrainedConfig.to_dict`]. `pipeline` puts classes into `custom_pipelines`, which JSON cannot hold.
        Where an encoder was read from a folder, that folder's name stays on this machine."""
        fields = super().to_dict() | {"custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}
        for encoder in (fields.get(name) for name in self.sub_configs):
            if encoder and os.path.isdir(encoder.get("_name_or_path") or ""):
                del encoder["_name_or_path"]
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """As [`PreTrainedConfig.to_diff_dict`], which leaves out LABEL_0 and LABEL_1 as its own defaults: not ours."""
        return super().to_diff_dict() | {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}

    def check(self) -> None:
        """Raise a `ValueError` that says what to write instead. The models call it too: `from_pretrained(folder,
        dropout=2)` sets fields after construction."""
        for name in self.numbers:
            if not isinstance(getattr(self, name), Real) or isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: write a number (in YAML 1.0e-8: it reads 1e-8 as text)."
                )
        for name in self.counts:
            if not isinstance(getattr(self, name), int) or isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: write a whole number.")
        for name in self.switches:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: write true or false.")
        check_choice("vision_pooling", self.vision_pooling, VISION_POOLINGS)
        if not self.perspectives or len(set(self.perspectives)) < len(self.perspectives):
            raise ValueError(
                f"perspectives={self.perspectives}: write one distinct name or more, e.g. {list(SENTIMENTS)}. To "
                f"train without rationales, {self.without_rationales}."
            )
        if not self.cnn_channels or any(c < 1 for c in self.cnn_channels):
            raise ValueError(f"cnn_channels={self.cnn_channels}: write positive numbers, e.g. {[64, 128, 256]}.")
        for name in ("dropout", "rationale_dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: write a probability from 0.0 to below 1.0.")
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


def sub_config(name: str, value: dict | PreTrainedConfig | None, default: str | None) -> PreTrainedConfig | None:
    """A config object from an object, from a dict with its `model_type`, or from the default's name."""
    if value is None:
        return None if default is None else AutoConfig.for_model(default)
    if isinstance(value, PreTrainedConfig):
        return value
    if not isinstance(value, dict) or "model_type" not in value:
        raise ValueError(
            f"{name}={value!r}: write a configuration object of transformers or a dict with its 'model_type', e.g. "
            "{'model_type': 'bert', 'hidden_size': 128}. To start from pretrained weights, use the model's "
            "`from_backbones`."
        )
    value = dict(value)
    config_class = type(AutoConfig.for_model(value.pop("model_type")))
    # TimmWrapperConfig writes its labels in a form that only its `from_dict` reads, and that requires them.
    return config_class.from_dict(value) if "num_classes" in value else config_class(**value)


def as_list(name: str, values: Any) -> list:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name}={values!r}: write a list, e.g. [{values!r}].")
    return list(values)


def _check_names(config: str, kwargs: dict[str, Any], known: list[str]) -> None:
    """Refuse a misspelt field, which `PreTrainedConfig` would keep as an attribute that nothing reads. Other unknown
    ones stay: transformers and later versions of this file add some."""
    for name in kwargs:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            raise ValueError(f"{name}={kwargs[name]!r}: {config} has no such field. Did you mean {close[0]!r}?")


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


def check_subset(name: str, values: list[str], known: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values) or not set(values) <= set(known):
        raise ValueError(f"{name}={values}: write one or more of {list(known)}, each at most once.")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}: write one of {list(known)}.")
