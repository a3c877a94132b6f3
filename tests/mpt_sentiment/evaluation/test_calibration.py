"""Calibration: what the scores are, and that a temperature mends what a temperature spoilt."""

import numpy as np
import pytest

from mpt_sentiment.evaluation.calibration import calibration_scores, fit_temperature, with_temperature


def test_scores_of_two_posts_by_hand():
    scores = calibration_scores(np.array([[0.8, 0.2], [0.6, 0.4]]), [0, 1])
    assert scores["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert scores["brier"] == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)
    assert scores["calibration_error"] == pytest.approx((0.2 + 0.6) / 2)  # each post is a bin of its own


def test_bins_hold_equally_many_posts():
    confidence = np.array([0.51, 0.52, 0.98, 0.99])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    two = calibration_scores(probabilities, [0, 1, 0, 0], bins=2)["calibration_error"]
    assert two == pytest.approx((abs(1 - 0.51 - 0.52) + abs(2 - 0.98 - 0.99)) / 4)


def test_certain_and_right_is_perfect_and_certain_and_wrong_is_finite():
    assert calibration_scores(np.eye(3), [0, 1, 2]) == {"nll": 0, "brier": 0, "calibration_error": 0}
    wrong = calibration_scores(np.eye(3), [1, 2, 0])
    assert np.isfinite(wrong["nll"]) and wrong["brier"] == 2 and wrong["calibration_error"] == 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_that_was_put_on_is_found(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20_000, 3))
    labels = [random.choice(3, p=row) for row in with_temperature(logits, 1.0)]
    found = fit_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    mended = calibration_scores(with_temperature(logits * temperature, found), labels)
    assert mended["calibration_error"] < 0.02
    assert (with_temperature(logits * temperature, found).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_extremes_stay_within_bounds():
    logits = np.eye(3) * 5
    assert 0.01 <= fit_temperature(logits, [0, 1, 2]) < 0.5  # right without exception
    assert fit_temperature(logits, [1, 2, 0]) == pytest.approx(100, rel=0.05)
    with pytest.raises(ValueError, match="no posts"):
        fit_temperature(np.zeros((0, 3)), [])
