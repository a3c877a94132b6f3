"""Arguments of a distillation, and those of its student."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_scripts.reading.option_names import field as written
from mpt_sentiment.arguments import JSON, argument, options_object
from mpt_sentiment.backbones import planned_config
from mpt_sentiment.distilling.student import LossWeights
from mpt_sentiment.distilling.teacher import Teacher
from mpt_sentiment.recipe import TrainingSetup, system_recipe, training_setup

# Parts of the teacher that a student without rationales does not have.
_OF_RATIONALES = ("rationale_dropout", "use_rationales")


@dataclasses.dataclass
class DistillArguments:
    """Targets of a student, and the weights of its loss."""

    unlabelled: str | None = argument("Further posts without labels: a table, or the folder or Hub id of a dataset.")
    unlabelled_options: JSON | None = argument(
        'Options of their reader (JSON), e.g. \'{"rationales": "FILE", "text_column": "caption"}\'.', {}
    )
    folds: int = argument("Teachers that read the train posts, each trained on the other folds.", 5)
    # At 1, a student that reads less than its teacher learns the mean of its probabilities.
    soft_temperature: float = argument("By which logits of teacher and student are divided.", 1.0)
    label_weight: float = argument("Weight of the loss on labels.", 0.5)
    soft_label_weight: float = argument("Weight of the divergence from the teacher's probabilities.", 0.5)
    embedding_weight: float = argument("Weight of the distance to the teacher's embeddings; 0: none.", 0.1)

    def __post_init__(self) -> None:
        self.unlabelled_options = options_object("unlabelled_options", self.unlabelled_options)
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 2:
            raise ValueError(f"`folds` must be 2 or more, got {self.folds!r}.")
        if not 0 < self.soft_temperature < math.inf:
            raise ValueError(f"`soft_temperature` must be positive, got {self.soft_temperature}.")
        for name in ("label_weight", "soft_label_weight", "embedding_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")
        if not self.soft_label_weight and not self.embedding_weight:
            raise ValueError(
                "`soft_label_weight` and `embedding_weight` are 0: the student would learn nothing from the teacher. "
                "Set one of them, or use `train`."
            )

    @property
    def weights(self) -> LossWeights:
        """Return the weights of the student's loss."""
        return LossWeights(self.label_weight, self.soft_label_weight, self.embedding_weight, self.soft_temperature)

    def recorded(self) -> dict[str, Any]:
        """Return the arguments that `metrics.json` records."""
        return {name: value for name, value in dataclasses.asdict(self).items() if "unlabelled" not in name}


def student_setup(teacher: Teacher, recipe: str | Path | None, fields: Mapping[str, Any]) -> TrainingSetup:
    """Combine the given arguments of a student with the teacher's, or with a recipe.

    Args:
        teacher ([`Teacher`])
        recipe (`str` or `Path`, *optional*): by default the teacher's arguments, or with another `model` its recipe.
        fields (mapping): given arguments.

    Raises:
        ValueError: an unusable argument, or a student that reads rationales.
    """
    own = teacher.fields()
    if recipe is None and fields.get("model", own["model"]) != own["model"]:
        recipe = system_recipe(fields["model"])
    base = {name: value for name, value in own.items() if name not in _OF_RATIONALES} if recipe is None else recipe
    setup = training_setup([base], {"seed": teacher.seed, **fields})
    setup.run.seeds = fields.get("seeds")
    if setup.model.model == "mpt" and "modalities" not in fields:
        setup.model.modalities = ["text", "image"]
    if "rationales" in (setup.model.modalities or planned_config(setup.model).modalities):
        without = written("modalities", ["text", "image"]) if setup.model.model == "mpt" else None
        raise ValueError(f"The student must read no rationales. Use {without or written('use_rationales', False)}.")
    if setup.lora.lora:
        raise ValueError(f"A student is trained without adapters. Use {written('lora', False)}.")
    return setup
