"""Inputs and outputs of the models: processor, collator and pipeline."""

from transformers import AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .collator_mpt import MPTDataCollator
from .pipeline_mpt import MPTPipeline
from .processing_mpt import MPTProcessor

__all__ = ["MPTDataCollator", "MPTPipeline", "MPTProcessor"]

# A saved processor carries its code and the pipeline's.
MPTProcessor.register_for_auto_class()
# A process that imports this package can name the task.
PIPELINE_REGISTRY.register_pipeline(
    "multimodal-sentiment", pipeline_class=MPTPipeline, pt_model=AutoModelForSequenceClassification
)
