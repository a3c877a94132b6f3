"""What a run reports: scores with bootstrap intervals and their floor, paired comparisons, means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpt_sentiment.evaluation.scores import SCORES, class_scores, confusion_matrix, overall_scores

CONFIDENCE = 0.95
CALIBRATION_BINS = 15


def evaluate_predictions(
    probabilities: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    label_names: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a model's outputs on one set of labelled posts.

    Every score comes with a percentile bootstrap 95 % interval over posts (it says how much the score would move with
    another draw of the same number of posts; the spread over training seeds is [`aggregate_runs`]) and with its
    floor: what always answering the most frequent label of these posts would score. Weighted F1 excludes nothing and
    a ratio with nothing below the line is 0, see [`~mpt_sentiment.evaluation.scores.overall_scores`].

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`):
            Class probabilities. Rows that are not all distributions are taken for logits and go through a softmax,
            which alters no score but the calibration error.
        labels (`Sequence[int]` of shape `(num_posts,)`): True class indices.
        label_names (`Sequence[str]`): Name of each class, in the order of the columns.
        num_resamples (`int`, defaults to 1000): Bootstrap resamples.
        seed (`int`, defaults to 0): Seed of the bootstrap alone.

    Returns:
        `dict` ready for JSON: `num_posts`, `label_names`, `accuracy`, `f1_weighted`, `f1_macro`, `intervals` (score →
        `[low, high]`), `majority` (`label` and the three scores of answering it always), `per_class` (label →
        `precision`, `recall`, `f1`, `support`), `confusion_matrix` (rows are true labels),
        `expected_calibration_error` and `bootstrap` (`num_resamples`, `seed`, `confidence`).

    Raises:
        ValueError: The shapes disagree, there is no post, an output is not finite or a label is out of range.
    """
    label_names = list(label_names)
    probabilities = _probabilities(probabilities, label_names)
    labels = _indices(labels, len(label_names), "labels")
    _same_length(probabilities=probabilities, labels=labels)
    if num_resamples < 1:
        raise ValueError(f"num_resamples={num_resamples}: at least 1 is required; the usual number is 1000.")

    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(label_names))
    resampled = overall_scores(_resample(confusion, num_resamples, np.random.default_rng(seed)))
    per_class = class_scores(confusion)
    return {
        "num_posts": len(labels),
        "label_names": label_names,
        **{name: float(value) for name, value in overall_scores(confusion).items()},
        "intervals": {name: _interval(resampled[name]) for name in SCORES},
        "majority": _majority_floor(confusion, label_names),
        "per_class": {
            name: {
                **{score: float(per_class[score][index]) for score in ("precision", "recall", "f1")},
                "support": int(per_class["support"][index]),
            }
            for index, name in enumerate(label_names)
        },
        "confusion_matrix": confusion.tolist(),
        "expected_calibration_error": _calibration_error(probabilities, labels),
        "bootstrap": {"num_resamples": num_resamples, "seed": seed, "confidence": CONFIDENCE},
    }


def compute_metrics(prediction: Any) -> dict[str, float]:
    """Accuracy, weighted and macro F1 for `Trainer(compute_metrics=...)`, logged as `eval_accuracy` etc.

    Args:
        prediction (`transformers.EvalPrediction`):
            `predictions` holds the logits of shape `(num_posts, num_classes)`, or a tuple that starts with them;
            `label_ids` the class indices of shape `(num_posts,)`.
    """
    outputs = prediction.predictions
    logits = np.asarray(outputs[0] if isinstance(outputs, (tuple, list)) else outputs)
    confusion = confusion_matrix(prediction.label_ids, logits.argmax(axis=1), logits.shape[1])
    return {name: float(value) for name, value in overall_scores(confusion).items()}


