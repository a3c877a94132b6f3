"""What a model is fed: processor, collator, pipeline."""

from .collator_mpt import MPTDataCollator
from .processing_mpt import MPTProcessor

__all__ = ["MPTDataCollator", "MPTProcessor"]

MPTProcessor.register_for_auto_class()
