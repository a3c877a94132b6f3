"""Results of a training: metrics, predictions, figures and model card."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, DatasetDict
from torch import nn
from transformers.trainer_utils import PredictionOutput

from dataset_scripts.duplicates import group_ids
from dataset_scripts.splits import groups_in
from modeling_mpt import SYSTEMS
from modeling_mpt.trainer_mpt import MPTTrainer, MPTTrainingArguments
from mpt_sentiment.adapters import adapter_facts
from mpt_sentiment.evaluation import (
    TrainingData,
    environment,
    evaluate_predictions,
    plot_confusion_matrix,
    plot_reliability,
    plot_risk_coverage,
    plot_training_curve,
    prediction_table,
    write_model_card,
    write_predictions,
)
from mpt_sentiment.evaluation.abstention import abstention_scores, risk_coverage
from mpt_sentiment.evaluation.calibration import calibration_report, scaled, validation_temperature
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.evaluation.scores import SCORES
from mpt_sentiment.recipe import TrainingSetup

logger = logging.getLogger(__name__)

PREDICTIONS_FILES = {"validation": "validation_predictions.parquet", "test": "predictions.parquet"}
# Entries of the metrics that describe the calibration.
CALIBRATION_ENTRIES = ("temperature", "temperature_note", "validation_posts", "uncalibrated", "abstention")
# Training arguments that the model card lists.
CARD_FIELDS = (
    "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "head_learning_rate vision_learning_rate word_learning_rate weight_decay lr_scheduler_type warmup_steps "
    "max_grad_norm optim bf16 fp16 early_stopping_patience metric_for_best_model adam_beta1 adam_beta2 adam_epsilon"
).split()


def calibrate(config: Any, validation: PredictionOutput) -> str | None:
    """Fit the temperature of a trained model on validation, and store it in its config.

    Args:
        config ([`SentimentConfig`]): configuration of the trained model; `calibration_temperature` is set.
        validation (`PredictionOutput`): logits and labels of the validation posts.

    Returns:
        The reason if no temperature could be fitted; the temperature is then 1.
    """
    config.calibration_temperature, note = validation_temperature(logits_of(validation), validation.label_ids)
    if note is not None:
        logger.warning("The probabilities are not calibrated: %s.", note)
    return note


def write_results(
    output_dir: Path,
    trainer: MPTTrainer,
    outputs: Mapping[str, PredictionOutput],
    posts: DatasetDict,
    data: TrainingData,
    setup: TrainingSetup,
    settings: Mapping[str, Any],
    train_posts_per_second: float,
    temperature_note: str | None = None,
) -> dict[str, Any]:
    """Write predictions, figures and card of a trained model, and return its metrics.

    Args:
        output_dir (`Path`): folder of the run.
        trainer ([`MPTTrainer`]): after training, with the best weights loaded and the temperature in its config.
        outputs (mapping): of `"validation"` and `"test"`, logits `(num_posts, num_labels)` and the model's weights.
        posts (`DatasetDict`): the posts of these splits.
        data ([`TrainingData`]): account of the posts.
        setup ([`TrainingSetup`]): arguments of the run.
        settings (mapping): identity of the run, with its seed.
        train_posts_per_second (`float`): for ratios between runs on one machine.
        temperature_note (`str`, *optional*): result of [`calibrate`].

    Returns:
        The content of `metrics.json`, which the caller writes once the model is saved.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    config, test = model.config, posts["test"]
    names = list(config.id2label.values())
    scored = {
        split: (scaled(logits_of(output), config.calibration_temperature), output.label_ids)
        for split, output in outputs.items()
    }
    groups = group_ids(test, groups_in(test, None))
    parameters, trainable = count_parameters(model)
    evaluation = kept_evaluation(trainer.state.log_history, trainer.args)
    results = {
        "test": evaluate_predictions(*scored["test"], names, groups=groups),
        "uncalibrated": calibration_report(scaled(logits_of(outputs["test"]), 1.0), outputs["test"].label_ids, groups),
        "temperature": config.calibration_temperature,
        "temperature_note": temperature_note,
        "validation_posts": len(posts["validation"]),
        "abstention": abstention_scores(scored["validation"], scored["test"]),
        "validation": {name.removeprefix("eval_"): value for name, value in evaluation.items()},
        "system": {
            "name": config.title,
            "modalities": config.modalities,
            "providers": config.providers,
            "untrained_images": config.untrained_images,
        },
        "parameters": parameters,
        "trainable_parameters": trainable,
        "updates": trainer.state.global_step,
        "optimizer": str(trainer.args.optim.value),
        "train_posts_per_second": train_posts_per_second,
        "languages": sorted({value for value in test["language"] if value}),
        "lora": adapter_facts(setup.lora) if setup.lora.lora else None,
        "settings": json.loads(without_paths(json.dumps(settings))),  # users share this file
        "split": dataclasses.asdict(data),
        "environment": environment(),
    }
    for split, output in outputs.items():
        table = _table(posts[split], output, scored[split][0], config)
        write_predictions(output_dir / PREDICTIONS_FILES[split], table)
    plot_confusion_matrix(output_dir / "confusion_matrix.png", results["test"]["confusion_matrix"], names)
    plot_training_curve(output_dir / "training_curve.png", trainer.state.log_history, evaluation.get("epoch"))
    plot_reliability(
        output_dir / "reliability.png", results["test"]["reliability"], results["uncalibrated"]["reliability"]
    )
    _, *curve = risk_coverage(*scored["test"])
    plot_risk_coverage(output_dir / "risk_coverage.png", {config.title: curve})
    write_card(output_dir, results, config=config)
    return results


