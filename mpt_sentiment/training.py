"""Train a sentiment classifier of image+text posts, test it once, and save all that others need of it.

    accelerate launch examples/train.py                                     # the embedded sample
    accelerate launch examples/train.py mvsa_single --data_dir MVSA_Single  # a recipe of examples/recipes/, overridden
    accelerate launch examples/train.py my_recipe.yaml --seeds 1 2 3        # repeat and aggregate
    accelerate launch examples/train.py baselines/bert                      # another system, with its own recipe

`--help` lists every argument. Called again with the same arguments, an interrupted run goes on where it stopped.
"""

import collections
import copy
import dataclasses
import enum
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import set_seed

from dataset_scripts import load_posts_with_report, split_hash, split_posts
from modeling_mpt.pretrained_mpt import SentimentPreTrainedModel
from modeling_mpt.trainer_mpt import MPTTrainer, MPTTrainingArguments, last_complete_checkpoint
from mpt_sentiment.backbones import build_model, build_processor
from mpt_sentiment.evaluation import (
    TrainingData,
    aggregate_runs,
    compute_metrics,
    environment,
    evaluate_predictions,
    plot_confusion_matrix,
    plot_training_curve,
    write_metrics,
    write_model_card,
    write_predictions,
)
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.recipe import DataArguments, ModelArguments, parse
from processing_mpt import MPTDataCollator, MPTProcessor

logger = logging.getLogger("train")

# What a run's results depend on; the rest (logging, paths, hardware) may change between a stop and a resumption.
TRAINING_FIELDS = (
    "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "head_learning_rate vision_learning_rate weight_decay lr_scheduler_type warmup_steps max_grad_norm optim bf16 "
    "fp16 metric_for_best_model adam_beta1 adam_beta2 adam_epsilon"
).split()


