"""Calibration of class probabilities: scores, intervals, bins and temperature scaling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from mpt_sentiment.evaluation.bootstrap import CHUNK, CONFIDENCE, percentile_interval

BINS = 15
# A fitted temperature at one of these bounds: the model is always right, or its probabilities carry no information.
TEMPERATURES = (0.01, 100.0)
MIN_POSTS = 30  # with fewer validation posts, no temperature is fitted
CALIBRATION_SCORES = ("nll", "brier", "expected_calibration_error")


def confidence_bins(probabilities: np.ndarray) -> np.ndarray:
    """Assign posts to `BINS` bins of equal mass by the confidence in their most probable class.

    Posts of equal confidence share a bin, so that the result does not depend on the order of the posts.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.

    Returns:
        `np.ndarray` of shape `(num_posts,)`: bins from 0; some may be empty.
    """
    confidence = probabilities.max(axis=1)
    return np.searchsorted(np.sort(confidence), confidence) * BINS // max(len(confidence), 1)


def expected_calibration_error(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Compute the expected calibration error in 15 bins of equal mass.

    The error is the mean over posts of the gap between mean confidence in the most probable class and accuracy in the
    post's bin, from 0 to 1. It cannot be negative, so that it is above 0 for a calibrated model too; see
    [`calibrated_error`].

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.
    """
    # |sum of (correct - confidence)| of a bin over all posts = the bin's share of posts times its gap.
    gaps = np.bincount(confidence_bins(probabilities), weights=_gaps(probabilities, labels), minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibrated_error(probabilities: np.ndarray, num_draws: int = 200, seed: int = 0) -> float:
    """Compute the mean error in 15 bins that a perfectly calibrated model has on as many posts.

    Whether each prediction is right is drawn with the probability that the model gives it. Measured errors up to this
    value are no evidence of miscalibration.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        num_draws (`int`, defaults to 200): number of draws.
        seed (`int`, defaults to 0): seed of the draws.
    """
    rng, confidence = np.random.default_rng(seed), probabilities.max(axis=1)
    members = (confidence_bins(probabilities)[:, None] == np.arange(BINS)).astype(np.float64)
    errors = [np.abs(((rng.random(len(confidence)) < confidence) - confidence) @ members) for _ in range(num_draws)]
    return float(np.sum(errors) / (num_draws * len(confidence)))


def calibration_scores(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Compute negative log-likelihood, Brier score and expected calibration error.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.

    Returns:
        `nll` (nats), `brier` (sum over classes, 0 to 2), `expected_calibration_error` (0 to 1).
    """
    nll, brier = _losses(probabilities, labels)
    return {
        "nll": float(nll.mean()),
        "brier": float(brier.mean()),
        "expected_calibration_error": expected_calibration_error(np.asarray(probabilities, np.float64), labels),
    }


def calibration_intervals(
    probabilities: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Compute bootstrap 95 % intervals of the calibration scores.

    Posts, or groups of duplicate posts, are drawn with replacement; the bins stay those of all posts. The intervals of
    `nll` and `brier` are percentile intervals. That of the calibration error is a basic interval,
    `[2 · error − high, 2 · error − low]` within 0 and 1: resampling adds noise to the gaps, whose absolute values
    grow, and percentiles would lie above the measured error.

    Args:
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): class probabilities.
        labels (`Sequence[int]` of length `num_posts`): true class indices.
        groups (`Sequence[int]` of length `num_posts`, *optional*): numbers of the groups, from 0.
        num_resamples (`int`, defaults to 1000): bootstrap samples.
        seed (`int`, defaults to 0): seed of the draw.

    Returns:
        Name of the score → `[low, high]`.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    bins, num_posts = confidence_bins(probabilities), len(labels)
    groups = np.arange(num_posts) if groups is None else np.asarray(groups)
    num_groups = int(groups.max()) + 1
    sums = np.zeros((num_groups, BINS + 3))  # of each group: gaps by bin, NLL, Brier score, posts
    np.add.at(sums, (groups, bins), _gaps(probabilities, labels))
    for column, values in enumerate((*_losses(probabilities, labels), np.ones(num_posts)), BINS):
        np.add.at(sums[:, column], groups, values)
    rng, drawn = np.random.default_rng(seed), []
    for start in range(0, num_resamples, CHUNK):
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), min(CHUNK, num_resamples - start))
        drawn.append(counts.astype(np.float64) @ sums)
    total = np.concatenate(drawn)
    nll, brier, posts = total[:, BINS:].T
    error = expected_calibration_error(probabilities, labels)
    low, high = percentile_interval(np.abs(total[:, :BINS]).sum(axis=1) / posts)
    basic = [min(max(bound, 0.0), 1.0) for bound in (2 * error - high, 2 * error - low)]
    return {
        "nll": percentile_interval(nll / posts),
        "brier": percentile_interval(brier / posts),
        "expected_calibration_error": basic,
    }


def calibration_report(
    probabilities: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Collect scores, intervals and bins; arguments as of [`calibration_intervals`].

    Returns:
        The scores of [`calibration_scores`], their `intervals`, `calibrated_error`, and the bins of [`reliability`].
    """
    return {
        **calibration_scores(probabilities, labels),
        "intervals": calibration_intervals(probabilities, labels, groups, num_resamples, seed),
        "calibrated_error": calibrated_error(probabilities, seed=seed),
        "reliability": reliability(probabilities, labels),
    }


def reliability(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> list[dict[str, float]]:
    """Compute the bins of a reliability diagram, from the least to the most confident.

    Returns:
        For each bin that is not empty: `posts`, mean `confidence`, `accuracy` and its Wilson 95 % `interval`.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    bins, confidence = confidence_bins(probabilities), probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    return [
        {
            "posts": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(correct[bins == number].mean()),
            "interval": share_interval(int(correct[bins == number].sum()), int((bins == number).sum())),
        }
        for number in np.unique(bins)
    ]


def share_interval(count: int, total: int) -> list[float]:
    """Compute the Wilson 95 % interval of the share `count / total` as `[low, high]`."""
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def fit_temperature(log_probs: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Fit the temperature that maximizes the likelihood of the labels (Guo et al., 2017).

    Fit it on validation posts, then use [`scaled`].

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


def validation_temperature(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[float, str | None]:
    """Fit a temperature on validation posts, or keep 1 where they do not determine one.

    Args:
        logits (`np.ndarray` of shape `(num_posts, num_classes)`): logits of the validation posts.
        labels (`Sequence[int]` of length `num_posts`): true class indices.

    Returns:
        The temperature, and the reason if it was not fitted.
    """
    labels = np.asarray(labels)
    if not np.isfinite(logits).all():
        return 1.0, "outputs on validation posts are not finite"
    if len(labels) < MIN_POSTS:
        return 1.0, f"{len(labels)} validation posts are too few to fit a temperature, {MIN_POSTS} are needed"
    if len(np.unique(labels)) < 2:
        return 1.0, "all validation posts have one label"
    if (np.argmax(logits, axis=1) == labels).all():
        return 1.0, "every validation post is predicted right, which sets no limit to the confidence"
    return fit_temperature(logits, labels), None


def scaled(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of logits or log-probabilities at a temperature.

    Args:
        log_probs (`np.ndarray` of shape `(num_posts, num_classes)`): logits or log-probabilities.
        temperature (`float`): above 0; the order of the classes does not change.
    """
    return softmax(np.asarray(log_probs, dtype=np.float64) / temperature, axis=-1)


def _gaps(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return 1 or 0 for a right or wrong prediction, minus the confidence in it."""
    return (probabilities.argmax(axis=1) == np.asarray(labels)) - probabilities.max(axis=1)


def _losses(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the negative log-likelihood and the Brier score of each post."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    of_label = probabilities[np.arange(len(labels)), labels]
    nll = -np.log(np.maximum(of_label, np.finfo(np.float64).tiny))
    return nll, ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
