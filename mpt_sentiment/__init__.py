"""Sentiment of image+text posts: rationales, training, prediction and comparison."""

import importlib
from typing import Any

# Public name: the module that defines it. Modules are imported on first use: `import mpt_sentiment` needs no torch.
_MODULES = {
    "DATASETS": "dataset_scripts.registry",
    "SYSTEMS": "modeling_mpt",
    "MPTConfig": "modeling_mpt",
    "MPTDataCollator": "processing_mpt",
    "MPTForSentimentClassification": "modeling_mpt",
    "MPTModel": "modeling_mpt",
    "MPTPipeline": "processing_mpt",
    "MPTProcessor": "processing_mpt",
    "MPTTrainer": "modeling_mpt",
    "MPTTrainingArguments": "modeling_mpt",
    "OnnxClassifier": "mpt_sentiment.exporting.classifier",
    "TrainingResult": "mpt_sentiment.training",
    "audit_posts": "dataset_scripts.audit",
    "build_dataset": "mpt_sentiment.building",
    "compare": "mpt_sentiment.comparing",
    "distill": "mpt_sentiment.distilling",
    "explain": "mpt_sentiment.explaining",
    "export": "mpt_sentiment.exporting.folder",
    "generate_rationales": "mpt_sentiment.generating",
    "join_rationales": "dataset_scripts",
    "load_adapter": "mpt_sentiment.adapters",
    "load_pipeline": "mpt_sentiment.predicting",
    "load_posts": "dataset_scripts",
    "predict": "mpt_sentiment.predicting",
    "push_to_hub": "mpt_sentiment.pushing",
    "report": "mpt_sentiment.reporting.run",
    "search": "mpt_sentiment.searching",
    "split_posts": "dataset_scripts",
    "train": "mpt_sentiment.training",
    "zero_shot": "mpt_sentiment.zero_shot_classification",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
