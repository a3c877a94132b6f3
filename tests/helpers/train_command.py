"""Command lines of tiny runs of `examples/train.py`."""

import json
from pathlib import Path

import pytest

import mpt_sentiment.training as train

TINY_TEXT = {
    "model_type": "bert",
    "vocab_size": 400,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}
TINY_VISION = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def arguments(output_dir: Path, **changes: object) -> list[str]:
    """The command line of a tiny run; a field that is set to `None` is left out."""
    fields = {
        "dataset_options": {"num_posts": 60, "seed": 3},
        "text_config": TINY_TEXT,
        "vision_config": TINY_VISION,
        "hidden_size": 16,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "loss_weight_mlcl": 0.1,
        "bf16": False,
        "disable_tqdm": True,
        "output_dir": output_dir,
    } | changes
    words = []
    for name, value in ((name, value) for name, value in fields.items() if value is not None):
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return words


def run(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    train.main(words)
