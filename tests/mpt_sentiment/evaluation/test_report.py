"""Reports: scores, intervals, floors, paired tests, aggregation over seeds, metrics file."""

import json
import platform
import re
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mpt_sentiment.evaluation import (
    aggregate_runs,
    compute_metrics,
    environment,
    evaluate_predictions,
    paired_bootstrap,
    write_metrics,
)
from mpt_sentiment.evaluation.comparison import Entry, compare, comparison_markdown
from mpt_sentiment.evaluation.scores import SCORES, Score, class_scores

NAMES = ["positive", "neutral", "negative"]


def one_hot(predictions, num_classes=3):
    return np.eye(num_classes)[np.asarray(predictions)]


def noisy_outputs(num_posts=300, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, num_posts, p=[0.6, 0.1, 0.3])
    logits = rng.normal(size=(num_posts, 3))
    logits[np.arange(num_posts), labels] += signal
    return logits, labels


def test_scores_equal_the_values_computed_by_hand():
    # labels 0 0 0 1 1 2, predictions 0 0 1 1 2 2: hits 2, 1, 1.
    report = evaluate_predictions(one_hot([0, 0, 1, 1, 2, 2]), [0, 0, 0, 1, 1, 2], NAMES)
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert report["per_class"]["positive"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert report["per_class"]["neutral"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})
    assert report["per_class"]["negative"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert report["f1_weighted"] == pytest.approx((3 * 0.8 + 2 * 0.5 + 2 / 3) / 6)
    assert report["f1_macro"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert report["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_a_report_has_the_floor_of_always_predicting_the_majority_label():
    report = evaluate_predictions(one_hot([0, 0, 0, 0]), [0, 0, 0, 2], NAMES)
    assert report["majority"]["label"] == "positive"
    for score in ("accuracy", "f1_weighted", "f1_macro"):
        assert report["majority"][score] == pytest.approx(report[score])
    assert report["majority"]["accuracy"] == 0.75


def test_scores_equal_scikit_learn_with_a_class_that_never_occurs():
    logits, labels = noisy_outputs()
    labels[labels == 1] = 0
    report = evaluate_predictions(logits, labels, NAMES)
    predictions = logits.argmax(axis=1)
    common = {"labels": range(3), "zero_division": 0}
    assert report["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    assert report["f1_weighted"] == pytest.approx(f1_score(labels, predictions, average="weighted", **common))
    assert report["f1_macro"] == pytest.approx(f1_score(labels, predictions, average="macro", **common))


def test_intervals_contain_the_score_and_depend_on_the_seed_alone():
    logits, labels = noisy_outputs()
    report = evaluate_predictions(logits, labels, NAMES, seed=3)
    for score, (low, high) in report["intervals"].items():
        assert low < report[score] < high
    assert json.loads(json.dumps(evaluate_predictions(logits, labels, NAMES, seed=3), allow_nan=False)) == report
    assert evaluate_predictions(logits, labels, NAMES, seed=4)["intervals"] != report["intervals"]


def test_intervals_equal_those_of_a_loop_that_draws_posts_one_by_one():
    logits, labels = noisy_outputs(num_posts=150)
    predictions = logits.argmax(axis=1)
    rng = np.random.default_rng(1)
    drawn = {"accuracy": [], "f1_weighted": [], "f1_macro": []}
    for _ in range(600):
        rows = rng.integers(len(labels), size=len(labels))
        y, p = labels[rows], predictions[rows]
        drawn["accuracy"].append(accuracy_score(y, p))
        for average in ("weighted", "macro"):
            drawn[f"f1_{average}"].append(f1_score(y, p, average=average, labels=range(3), zero_division=0))
    report = evaluate_predictions(logits, labels, NAMES, num_resamples=20_000)
    for score, values in drawn.items():
        # Two estimates of one quantile: they differ by the loop's own sampling error, a tenth of the width at most.
        width = np.subtract(*report["intervals"][score][::-1])
        assert np.quantile(values, [0.025, 0.975]) == pytest.approx(report["intervals"][score], abs=0.12 * width)


def test_logits_and_their_probabilities_give_the_same_report():
    logits, labels = noisy_outputs()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    from_logits, from_probabilities = (evaluate_predictions(x, labels, NAMES) for x in (logits, probabilities))
    assert from_logits["confusion_matrix"] == from_probabilities["confusion_matrix"]
    for name in ("nll", "brier", "expected_calibration_error", "calibrated_error"):
        assert from_logits[name] == pytest.approx(from_probabilities[name])
    assert from_logits["risk_coverage"] == pytest.approx(from_probabilities["risk_coverage"])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (one_hot([0, 1]), [0], r"2 probabilities, 1 labels"),
        (one_hot([0, 1]), [0, 3], r"got 3 in labels\[1\].*from 0 to 2"),
        (one_hot([0, 1]), [0, None], r"leave out posts without a label"),
        (one_hot([0, 1], 2), [0, 1], r"\(num_posts, 3\).*got \(2, 2\)"),
        (np.array([[0.2, np.nan, 0.1]]), [0], r"1 of 1 rows are not, the first is row 0"),
        (np.empty((0, 3)), [], r"at least one class index"),
    ],
)
def test_bad_input_is_refused_with_its_position_and_a_fix(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(probabilities, labels, NAMES)


def test_compute_metrics_takes_the_first_of_the_trainers_outputs():
    logits, labels = noisy_outputs()
    report = evaluate_predictions(logits, labels, NAMES)
    expected = {score: report[score] for score in ("accuracy", "f1_weighted", "f1_macro")}
    assert compute_metrics(SimpleNamespace(predictions=logits, label_ids=labels)) == expected
    assert compute_metrics(SimpleNamespace(predictions=(logits, labels), label_ids=labels)) == expected


def test_paired_bootstrap_finds_the_better_system_and_no_difference_between_equals():
    labels = np.arange(300) % 3
    good, poor = labels.copy(), labels.copy()
    good[:30] = (good[:30] + 1) % 3
    poor[:90] = (poor[:90] + 1) % 3
    better = paired_bootstrap(labels, good, poor, 3)
    assert better["accuracy"]["difference"] == pytest.approx(0.2)
    assert better["accuracy"]["p_value"] < 0.001
    assert better["f1_weighted"]["interval"][0] > 0
    same = paired_bootstrap(labels, good, good, 3)
    assert {result["p_value"] for result in same.values()} == {1.0}
    swapped = paired_bootstrap(labels, poor, good, 3)
    assert swapped["f1_macro"]["difference"] == -better["f1_macro"]["difference"]


def test_paired_bootstrap_equals_a_loop_that_draws_posts_for_both_systems():
    logits, labels = noisy_outputs(num_posts=120, signal=1.2)
    a, b = logits.argmax(axis=1), noisy_outputs(num_posts=120, seed=0, signal=0.6)[0].argmax(axis=1)
    rng = np.random.default_rng(0)
    rows = rng.integers(120, size=(4000, 120))
    differences = (a[rows] == labels[rows]).mean(axis=1) - (b[rows] == labels[rows]).mean(axis=1)
    result = paired_bootstrap(labels, a, b, 3)["accuracy"]
    assert np.quantile(differences, [0.025, 0.975]) == pytest.approx(result["interval"], abs=0.015)


def test_runs_are_averaged_with_the_sample_standard_deviation():
    runs = [evaluate_predictions(*noisy_outputs(seed=seed), NAMES) for seed in range(3)]
    summary = aggregate_runs(runs, seeds=[1, 2, 3])
    values = [run["f1_weighted"] for run in runs]
    assert summary["seeds"] == [1, 2, 3]
    score = summary["f1_weighted"]
    assert score["values"] == values
    assert score["mean"] == pytest.approx(np.mean(values)) and score["std"] == pytest.approx(np.std(values, ddof=1))
    assert (score["min"], score["max"]) == (min(values), max(values))
    assert summary["per_class"]["neutral"]["recall"]["max"] == max(r["per_class"]["neutral"]["recall"] for r in runs)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert aggregate_runs(runs[:1])["accuracy"]["std"] is None
    with pytest.raises(ValueError, match="Run 1 has the classes"):
        aggregate_runs([runs[0], evaluate_predictions(*noisy_outputs(), NAMES[::-1])])


def test_metrics_convert_numpy_values_and_a_failure_leaves_the_old_file(tmp_path):
    path = write_metrics(tmp_path / "new" / "metrics.json", {"f1": np.float32(0.5), "confusion": np.eye(2, dtype=int)})
    assert json.loads(path.read_text()) == {"f1": 0.5, "confusion": [[1, 0], [0, 1]]}
    with pytest.raises(ValueError):
        write_metrics(path, {"f1": float("nan")})
    assert json.loads(path.read_text())["f1"] == 0.5


def test_the_environment_names_versions_and_no_machine():
    described = environment()
    assert {"torch", "transformers", "datasets", "numpy"} <= described["libraries"].keys()
    assert described["hardware"]
    assert not re.search(r"(^|[\s\"'])[/~]\w", json.dumps(described)) and platform.node() not in described.values()


def test_a_score_added_to_the_table_appears_in_every_report(monkeypatch):
    monkeypatch.setitem(
        SCORES, "recall_macro", Score("Macro recall", lambda c: class_scores(c)["recall"].mean(-1), "recall")
    )
    logits, labels = noisy_outputs()
    report = evaluate_predictions(logits, labels, NAMES)
    assert report["recall_macro"] == pytest.approx(recall_score(labels, logits.argmax(axis=1), average="macro"))
    assert {"recall_macro"} <= report["intervals"].keys() & report["majority"].keys()
    assert aggregate_runs([report])["recall_macro"]["mean"] == report["recall_macro"]
    row = compare([Entry("mpt", labels, logits.argmax(axis=1)[None])], 3)[0]
    assert row["recall_macro"]["mean"] == pytest.approx(report["recall_macro"])
    assert "Macro recall" in comparison_markdown([row])
