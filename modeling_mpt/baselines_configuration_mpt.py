"""Base configuration and output of the baselines."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    PreTrainedConfig,
)

from .configuration_base_mpt import MODALITIES, SentimentConfig, check_choice
from .pretrained_mpt import MPTOutput, ignored_at_inference

TEXT_PROVIDERS = ("encoder", "embeddings")
TEXT_POOLINGS = ("cls", "mean")
VISUAL_PROVIDERS = ("vit_patches", "cnn_grid", "detector", "places")
AUTO_CLASSES = {"detector": AutoModelForObjectDetection, "places": AutoModelForImageClassification}


@dataclass
class BaselineOutput(MPTOutput):
    """Output of the baselines.

    Fields of [`MPTOutput`] that a system does not compute are `None`.

    Args:
        system_weights (`torch.Tensor` of shape `(batch, 2)`): with `use_rationales`, weights of the system's vector
            and of the rationale vector in `fused_embeds`.
    """

    system_weights: torch.Tensor | None = None


class BaselineConfig(SentimentConfig):
    r"""Base configuration of the baselines.

    A subclass needs its own `__init__`: transformers generates one otherwise.

    Args:
        scene_config (`dict` or [`PreTrainedConfig`], *optional*):
            Network of the scene provider, in systems that read scenes.
        use_rationales (`bool`, defaults to `False`):
            Whether to encode the rationales and fuse their vector with the system's by LAFF before the classifier.
        text_provider (`str`, defaults to `"encoder"`):
            `"encoder"` reads the states of the text encoder, `"embeddings"` only its word embeddings.
        text_pooling (`str`, defaults to `"cls"`):
            Vector of a text, in systems that read one: its first state, or with `"mean"` the mean of its states.
            `from_backbones` takes the pooling of an encoder that sentence-transformers saved.
        visual_provider (`str`, defaults to `"vit_patches"`):
            Regions of an image: `"vit_patches"`, `"cnn_grid"`, `"detector"` or `"places"`. The last two take an object
            detector and an image classifier as `vision_config`; `"cnn_grid"` takes `cnn_config`.
        scene_provider (`str`, *optional*):
            The same for the scene. `None` reads the scene from the tokens of the visual provider.
        max_regions (`int`, defaults to 36):
            Maximum number of objects of a detector.
        kwargs:
            Fields of [`SentimentConfig`], e.g. `text_config`, `hidden_size`, `perspectives`, `dropout`, `id2label`.

    Raises:
        ValueError: For a misspelt field, or a value outside the documented range.
    """

    title = "Baseline"
    # Arguments of the model's `pool`: "text", "image", "scene".
    reads = ("text", "image")
    # Providers that the system works with.
    text_providers = TEXT_PROVIDERS
    visual_providers = VISUAL_PROVIDERS

    sub_configs = {name: AutoConfig for name in ("text_config", "vision_config", "cnn_config", "scene_config")}
    keys_to_ignore_at_inference = ignored_at_inference(BaselineOutput)
    counts = (*SentimentConfig.counts, "max_regions")
    # Lower bounds of the fields in `counts`, if not 1.
    minima = {"freeze_text_layers": -1, "freeze_vision_layers": -1}
    switches = (*SentimentConfig.switches, "use_rationales")
    without_rationales = "set `use_rationales=False`"

    def __init__(
        self,
        scene_config: dict[str, Any] | PreTrainedConfig | None = None,
        use_rationales: bool = False,
        text_provider: str = "encoder",
        text_pooling: str = "cls",
        visual_provider: str = "vit_patches",
        scene_provider: str | None = None,
        max_regions: int = 36,
        **kwargs: Any,
    ) -> None:
        self.use_rationales = use_rationales
        self.text_provider = text_provider
        self.text_pooling = text_pooling
        self.visual_provider = visual_provider
        self.scene_provider = scene_provider
        self.max_regions = max_regions
        self.scene_config = self.encoder_config("scene_config", scene_config)
        super().__init__(**kwargs)

    @property
    def modalities(self) -> list[str]:
        """List the modalities that the network reads."""
        return [name for name in self.reads if name in MODALITIES] + ["rationales"] * bool(self.use_rationales)

    @property
    def providers(self) -> dict[str, str]:
        scene = self.scene_provider or self.visual_provider
        chosen = {"text": self.text_provider, "image": self.visual_provider, "scene": scene}
        return {name: chosen[name] for name in self.reads}

    @property
    def weights_returned(self) -> list[str]:
        return ["perspective_weights"] if self.use_rationales else []

    def encoder_classes(self) -> dict[str, type]:
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
        """Map each Auto class to its class in the file of the system.

        The classes are called XSentimentConfig and XForSentimentClassification.
        """
        file, name = type(self).__module__.split(".")[-1], type(self).__name__
        model = f"{file}.{name.removesuffix('SentimentConfig')}ForSentimentClassification"
        return {"AutoConfig": f"{file}.{name}", "AutoModel": model, "AutoModelForSequenceClassification": model}

    def check(self) -> None:
        super().check()
        for name in self.counts:
            minimum = self.minima.get(name, 1)
            if getattr(self, name) < minimum:
                raise ValueError(f"`{name}` must be at least {minimum}, got {getattr(self, name)}.")
        for name in self.numbers:
            if name.startswith("loss_weight_") and getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must be at least 0, which switches the loss off, got {getattr(self, name)}."
                )
            if name.endswith("_temperature") and getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        check_choice("text_provider", self.text_provider, self.text_providers)
        check_choice("text_pooling", self.text_pooling, TEXT_POOLINGS)
        check_choice("visual_provider", self.visual_provider, self.visual_providers)
        if self.scene_provider is not None:
            if "scene" not in self.reads:
                raise ValueError(
                    f"`scene_provider` must be unset for {self.title}, which reads no scene, got "
                    f"{self.scene_provider!r}."
                )
            check_choice("scene_provider", self.scene_provider, VISUAL_PROVIDERS)


def check_even_hidden_size(config: BaselineConfig) -> None:
    """Raise a `ValueError` unless both directions of an LSTM can have half of `hidden_size`."""
    if config.hidden_size % 2:
        raise ValueError(f"`hidden_size` must be even, got {config.hidden_size}.")