def paired_bootstrap(
    labels: Sequence[int] | np.ndarray,
    predictions_a: Sequence[int] | np.ndarray,
    predictions_b: Sequence[int] | np.ndarray,
    num_classes: int,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compare two systems on the same posts: each resample draws posts, so both systems meet the same ones.

    Args:
        labels (`Sequence[int]` of shape `(num_posts,)`): True class indices.
        predictions_a (`Sequence[int]` of shape `(num_posts,)`): Class indices that system A predicts.
        predictions_b (`Sequence[int]` of shape `(num_posts,)`): Class indices that system B predicts, same posts.
        num_classes (`int`): Number of classes.
        num_resamples (`int`, defaults to 10000): Bootstrap resamples; the smallest p is `2 / (num_resamples + 1)`.
        seed (`int`, defaults to 0): Seed of the bootstrap.

    Returns:
        For each of `accuracy`, `f1_weighted`, `f1_macro`: `a`, `b`, `difference` (A − B), its 95 % `interval`, and
        `p_value`, two-sided: twice the smaller share of resamples in which the difference is ≤ 0 or ≥ 0, at most 1.
        Two systems that always agree get p = 1. The p-value says nothing about other training seeds.

    Raises:
        ValueError: The lengths differ, there is no post, or an index is out of range.
    """
    labels = _indices(labels, num_classes, "labels")
    predictions_a = _indices(predictions_a, num_classes, "predictions_a")
    predictions_b = _indices(predictions_b, num_classes, "predictions_b")
    _same_length(labels=labels, predictions_a=predictions_a, predictions_b=predictions_b)

    # The joint count of (label, a, b) is all that the scores depend on, so posts need not be drawn one by one.
    shape = (num_classes,) * 3
    cells = np.ravel_multi_index((labels, predictions_a, predictions_b), shape)
    joint = np.bincount(cells, minlength=num_classes**3).reshape(shape)
    resampled = _resample(joint, num_resamples, np.random.default_rng(seed))

    result = {}
    resampled_a, resampled_b = overall_scores(resampled.sum(axis=3)), overall_scores(resampled.sum(axis=2))
    whole_a, whole_b = overall_scores(joint.sum(axis=2)), overall_scores(joint.sum(axis=1))
    for name in SCORES:
        differences = np.round(resampled_a[name] - resampled_b[name], 12)  # equal scores must count as a tie
        tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
        result[name] = {
            "a": float(whole_a[name]),
            "b": float(whole_b[name]),
            "difference": float(whole_a[name] - whole_b[name]),
            "interval": _interval(differences),
            "p_value": float(min(1.0, 2 * (tail + 1) / (num_resamples + 1))),
        }
    return result


def aggregate_runs(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Summarise the reports of several training seeds.

    Args:
        runs (`Sequence[Mapping]`): One result of [`evaluate_predictions`] per run.
        seeds (`Sequence[int]`, *optional*): The training seed of each run, kept for the record.

    Returns:
        `num_runs`, `seeds`, `label_names`; for each score, `expected_calibration_error` and each `per_class` value
        and score of `majority` a dict of `mean`, `std` (sample standard deviation; `None` for a single run), `min`,
        `max` and `values`. Ready for JSON.

    Raises:
        ValueError: There is no run, the runs disagree on their classes, or `seeds` has another length.
    """
    if not runs:
        raise ValueError("aggregate_runs got no run: pass the evaluate_predictions result of at least one.")
    names = list(runs[0]["label_names"])
    for index, run in enumerate(runs):
        if list(run["label_names"]) != names:
            raise ValueError(
                f"Run {index} has the classes {list(run['label_names'])}, run 0 has {names}: only runs on the same "
                "classes in the same order can be averaged."
            )
    if seeds is not None and len(seeds) != len(runs):
        raise ValueError(f"Got {len(seeds)} seeds for {len(runs)} runs: pass one seed per run, or none.")
    summary: dict[str, Any] = {
        "num_runs": len(runs),
        "seeds": None if seeds is None else [int(seed) for seed in seeds],
        "label_names": names,
    }
    for score in (*SCORES, "expected_calibration_error"):
        summary[score] = _summary([run[score] for run in runs])
    summary["majority"] = {score: _summary([run["majority"][score] for run in runs]) for score in SCORES}
    summary["per_class"] = {
        name: {
            score: _summary([run["per_class"][name][score] for run in runs])
            for score in ("precision", "recall", "f1", "support")
        }
        for name in names
    }
    return summary


def _summary(values: Sequence[float]) -> dict[str, Any]:
    values = [float(value) for value in values]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def _resample(counts: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap a table of counts.

    Drawing `N` posts with replacement and counting them into cells is drawing once from the multinomial distribution
    whose probabilities are the cells' shares: the same law, without an index matrix of `num_resamples × N`.
    """
    total = counts.sum()
    drawn = rng.multinomial(total, counts.reshape(-1) / total, size=num_resamples)
    return drawn.reshape(num_resamples, *counts.shape)


def _interval(values: np.ndarray) -> list[float]:
    tail = (1 - CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


def _majority_floor(confusion: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    support = confusion.sum(axis=1)
    majority = int(support.argmax())
    constant = np.zeros_like(confusion)
    constant[:, majority] = support
    return {"label": label_names[majority], **{k: float(v) for k, v in overall_scores(constant).items()}}


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the top class, in equal-width bins of confidence (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    # |sum of (correct - confidence)| per bin over all posts = its share of posts times its gap.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _probabilities(values: np.ndarray, label_names: list[str]) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(label_names):
        raise ValueError(
            f"probabilities have the shape {values.shape}: (num_posts, {len(label_names)}) is required, one column "
            f"for each of the labels {label_names}."
        )
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if broken.size:
        raise ValueError(
            f"probabilities are not finite in {broken.size} of {len(values)} rows, the first is row {broken[0]}: "
            "finite numbers are required; a training loss that became NaN is the usual cause."
        )
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        return values
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _indices(values: Sequence[int] | np.ndarray, num_classes: int, name: str) -> np.ndarray:
    try:
        indices = np.asarray(values, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} hold something that is no class index ({error}): integers from 0 to {num_classes - 1} are "
            "required; leave posts without a label out."
        ) from error
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"{name} have the shape {indices.shape}: a list of at least one class index is required.")
    outside = np.flatnonzero((indices < 0) | (indices >= num_classes))
    if outside.size:
        raise ValueError(
            f"{name}[{outside[0]}] is {indices[outside[0]]}: a class index from 0 to {num_classes - 1} is required "
            f"({outside.size} of {indices.size} are not); leave posts without a label out."
        )
    return indices


def _same_length(**arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"Got {given}: one of each per post is required, in the same order.")
