"""Registry of all systems: MPT and its baselines by the name that `train --model` takes."""

import importlib

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .configuration_mpt import MPTConfig
from .modeling_mpt import MPTForSentimentClassification

# NAME: X is the file baseline_NAME_mpt.py with XSentimentConfig and XForSentimentClassification.
BASELINES = {
    "text_cnn": "TextCNN",
    "bilstm": "BiLSTM",
    "clstm": "CLSTM",
    "bert": "Bert",
    "image_cnn": "ImageCNN",
    "vit": "ViT",
    "late_fusion": "LateFusion",
    "co_mem": "CoMem",
    "mvan": "MVAN",
    "pemnet": "PEMNet",
    "mgnns": "MGNNS",
    "itin": "ITIN",
    "clmlf": "CLMLF",
    "cgaft": "CGAFT",
    "citenet": "CiteNet",
}


def _classes(name: str, prefix: str) -> tuple[type, type]:
    module = importlib.import_module(f".baseline_{name}_mpt", __package__)
    return getattr(module, f"{prefix}SentimentConfig"), getattr(module, f"{prefix}ForSentimentClassification")


SYSTEMS: dict[str, tuple[type, type]] = {"mpt": (MPTConfig, MPTForSentimentClassification)}
SYSTEMS |= {name: _classes(name, prefix) for name, prefix in BASELINES.items()}

for _name in BASELINES:
    _config, _model = SYSTEMS[_name]
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModelForSequenceClassification")
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoModelForSequenceClassification.register(_config, _model)
