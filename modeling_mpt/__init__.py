"""Models of image+text sentiment: MPT, its baselines, their configurations and trainer."""

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .configuration_mpt import MPTConfig
from .modeling_mpt import MPTForSentimentClassification, MPTModel, MPTOutput, MPTPreTrainedModel
from .systems import SYSTEMS

__all__ = [
    "SYSTEMS",
    "MPTConfig",
    "MPTForSentimentClassification",
    "MPTModel",
    "MPTOutput",
    "MPTPreTrainedModel",
    "MPTTrainer",
    "MPTTrainingArguments",
]

# A saved folder carries the code that opens it.
MPTConfig.register_for_auto_class()
MPTModel.register_for_auto_class("AutoModel")
MPTForSentimentClassification.register_for_auto_class("AutoModelForSequenceClassification")
# A process that imports this package opens folders with the package's own code.
AutoConfig.register(MPTConfig.model_type, MPTConfig)
AutoModel.register(MPTConfig, MPTModel)
AutoModelForSequenceClassification.register(MPTConfig, MPTForSentimentClassification)


def __getattr__(name: str) -> Any:
    """Import the trainer on first use, because its imports are slow."""
    if name in ("MPTTrainer", "MPTTrainingArguments"):
        from . import trainer_mpt

        return getattr(trainer_mpt, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