def write_card(
    output_dir: Path, results: Mapping[str, Any], *, config: Any = None, aggregate: Mapping[str, Any] | None = None
) -> None:
    """Write the model card of a run from its results.

    Args:
        output_dir (`Path`): folder of the run.
        results (mapping): content of its `metrics.json`.
        config (*optional*): configuration of the model, by default the one saved in the folder.
        aggregate (mapping, *optional*): scores over the seeds of which this run is one.
    """
    settings = results["settings"]
    if config is None:
        config = SYSTEMS[settings["model"]["model"]][0].from_pretrained(output_dir)
    hyperparameters = {name: settings["training"].get(name) for name in CARD_FIELDS}
    chosen = settings["training"].get("load_best_model_at_end", True)
    write_model_card(
        output_dir,
        config=config,
        metrics=results["test"],
        data=TrainingData(**results["split"]),
        hyperparameters=hyperparameters | {"seed": settings["seed"]},
        num_parameters=results["parameters"],
        num_trainable_parameters=results["trainable_parameters"],
        environment=results["environment"],
        aggregate=aggregate,
        lora=results["lora"],
        best_epoch=results["validation"].get("epoch") if chosen else None,
        calibration={name: results[name] for name in CALIBRATION_ENTRIES} if "temperature" in results else None,
        language=results["languages"],
        distillation=results.get("distillation"),
    )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count all and the trainable parameters, without the unused copies that peft keeps."""
    weights = [weight for name, weight in model.named_parameters() if "original_module" not in name]
    return sum(map(torch.numel, weights)), sum(weight.numel() for weight in weights if weight.requires_grad)


def kept_evaluation(log_history: list[dict[str, Any]], args: MPTTrainingArguments) -> dict[str, Any]:
    """Find the evaluation of the weights that a run keeps: the best one's, or the last one's."""
    name = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
    entries = [entry for entry in log_history if name in entry]
    if not args.load_best_model_at_end:
        return entries[-1] if entries else {}
    best = max if args.greater_is_better else min
    return best(entries, key=lambda entry: entry[name], default={})


def scores_line(metrics: Mapping[str, Any]) -> str:
    """Format scores with their intervals, or of several runs with their standard deviation."""
    parts = []
    for score in SCORES:
        value = metrics[score]
        if isinstance(value, Mapping):
            parts.append(f"{score} {value['mean']:.4f} ({value['std'] or 0.0:.4f})")
        else:
            low, high = metrics["intervals"][score]
            parts.append(f"{score} {value:.4f} [{low:.4f}, {high:.4f}]")
    return ", ".join(parts)


def logits_of(output: PredictionOutput) -> np.ndarray:
    """Return the logits `(num_posts, num_labels)` among the outputs of a model."""
    return output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions


def _table(posts: Dataset, output: PredictionOutput, probabilities: np.ndarray, config: Any) -> pa.Table:
    weights = output.predictions[1:] if isinstance(output.predictions, tuple) else ()
    return prediction_table(
        posts["id"],
        list(config.id2label.values()),
        probabilities,
        output.label_ids,
        perspectives=config.perspectives,
        **dict(zip(config.weights_returned, weights, strict=False)),
    )
