"""The `evaluate` module: loaded by path without a network, equal to our own report."""

import socket

import evaluate
import numpy as np
import pytest
from huggingface_hub import SpaceCard
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from mpt_sentiment.evaluation import METRIC_PATH, evaluate_predictions

NAMES = ["positive", "neutral", "negative"]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    def refuse(*args, **kwargs):
        raise OSError("tests have no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return evaluate.load(str(METRIC_PATH), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def test_it_loads_by_path_without_network_and_equals_the_report(metric):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(3, size=(2, 90))
    scores = metric.compute(predictions=predictions, references=labels, label_names=NAMES)
    report = evaluate_predictions(np.eye(3)[predictions], labels, NAMES)
    for key in ("accuracy", "f1_weighted", "f1_macro"):
        assert scores[key] == pytest.approx(report[key])
    assert scores["per_class"]["neutral"] == pytest.approx(report["per_class"]["neutral"])


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_random_posts_are_those_of_scikit_learn(metric, seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 6))
    probabilities = rng.dirichlet(np.ones(classes), 150)
    references, predictions = rng.integers(classes, size=150), probabilities.argmax(axis=1)
    names = [f"class {index}" for index in range(classes)]
    scores = metric.compute(
        predictions=predictions, references=references, label_names=names, probabilities=probabilities.tolist()
    )
    assert scores["accuracy"] == pytest.approx(accuracy_score(references, predictions))
    for average in ("weighted", "macro"):
        assert scores[f"f1_{average}"] == pytest.approx(f1_score(references, predictions, average=average))
    assert scores["confusion_matrix"] == confusion_matrix(references, predictions, labels=range(classes)).tolist()
    columns = precision_recall_fscore_support(references, predictions, labels=range(classes), zero_division=0)
    for name, row in zip(names, zip(*columns, strict=True), strict=True):
        assert list(scores["per_class"][name].values()) == pytest.approx(row)
    # 150 posts of distinct confidence: all 15 bins of equal mass have 10 posts
    shares, means = calibration_curve(
        predictions == references, probabilities.max(axis=1), n_bins=15, strategy="quantile"
    )
    assert scores["expected_calibration_error"] == pytest.approx(np.abs(shares - means).mean())


def test_intervals_are_those_of_the_report(metric):
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(3), 90), rng.integers(3, size=90)
    arguments = {"predictions": probabilities.argmax(axis=1), "references": labels, "label_names": NAMES}
    scores = metric.compute(**arguments, probabilities=probabilities.tolist(), seed=4)
    report = evaluate_predictions(probabilities, labels, NAMES, seed=4)
    for name, interval in scores["intervals"].items():
        assert interval == pytest.approx(report["intervals"][name])
    assert set(scores["intervals"]) == {"accuracy", "f1_weighted", "f1_macro", "expected_calibration_error"}
    assert "intervals" not in metric.compute(**arguments, num_resamples=0)


def test_probabilities_of_other_posts_are_refused(metric):
    with pytest.raises(ValueError, match=r"one list of class probabilities per post, 2 in all.*\(1, 3\)"):
        metric.compute(predictions=[0, 1], references=[0, 1], probabilities=[[0.5, 0.3, 0.2]])


def test_without_names_it_averages_over_the_classes_that_occur(metric):
    scores = metric.compute(predictions=[0, 1, 2, 2], references=[0, 1, 1, 2])
    assert scores["accuracy"] == 0.75
    assert scores["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert list(scores["per_class"]) == ["0", "1", "2"]


def test_an_index_without_a_name_is_refused(metric):
    with pytest.raises(ValueError, match="Class index 2 has no name"):
        metric.compute(predictions=[0, 2], references=[0, 1], label_names=["positive", "negative"])


def test_its_folder_is_a_space_that_can_be_pushed():
    header = SpaceCard.load(METRIC_PATH / "README.md").data
    assert header.title and header.sdk == "static" and {"evaluate", "metric"} <= set(header.tags)
    assert (METRIC_PATH / "index.html").is_file() and (METRIC_PATH / "requirements.txt").is_file()
