"""Recipes: YAML files of training arguments, combined with fields of a user."""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
from modeling_mpt.trainer_mpt import MPTTrainingArguments
from mpt_sentiment.arguments import DataArguments, make_parser
from mpt_sentiment.evaluation.scores import SCORES
from mpt_sentiment.training_arguments import LoraArguments, ModelArguments, RunArguments

_POSITIVE = (
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
)
# Endings of the model's arguments that name its encoders and prepare its texts.
COMMON_ENDINGS = ("_name_or_path", "_config", "max_length", "text_preprocessing")
RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "sample"
TRAINING_CLASSES = (ModelArguments, DataArguments, LoraArguments, RunArguments, MPTTrainingArguments)
_DESCRIPTION = "Train a sentiment classifier of image+text posts. [RECIPE] is a YAML file or the name of a recipe: {}."


@dataclasses.dataclass
class TrainingSetup:
    """All arguments of a training run."""

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    run: RunArguments
    training: MPTTrainingArguments


def recipe_names() -> list[str]:
    """List the recipes of the package by the names that commands accept, e.g. `baselines/bert`."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def recipe_path(recipe: str | Path) -> Path:
    """Find a recipe by path or by the name of one of the package.

    Raises:
        ValueError: no such recipe.
    """
    for path in (Path(recipe), RECIPES / f"{recipe}.yaml"):
        if path.is_file():
            return path
    names = recipe_names()
    own = [name for name in names if not name.startswith("baselines/")]
    raise ValueError(
        f"Recipe {str(recipe)!r} does not exist.{did_you_mean(str(recipe), names)} Give the path of a YAML file, or "
        f"one of {', '.join(own)}, baselines/SYSTEM."
    )


def system_recipe(system: str, dataset: str = "") -> str:
    """Name the recipe of a system: its own, or for MPT that of the dataset."""
    names = recipe_names()
    own = dataset if system == "mpt" else f"baselines/{system}"
    return own if own in names else "mvsa_single"


def parse_training(argv: Sequence[str]) -> TrainingSetup:
    """Parse `[RECIPE] [--name value …]`; what is named overrides the recipe.

    Raises:
        ValueError: a recipe that does not exist, or an unknown or unusable argument.
    """
    parser = make_parser(TRAINING_CLASSES, "train", _DESCRIPTION.format(", ".join(recipe_names())))
    return build_setup(parser, merge_layers(command_layers(argv, parser)))


def command_layers(argv: Sequence[str], parser: HfArgumentParser) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse `[RECIPE] [--name value …]` into arguments of the recipe and named ones.

    Raises:
        ValueError: a recipe that does not exist, or an unknown or unusable argument.
    """
    recipe: str | Path = DEFAULT_RECIPE
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        recipe, *argv = argv
    layer = read_recipe(recipe, parser)
    values = vars(parser.parse_args(argv))
    options = (word.partition("=")[0] for word in argv)
    actions = (parser._option_string_actions[option] for option in options if option in parser._option_string_actions)
    return layer, {action.dest: values[action.dest] for action in actions}


def training_setup(recipes: Sequence[str | Path | Mapping[str, Any]], fields: Mapping[str, Any]) -> TrainingSetup:
    """Combine recipes, later ones overriding earlier ones, with fields given in Python.

    Args:
        recipes (sequence): names, paths, or arguments that were read from a run.
        fields (mapping): any field of the argument classes, or of the configuration of the system.

    Raises:
        ValueError: a recipe that does not exist, or an unknown or unusable field.
    """
    parser = make_parser(TRAINING_CLASSES, "train")
    layers = [dict(each) if isinstance(each, Mapping) else read_recipe(each, parser) for each in recipes]
    known = {action.dest for action in parser._actions}
    system = fields.get("model") or next((layer["model"] for layer in reversed(layers) if "model" in layer), "mpt")
    config_fields = SYSTEMS[system][0].field_names() if system in SYSTEMS else []
    options = {name: value for name, value in fields.items() if name not in known and name in config_fields}
    own = {name: value for name, value in fields.items() if name not in options}
    for name in own:
        if name not in known:
            raise ValueError(f"Unknown field {name!r}.{did_you_mean(name, [*known, *config_fields])}")
    check_values(parser, own, "")
    merged = merge_layers([*layers, own])
    if options:
        merged["model_options"] = (merged.get("model_options") or {}) | options
    return build_setup(parser, merged)


