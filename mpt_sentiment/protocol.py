"""Protocol of a comparison: arguments that all systems have alike."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
from mpt_sentiment.arguments import make_parser
from mpt_sentiment.recipe import (
    COMMON_ENDINGS,
    DEFAULT_RECIPE,
    TRAINING_CLASSES,
    TrainingSetup,
    build_setup,
    check_values,
    command_layers,
    kept_in_comparison,
    merge_layers,
    read_recipe,
    system_recipe,
)
from mpt_sentiment.training_arguments import ModelArguments

COMPARISON_RECIPE = "comparison"
# Arguments that are no fields of a configuration: encoders, texts, posts, runs, training.
_OF_ANY_SYSTEM = frozenset(
    field.name
    for each in TRAINING_CLASSES
    for field in dataclasses.fields(each)
    if each is not ModelArguments or field.name.endswith(COMMON_ENDINGS) or field.name == "model"
)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Arguments that all systems of a comparison or search have alike.

    A system's own recipe gives its structure, sizes, losses and dropout, the protocol all else. A field that a system
    lacks is left out for it, e.g. `visual_provider` for MPT.

    Attributes:
        recipe (`dict`): arguments of the recipe.
        fields (`dict`): arguments and fields of configurations that the user gave; they override the recipe.
    """

    recipe: dict[str, Any]
    fields: dict[str, Any]

    @classmethod
    def of_command(cls, argv: Sequence[str], command: str) -> "Protocol":
        """Parse `[RECIPE] [--name value …]`.

        Raises:
            ValueError: a recipe that does not exist, or an unknown or unusable argument.
        """
        return cls(*command_layers(argv, make_parser(TRAINING_CLASSES, command)))

    @classmethod
    def of_fields(cls, recipe: str | Path | None, dataset: str, fields: Mapping[str, Any]) -> "Protocol":
        """Read a recipe, by default that of comparisons, and check fields given in Python.

        Raises:
            ValueError: a recipe that does not exist, or an unknown or unusable field.
        """
        if recipe is None:
            recipe = DEFAULT_RECIPE if dataset == DEFAULT_RECIPE else COMPARISON_RECIPE
        parser = make_parser(TRAINING_CLASSES, "compare")
        known = {action.dest for action in parser._actions}
        own = {name for config_class, _ in SYSTEMS.values() for name in config_class.field_names()}
        for name in fields:
            if name not in known | own:
                raise ValueError(f"Unknown field {name!r}.{did_you_mean(name, sorted(known | own))}")
        check_values(parser, fields, "")
        return cls(read_recipe(recipe, parser), dict(fields))

    def check(self, systems: Sequence[str]) -> None:
        """Check that every field that the user gave belongs to a compared system.

        Raises:
            ValueError: a field that all of them lack, or that selects a system or its rationales.
        """
        for name in ("model", "use_rationales"):
            if name in self.fields:
                raise ValueError(f"`{name}` differs between rows: `rows` selects it. Leave it out.")
        networks = [name for name in systems if name in SYSTEMS]
        for name, value in self.fields.items():
            if networks and not any(_applies(SYSTEMS[system][0], name, value) for system in networks):
                raise ValueError(f"`{name}` {value!r} applies to none of the systems {', '.join(networks)}.")

    def setup(self, system: str, dataset: str, own: Mapping[str, Any]) -> TrainingSetup:
        """Build the arguments of a run of a system.

        Args:
            system (`str`): name of the network.
            dataset (`str`): name of the dataset, for MPT's own recipe.
            own (mapping): fields of this run alone; they override all others.

        Raises:
            ValueError: an unusable value.
        """
        parser = make_parser(TRAINING_CLASSES, "compare")
        config_class = SYSTEMS[system][0]
        layers = [kept_in_comparison(read_recipe(system_recipe(system, dataset), parser))]
        layers += [
            {name: value for name, value in layer.items() if _applies(config_class, name, value)}
            for layer in (self.recipe, self.fields)
        ]
        layers.append({"model": system, **own})
        known = {action.dest for action in parser._actions}
        options: dict[str, Any] = {}
        for layer in layers:
            given = dict(layer.pop("model_options", None) or {})
            given |= {name: layer.pop(name) for name in [*layer] if name not in known}
            options |= {name: value for name, value in given.items() if _applies(config_class, name, value)}
        return build_setup(parser, merge_layers(layers) | {"model_options": options or None})


def _applies(config_class: Any, name: str, value: Any) -> bool:
    """Return whether an argument or field of a configuration applies to a system."""
    if name == "scene_model_name_or_path":
        return "scene" in getattr(config_class, "reads", ())
    if name == "model_options":
        return any(_applies(config_class, option, one) for option, one in (value or {}).items())
    if name in ("text_provider", "visual_provider"):
        return value in getattr(config_class, f"{name}s", ())
    return name in config_class.field_names() or name in _OF_ANY_SYSTEM
