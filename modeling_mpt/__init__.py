"""What a model is: configuration, encoders, fusion, losses, model, trainer, and the baselines."""

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

# With these, a saved folder carries the code that opens it …
MPTConfig.register_for_auto_class()
MPTModel.register_for_auto_class("AutoModel")
MPTForSentimentClassification.register_for_auto_class("AutoModelForSequenceClassification")
# … and in a process that imports this package, the package's own code opens it.
AutoConfig.register(MPTConfig.model_type, MPTConfig)
AutoModel.register(MPTConfig, MPTModel)
AutoModelForSequenceClassification.register(MPTConfig, MPTForSentimentClassification)


def __getattr__(name: str) -> Any:
    """The trainer on first use: only those who train wait for what it imports."""
    if name in ("MPTTrainer", "MPTTrainingArguments"):
        from . import trainer_mpt

        return getattr(trainer_mpt, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
