"""Abstention on posts of low confidence: risk-coverage curve, threshold, and its scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset_scripts.reading.option_names import option_name

COVERAGE = 0.8  # reports have the accuracy on this share of the posts
TARGET_PRECISIONS = (0.8, 0.9, 0.95)


def abstains(probabilities: np.ndarray, abstain_below: float) -> np.ndarray:
    """Return whether the probability of each post's predicted class is below a threshold.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        abstain_below (`float`): threshold, from 0 to 1.

    Returns:
        `np.ndarray` of shape `(num_posts,)` of bool.

    Raises:
        ValueError: The threshold is not a probability.
    """
    if not 0 <= abstain_below <= 1:
        raise ValueError(f"{option_name('abstain_below')} must be a probability from 0 to 1, got {abstain_below}.")
    return np.asarray(probabilities).max(axis=1) < abstain_below


def risk_coverage(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the error rate among the posts whose confidence reaches each threshold.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.

    Returns:
        Thresholds, coverages (shares of posts that are answered) and risks (error rates among these), one value for
        each distinct confidence, from the highest threshold to the lowest, at which every post is answered.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    wrong = probabilities.argmax(axis=1) != np.asarray(labels)
    thresholds, group = np.unique(-probabilities.max(axis=1), return_inverse=True)
    answered = np.bincount(group).cumsum()
    return -thresholds, answered / len(group), np.bincount(group, weights=wrong).cumsum() / answered


def risk_coverage_area(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Compute the area under the risk-coverage curve: the risk averaged over coverages, best 0."""
    _, coverages, risks = risk_coverage(probabilities, labels)
    return float((np.diff(coverages, prepend=0) * risks).sum())


def accuracy_at_coverage(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, coverage: float = COVERAGE
) -> float:
    """Compute the accuracy on the given share of posts, those with the highest confidence.

    Posts of equal confidence are answered together, so that the share may be larger.
    """
    _, coverages, risks = risk_coverage(probabilities, labels)
    return float(1 - risks[np.searchsorted(coverages, coverage - 1e-9)])


def choose_threshold(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, target_precision: float
) -> float | None:
    """Choose the threshold that answers the most posts with at least the target precision.

    The precision is the accuracy among the answered posts. Choose it on validation: the precision on other posts of
    the same kind may be lower.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.
        target_precision (`float`): above 0, at most 1.

    Returns:
        The threshold, 0 if the accuracy on all posts reaches the target, or `None` if no threshold does.

    Raises:
        ValueError: The target is not a precision.
    """
    if not 0 < target_precision <= 1:
        name = option_name("target_precision")
        raise ValueError(f"{name} must be above 0 and at most 1, got {target_precision}.")
    thresholds, _, risks = risk_coverage(probabilities, labels)
    thresholds[-1] = 0.0  # answers every post, those below the lowest confidence seen here too
    reached = np.flatnonzero(1 - risks >= target_precision - 1e-9)
    return float(thresholds[reached[-1]]) if reached.size else None


def scores_of_answered(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, abstain_below: float
) -> dict[str, Any]:
    """Compute coverage and accuracy among the posts that are answered at a threshold.

    Returns:
        `posts` (answered), `coverage`, and `accuracy` (`None` if no post is answered).
    """
    answered = ~abstains(probabilities, abstain_below)
    correct = np.asarray(probabilities).argmax(axis=1) == np.asarray(labels)
    return {
        "posts": int(answered.sum()),
        "coverage": float(answered.mean()),
        "accuracy": float(correct[answered].mean()) if answered.any() else None,
    }


def abstention_scores(
    validation: tuple[np.ndarray, Sequence[int] | np.ndarray],
    test: tuple[np.ndarray, Sequence[int] | np.ndarray],
    target_precisions: Sequence[float] = TARGET_PRECISIONS,
) -> list[dict[str, Any]]:
    """Choose a threshold for each target precision on validation, and score it on test.

    Args:
        validation, test: class probabilities `(num_posts, num_classes)` and true class indices.
        target_precisions (`Sequence[float]`): the targets.

    Returns:
        For each target: `target_precision`, `abstain_below` (`None` if validation does not reach the target, and then
        nothing else), and the scores of the answered posts of `validation` and `test`.
    """
    rows = []
    for target in target_precisions:
        threshold = choose_threshold(*validation, target)
        row: dict[str, Any] = {"target_precision": target, "abstain_below": threshold}
        if threshold is not None:
            row["validation"] = scores_of_answered(*validation, threshold)
            row["test"] = scores_of_answered(*test, threshold)
        rows.append(row)
    return rows
