"""The `evaluate` module: loaded by path without a network, equal to our own report."""

import socket

import evaluate
import numpy as np
import pytest
from huggingface_hub import SpaceCard

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
