"""How far probabilities can be believed: proper scores, calibration error, and a temperature that mends most of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

BINS = 15
# Beyond these a temperature says that the probabilities are worth nothing, or are right without exception.
TEMPERATURES = (0.01, 100.0)


def calibration_scores(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, bins: int = BINS) -> dict:
    """Negative log-likelihood, Brier score and expected calibration error.

    The calibration error is that of the most probable class, in bins of equally many posts: with bins of equal width,
    as in `evaluate_predictions`, a confident model fills one or two of them and the others are noise.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): Class probabilities.
        labels (`Sequence[int]` of shape `(num_posts,)`): True class indices.
        bins (`int`, defaults to 15): Bins; fewer where there are fewer posts.

    Returns:
        `nll` (nats), `brier` (sum over classes, 0 to 2), `calibration_error` (0 to 1).
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    true = probabilities[np.arange(len(labels)), labels]
    targets = np.eye(probabilities.shape[1])[labels]
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    in_bins = np.array_split(gaps[np.argsort(confidence, kind="stable")], min(bins, len(labels)))
    return {
        "nll": float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean()),
        "brier": float(((probabilities - targets) ** 2).sum(axis=1).mean()),
        "calibration_error": float(sum(abs(gaps.sum()) for gaps in in_bins) / len(labels)),
    }


def fit_temperature(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """The temperature under which these labels are most likely (Guo et al., 2017); fit it on validation posts.

    Args:
        log_probs (`np.ndarray` of shape `(num_posts, num_classes)`): Log-probabilities or logits.
        labels (`Sequence[int]` of shape `(num_posts,)`): True class indices.

    Returns:
        By which to divide `log_probs`, within `TEMPERATURES`.

    Raises:
        ValueError: There is no post.
    """
    log_probs, labels = np.asarray(log_probs, dtype=np.float64), np.asarray(labels)
    if not len(labels):
        raise ValueError("a temperature cannot be fitted on no posts: labelled posts with answers are required.")

    def nll(log_inverse: float) -> float:
        scaled = log_probs * np.exp(log_inverse)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        true = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - true).mean())

    low, high = np.log(TEMPERATURES)
    # Convex in the inverse temperature, so one-dimensional search finds the one minimum.
    return float(np.exp(-minimize_scalar(nll, bounds=(-high, -low), method="bounded").x))


def with_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of `log_probs / temperature` over the last axis."""
    scaled = np.asarray(log_probs, dtype=np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
