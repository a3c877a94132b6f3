"""zero_shot.py: a model's own answers become predictions like any other model's."""

import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import mpt_sentiment.zero_shot as zero_shot
from helpers.choice_server import ChoiceServer
from mpt_sentiment.evaluation import paired_bootstrap
from mpt_sentiment.evaluation.calibration import calibration_scores
from mpt_sentiment.training import load_splits

LABELS = ("positive", "neutral", "negative")
OPTIONS = '{"num_posts": 150}'


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")


def call(output_dir, url, *words):
    address = ["--endpoint", url] if url else []
    return zero_shot.main(["--output_dir", str(output_dir), "--dataset_options", OPTIONS, *address, *words])


def test_predictions_metrics_and_raw_answers_are_written(tmp_path, capsys):
    with ChoiceServer() as server:
        assert call(tmp_path, server.url) == 0
    _, _, data_args = zero_shot.parse(["--output_dir", "x", "--endpoint", "http://x", "--dataset_options", OPTIONS])
    splits, _ = load_splits(data_args)

    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["id"] for row in table] == splits["test"]["id"]
    assert [LABELS.index(row["label"]) for row in table] == splits["test"]["label"]
    probabilities = np.array([[row[f"probability_{label}"] for label in LABELS] for row in table])
    predictions = [LABELS.index(row["prediction"]) for row in table]
    assert predictions == probabilities.argmax(axis=1).tolist()
    assert paired_bootstrap(splits["test"]["label"], predictions, predictions, 3, 10)["accuracy"]["difference"] == 0

    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    test = metrics["test"]
    assert test["num_posts"] == len(table) and set(test["per_class"]) == set(LABELS)
    again = calibration_scores(probabilities, splits["test"]["label"])
    assert {name: test[name] for name in again} == pytest.approx(again, abs=1e-5)
    assert metrics["answers"]["asked"] == 3 * len(table) and metrics["answers"]["failed"] == 0
    assert f"accuracy {test['accuracy']:.4f}" in capsys.readouterr().out

    raw = pq.read_table(tmp_path / "log_probs.parquet").to_pylist()
    assert {row["split"] for row in raw} == {"validation", "test"}
    assert [row["id"] for row in raw if row["split"] == "test"] == splits["test"]["id"]
    log_probs = np.array([[row[f"log_prob_{label}_order_1"] for label in LABELS] for row in raw])
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-4)


def test_test_labels_change_no_probability(tmp_path, monkeypatch):
    def flipped(args):
        splits, data = load_splits(args)
        turned = splits["test"].map(lambda row: {"label": (row["label"] + 1) % 3})
        return datasets.DatasetDict(splits | {"test": turned}), data

    with ChoiceServer() as server:
        call(tmp_path / "a", server.url)
        monkeypatch.setattr(zero_shot, "load_splits", flipped)
        call(tmp_path / "b", server.url)
    columns = [f"probability_{label}" for label in LABELS]
    a, b = (pq.read_table(tmp_path / name / "predictions.parquet") for name in "ab")
    assert a.select(columns) == b.select(columns) and a["label"] != b["label"]


def test_a_second_call_asks_nothing_and_another_model_needs_another_folder(tmp_path, capsys):
    with ChoiceServer() as server:
        call(tmp_path, server.url)
        before = (tmp_path / "predictions.parquet").read_bytes(), len(server.requests)
        call(tmp_path, server.url)
        assert ((tmp_path / "predictions.parquet").read_bytes(), len(server.requests)) == before
        assert "0 requests" in capsys.readouterr().out
        with pytest.raises(zero_shot.StoreError, match="model: .* not 'another'"):
            call(tmp_path, server.url, "--model", "another")


def test_posts_without_an_answer_get_the_label_shares_of_validation(tmp_path, capsys):
    # speaks only where the options stand in their first order, and then not about every post
    spoken = iter([True, False] * 1000)
    with ChoiceServer(lambda options: "A" if options[0] == "positive" and next(spoken) else "Well.") as server:
        call(tmp_path, server.url, "--profile", "openai")
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    silent = metrics["answers"]["posts_without_answer"]
    assert 0 < silent < metrics["test"]["num_posts"]
    assert metrics["answers"]["parsed"] == metrics["test"]["num_posts"] - silent
    assert f"{silent} posts have no answer" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    raw = {row["id"]: row for row in pq.read_table(tmp_path / "log_probs.parquet").to_pylist()}
    shares = {
        tuple(row[f"probability_{label}"] for label in LABELS)
        for row in table
        if raw[row["id"]]["log_prob_positive_order_0"] is None
    }
    assert len(shares) == 1 and sum(shares.pop()) == pytest.approx(1)


def test_the_question_can_be_ones_own(tmp_path):
    words = ["--instructions", "Is it art?", "--criteria", '{"neutral": "hard to say"}']
    with ChoiceServer() as server:
        call(tmp_path, server.url, *words)
    text = server.requests[0]["messages"][0]["content"][-1]["text"]
    assert "Is it art?\n" in text and ". neutral: hard to say\n" in text and "approving" not in text


def test_what_cannot_be_done_is_refused(tmp_path):
    for words, message in (
        (["--engine", "fake"], "knows no probabilities"),
        (["--endpoint", "http://x", "--criteria", "{"], "is not JSON"),
        (["--endpoint", "http://x", "--epochs", "3"], "unrecognized arguments: --epochs"),
        (["--endpoint", "http://x", "--criteria", '{"happy": "glad"}'], "criteria for happy"),
    ):
        with pytest.raises(ValueError, match=message):
            call(tmp_path, None, *words)
