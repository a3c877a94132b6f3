"""Zero-shot classification: predictions, metrics and answers of a large multimodal model."""

import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from dataset_scripts import load_posts, split_posts
from dataset_scripts.rationales.errors import StoreError
from helpers.choice_server import ChoiceServer
from mpt_sentiment.commands.zero_shot import main
from mpt_sentiment.evaluation.calibration import calibration_scores
from mpt_sentiment.zero_shot_classification import zero_shot

LABELS = ("positive", "neutral", "negative")
PROBABILITIES = [f"probability_{label}" for label in LABELS]


@pytest.fixture(scope="module")
def splits():
    return split_posts(load_posts("sample", num_posts=90))


def test_the_command_writes_predictions_metrics_and_log_probabilities(tmp_path, splits, capsys):
    words = ["--output_dir", str(tmp_path), "--dataset_options", '{"num_posts": 90}']
    with ChoiceServer() as server:
        assert not main([*words, "--endpoint", server.url])
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["id"] for row in table] == splits["test"]["id"]
    assert [LABELS.index(row["label"]) for row in table] == splits["test"]["label"]
    probabilities = np.array([[row[name] for name in PROBABILITIES] for row in table])
    assert [LABELS.index(row["prediction"]) for row in table] == probabilities.argmax(axis=1).tolist()

    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    test = metrics["test"]
    assert test["num_posts"] == len(table) and set(test["per_class"]) == set(LABELS)
    scores = calibration_scores(probabilities, splits["test"]["label"])
    assert {name: test[name] for name in scores} == pytest.approx(scores)
    assert metrics["answers"]["asked"] == 3 * len(table) and metrics["answers"]["failed"] == 0
    assert f"accuracy {test['accuracy']:.4f}" in capsys.readouterr().out

    answers = pq.read_table(tmp_path / "log_probs.parquet").to_pylist()
    assert {row["split"] for row in answers} == {"validation", "test"}
    assert [row["id"] for row in answers if row["split"] == "test"] == splits["test"]["id"]
    log_probs = np.array([[row[f"log_prob_{label}_order_1"] for label in LABELS] for row in answers])
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-4)


def test_test_labels_change_no_probability(tmp_path, splits):
    changed = splits["test"].map(lambda row: {"label": (row["label"] + 1) % 3})
    with ChoiceServer() as server:
        zero_shot(splits, tmp_path / "a", endpoint=server.url, progress=False)
        zero_shot(
            datasets.DatasetDict(splits | {"test": changed}), tmp_path / "b", endpoint=server.url, progress=False
        )
    a, b = (pq.read_table(tmp_path / name / "predictions.parquet") for name in "ab")
    assert a.select(PROBABILITIES) == b.select(PROBABILITIES) and a["label"] != b["label"]


def test_a_second_call_requests_nothing_and_another_model_needs_another_folder(tmp_path, splits):
    with ChoiceServer() as server:
        first = zero_shot(splits, tmp_path, endpoint=server.url, progress=False)
        second = zero_shot(splits, tmp_path, endpoint=server.url, progress=False)
        assert first.report.requests > 0 and second.report.requests == 0 and second.test == first.test
        with pytest.raises(StoreError, match="model: .*'another'"):
            zero_shot(splits, tmp_path, endpoint=server.url, model="another", progress=False)


def test_posts_without_an_answer_get_the_label_prior_of_validation(tmp_path, splits):
    # answers only the first order of the options, and only every second post
    answers = iter([True, False] * 1000)
    with ChoiceServer(lambda options: "A" if options[0] == "positive" and next(answers) else "Well.") as server:
        result = zero_shot(splits, tmp_path, endpoint=server.url, profile="openai", progress=False)
    missing = result.metrics["answers"]["posts_without_answer"]
    assert 0 < missing < result.test["num_posts"]
    assert result.metrics["answers"]["parsed"] == result.test["num_posts"] - missing
    assert f"{missing} posts have no answer" in str(result)
    answers = {row["id"]: row for row in pq.read_table(tmp_path / "log_probs.parquet").to_pylist()}
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    unanswered = [row for row in rows if answers[row["id"]]["log_prob_positive_order_0"] is None]
    prior = np.bincount(splits["validation"]["label"], minlength=3) / len(splits["validation"])
    assert len(unanswered) == missing
    for row in unanswered:
        assert [row[name] for name in PROBABILITIES] == pytest.approx(prior.tolist())


def test_the_question_can_be_changed(tmp_path, splits):
    words = {"instructions": "Is it art?", "criteria": {"neutral": "hard to say"}}
    with ChoiceServer() as server:
        zero_shot(splits, tmp_path, endpoint=server.url, progress=False, **words)
    text = server.requests[0]["messages"][0]["content"][-1]["text"]
    assert "Is it art?\n" in text and ". neutral: hard to say\n" in text and "approving" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "fake"], "'fake' has no probabilities"),
        (["--endpoint", "http://x", "--criteria", "{"], "is not JSON"),
        (["--endpoint", "http://x", "--epochs", "3"], "--epochs"),
        (["--endpoint", "http://x", "--criteria", '{"happy": "glad"}'], "happy"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        main(["--output_dir", str(tmp_path), "--dataset_options", '{"num_posts": 90}', *words])
