"""What a training run is made of: the arguments of `train.py`, from a YAML recipe and the command line."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser

from modeling_mpt import SYSTEMS
from modeling_mpt.trainer_mpt import MPTTrainingArguments

RECIPES = Path(__file__).parent / "recipes"


@dataclasses.dataclass
class ModelArguments:
    """The system, its encoders, and the fields of its configuration that experiments vary; those left at None keep the
    configuration's default."""

    model: str = dataclasses.field(default="mpt", metadata={"help": f"The system: {', '.join(SYSTEMS)}."})
    model_options: str | None = dataclasses.field(
        default=None,
        metadata={"help": "Fields of that system alone (JSON), e.g. '{\"num_filters\": 50}'; see its configuration."},
    )
    text_model_name_or_path: str | None = dataclasses.field(
        default=None, metadata={"help": "Hub id or folder of the pretrained text encoder and its tokenizer."}
    )
    text_config: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "Instead: a configuration with its model_type (JSON) of a text encoder that starts at random. "
            "Without --tokenizer_name_or_path, a WordPiece vocabulary of its vocab_size is learnt on the train posts."
        },
    )
    tokenizer_name_or_path: str | None = dataclasses.field(
        default=None, metadata={"help": "Tokenizer, where it is not the text encoder's own."}
    )
    vision_model_name_or_path: str | None = dataclasses.field(
        default=None, metadata={"help": "Hub id or folder of the pretrained vision encoder and its image processor."}
    )
    vision_config: str | None = dataclasses.field(
        default=None, metadata={"help": "Instead: a configuration (JSON) of one that starts at random."}
    )
    cnn_model_name_or_path: str | None = dataclasses.field(
        default=None, metadata={"help": "Hub id or folder of a timm CNN, e.g. timm/resnet50.a1_in1k."}
    )
    cnn_config: str | None = dataclasses.field(
        default=None,
        metadata={"help": "Instead: its timm_wrapper configuration (JSON); with neither, the plain ConvNet."},
    )
    scene_model_name_or_path: str | None = dataclasses.field(
        default=None, metadata={"help": "Hub id or folder of the scene provider's network, in systems that have one."}
    )
    hidden_size: int | None = None
    modalities: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Of text, image, rationales: what the network reads."}
    )
    use_rationales: bool | None = dataclasses.field(
        default=None, metadata={"help": "Join the rationales to a baseline (MPT reads them by --modalities)."}
    )
    text_provider: str | None = dataclasses.field(
        default=None, metadata={"help": "What a baseline reads of a text: encoder or embeddings."}
    )
    visual_provider: str | None = dataclasses.field(
        default=None, metadata={"help": "What a baseline reads of an image: vit_patches, cnn_grid, detector, places."}
    )
    scene_provider: str | None = dataclasses.field(
        default=None, metadata={"help": "The same for the scene, in baselines that read one apart from the image."}
    )
    text_branches: list[str] | None = dataclasses.field(default=None, metadata={"help": "Of sknet, lstm."})
    image_branches: list[str] | None = dataclasses.field(default=None, metadata={"help": "Of cnn, vit."})
    share_text_encoder: bool | None = None
    vision_pooling: str | None = dataclasses.field(default=None, metadata={"help": "cls or mean."})
    dropout: float | None = None
    rationale_dropout: float | None = None
    freeze_text_layers: int | None = None
    freeze_vision_layers: int | None = None
    freeze_cnn: bool | None = None
    freeze_batch_norm: bool | None = None
    loss_weight_ce: float | None = dataclasses.field(default=None, metadata={"help": "λ1 of Eq. 7."})
    loss_weight_mlcl: float | None = dataclasses.field(default=None, metadata={"help": "λ2 of Eq. 7; 0: no MLCL."})
    contrastive_view: str | None = dataclasses.field(default=None, metadata={"help": "cross_modal or fused."})
    contrastive_temperature: float | None = None
    class_weights: str | None = dataclasses.field(
        default=None, metadata={"help": "'balanced' (inverse frequency in train) or a JSON list, one per label."}
    )
    label_smoothing: float | None = None

    def __post_init__(self) -> None:
        for name in ("text_config", "vision_config", "cnn_config", "model_options"):
            setattr(self, name, _from_json(name, getattr(self, name)))
        if self.class_weights != "balanced":
            self.class_weights = _from_json("class_weights", self.class_weights)
        for part in ("text", "vision", "cnn"):
            if getattr(self, f"{part}_model_name_or_path") and getattr(self, f"{part}_config"):
                raise ValueError(f"Give --{part}_model_name_or_path or --{part}_config, not both.")
        if self.model not in SYSTEMS:
            close = difflib.get_close_matches(self.model, SYSTEMS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"--model {self.model}: there is no such system; write one of {list(SYSTEMS)}.{hint}")
        known = self.config_class.field_names()
        if self.scene_model_name_or_path and "scene" not in getattr(self.config_class, "reads", ()):
            raise ValueError(f"scene_model_name_or_path: the system {self.model!r} reads no scene. Leave it out.")
        if self.scene_model_name_or_path and not self.scene_provider:
            raise ValueError(
                "scene_model_name_or_path is read by a provider: write --scene_provider too, e.g. places."
            )
        for name in self.config_fields():
            if name not in known:
                hints = {
                    "modalities": " Write --use_rationales true to add rationales to what it reads.",
                    "use_rationales": " Write --modalities to say what it reads.",
                }
                raise ValueError(
                    f"{name}: the system {self.model!r} has no such field. It has {', '.join(known)}."
                    + hints.get(name, "")
                )

    @property
    def config_class(self) -> type:
        return SYSTEMS[self.model][0]

    def config_fields(self) -> dict[str, Any]:
        """The fields of the system's configuration that were set."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.name.endswith(("_name_or_path", "_config")) and not field.name.startswith("model")
        }
        return {name: value for name, value in fields.items() if value is not None} | (self.model_options or {})


@dataclasses.dataclass
class DataArguments:
    """Posts, rationales and split."""

    dataset: str = dataclasses.field(
        default="sample",
        metadata={"help": "sample, mvsa_single, mvsa_multiple, memotion, ch_mits, authors, folder, or one published."},
    )
    data_dir: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the original download."})
    rationales: str | None = dataclasses.field(
        default=None, metadata={"help": "Rationales, joined by id: a TSV, CSV, JSONL or Parquet file, or a store."}
    )
    dataset_options: str | None = dataclasses.field(
        default=None, metadata={"help": "Options of the dataset's loader (JSON), e.g. '{\"num_posts\": 200}'."}
    )
    on_error: str = dataclasses.field(
        default="raise", metadata={"help": "raise: stop at the first faulty post; skip: leave it out, counted."}
    )
    split: str = dataclasses.field(
        default="grouped", metadata={"help": "Protocol of the split: grouped, paper, clmlf, folds, consistent."}
    )
    split_seed: int = 42
    split_options: str | None = dataclasses.field(
        default=None, metadata={"help": "Options of the protocol (JSON), e.g. '{\"fold\": 3}'."}
    )
    max_length: int = dataclasses.field(default=320, metadata={"help": "Tokens to which a text is cut, counted."})
    rationale_max_length: int = 320

    def __post_init__(self) -> None:
        for name in ("dataset_options", "split_options"):
            setattr(self, name, _from_json(name, getattr(self, name)) or {})


@dataclasses.dataclass
class RunArguments:
    """How often, and what happens to an earlier run."""

    seeds: list[int] | None = dataclasses.field(
        default=None, metadata={"help": "Repeat with these seeds, each in OUTPUT_DIR/seed-N, and aggregate."}
    )
    overwrite: bool = dataclasses.field(
        default=False, metadata={"help": "Start again in an output_dir that holds a run, instead of going on with it."}
    )

    def __post_init__(self) -> None:
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds {self.seeds}: write each seed once.")


def parse(
    argv: list[str], base: Path | None = None
) -> tuple[ModelArguments, DataArguments, RunArguments, MPTTrainingArguments]:
    """`[recipe.yaml] [--name value …]` to arguments; the command line wins over the recipe, and that over the recipe
    `base`.

    Raises:
        ValueError: for a recipe that does not exist or that sets an unknown argument.
    """
    parser = HfArgumentParser((ModelArguments, DataArguments, RunArguments, MPTTrainingArguments), allow_abbrev=False)
    parser.error = _raise  # argparse would print the usage of some 150 arguments before the one line that matters
    path = RECIPES / "sample.yaml"
    if argv and not argv[0].startswith("-"):
        path, argv = Path(argv[0]), argv[1:]
    if not path.is_file() and (RECIPES / f"{path}.yaml").is_file():
        path = RECIPES / f"{path}.yaml"
    if not path.is_file():
        names = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
        raise ValueError(f"There is no recipe {str(path)!r}; write the path of a YAML file or one of {names}.")
    if not {"-h", "--help"} & set(argv):
        given = {argument[2:].partition("=")[0]: argument for argument in argv if argument.startswith("--")}
        defaults: dict[str, Any] = {}
        for layer in (*(_read(recipe, parser) for recipe in (base, path) if recipe is not None), given):
            for part in ("text", "vision", "cnn", "scene"):  # an encoder that is named takes the place of another's
                names = (f"{part}_model_name_or_path", f"{part}_config")
                if any(layer.get(name) is not None for name in names):
                    defaults = {name: value for name, value in defaults.items() if name not in names}
            if layer is not given:
                defaults |= layer
        parser.set_defaults(**defaults)
    arguments = vars(parser.parse_args(argv))
    if arguments["seeds"]:
        arguments["seed"] = arguments["seeds"][0]
    return parser.parse_dict(arguments)


def _read(path: Path, parser: HfArgumentParser) -> dict[str, Any]:
    """The arguments that a recipe sets."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    known = {action.dest: action for action in parser._actions}
    for name in recipe:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{path}: train.py has no argument {name!r}.{hint}")
    return {name: _as_text(value) for name, value in recipe.items()}


def _raise(message: str) -> NoReturn:
    raise ValueError(f"{message}. --help lists every argument.")


def _as_text(value: Any) -> Any:
    """YAML reads 1e-5 as a string, which argparse turns into the argument's type; a mapping goes the way of JSON."""
    return json.dumps(value) if isinstance(value, dict) else value


def _from_json(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} {value!r} is not JSON ({error}); write e.g. '{{\"key\": 1}}'.") from None