def kept_in_comparison(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Select what a comparison keeps of a system's recipe: structure, sizes, losses, dropout.

    The recipe of the comparison sets all others for every system alike, or leaves them at their defaults: posts,
    lengths, encoders, frozen layers, epochs, batch, optimizer, schedule, clipping, and the choice of the best epoch.
    """
    own = {field.name for field in dataclasses.fields(ModelArguments)}
    kept = {name: value for name, value in recipe.items() if name in own and not name.endswith(COMMON_ENDINGS)}
    return {name: value for name, value in kept.items() if not name.startswith("freeze_")}


def merge_layers(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge layers of arguments; naming an encoder replaces that of earlier layers."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for part in ("text", "vision", "cnn", "scene"):
            sources = (f"{part}_model_name_or_path", f"{part}_config")
            if any(layer.get(name) is not None for name in sources):
                merged = {name: value for name, value in merged.items() if name not in sources}
        merged.update(layer)
    return merged


def build_setup(parser: HfArgumentParser, values: Mapping[str, Any]) -> TrainingSetup:
    """Build the arguments of a run; those without a value have their defaults.

    Raises:
        ValueError: an unusable value.
    """
    parser.set_defaults(**values)
    arguments = vars(parser.parse_args([]))
    if arguments["seeds"]:
        arguments["seed"] = arguments["seeds"][0]
    setup = TrainingSetup(*parser.parse_dict(arguments))
    for name in _POSITIVE:
        value = getattr(setup.training, name)
        if not 0 < value < math.inf:
            raise ValueError(f"`{name}` must be positive, got {value}.")
    if setup.training.remove_unused_columns:
        raise ValueError("`remove_unused_columns` must stay false: the columns of the posts are read in each batch.")
    metric = (setup.training.metric_for_best_model or "loss").removeprefix("eval_")
    if metric not in (*SCORES, "loss"):
        raise ValueError(f"`metric_for_best_model` must be one of {', '.join(SCORES)}, loss, got {metric!r}.")
    return setup


def read_recipe(recipe: str | Path, parser: HfArgumentParser) -> dict[str, Any]:
    """Read a recipe by name or path.

    Raises:
        ValueError: no such recipe, or one with an unknown argument or an unusable value.
    """
    path = recipe_path(recipe)
    try:
        layer = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:
        place = error.context_mark or error.problem_mark  # where the faulty part begins
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise ValueError(f"{path}, line {place.line + 1}, is not YAML: {problem}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML in UTF-8: {' '.join(str(error).split())}") from None
    if not isinstance(layer, dict):
        raise ValueError(f"{path} must map names of arguments to values, got a {type(layer).__name__}.")
    known = [action.dest for action in parser._actions]
    for name in layer:
        if name not in known:
            raise ValueError(f"{path}: unknown argument {name!r}.{did_you_mean(str(name), known)}")
    check_values(parser, layer, f"{path}: ")
    return layer


def check_values(parser: HfArgumentParser, values: Mapping[str, Any], source: str) -> None:
    """Check numbers, booleans and lists of recipes and keywords, which argparse does not read.

    Raises:
        ValueError: a value of another type; the message begins with `source`.
    """
    for action in parser._actions:
        if action.dest not in values or action.type not in (int, float, string_to_bool):
            continue
        value = values[action.dest]
        several = action.nargs in ("+", "*")
        if value is None and action.default is None:
            continue
        kind = {int: "a whole number", float: "a number", string_to_bool: "true or false"}[action.type]
        if isinstance(value, list | tuple) != several or not all(
            _has_type(one, action.type) for one in (value if several else [value])
        ):
            raise ValueError(
                f"{source}`{action.dest}` must be {'a list, each ' if several else ''}{kind}, got {value!r}."
            )


def _has_type(value: Any, kind: Any) -> bool:
    if kind is string_to_bool or isinstance(value, str):  # YAML reads 1e-5 as a string
        try:
            kind(value)
        except (ValueError, TypeError, argparse.ArgumentTypeError):
            return False
        return isinstance(value, bool | str) or kind is not string_to_bool
    return isinstance(value, kind if kind is int else (int, float)) and not isinstance(value, bool)
