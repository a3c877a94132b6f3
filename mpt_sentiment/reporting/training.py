"""Training of the networks that maps and explanations need, with vectors of chosen epochs."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_scripts.output import atomic_path
from modeling_mpt.trainer_mpt import MPTTrainer
from mpt_sentiment.cell_training import prepared, trained, validation_scores
from mpt_sentiment.cells import Cell
from mpt_sentiment.evaluation import write_metrics
from mpt_sentiment.results import calibrate
from mpt_sentiment.run_identity import METRICS_FILE
from mpt_sentiment.training_data import Part

EMBEDDINGS_FILE = "embeddings.npz"


class FusedVectors(TrainerCallback):
    """Callback that keeps the fused vectors of posts after chosen epochs and at the end.

    Random draws of the training stay the same.
    """

    def __init__(self, trainer: MPTTrainer, posts: Dataset, epochs: Sequence[int]) -> None:
        self.trainer, self.posts, self.epochs = trainer, posts, set(epochs)
        self.vectors: dict[int, np.ndarray] = {}

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        epoch = round(state.epoch or 0)
        if epoch in self.epochs:
            self.vectors[epoch] = self.compute()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        last = math.ceil(state.epoch or 0)
        if last not in self.vectors:  # the training ended early
            self.vectors[last] = self.compute()

    def compute(self) -> np.ndarray:
        """Compute the fused vectors `(num_posts, size)`."""
        network = self.trainer.accelerator.unwrap_model(self.trainer.model)
        names = [name for name in network.config.keys_to_ignore_at_inference if name != "fused_embeds"]
        training = network.training
        with torch.random.fork_rng():
            output = self.trainer.predict(self.posts, ignore_keys=names)
        network.train(training)
        return np.asarray(output.predictions[1], np.float32)


def train_observed(cell: Cell, part: Part, epochs: Sequence[int]) -> None:
    """Train a cell, keep its best network, and store vectors of its test posts.

    A finished one is left as it is.

    Args:
        cell ([`Cell`]): run of MPT, in whose folder model, processor and vectors are saved.
        part ([`Part`]): its posts.
        epochs (sequence of `int`): epochs whose vectors are stored; the last one is added.
    """
    setup, settings = prepared(cell, part.posts)
    if settings is None:
        return
    test, kept = part.posts["test"], []

    def callbacks(trainer: MPTTrainer) -> list[TrainerCallback]:
        kept.append(FusedVectors(trainer, test, epochs))
        return kept

    trainer, _ = trained(setup, part.posts, part.data, callbacks)
    config = trainer.accelerator.unwrap_model(trainer.model).config
    ignored = [name for name in config.keys_to_ignore_at_inference if name not in config.weights_returned]
    note = calibrate(config, trainer.predict(part.posts["validation"], ignore_keys=ignored))
    trainer.save_model()
    vectors = kept[0].vectors
    with atomic_path(cell.folder / EMBEDDINGS_FILE) as path, open(path, "wb") as file:
        np.savez_compressed(
            file, epochs=np.array([*vectors]), vectors=np.stack([*vectors.values()]), labels=np.array(test["label"][:])
        )
    facts = {"validation": validation_scores(trainer), "temperature_note": note, "epochs": [*vectors]}
    write_metrics(cell.folder / METRICS_FILE, facts)  # last: it marks the run as finished