def main(argv: list[str]) -> None:
    model_args, data_args, run_args, training_args = parse(argv)
    logging.basicConfig(level=logging.INFO if training_args.should_log else logging.WARNING, format="%(message)s")
    for name in ("transformers", "datasets", "httpx", "httpx2", "filelock", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with training_args.main_process_first(desc="building the dataset"):
        posts, data = load_splits(data_args)
    settings = settings_of(model_args, data_args, training_args, data)
    seeds = run_args.seeds or [training_args.seed]
    outputs = [Path(training_args.output_dir) / f"seed-{seed}" for seed in seeds]
    if run_args.seeds is None:
        outputs = [Path(training_args.output_dir)]
    runs = []
    for seed, output_dir in zip(seeds, outputs, strict=True):
        args = copy.copy(training_args)
        args.seed = args.data_seed = seed
        args.output_dir = str(output_dir)
        runs.append(run(model_args, data_args, args, posts, data, settings | {"seed": seed}, run_args.overwrite))
    if run_args.seeds and training_args.should_save:
        summary = aggregate_runs([result["test"] for result in runs], seeds)
        write_metrics(Path(training_args.output_dir) / "metrics.json", {"test": summary, "settings": settings})
        print(f"\nTest over seeds {seeds}, mean (sd): " + _line({k: summary[k] for k in _SCORES}))


def settings_of(
    model_args: ModelArguments, data_args: DataArguments, args: MPTTrainingArguments, data: TrainingData
) -> dict[str, Any]:
    """What decides a result: two runs with the same settings are the same run."""
    return {
        "model": dataclasses.asdict(model_args),
        "data": dataclasses.asdict(data_args) | {"split_hash": data.split_hash},
        "training": {name: _plain(getattr(args, name)) for name in TRAINING_FIELDS},
        "seed": args.seed,
    }


def load_splits(args: DataArguments) -> tuple[DatasetDict, TrainingData]:
    """The posts in train, validation and test, and the account of them that goes into results and card."""
    posts, report = load_posts_with_report(
        args.dataset, args.data_dir, rationales=args.rationales, on_error=args.on_error, **args.dataset_options
    )
    protocol = args.split
    if isinstance(posts, DatasetDict):
        if set(posts) != {"train", "validation", "test"}:
            raise ValueError(f"{args.dataset} has the splits {list(posts)}; train, validation and test are needed.")
        protocol = "the dataset's own"
    else:
        posts = split_posts(posts, protocol=args.split, seed=args.split_seed, **args.split_options)
    return posts, TrainingData(
        name={"sample": "MPT's embedded sample", "mvsa_single": "MVSA-Single"}.get(args.dataset, args.dataset),
        sizes={name: len(split) for name, split in posts.items()},
        protocol=protocol,
        split_seed=args.split_seed,
        split_hash=split_hash(posts),
        dropped=report.dropped | report.skipped,
        notes=[f"{remark}: {count:,}" for remark, count in report.notes.items()],
        synthetic=args.dataset == "sample",
    )


def run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: MPTTrainingArguments,
    posts: DatasetDict,
    data: TrainingData,
    settings: dict[str, Any],
    overwrite: bool,
) -> dict[str, Any]:
    """One training with one seed, from `settings` to the files in `args.output_dir`; its metrics."""
    output_dir = Path(args.output_dir)
    finished = _earlier_run(output_dir, settings, overwrite, args.should_save)
    if finished is not None:
        print(f"{output_dir} holds this finished run: " + _line(finished["test"]) + ". --overwrite starts it again.")
        return finished
    set_seed(args.seed)
    perspectives = [
        name.removeprefix("rationale_") for name in posts["train"].features if name.startswith("rationale_")
    ]
    label_names = posts["train"].features["label"].names
    processor = build_processor(model_args, data_args, posts["train"], perspectives)
    model = build_model(model_args, processor, label_names, posts["train"])
    if args.should_log:
        print(summarise(data, posts, processor, model))

    trainer = MPTTrainer(
        model=model,
        args=args,
        train_dataset=posts["train"],
        eval_dataset=posts["validation"],
        data_collator=MPTDataCollator(processor, model.config.modalities),
        processing_class=processor,
        compute_metrics=compute_metrics,
    )
    if hasattr(model, "observe"):  # what a system counts on the train posts before it learns
        batches = torch.utils.data.DataLoader(posts["train"], args.eval_batch_size, collate_fn=trainer.data_collator)
        model.observe({name: value.to(model.device) for name, value in batch.items()} for batch in batches)
    training = trainer.train(resume_from_checkpoint=last_complete_checkpoint(output_dir))
    trainer.save_model()

    validation = _best_evaluation(trainer.state.log_history, args.metric_for_best_model)
    wanted = model.config.weights_returned
    ignored = [name for name in model.config.keys_to_ignore_at_inference if name not in wanted]
    prediction = trainer.predict(posts["test"], ignore_keys=ignored)
    metrics = {}
    if trainer.is_world_process_zero():
        speed = training.metrics["train_samples_per_second"]
        metrics = write_results(output_dir, trainer, prediction, posts["test"], data, settings, validation, speed)
        print("Test: " + _line(metrics["test"]) + f" (majority label {metrics['test']['majority']['accuracy']:.4f})")
        print(f"Model, card, predictions and figures are in {output_dir}")
    args.distributed_state.wait_for_everyone()
    return metrics or json.loads((output_dir / "metrics.json").read_text(encoding="utf-8"))


