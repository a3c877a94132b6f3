"""Calibration scores of class probabilities, and temperature scaling."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15
# A fitted temperature at one of these bounds: the model is always right, or its probabilities carry no information.
TEMPERATURES = (0.01, 100.0)


def expected_calibration_error(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Compute the expected calibration error in 15 bins of equal width (Guo et al., 2017).

    The error is the mean over posts of the gap between the confidence in the most probable class and the accuracy in
    the post's bin, from 0 to 1.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    # |sum of (correct - confidence)| of a bin over all posts = the bin's share of posts times its gap.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration_scores(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Compute negative log-likelihood, Brier score and expected calibration error.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.

    Returns:
        `nll` (nats), `brier` (sum over classes, 0 to 2), `expected_calibration_error` (0 to 1).
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    of_label = probabilities[np.arange(len(labels)), labels]
    targets = np.eye(probabilities.shape[1])[labels]
    return {
        "nll": float(-np.log(np.maximum(of_label, np.finfo(np.float64).tiny)).mean()),
        "brier": float(((probabilities - targets) ** 2).sum(axis=1).mean()),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
    }


def fit_temperature(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Fit the temperature that maximizes the likelihood of the labels (Guo et al., 2017).

    Fit it on validation posts, then use `scipy.special.softmax(log_probs / temperature, axis=-1)`.

    Args:
        log_probs (`np.ndarray` of shape `(num_posts, num_classes)`): log-probabilities or logits.
        labels (`Sequence[int]` of length `num_posts`): true class indices.

    Returns:
        The divisor of `log_probs`, within `TEMPERATURES`.

    Raises:
        ValueError: There is no post.
    """
    log_probs, labels = np.asarray(log_probs, dtype=np.float64), np.asarray(labels)
    if not len(labels):
        raise ValueError("A temperature cannot be fitted on no posts; pass at least one labelled post.")

    def nll(log_inverse: float) -> float:
        scaled = log_softmax(log_probs * np.exp(log_inverse), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    low, high = np.log(TEMPERATURES)
    # The likelihood is convex in the inverse temperature, so the search finds its only minimum.
    return float(np.exp(-minimize_scalar(nll, bounds=(-high, -low), method="bounded").x))
