"""Training of a single cell, with its best weights in memory and few files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from torch import nn
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from modeling_mpt.trainer_mpt import MPTTrainer
from mpt_sentiment.cells import Cell
from mpt_sentiment.evaluation import TrainingData, prediction_table, write_metrics, write_predictions
from mpt_sentiment.evaluation.calibration import scaled
from mpt_sentiment.evaluation.scores import confusion_matrix, overall_scores
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.results import calibrate, count_parameters, kept_evaluation, logits_of
from mpt_sentiment.run_identity import METRICS_FILE, digests_of, finished_metrics, run_settings
from mpt_sentiment.training import build_trainer, checked, train_runs
from mpt_sentiment.training_data import Part

PREDICTIONS_FILE = "predictions.parquet"


class BestWeights(TrainerCallback):
    """Callback that keeps the trained weights of the best evaluation in memory.

    Checkpoints on disk would take longer than an epoch of a small network on stored features.
    """

    def __init__(self) -> None:
        self.best: float | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        value = kwargs["metrics"][f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"]
        value = value if args.greater_is_better else -value
        if self.best is None or value > self.best:
            self.best = value
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in changing(kwargs["model"]).items()}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Write the weights of the best evaluation into the model."""
        tensors = changing(model)
        for name, weight in self.weights.items():
            tensors[name].copy_(weight)


def changing(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors that training changes: parameters with a gradient, and buffers."""
    parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return parameters | dict(model.named_buffers())


def evaluate_cell(cell: Cell, part: Part) -> None:
    """Train a cell of a comparison and score its test posts, unless its metrics exist."""
    if cell.setup.run.keep_models and cell.is_network:
        if not (cell.folder / "config.json").is_file():  # it may have finished without keeping its model
            (cell.folder / METRICS_FILE).unlink(missing_ok=True)
        setup = cell.own_setup()
        setup.training.disable_tqdm = True
        train_runs(setup, *part)
        return
    setup, settings = prepared(cell, part.posts)
    if settings is None:
        return
    test, names = part.posts["test"], part.posts["test"].features["label"].names
    if not cell.is_network:
        state = PartialState()
        if state.is_main_process:
            probabilities, facts = BASELINES[cell.row.system].predict(part.posts, cell.row.modalities(), setup)
            write_tested(cell.folder, probabilities, test, names, facts)
        state.wait_for_everyone()
        return
    trainer, speed = trained(setup, part.posts, part.data)
    config = trainer.accelerator.unwrap_model(trainer.model).config
    ignored = [name for name in config.keys_to_ignore_at_inference if name not in config.weights_returned]
    note = calibrate(config, trainer.predict(part.posts["validation"], ignore_keys=ignored))
    prediction = trainer.predict(test, ignore_keys=ignored)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        parameters, trainable = count_parameters(model)
        system = {
            "name": config.title,
            "modalities": config.modalities,
            "providers": config.providers,
            "untrained_images": config.untrained_images,
        }
        facts = {
            "validation": validation_scores(trainer),
            "system": system,
            "parameters": parameters,
            "trainable_parameters": trainable,
            "updates": trainer.state.global_step,
            "optimizer": str(trainer.args.optim.value),
            "train_posts_per_second": speed,
            "temperature": config.calibration_temperature,
            "temperature_note": note,
        }
        write_tested(cell.folder, scaled(logits_of(prediction), config.calibration_temperature), test, names, facts)
    trainer.accelerator.wait_for_everyone()


def validate_cell(cell: Cell, part: Part) -> None:
    """Train a point of a search unless its metrics exist, and score it on validation.

    The test posts are given to no model.
    """
    setup, settings = prepared(cell, part.posts)
    if settings is None:
        return
    posts = DatasetDict({name: part.posts[name] for name in ("train", "validation")})
    trainer, _ = trained(setup, posts, part.data)
    if trainer.is_world_process_zero():
        metrics = {"validation": validation_scores(trainer), "updates": trainer.state.global_step}
        write_metrics(cell.folder / METRICS_FILE, metrics)
    trainer.accelerator.wait_for_everyone()


def prepared(cell: Cell, posts: DatasetDict) -> tuple[TrainingSetup, dict[str, Any] | None]:
    """Check a cell and prepare its folder.

    Returns:
        Its arguments, and the settings of the run; `None` if it has finished.

    Raises:
        ValueError: the cell cannot be trained, or the folder holds a run with other settings.
    """
    setup = cell.own_setup()
    if cell.is_network:
        setup = checked(setup, posts)
    settings = run_settings(setup, posts, _digests(posts)) | {"seed": cell.seed}
    if not cell.is_network:
        settings |= {"training": {}, "row": cell.row.title}
    overwrite, save = setup.run.overwrite, setup.training.should_save
    done = finished_metrics(cell.folder, settings, overwrite=overwrite, save=save) is not None
    return setup, None if done else settings


def trained(
    setup: TrainingSetup,
    posts: DatasetDict,
    data: TrainingData,
    callbacks: Callable[[MPTTrainer], Sequence[TrainerCallback]] = lambda trainer: (),
) -> tuple[MPTTrainer, float]:
    """Train a network without checkpoints, and load its best weights.

    Args:
        setup ([`TrainingSetup`]): arguments of the run.
        posts (`DatasetDict`): train and validation; other splits are encoded with them.
        data ([`TrainingData`]): account of the posts.
        callbacks (callable): gives the trainer further callbacks.

    Returns:
        The trainer, and the number of train posts per second.

    Raises:
        ValueError: the weights are split between processes.
    """
    args = setup.training
    keeps_best = args.load_best_model_at_end
    args.save_strategy, args.load_best_model_at_end = SaveStrategy.NO, False
    trainer = build_trainer(setup, posts, data, args)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("Weights that are split between processes need checkpoints: add --keep_models true.")
    trainer.remove_callback(ProgressCallback)  # one bar counts the cells; that of the feature store is shown
    best = BestWeights()
    if keeps_best:
        trainer.add_callback(best)
    for callback in callbacks(trainer):
        trainer.add_callback(callback)
    training = trainer.train()
    best.restore(trainer.accelerator.unwrap_model(trainer.model))
    args.load_best_model_at_end = keeps_best  # off only for the Trainer, which would load a checkpoint
    return trainer, training.metrics["train_samples_per_second"]


def validation_scores(trainer: MPTTrainer) -> dict[str, Any]:
    """Return the scores of the kept weights."""
    kept = kept_evaluation(trainer.state.log_history, trainer.args)
    return {name.removeprefix("eval_"): value for name, value in kept.items()}


def write_tested(
    folder: Path, probabilities: np.ndarray, test: Dataset, names: list[str], facts: Mapping[str, Any]
) -> None:
    """Write predictions and, last, metrics, which mark the cell as finished."""
    table = prediction_table(test["id"], names, probabilities, test["label"])
    write_predictions(folder / PREDICTIONS_FILE, table)
    confusion = confusion_matrix(np.array(test["label"]), probabilities.argmax(axis=1), len(names))
    scores = {name: float(value) for name, value in overall_scores(confusion).items()}
    write_metrics(folder / METRICS_FILE, {"test": scores, **facts})


# Hashes of posts by the fingerprints of the splits: hashing all images takes as long as a short training.
_DIGESTS: dict[tuple[str, ...], dict[str, str]] = {}


def _digests(posts: DatasetDict) -> dict[str, str]:
    key = tuple(split._fingerprint for split in posts.values())
    if key not in _DIGESTS:
        _DIGESTS[key] = digests_of(posts)
    return _DIGESTS[key]