def write_results(
    output_dir: Path,
    trainer: MPTTrainer,
    prediction: Any,
    test: Dataset,
    data: TrainingData,
    settings: dict[str, Any],
    validation: dict[str, Any],
    train_posts_per_second: float,
) -> dict[str, Any]:
    """Metrics, predictions, figures and card of a finished training; the metrics, last, mark it as finished."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    names = list(model.config.id2label.values())
    logits, weights = _logits(prediction.predictions), {}
    if isinstance(prediction.predictions, tuple):
        weights = dict(zip(model.config.weights_returned, prediction.predictions[1:], strict=False))
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    results = {
        "test": evaluate_predictions(probabilities, prediction.label_ids, names),
        "validation": {name.removeprefix("eval_"): value for name, value in validation.items()},
        "system": {
            "name": model.config.title,
            "modalities": model.config.modalities,
            "providers": model.config.providers,
        },
        "parameters": model.num_parameters(),
        "trainable_parameters": model.num_parameters(only_trainable=True),
        "train_posts_per_second": train_posts_per_second,  # for ratios between runs on one machine
        "settings": json.loads(without_paths(json.dumps(settings))),  # this file is published with the model
        "split": dataclasses.asdict(data),
        "environment": environment(),
    }
    best_epoch = validation.get("epoch")
    write_predictions(
        output_dir / "predictions.parquet",
        ids=test["id"],
        label_names=names,
        probabilities=probabilities,
        labels=prediction.label_ids,
        perspectives=model.config.perspectives,
        **weights,
    )
    plot_confusion_matrix(output_dir / "confusion_matrix.png", results["test"]["confusion_matrix"], names)
    plot_training_curve(output_dir / "training_curve.png", trainer.state.log_history, best_epoch)
    write_model_card(
        output_dir,
        config=model.config,
        metrics=results["test"],
        data=data,
        hyperparameters=settings["training"] | {"seed": settings["seed"]},
        num_parameters=results["parameters"],
        num_trainable_parameters=results["trainable_parameters"],
        environment=results["environment"],
        best_epoch=best_epoch,
        language=sorted({value for value in test["language"] if value}),
    )
    write_metrics(output_dir / "metrics.json", results)
    return results


def summarise(data: TrainingData, posts: DatasetDict, processor: MPTProcessor, model: SentimentPreTrainedModel) -> str:
    """What is about to be trained on what, in a few lines."""
    names = posts["train"].features["label"].names
    lines = [f"Data: {data.name}, split {data.protocol} ({data.split_hash})"]
    for split, rows in posts.items():
        counts = collections.Counter(rows["label"])
        labels = ", ".join(f"{name} {counts[index]:,}" for index, name in enumerate(names))
        lines.append(f"  {split:<10} {len(rows):>6,} posts: {labels}")
    if "rationales" in model.config.modalities:
        for perspective in processor.perspectives:
            missing = sum(value is None for rows in posts.values() for value in rows[f"rationale_{perspective}"])
            if missing:
                lines.append(f"  {missing:,} posts have no {perspective} rationale; they are trained with it masked")
    config = model.config
    parts = (getattr(config, f"{part}_config", None) for part in ("text", "vision", "cnn", "scene"))
    encoders = ", ".join(part.model_type for part in parts if part is not None) or "none from transformers"
    lines.append(
        f"Model: {config.title} on {', '.join(config.modalities)}; encoders {encoders}; H = {config.hidden_size}"
    )
    trainable = model.num_parameters(only_trainable=True)
    lines.append(f"  {model.num_parameters():,} parameters, {trainable:,} trainable")
    names = [name for name in config.numbers if name.startswith("loss_weight_")]
    weights = {name.removeprefix("loss_weight_").upper(): getattr(config, name) for name in names}
    lines.append("Loss: " + " + ".join(f"{weight} · {name}" for name, weight in ({"CE": 1.0} | weights).items()))
    return "\n".join(lines)


_SCORES = ("accuracy", "f1_weighted", "f1_macro")


def _line(metrics: dict[str, Any]) -> str:
    """Accuracy and F1 of a run with their interval, or of several runs with their spread."""
    parts = []
    for score in _SCORES:
        value = metrics[score]
        if isinstance(value, dict):
            parts.append(f"{score} {value['mean']:.4f} ({value['std'] or 0.0:.4f})")
        else:
            low, high = metrics["intervals"][score]
            parts.append(f"{score} {value:.4f} [{low:.4f}, {high:.4f}]")
    return ", ".join(parts)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _logits(predictions: Any) -> np.ndarray:
    return predictions[0] if isinstance(predictions, tuple) else predictions


def _best_evaluation(log_history: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    evaluations = [entry for entry in log_history if f"eval_{metric.removeprefix('eval_')}" in entry]
    return max(evaluations, key=lambda entry: entry[f"eval_{metric.removeprefix('eval_')}"], default={})


def _earlier_run(output_dir: Path, settings: dict[str, Any], overwrite: bool, save: bool) -> dict[str, Any] | None:
    """The metrics of a finished run with these settings; `None` where there is none, or one to go on with.

    Raises:
        ValueError: where `output_dir` holds a run with other settings.
    """
    record = output_dir / "settings.json"
    if record.is_file() and not overwrite:
        earlier = json.loads(record.read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(settings))
        differing = sorted(
            name
            for part in ("model", "data", "training")
            for name in wanted[part].keys() | earlier[part].keys()
            if wanted[part].get(name) != earlier[part].get(name)
        ) + ["seed"] * (wanted["seed"] != earlier["seed"])
        if differing:
            raise ValueError(
                f"{output_dir} holds a run with other settings ({', '.join(differing)}). Choose another --output_dir, "
                "or start this one again with --overwrite."
            )
        if (output_dir / "metrics.json").is_file():
            return json.loads((output_dir / "metrics.json").read_text(encoding="utf-8"))
    elif save:
        for checkpoint in output_dir.glob("checkpoint-*"):
            _remove(checkpoint)
        (output_dir / "metrics.json").unlink(missing_ok=True)
        write_metrics(record, settings)
    return None


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
