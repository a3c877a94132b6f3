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
    labels: np.ndarray,
    systems: Sequence[np.ndarray],
    num_classes: int,
    num_resamples: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> list[dict[str, np.ndarray]]:
    """Score several systems on the same bootstrap samples of the posts.

    With groups, whole groups are drawn: posts that are duplicates of one another are not independent.

    Args:
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        systems (`Sequence[np.ndarray]`): predictions of each system, each of shape `(num_runs, num_posts)`.
        num_classes (`int`): number of classes.
        num_resamples (`int`): number of samples.
        seed (`int`): seed of the draw.
        groups (`np.ndarray` of shape `(num_posts,)`, *optional*): group of each post, numbered from 0.

    Returns:
        For each system: name of the score → mean over its runs, of shape `(num_resamples,)`.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    num_groups, rng = int(groups.max()) + 1, np.random.default_rng(seed)
    counted = []  # of each system: posts of each group in each cell of the confusion matrix
    for predictions in systems:
        cells = np.zeros((len(predictions), num_groups, num_classes**2), dtype=np.float32)
        for run, predicted in zip(cells, predictions, strict=True):
            np.add.at(run, (groups, labels * num_classes + predicted), 1)
        counted.append(cells)
    chunks: list[list[dict[str, np.ndarray]]] = [[] for _ in systems]
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        # float32 is exact for these counts, and its matrix product is faster than that of integers.
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size).astype(np.float32)
        for scores, cells in zip(chunks, counted, strict=True):
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method.

    The probability of one false rejection or more among all of them stays below the level (Holm, *A Simple
    Sequentially Rejective Multiple Test Procedure*, 1979).
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected.tolist()


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
