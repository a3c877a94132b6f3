"""Arguments of tiny training runs, for the command line and for Python."""

import json
from pathlib import Path
from typing import Any

from mpt_sentiment.commands import train

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
# Fields of a run on any posts that takes a few seconds.
TINY_FIELDS: dict[str, Any] = {
    "text_config": TINY_TEXT,
    "vision_config": TINY_VISION,
    "hidden_size": 16,
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "bf16": False,
    "disable_tqdm": True,
}
SAMPLE_OPTIONS = {"num_posts": 60, "seed": 3}


def arguments(output_dir: Path, **changes: object) -> list[str]:
    """Build the command line of a tiny run on the sample; a field set to `None` is left out."""
    fields = {"dataset_options": SAMPLE_OPTIONS, **TINY_FIELDS, "loss_weight_mlcl": 0.1, "output_dir": output_dir}
    words = []
    for name, value in ((fields | changes) | {}).items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return words


def run(output_dir: Path, **changes: object) -> None:
    """Run the command `train` on the sample."""
    train.main(arguments(output_dir, **changes))
