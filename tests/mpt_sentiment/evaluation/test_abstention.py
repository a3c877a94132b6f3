"""Abstention: risk-coverage curve, threshold for a precision, scores of answered posts."""

import numpy as np
import pytest

from dataset_scripts.reading.option_names import written_for
from mpt_sentiment.evaluation.abstention import (
    abstains,
    abstention_scores,
    accuracy_at_coverage,
    choose_threshold,
    risk_coverage,
    risk_coverage_area,
    scores_of_answered,
)

# Confidence 0.9, 0.8, 0.7, 0.7, 0.6; the second and the fourth are wrong.
POSTS = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
LABELS = [0, 1, 0, 0, 0]


def test_the_curve_has_one_point_for_each_distinct_confidence():
    thresholds, coverages, risks = risk_coverage(POSTS, LABELS)
    assert thresholds.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert coverages.tolist() == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert risks.tolist() == pytest.approx([0, 1 / 2, 2 / 4, 2 / 5])
    assert risk_coverage_area(POSTS, LABELS) == pytest.approx(0.2 * 0 + 0.2 * 0.5 + 0.4 * 0.5 + 0.2 * 0.4)
    assert accuracy_at_coverage(POSTS, LABELS, 0.8) == accuracy_at_coverage(POSTS, LABELS, 0.5) == 0.5
    assert accuracy_at_coverage(POSTS, LABELS, 1.0) == pytest.approx(0.6)


def test_the_order_of_the_posts_changes_nothing():
    rng = np.random.default_rng(0)
    posts, labels = rng.dirichlet(np.ones(3), 50).round(1), rng.integers(3, size=50)
    order = rng.permutation(50)
    assert risk_coverage_area(posts[order], labels[order]) == pytest.approx(risk_coverage_area(posts, labels))


def test_the_threshold_answers_as_many_posts_as_the_target_allows():
    assert choose_threshold(POSTS, LABELS, 0.6) == 0  # all posts, and others of lower confidence
    assert choose_threshold(POSTS, LABELS, 0.95) == 0.9
    assert choose_threshold(POSTS, 1 - np.array(LABELS), 0.9) is None
    assert scores_of_answered(POSTS, LABELS, 0.9) == {"posts": 1, "coverage": 0.2, "accuracy": 1.0}
    assert scores_of_answered(POSTS, LABELS, 1.0) == {"posts": 0, "coverage": 0.0, "accuracy": None}


def test_a_post_at_the_threshold_is_answered():
    assert abstains(POSTS, 0.7).tolist() == [False, False, False, False, True]
    assert not abstains(POSTS, 0.0).any()


def test_thresholds_are_chosen_on_validation_and_scored_on_test():
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(2):
        posts = rng.dirichlet(np.ones(3), 4000)
        labels = np.array([rng.choice(3, p=row) for row in posts])
        parts.append((posts, labels))
    for row in abstention_scores(*parts, target_precisions=[0.7, 0.8]):
        assert row["validation"]["accuracy"] >= row["target_precision"]
        assert row["test"]["accuracy"] == pytest.approx(row["target_precision"], abs=0.03)
        assert row["test"]["coverage"] == pytest.approx(row["validation"]["coverage"], abs=0.03)
    assert abstention_scores((POSTS, 1 - np.array(LABELS)), parts[0], [0.9]) == [
        {"target_precision": 0.9, "abstain_below": None}
    ]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_that_are_no_probabilities_are_refused(value):
    with pytest.raises(ValueError, match="`abstain_below` must be a probability"):
        abstains(POSTS, value)
    with pytest.raises(ValueError, match="`target_precision` must be above 0"):
        choose_threshold(POSTS, LABELS, value)
    with written_for("predict"), pytest.raises(ValueError, match="^--abstain_below must be a probability"):
        abstains(POSTS, value)
