"""Bootstrap over posts: resampled scores, percentile intervals and paired tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpt_sentiment.evaluation.checks import check_same_length, class_indices
from mpt_sentiment.evaluation.scores import SCORES, confusion_matrix, overall_scores

CONFIDENCE = 0.95
CHUNK = 500


def resample_confusion(confusion: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Draw confusion matrices of `num_resamples` bootstrap samples of the posts.

    Drawing `N` posts with replacement and counting them into cells equals one draw from the multinomial distribution
    over cells, without an index matrix of `num_resamples × N`.

    Args:
        confusion (`np.ndarray` of shape `(num_classes, num_classes)`): rows are true labels.
        num_resamples (`int`): number of samples.
        seed (`int`): seed of the draw.

    Returns:
        `np.ndarray` of shape `(num_resamples, num_classes, num_classes)`.
    """
    total = confusion.sum()
    counts = np.random.default_rng(seed).multinomial(total, confusion.reshape(-1) / total, size=num_resamples)
    return counts.reshape(num_resamples, *confusion.shape)


def resampled_scores(
    labels: np.ndarray, systems: Sequence[np.ndarray], num_classes: int, num_resamples: int, seed: int
) -> list[dict[str, np.ndarray]]:
    """Score several systems on the same bootstrap samples of the posts.

    Args:
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        systems (`Sequence[np.ndarray]`): predictions of each system, each of shape `(num_runs, num_posts)`.
        num_classes (`int`): number of classes.
        num_resamples (`int`): number of samples.
        seed (`int`): seed of the draw.

    Returns:
        For each system: name of the score → mean over its runs, of shape `(num_resamples,)`.
    """
    num_posts, rng = len(labels), np.random.default_rng(seed)
    one_hot = [
        ((labels * num_classes + predictions)[..., None] == np.arange(num_classes**2)).astype(np.float32)
        for predictions in systems
    ]
    chunks: list[list[dict[str, np.ndarray]]] = [[] for _ in systems]
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        # float32 is exact for these counts, and its matrix product is faster than that of integers.
        counts = rng.multinomial(num_posts, np.full(num_posts, 1 / num_posts), size).astype(np.float32)
        for scores, cells in zip(chunks, one_hot, strict=True):
            confusion = np.stack([counts @ run for run in cells]).reshape(-1, size, num_classes, num_classes)
            scores.append({name: values.mean(axis=0) for name, values in overall_scores(confusion).items()})
    return [{name: np.concatenate([chunk[name] for chunk in scores]) for name in SCORES} for scores in chunks]


def percentile_interval(values: np.ndarray) -> list[float]:
    """Compute the 95 % percentile interval of resampled values as `[low, high]`."""
    tail = (1 - CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


def paired_p_value(resampled_a: np.ndarray, resampled_b: np.ndarray) -> float:
    """Compute the two-sided bootstrap p-value of the difference between two systems.

    The p-value is twice the smaller share of samples in which the difference is ≤ 0 or ≥ 0, at most 1; the smallest
    possible value is `2 / (num_resamples + 1)`.

    Args:
        resampled_a (`np.ndarray` of shape `(num_resamples,)`): scores of system A.
        resampled_b (`np.ndarray` of shape `(num_resamples,)`): scores of system B on the same samples.
    """
    differences = np.round(resampled_a - resampled_b, 12)  # equal scores must count as a tie
    tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))


def paired_bootstrap(
    labels: Sequence[int] | np.ndarray,
    predictions_a: Sequence[int] | np.ndarray,
    predictions_b: Sequence[int] | np.ndarray,
    num_classes: int,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compare two systems on the same posts with a paired bootstrap test.

    Args:
        labels (`Sequence[int]` of length `num_posts`): true class indices.
        predictions_a (`Sequence[int]` of length `num_posts`): class indices that system A predicts.
        predictions_b (`Sequence[int]` of length `num_posts`): class indices that system B predicts.
        num_classes (`int`): number of classes.
        num_resamples (`int`, defaults to 10000): bootstrap samples.
        seed (`int`, defaults to 0): seed of the bootstrap.

    Returns:
        For each score: `a`, `b`, `difference` (A − B), its 95 % `interval`, and the two-sided `p_value` of
        [`paired_p_value`]. Two systems that always agree get p = 1. The test does not cover other training seeds.

    Raises:
        ValueError: The lengths differ, there is no post, or an index is out of range.
    """
    labels = class_indices(labels, num_classes, "labels")
    predictions = {
        "predictions_a": class_indices(predictions_a, num_classes, "predictions_a"),
        "predictions_b": class_indices(predictions_b, num_classes, "predictions_b"),
    }
    check_same_length(labels=labels, **predictions)
    a, b = (overall_scores(confusion_matrix(labels, values, num_classes)) for values in predictions.values())
    systems = [values[None] for values in predictions.values()]
    resampled_a, resampled_b = resampled_scores(labels, systems, num_classes, num_resamples, seed)
    return {
        name: {
            "a": float(a[name]),
            "b": float(b[name]),
            "difference": float(a[name] - b[name]),
            "interval": percentile_interval(resampled_a[name] - resampled_b[name]),
            "p_value": paired_p_value(resampled_a[name], resampled_b[name]),
        }
        for name in SCORES
    }
