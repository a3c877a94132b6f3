"""Zero-shot classification with a large multimodal model, scored like a trained model."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts.output import atomic_path, check_writable
from dataset_scripts.rationales.engines.base import Engine
from dataset_scripts.rationales.engines.label_question import LabelQuestion, average_orders, read_log_probs
from dataset_scripts.rationales.engines.zero_shot import EndpointZeroShot
from dataset_scripts.rationales.run.runner import RunReport
from dataset_scripts.rationales.store.store import RationaleStore
from mpt_sentiment.evaluation import (
    TrainingData,
    environment,
    evaluate_predictions,
    prediction_table,
    write_metrics,
    write_predictions,
)
from mpt_sentiment.evaluation.calibration import CALIBRATION_SCORES, calibration_report, fit_temperature, scaled
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.generating import engine_fields, request_answers, run_settings
from mpt_sentiment.generation_arguments import EngineArguments, ZeroShotArguments, arguments_of
from mpt_sentiment.training_data import as_splits

ASKED_SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class ZeroShotResult:
    """Result of a zero-shot classification.

    Attributes:
        output_dir (`Path`): folder with metrics, predictions, log-probabilities and the store of answers.
        metrics (`dict`): content of its `metrics.json`.
        report ([`RunReport`]): counts of this run.
    """

    output_dir: Path
    metrics: dict[str, Any]
    report: RunReport

    @property
    def test(self) -> dict[str, Any]:
        """Scores on the test posts, with `intervals`, after temperature scaling."""
        return self.metrics["test"]

    def __str__(self) -> str:
        return describe(self.metrics)


def zero_shot(
    posts: Dataset | DatasetDict,
    output_dir: str | Path,
    *,
    endpoint: str | Sequence[str] | None = None,
    engine: str | None = None,
    progress: bool = True,
    **fields: Any,
) -> ZeroShotResult:
    """Classify the test posts with a large multimodal model that was not trained on them.

    Validation and test posts are asked once per cyclic order of the options. A temperature is fitted on validation,
    and test is scored with it. Called again, an interrupted run is resumed: stored answers are never requested again.

    Args:
        posts (`Dataset` or `DatasetDict`): posts with the columns of `load_posts`, split into train, validation and
            test (`split_posts`); a `Dataset` is split by the default protocol.
        output_dir (`str` or `Path`): folder of metrics, predictions, log-probabilities and answers.
        endpoint, engine, progress: see [`generate_rationales`]; there is no engine `"fake"`.
        fields: any field of [`ZeroShotArguments`] (`model`, `instructions`, `criteria`, …) or [`EngineArguments`].

    Returns:
        [`ZeroShotResult`].

    Raises:
        ValueError: an unknown or unusable field, or posts that cannot be classified.
        StoreError: the folder holds answers of another model or question, or cannot be written.
        OutageError: a server is unreachable or fails every request; the same call resumes the run later.
        MisconfiguredError: every request fails until its cause is corrected. No failure is recorded.
        KeyboardInterrupt: the run was interrupted; its answers are stored.
    """
    splits, data = as_splits(posts)
    fields |= {"output_dir": str(output_dir)} | engine_fields(endpoint, engine)
    return classify(splits, data, *arguments_of((ZeroShotArguments, EngineArguments), fields), progress=progress)


def classify(
    splits: DatasetDict,
    data: TrainingData,
    args: ZeroShotArguments,
    engine_args: EngineArguments,
    *,
    progress: bool = True,
) -> ZeroShotResult:
    """Classify posts as described by argument objects; see [`zero_shot`]."""
    if engine_args.engine == "fake":
        raise ValueError("The engine 'fake' has no probabilities. Use endpoint or transformers.")
    check_writable(args.output_dir)
    question = LabelQuestion.for_labels(splits["test"].features["label"].names)
    changes = {"instructions": args.instructions, "criteria": args.criteria}
    question = dataclasses.replace(question, **{name: value for name, value in changes.items() if value is not None})
    spec = question.spec(
        str(args.model), revision=args.revision, max_pixels=args.max_pixels, extra_body=args.extra_body
    )

    def open_engines() -> list[Engine]:
        if engine_args.engine == "transformers":
            from dataset_scripts.rationales.engines.zero_shot_local import TransformersZeroShot

            model = {"device": engine_args.device, "dtype": engine_args.dtype}
            return [TransformersZeroShot.from_pretrained(spec, question, **model)]
        return [EndpointZeroShot(url, spec, question, **engine_args.server_options()) for url in engine_args.endpoint]

    output_dir = Path(args.output_dir)
    store, report = request_answers(
        concatenate_datasets([splits[name] for name in ASKED_SPLITS]),
        lambda: RationaleStore.create(output_dir / "answers", spec, question, data=dataclasses.asdict(data)),
        open_engines,
        wait_seconds=engine_args.wait_for_server,
        settings=run_settings(args, engine_args, spec, max_re_asks=0),
        gate=question.read,
        progress=progress,
    )
    return ZeroShotResult(output_dir, write_results(output_dir, splits, store, question, data), report)


def write_results(
    output_dir: Path, splits: DatasetDict, store: RationaleStore, question: LabelQuestion, data: TrainingData
) -> dict[str, Any]:
    """Write log-probabilities, predictions and metrics.

    Returns:
        The content of `metrics.json`.
    """
    log_probs = {name: read_log_probs(store, question, splits[name]["id"]) for name in ASKED_SPLITS}
    write_log_probs(output_dir / "log_probs.parquet", log_probs, splits, question)
    labels = {
        name: np.array([-1 if label is None else label for label in splits[name]["label"]]) for name in ASKED_SPLITS
    }
    mean = {name: average_orders(log_probs[name]) for name in ASKED_SPLITS}
    answered = {name: ~np.isnan(mean[name]).any(axis=1) for name in ASKED_SPLITS}
    fitting = answered["validation"] & (labels["validation"] >= 0)
    temperature = fit_temperature(mean["validation"][fitting], labels["validation"][fitting])
    # Posts without an answer get the label prior of the validation split.
    prior = np.bincount(labels["validation"][labels["validation"] >= 0], minlength=len(question.labels))
    prior = prior / prior.sum()

    def probabilities(temperature: float) -> np.ndarray:
        return np.where(answered["test"][:, None], scaled(mean["test"], temperature), prior)

    calibrated = probabilities(temperature)
    table = prediction_table(splits["test"]["id"], question.labels, calibrated, splits["test"]["label"])
    write_predictions(output_dir / "predictions.parquet", table)
    labeled = labels["test"] >= 0
    results = {
        "test": evaluate_predictions(calibrated[labeled], labels["test"][labeled], question.labels),
        "uncalibrated": calibration_report(probabilities(1.0)[labeled], labels["test"][labeled]),
        "temperature": temperature,
        "validation_posts": int(fitting.sum()),
        "answers": count_answers(store, question, log_probs["test"], set(splits["test"]["id"])),
        "question": question.to_dict(),
        "spec": json.loads(without_paths(json.dumps(store.spec.to_dict()))),
        "split": dataclasses.asdict(data),
        "environment": environment(),
    }
    write_metrics(output_dir / "metrics.json", results)
    return results


def count_answers(
    store: RationaleStore, question: LabelQuestion, log_probs: np.ndarray, ids: set[str]
) -> dict[str, Any]:
    """Count the answers for the test posts by kind, and how often all orders agree.

    `log_probs`, of shape `(num_posts, num_orders, num_labels)`, and `ids` are those of the test posts.
    """
    counts = dict.fromkeys(("parsed", "bounded", "failed"), 0)
    for row in store.rows():
        for order in question.perspectives if row["id"] in ids else ():
            counts["failed"] += row[f"rationale_{order}"] is None
            for flag in set(row[f"flags_{order}"]) & {"parsed", "bounded"}:
                counts[flag] += 1
    complete = log_probs[~np.isnan(log_probs).any(axis=(1, 2))]
    choices = complete.argmax(axis=2)
    return {
        "posts": len(ids),
        "asked": len(ids) * len(question.perspectives),
        **counts,
        "posts_without_answer": int(np.isnan(log_probs).all(axis=(1, 2)).sum()),
        "orders_agree": float((choices == choices[:, :1]).all(axis=1).mean()) if len(complete) else None,
    }


def write_log_probs(
    path: Path, log_probs: dict[str, np.ndarray], splits: DatasetDict, question: LabelQuestion
) -> None:
    """Write a table of log-probabilities, one row per post, null where there is no answer."""
    columns = {
        "id": pa.array([post_id for name in ASKED_SPLITS for post_id in splits[name]["id"]]),
        "split": pa.array([name for name in ASKED_SPLITS for _ in splits[name]["id"]]),
    }
    values = np.concatenate([log_probs[name] for name in ASKED_SPLITS])
    for number, order in enumerate(question.perspectives):
        for index, label in enumerate(question.labels):
            columns[f"log_prob_{label}_{order}"] = pa.array(values[:, number, index], from_pandas=True)  # NaN: null
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def describe(metrics: dict[str, Any]) -> str:
    """Format the metrics in a few lines."""
    test, uncalibrated, answers = metrics["test"], metrics["uncalibrated"], metrics["answers"]
    lines = [
        f"Test, {test['num_posts']:,} posts: accuracy {test['accuracy']:.4f}, F1 weighted {test['f1_weighted']:.4f}, "
        f"macro {test['f1_macro']:.4f} (majority label {test['majority']['accuracy']:.4f})",
        "Recall: " + ", ".join(f"{name} {scores['recall']:.4f}" for name, scores in test["per_class"].items()),
        f"Temperature {metrics['temperature']:.3g}, fitted on {metrics['validation_posts']:,} validation posts: "
        + ", ".join(f"{name} {uncalibrated[name]:.4f} → {test[name]:.4f}" for name in CALIBRATION_SCORES),
        f"Answers: {answers['asked']:,} requested"
        + "".join(f", {name} {answers[name]:,}" for name in ("parsed", "bounded", "failed") if answers[name]),
    ]
    if answers["orders_agree"] is not None:
        lines[-1] += f"; all orders agree on {answers['orders_agree']:.0%} of the posts"
    if answers["posts_without_answer"]:
        lines.append(f"{answers['posts_without_answer']:,} posts have no answer and get the label prior of validation")
    return "\n".join(lines)
