"""What the configurations of all baselines share, and the output of their models."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    PreTrainedConfig,
)

from .configuration_base_mpt import MODALITIES, SENTIMENTS, SentimentConfig, as_list, check_choice, sub_config
from .pretrained_mpt import MPTOutput

TEXT_PROVIDERS = ("encoder", "embeddings")
VISUAL_PROVIDERS = ("vit_patches", "cnn_grid", "detector", "places")
AUTO_CLASSES = {"detector": AutoModelForObjectDetection, "places": AutoModelForImageClassification}


@dataclass
class BaselineOutput(MPTOutput):
    """
    As [`MPTOutput`]; `text_embeds`, `image_embeds` and `modality_weights` are `None` unless a system says otherwise.

    Args:
        system_weights (`torch.Tensor` of shape `(batch, 2)`): with `use_rationales`, the weights of the system's own
            vector and of the rationales' in `fused_embeds`.
    """

    system_weights: torch.Tensor | None = None


def ignored_at_inference(output_class: type) -> list[str]:
    """All that a Trainer need not gather of an output, i.e. all but loss and logits."""
    return [field.name for field in fields(output_class) if field.name not in ("loss", "logits")]


class BaselineConfig(SentimentConfig):
    r"""
    Configuration that all baselines share. Names and meanings are those of [`MPTConfig`].

    Args:
        text_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to BERT-base):
            The text encoder, of the post and of the rationales. `None` in a system that reads neither.
        vision_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to ViT-B/16):
            The network of the visual provider: a vision encoder for `"vit_patches"`, an object detector for
            `"detector"`, an image classifier for `"places"`. `None` in a system that reads no image.
        cnn_config (`dict` or [`TimmWrapperConfig`], *optional*):
            The CNN of `"cnn_grid"`. `None` builds the plain ConvNet.
        scene_config (`dict` or [`PreTrainedConfig`], *optional*):
            The network of the scene provider, in systems that read scenes.
        hidden_size (`int`, defaults to 768):
            Size of the system's own layers, where its encoders do not set it.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales of a post.
        use_rationales (`bool`, defaults to `False`):
            Whether to encode the rationales and join their vector to the system's own by LAFF before the classifier.
        share_text_encoder (`bool`, defaults to `True`):
            Whether rationales go through the post's text encoder, in systems that have one.
        text_provider (`str`, defaults to `"encoder"`):
            `"encoder"`: states of the text encoder; `"embeddings"`: its word embeddings alone.
        visual_provider (`str`, defaults to `"vit_patches"`):
            `"vit_patches"`, `"cnn_grid"`, `"detector"` or `"places"`: what a region of an image is.
        scene_provider (`str`, *optional*):
            The same for the scene. `None`: the scene is read from the tokens of the visual provider.
        max_regions (`int`, defaults to 36):
            Objects kept of a detector.
        cnn_channels (`list[int]`, defaults to 64, 128, 256):
            Channels of the plain ConvNet.
        vision_pooling (`str`, defaults to `"cls"`):
            `"cls"` or `"mean"`: the global vector of `"vit_patches"`.
        pixel_mean, pixel_std (`list[float]`, default 0.5 each):
            Statistics with which the processor normalised `pixel_values`.
        dropout (`float`, defaults to 0.1), rationale_dropout (`float`, defaults to 0.0):
            Dropout in the system's own layers; probability that a training post loses its rationales.
        freeze_text_layers, freeze_vision_layers (`int`, default 0):
            Freeze the embeddings and the first k layers; -1 freezes all of the encoder.
        freeze_cnn (`bool`, defaults to `False`), freeze_batch_norm (`bool`, defaults to `True`):
            Freeze the CNN; keep the running statistics of batch normalisation.
        class_weights (`list[float]`, *optional*), label_smoothing (`float`, defaults to 0.0):
            Of the cross-entropy.
        kwargs:
            `id2label`, `label2id`, `num_labels` and what [`PreTrainedConfig`] takes.

    Raises:
        ValueError: where a value is outside what is documented above; the message says what to write instead.
    """

    # What a system sets: its name in tables and cards, where it is from, and what of a post `pool` gets.
    title = "Baseline"
    source = ""
    reads = ("text", "image")  # of "text", "image", "scene"

    sub_configs = {name: AutoConfig for name in ("text_config", "vision_config", "cnn_config", "scene_config")}
    keys_to_ignore_at_inference = ignored_at_inference(BaselineOutput)
    counts = (*SentimentConfig.counts, "max_regions")
    switches = (*SentimentConfig.switches, "use_rationales")
    without_rationales = "write use_rationales=False"

    def __init__(
        self,
        text_config: dict[str, Any] | PreTrainedConfig | None = None,
        vision_config: dict[str, Any] | PreTrainedConfig | None = None,
        cnn_config: dict[str, Any] | PreTrainedConfig | None = None,
        scene_config: dict[str, Any] | PreTrainedConfig | None = None,
        hidden_size: int = 768,
        perspectives: list[str] | tuple[str, ...] = SENTIMENTS,
        use_rationales: bool = False,
        share_text_encoder: bool = True,
        text_provider: str = "encoder",
        visual_provider: str = "vit_patches",
        scene_provider: str | None = None,
        max_regions: int = 36,
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
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.perspectives = as_list("perspectives", perspectives)
        self.use_rationales = use_rationales
        self.share_text_encoder = share_text_encoder
        self.text_provider = text_provider
        self.visual_provider = visual_provider
        self.scene_provider = scene_provider
        self.max_regions = max_regions
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
        given = {"text_config": text_config, "vision_config": vision_config}
        given |= {"cnn_config": cnn_config, "scene_config": scene_config}
        defaults = {"text_config": "bert", "vision_config": "vit", "scene_config": "vit"}
        read = self.encoder_classes()
        for name, value in given.items():
            config = sub_config(name, value, defaults.get(name)) if name in read else None
            setattr(self, name, config if name == "text_config" else getattr(config, "vision_config", config))
        super().__init__(**kwargs)

    @property
    def modalities(self) -> list[str]:
        """Which of text, image and rationales the network reads."""
        return [name for name in self.reads if name in MODALITIES] + ["rationales"] * bool(self.use_rationales)

    @property
    def providers(self) -> dict[str, str]:
        chosen = {"text": self.text_provider, "image": self.visual_provider}
        chosen["scene"] = self.scene_provider or self.visual_provider
        return {name: chosen[name] for name in self.reads}

    @property
    def weights_returned(self) -> list[str]:
        return ["perspective_weights"] if self.use_rationales else []

    def encoder_classes(self) -> dict[str, type]:
        """The encoders that the network has, by their field here, each with the Auto class that opens it."""
        classes = {}
        if "text" in self.reads or self.use_rationales:
            classes["text_config"] = AutoModel
        if "image" in self.reads:
            field = "cnn_config" if self.visual_provider == "cnn_grid" else "vision_config"
            classes[field] = AUTO_CLASSES.get(self.visual_provider, AutoModel)
        if "scene" in self.reads and self.scene_provider is not None:
            classes["scene_config"] = AUTO_CLASSES.get(self.scene_provider, AutoModel)
        return classes

    def own_auto_map(self) -> dict[str, str]:
        """Of a system in one file, whose classes are called XSentimentConfig and XForSentimentClassification."""
        file, name = type(self).__module__.split(".")[-1], type(self).__name__
        model = f"{file}.{name.removesuffix('SentimentConfig')}ForSentimentClassification"
        return {"AutoConfig": f"{file}.{name}", "AutoModel": model, "AutoModelForSequenceClassification": model}

    def check(self) -> None:
        super().check()
        check_choice("text_provider", self.text_provider, TEXT_PROVIDERS)
        check_choice("visual_provider", self.visual_provider, VISUAL_PROVIDERS)
        if self.scene_provider is not None:
            if "scene" not in self.reads:
                raise ValueError(
                    f"scene_provider={self.scene_provider!r}: {self.title} reads no scene. Leave it out, or write "
                    "visual_provider."
                )
            check_choice("scene_provider", self.scene_provider, VISUAL_PROVIDERS)
        if self.hidden_size < 1 or self.max_regions < 1:
            raise ValueError(
                f"hidden_size={self.hidden_size}, max_regions={self.max_regions}: write positive numbers, e.g. 768 "
                "and 36."
            )
        for name in self.numbers:
            if name.startswith("loss_weight_") and getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: write a weight from 0, which switches that loss off.")
