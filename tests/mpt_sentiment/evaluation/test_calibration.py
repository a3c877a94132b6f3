"""Calibration: scores computed by hand, and temperature scaling."""

import numpy as np
import pytest
from scipy.special import softmax

from mpt_sentiment.evaluation.calibration import (
    calibrated_error,
    calibration_intervals,
    calibration_scores,
    expected_calibration_error,
    fit_temperature,
    reliability,
    scaled,
    validation_temperature,
)


def drawn_posts(count, scale=1.0, seed=0):
    """Draw labels from probabilities; return both, the probabilities with scaled logits."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, 3))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return softmax(logits * scale, axis=1), labels


def test_scores_of_two_posts_equal_the_values_computed_by_hand():
    scores = calibration_scores(np.array([[0.8, 0.2], [0.6, 0.4]]), [0, 1])
    assert scores["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert scores["brier"] == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)
    assert scores["expected_calibration_error"] == pytest.approx((0.2 + 0.6) / 2)  # the posts are in two bins


def test_calibration_error_is_the_gap_between_confidence_and_accuracy_of_a_bin():
    always_80_percent = np.tile([0.8, 0.2], (10, 1))
    scores = calibration_scores(always_80_percent, [0] * 5 + [1] * 5)
    assert scores["expected_calibration_error"] == pytest.approx(0.3)


def test_bins_have_equal_numbers_of_posts_and_equal_confidence_shares_a_bin():
    probabilities, labels = drawn_posts(150)
    assert [each["posts"] for each in reliability(probabilities, labels)] == [10] * 15
    tied = np.vstack([np.tile([0.9, 0.1], (40, 1)), np.tile([0.6, 0.4], (20, 1))])
    bins = reliability(tied, [0] * 20 + [1] * 20 + [0] * 20)
    assert [(each["posts"], each["accuracy"]) for each in bins] == [(20, 1.0), (40, 0.5)]
    assert bins[0]["interval"][0] < 0.9 and bins[1]["interval"] == pytest.approx([0.352, 0.648], abs=1e-3)
    order = np.random.default_rng(0).permutation(60)
    labels = np.array([0] * 20 + [1] * 20 + [0] * 20)
    shuffled = expected_calibration_error(tied[order], labels[order])
    assert shuffled == pytest.approx(expected_calibration_error(tied, labels))


def test_a_calibrated_model_has_the_error_that_is_reported_for_one():
    errors = [expected_calibration_error(*drawn_posts(400, seed=seed)) for seed in range(40)]
    assert calibrated_error(drawn_posts(400)[0]) == pytest.approx(np.mean(errors), abs=0.005)
    assert np.mean(errors) > 0.05


def test_intervals_contain_the_scores_of_many_posts():
    true = calibration_scores(*drawn_posts(100_000, scale=2, seed=1))
    covered = dict.fromkeys(true, 0)
    for seed in range(40):
        intervals = calibration_intervals(*drawn_posts(300, scale=2, seed=seed), num_resamples=400)
        for name, (low, high) in intervals.items():
            covered[name] += low <= true[name] <= high
    assert min(covered.values()) >= 33


def test_groups_are_drawn_whole_so_that_copies_of_posts_add_no_certainty():
    probabilities, labels = drawn_posts(200)
    once = calibration_intervals(probabilities, labels)
    copied = np.repeat(probabilities, 3, axis=0), np.repeat(labels, 3)
    grouped = calibration_intervals(*copied, groups=np.repeat(np.arange(200), 3))
    for name in ("nll", "brier"):
        assert grouped[name] == pytest.approx(once[name])
    low, high = calibration_intervals(*copied)["brier"]
    assert high - low < 0.7 * (once["brier"][1] - once["brier"][0])


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


def test_a_temperature_changes_no_prediction_even_where_probabilities_are_nearly_equal():
    logits = np.array([[1.0, 1.0 + 1e-6, 0.0], [30.0, 29.9999, -30.0]], dtype=np.float32)
    for temperature in (0.01, 1.0, 100.0):
        assert (scaled(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_validation_posts_that_determine_no_temperature_leave_it_at_one():
    probabilities, labels = drawn_posts(500, scale=2)
    fitted, note = validation_temperature(np.log(probabilities), labels)
    assert fitted == pytest.approx(2, rel=0.2) and note is None
    assert validation_temperature(np.log(probabilities), labels) == (fitted, None)
    cases = {
        "29 validation posts are too few": (np.log(probabilities[:29]), labels[:29]),
        "one label": (np.log(probabilities), np.zeros(500, int)),
        "predicted right": (np.log(probabilities), probabilities.argmax(axis=1)),
        "not finite": (np.full((500, 3), np.nan), labels),
    }
    for reason, arguments in cases.items():
        temperature, note = validation_temperature(*arguments)
        assert temperature == 1.0 and reason in note
