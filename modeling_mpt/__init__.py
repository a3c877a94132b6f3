"""What a model is: configuration, encoders, fusion, losses, model, trainer."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .configuration_mpt import MPTConfig
from .modeling_mpt import MPTForSentimentClassification, MPTModel, MPTOutput, MPTPreTrainedModel

__all__ = [
    "MPTConfig",
    "MPTForSentimentClassification",
    "MPTModel",
    "MPTOutput",
    "MPTPreTrainedModel",
]

# With these, a saved folder carries the code that opens it …
MPTConfig.register_for_auto_class()
MPTModel.register_for_auto_class("AutoModel")
MPTForSentimentClassification.register_for_auto_class("AutoModelForSequenceClassification")
# … and in a process that imports this package, the package's own code opens it.
AutoConfig.register(MPTConfig.model_type, MPTConfig)
AutoModel.register(MPTConfig, MPTModel)
AutoModelForSequenceClassification.register(MPTConfig, MPTForSentimentClassification)
