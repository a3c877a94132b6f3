"""Inputs and outputs of the models: processor, collator and pipeline."""

from transformers import AutoModelForSequenceClassification, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .collator_mpt import MPTDataCollator
from .pipeline_mpt import MPTPipeline
from .processing_mpt import MPTProcessor

__all__ = ["MPTDataCollator", "MPTPipeline", "MPTProcessor"]

# A saved processor carries its code and the pipeline's.
MPTProcessor.register_for_auto_class()
# A process that imports this package opens folders with the package's own code. A saved processor names its class, and
# AutoProcessor looks for that name among the registered classes, whatever the key.
AutoProcessor.register(MPTProcessor, MPTProcessor)
# A process that imports this package can name the task.
PIPELINE_REGISTRY.register_pipeline(
    "multimodal-sentiment", pipeline_class=MPTPipeline, pt_model=AutoModelForSequenceClassification
)
