"""Tiny posts, networks with frozen encoders, and trainings with and without the store."""

import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import set_seed

from helpers import tiny, tiny_baselines, tiny_processor
from modeling_mpt import MPTTrainer, MPTTrainingArguments
from modeling_mpt.features import FeatureDataset, FeatureStore, store

WORDS = "what a good day at the sea nothing but rain and missed train bus leaves ten".split()
FROZEN = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}


def posts(count: int = 12) -> list[dict[str, Any]]:
    """Return posts, of which some lack text, image or rationales, and one has known contents."""
    draw = np.random.default_rng(0)

    def text() -> str:
        return " ".join(draw.choice(WORDS, draw.integers(1, 12)))

    rows = []
    for index in range(count):
        file = io.BytesIO()
        Image.new("RGB", (40, 30), (index % 200, index // 200, index * 7 % 256)).save(file, "PNG")
        row = {"id": f"post-{index}", "label": index % 3, "text": text(), "image": file.getvalue()}
        row |= {
            f"rationale_{name}": None if index % 3 == 2 else text() for name in ("positive", "neutral", "negative")
        }
        if index % 5 == 4:
            row["text" if index % 2 else "image"] = None
        rows.append(row)
    return [*rows[:-1], rows[0] | {"id": "repeated", "label": 1}]


def network(name: str = "mpt", **config: Any) -> torch.nn.Module:
    """Build a tiny network with the same weights each time; all encoders are frozen by default."""
    return tiny.model(**FROZEN | config) if name == "mpt" else tiny_baselines.model(name, **FROZEN | config)


def trainer(model: torch.nn.Module, folder: Path, feature_store: str | Path, **options: Any) -> MPTTrainer:
    """Create a trainer of one epoch that logs every step."""
    rows = options.pop("posts", posts())
    defaults = {
        "feature_store_dtype": "float32",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 0.1,
        "optim": "sgd",  # Adam turns the rounding of a gradient of zero into a step
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    args = MPTTrainingArguments(str(folder), feature_store=str(feature_store), **defaults | options)
    processor = tiny_processor.processor()
    return MPTTrainer(model, args, train_dataset=rows, eval_dataset=rows[:5], processing_class=processor)


def results(trained: MPTTrainer) -> tuple[list[float], torch.Tensor]:
    """Train, and return the losses of steps and evaluations, and logits of the first posts."""
    set_seed(0)
    trained.train()
    history = trained.state.log_history
    losses = [entry[name] for entry in history for name in ("loss", "eval_loss") if name in entry]
    return losses, torch.tensor(trained.predict(trained.eval_dataset).predictions)


def build(folder: Path, rows: list[dict[str, Any]] | None = None, **config: Any) -> FeatureDataset:
    """Build a store of float32 for a tiny network."""
    built = FeatureStore(folder, "float32")
    return built.build(network(**config), tiny_processor.processor(), rows or posts(), progress=False)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all shards of a store."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def build_many(folder: Path, kill_after: int | None = None) -> None:
    """Build a store of 60 posts in many shards, and end the process after some of them."""
    store.SHARD = 8
    original, written = store.write_shard, []

    def write(path: Path, *args: Any) -> None:
        if len(written) == kill_after:
            path.with_suffix(".tmp").write_bytes(b"torn")
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(path)
        original(path, *args)

    store.write_shard = write
    build(folder, posts(60))
