"""Report of a run: scores with intervals and floor, and means over training seeds."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.output import write_text_atomically
from mpt_sentiment.evaluation.abstention import COVERAGE, accuracy_at_coverage, risk_coverage_area
from mpt_sentiment.evaluation.bootstrap import CONFIDENCE, percentile_interval, resample_confusion
from mpt_sentiment.evaluation.calibration import CALIBRATION_SCORES, calibration_report
from mpt_sentiment.evaluation.checks import check_same_length, class_indices, class_probabilities
from mpt_sentiment.evaluation.scores import SCORES, class_scores, confusion_matrix, overall_scores


def evaluate_predictions(
    probabilities: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    label_names: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Score a model's outputs on one set of labelled posts.

    Every score has a percentile bootstrap 95 % interval over posts and a floor: the score of always predicting the
    most frequent label of these posts. The interval covers another draw of the same number of posts;
    [`aggregate_runs`] gives the spread over training seeds.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`):
            Class probabilities. If any row is not a distribution, all are treated as logits and go through a softmax,
            which changes only the scores of calibration.
        labels (`Sequence[int]` of length `num_posts`): true class indices.
        label_names (`Sequence[str]`): name of each class, in the order of the columns.
        num_resamples (`int`, defaults to 1000): bootstrap samples.
        seed (`int`, defaults to 0): seed of the bootstrap.
        groups (`Sequence[int]` of length `num_posts`, *optional*): group of duplicates of each post, from 0; the
            intervals of the scores of calibration then draw groups instead of posts.

    Returns:
        `dict` ready for JSON: `num_posts`, `label_names`, each score of
        [`~mpt_sentiment.evaluation.scores.SCORES`], `intervals` (score → `[low, high]`), `majority` (`label` and the
        scores of always predicting it), `per_class` (label → `precision`, `recall`, `f1`, `support`),
        `confusion_matrix` (rows are true labels), the entries of
        [`~mpt_sentiment.evaluation.calibration.calibration_report`], `risk_coverage` (`area`, and `accuracy` at
        `coverage`) and `bootstrap` (`num_resamples`, `seed`, `confidence`).

    Raises:
        ValueError: The shapes disagree, there is no post, an output is not finite or a label is out of range.
    """
    label_names = list(label_names)
    probabilities = class_probabilities(probabilities, label_names)
    labels = class_indices(labels, len(label_names), "labels")
    check_same_length(probabilities=probabilities, labels=labels, groups=labels if groups is None else groups)
    if num_resamples < 1:
        raise ValueError(f"`num_resamples` must be at least 1, got {num_resamples}.")

    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(label_names))
    resampled = overall_scores(resample_confusion(confusion, num_resamples, seed))
    per_class = class_scores(confusion)
    calibration = calibration_report(probabilities, labels, groups, num_resamples, seed)
    return {
        "num_posts": len(labels),
        "label_names": label_names,
        **{name: float(value) for name, value in overall_scores(confusion).items()},
        **calibration,
        "intervals": {name: percentile_interval(resampled[name]) for name in SCORES} | calibration["intervals"],
        "majority": _majority_floor(confusion, label_names),
        "per_class": {
            name: {
                **{score: float(per_class[score][index]) for score in ("precision", "recall", "f1")},
                "support": int(per_class["support"][index]),
            }
            for index, name in enumerate(label_names)
        },
        "confusion_matrix": confusion.tolist(),
        "risk_coverage": {
            "area": risk_coverage_area(probabilities, labels),
            "coverage": COVERAGE,
            "accuracy": accuracy_at_coverage(probabilities, labels),
        },
        "bootstrap": {"num_resamples": num_resamples, "seed": seed, "confidence": CONFIDENCE},
    }


def aggregate_runs(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Summarize the reports of several training seeds.

    Args:
        runs (`Sequence[Mapping]`): one result of [`evaluate_predictions`] per run.
        seeds (`Sequence[int]`, *optional*): the training seed of each run.

    Returns:
        `num_runs`, `seeds`, `label_names`; for each score, `nll`, `brier`, `expected_calibration_error`, each score
        of `majority` and each value of `per_class` a dict of `mean`, `std` (sample standard deviation; `None` for a
        single run), `min`, `max` and `values`. Ready for JSON.

    Raises:
        ValueError: There is no run, the runs disagree on their classes, or `seeds` has another length.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one result of `evaluate_predictions`, got none.")
    names = list(runs[0]["label_names"])
    for index, run in enumerate(runs):
        if list(run["label_names"]) != names:
            raise ValueError(
                f"Run {index} has the classes {list(run['label_names'])}, run 0 has {names}; aggregate runs that have "
                "the same classes in the same order."
            )
    if seeds is not None and len(seeds) != len(runs):
        raise ValueError(f"Got {len(seeds)} seeds for {len(runs)} runs; pass one seed per run, or none.")
    # Runs that finished with earlier versions lack some.
    calibration = [score for score in CALIBRATION_SCORES if all(score in run for run in runs)]
    return {
        "num_runs": len(runs),
        "seeds": None if seeds is None else [int(seed) for seed in seeds],
        "label_names": names,
        **{score: _summary([run[score] for run in runs]) for score in (*SCORES, *calibration)},
        "majority": {score: _summary([run["majority"][score] for run in runs]) for score in SCORES},
        "per_class": {
            name: {score: _summary([run["per_class"][name][score] for run in runs]) for score in scores}
            for name, scores in runs[0]["per_class"].items()
        },
    }


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> Path:
    """Write metrics as JSON. NumPy numbers and arrays are converted.

    Raises:
        ValueError: A value is NaN or infinite, which JSON cannot represent.
    """
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
    write_text_atomically(path, text + "\n")
    return Path(path)


def _summary(values: Sequence[float]) -> dict[str, Any]:
    values = [float(value) for value in values]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def _majority_floor(confusion: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    support = confusion.sum(axis=1)
    majority = int(support.argmax())
    constant = np.zeros_like(confusion)
    constant[:, majority] = support
    scores = {name: float(value) for name, value in overall_scores(constant).items()}
    return {"label": label_names[majority], **scores}
