"""Arguments of training: the system and its encoders, LoRA, and the runs."""

import dataclasses
import re
from typing import Any

from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
from mpt_sentiment.arguments import JSON, JSONOrWord, argument
from processing_mpt.texts_mpt import TEXT_PREPROCESSING


@dataclasses.dataclass
class ModelArguments:
    """The system, its encoders, and the fields of its configuration that experiments vary.

    A field that is left at `None` keeps the default of the configuration.

    Raises:
        ValueError: unknown system, a field that the system lacks, or two sources of one encoder.
    """

    model: str = argument(f"System: {', '.join(SYSTEMS)}.", "mpt")
    model_options: JSON | None = argument(
        "Further fields of the system's configuration (JSON), e.g. '{\"num_filters\": 50}'."
    )
    text_model_name_or_path: str | None = argument("Hub id or folder of the pretrained text encoder.")
    text_config: JSON | None = argument(
        "Configuration with its model_type (JSON) of a text encoder that starts at random. Without "
        "--tokenizer_name_or_path, a WordPiece vocabulary of its vocab_size is learned on the train posts."
    )
    tokenizer_name_or_path: str | None = argument("Tokenizer, if it is not the text encoder's own.")
    vision_model_name_or_path: str | None = argument("Hub id or folder of the pretrained vision encoder.")
    vision_config: JSON | None = argument("Configuration (JSON) of a vision encoder that starts at random.")
    cnn_model_name_or_path: str | None = argument("Hub id or folder of a timm CNN, e.g. timm/resnet50.a1_in1k.")
    cnn_config: JSON | None = argument("Its timm_wrapper configuration (JSON); with neither, the plain ConvNet.")
    scene_model_name_or_path: str | None = argument("Hub id or folder of the network that classifies scenes.")
    max_length: int = argument("Tokens to which a text is cut, counted.", 320)
    rationale_max_length: int = argument("Tokens to which a rationale is cut, counted.", 320)
    text_preprocessing: str = argument("none, or tweet: HTML entities resolved, users and links masked.", "none")
    hidden_size: int | None = argument("Size of each modality's vector.")
    modalities: list[str] | None = argument("Modalities that MPT reads: text, image, rationales.")
    use_rationales: bool | None = argument("Add the rationales to a baseline (MPT: see --modalities).")
    text_provider: str | None = argument("Text features of a baseline: encoder or embeddings.")
    text_pooling: str | None = argument("Vector of a text in a baseline: cls or mean; by default the encoder's own.")
    visual_provider: str | None = argument("Visual features: vit_patches, cnn_grid, detector, places.")
    scene_provider: str | None = argument("Scene features, in baselines that read scenes.")
    text_branches: list[str] | None = argument("Of sknet, lstm, mean.")
    fusion: str | None = argument("laff, literal or concat.")
    word_size: int | None = argument("Size of MPT's own word embeddings; 0: none.")
    normalize_features: bool | None = argument("Whether to scale vectors of encoders that are read as a whole.")
    image_branches: list[str] | None = argument("Of cnn, vit.")
    share_text_encoder: bool | None = argument("Whether text and rationales share one encoder.")
    vision_pooling: str | None = argument("Pooling of the vision encoder: cls or mean.")
    dropout: float | None = argument("Dropout before fusion and in the classifier.")
    rationale_dropout: float | None = argument("Probability that a training post loses its rationales.")
    freeze_text_layers: int | None = argument("Frozen layers of the text encoder; -1: all.")
    freeze_vision_layers: int | None = argument("Frozen layers of the vision encoder; -1: all.")
    freeze_cnn: bool | None = argument("Whether to freeze the CNN.")
    freeze_batch_norm: bool | None = argument("Whether to keep the CNN's running statistics.")
    loss_weight_ce: float | None = argument("λ1 of Eq. 7.")
    loss_weight_mlcl: float | None = argument("λ2 of Eq. 7; 0: no MLCL.")
    contrastive_view: str | None = argument("cross_modal or fused.")
    contrastive_temperature: float | None = argument("Temperature of the contrastive loss.")
    class_weights: JSONOrWord | None = argument(
        "balanced (inverse frequency in train), a power of it from 0 to 1, or a JSON list, one per label."
    )
    label_smoothing: float | None = argument("Label smoothing of the cross-entropy.")

    def __post_init__(self) -> None:
        for part in ("text", "vision", "cnn"):
            if getattr(self, f"{part}_model_name_or_path") and getattr(self, f"{part}_config"):
                raise ValueError(f"Give --{part}_model_name_or_path or --{part}_config, not both.")
            config = getattr(self, f"{part}_config")
            if config is not None and "model_type" not in config:
                raise ValueError(f'--{part}_config needs a \'model_type\' such as "bert" or "vit", got {config}.')
        if self.model not in SYSTEMS:
            raise ValueError(
                f"--model {self.model}: unknown system; use one of {', '.join(SYSTEMS)}."
                + did_you_mean(self.model, SYSTEMS)
            )
        if self.text_preprocessing not in list(TEXT_PREPROCESSING):
            raise ValueError(
                f"text_preprocessing: must be one of {', '.join(TEXT_PREPROCESSING)}, got {self.text_preprocessing!r}."
            )
        if self.scene_model_name_or_path and "scene" not in getattr(self.config_class, "reads", ()):
            raise ValueError(f"--scene_model_name_or_path: the system {self.model!r} reads no scene. Leave it out.")
        if self.scene_model_name_or_path and not self.scene_provider:
            raise ValueError("--scene_model_name_or_path needs --scene_provider, e.g. places.")
        known = self.config_class.field_names()
        for name in self.config_fields():
            if name not in known:
                hints = {
                    "modalities": " Use --use_rationales true to add rationales to a baseline.",
                    "use_rationales": " Use --modalities to choose what MPT reads.",
                }
                raise ValueError(
                    f"{name}: the system {self.model!r} has no such field. Its fields are {', '.join(known)}."
                    + hints.get(name, did_you_mean(name, known))
                )

    @property
    def config_class(self) -> type:
        return SYSTEMS[self.model][0]

    def config_fields(self) -> dict[str, Any]:
        """Collect the fields of the system's configuration that were set."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.name.endswith(("_name_or_path", "_config", "max_length", "text_preprocessing"))
            and field.name[:5] != "model"
        }
        return {name: value for name, value in fields.items() if value is not None} | (self.model_options or {})


@dataclasses.dataclass
class LoraArguments:
    """LoRA adapters on the encoders, with the new layers trained in full (Hu et al., *LoRA*)."""

    lora: bool = argument("Adapt the encoders with LoRA; their own weights stay frozen.", False)
    lora_r: int = argument("Rank of the adapters.", 8)
    lora_alpha: int = argument("Scale of the adapters, divided by the rank.", 16)
    lora_dropout: float = argument("Dropout on the input of the adapters.", 0.05)
    lora_target_modules: str | None = argument("Regular expression of module names; by default query and value.")
    lora_merge: bool = argument(
        "Merge the adapters into the encoders that are saved. false: save the adapters and new layers alone.", True
    )

    def __post_init__(self) -> None:
        if self.lora_r < 1:
            raise ValueError(f"`lora_r` must be at least 1, got {self.lora_r}.")
        if self.lora_target_modules:
            try:
                re.compile(self.lora_target_modules)
            except re.error as error:
                raise ValueError(f"`lora_target_modules` is not a regular expression: {error}.") from None


@dataclasses.dataclass
class RunArguments:
    """Number of runs, and the treatment of an earlier run in the same folder."""

    seeds: list[int] | None = argument("Repeat with these seeds, each in OUTPUT_DIR/seed-N, and aggregate.")
    overwrite: bool = argument("Start again in an output_dir that holds a run, instead of resuming it.", False)
    jobs: int = argument("Processes that train folds, rows and seeds side by side; they share the cores.", 1)
    keep_models: bool = argument(
        "Also save model, card and figures of every run of a comparison or cross-validation.", False
    )

    def __post_init__(self) -> None:
        if self.seeds is not None and len(set(self.seeds)) != max(len(self.seeds), 1):
            raise ValueError(f"--seeds must be at least one, all distinct, got {self.seeds}.")
        if self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {self.jobs}.")
