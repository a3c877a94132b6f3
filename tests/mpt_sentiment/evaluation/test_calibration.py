"""Calibration: scores computed by hand, and temperature scaling."""

import numpy as np
import pytest
from scipy.special import softmax

from mpt_sentiment.evaluation.calibration import calibration_scores, fit_temperature


def test_scores_of_two_posts_equal_the_values_computed_by_hand():
    scores = calibration_scores(np.array([[0.8, 0.2], [0.6, 0.4]]), [0, 1])
    assert scores["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert scores["brier"] == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)
    assert scores["expected_calibration_error"] == pytest.approx((0.2 + 0.6) / 2)  # the posts are in two bins


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_of_a_bin():
    always_80_percent = np.tile([0.8, 0.2], (10, 1))
    scores = calibration_scores(always_80_percent, [0] * 5 + [1] * 5)
    assert scores["expected_calibration_error"] == pytest.approx(0.3)


def test_scores_at_probability_one_are_finite():
    right = calibration_scores(np.eye(3), [0, 1, 2])
    assert right == {"nll": 0, "brier": 0, "expected_calibration_error": 0}
    wrong = calibration_scores(np.eye(3), [1, 2, 0])
    assert np.isfinite(wrong["nll"]) and wrong["brier"] == 2 and wrong["expected_calibration_error"] == 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_scaled_logits_is_recovered(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20_000, 3))
    labels = [random.choice(3, p=row) for row in softmax(logits, axis=1)]
    fitted = fit_temperature(logits * temperature, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    scaled = softmax(logits * temperature / fitted, axis=1)
    assert calibration_scores(scaled, labels)["expected_calibration_error"] < 0.02


def test_a_temperature_stays_within_its_bounds():
    logits = np.eye(3) * 5
    assert 0.01 <= fit_temperature(logits, [0, 1, 2]) < 0.5  # every prediction is right
    assert fit_temperature(logits, [1, 2, 0]) == pytest.approx(100, rel=0.05)
    with pytest.raises(ValueError, match="no posts"):
        fit_temperature(np.zeros((0, 3)), [])
