"""Threshold of abstention from the folder of a training."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset
from scipy.special import softmax

from helpers import tiny, tiny_processor
from mpt_sentiment import commands
from mpt_sentiment.evaluation.abstention import choose_threshold, scores_of_answered
from mpt_sentiment.evaluation.predictions import prediction_table, write_predictions
from mpt_sentiment.predicting import predict
from mpt_sentiment.prediction.threshold import threshold_of_run

NAMES = ["positive", "neutral", "negative"]


@pytest.fixture
def run(tmp_path):
    """Folder with the predictions of a training at the temperature 2, its logits and its labels."""
    rng = np.random.default_rng(0)
    parts = {}
    for name, file in {"validation": "validation_predictions.parquet", "test": "predictions.parquet"}.items():
        logits = rng.normal(0, 2, (200, 3))
        labels = (softmax(logits / 2, axis=1).cumsum(axis=1) > rng.random((200, 1))).argmax(axis=1)
        table = prediction_table([f"{name}{n}" for n in range(200)], NAMES, softmax(logits / 2, axis=1), labels)
        write_predictions(tmp_path / file, table)
        parts[name] = logits, labels
    tiny.config(calibration_temperature=2.0).save_pretrained(tmp_path)
    return tmp_path, parts


@pytest.mark.parametrize(("calibrated", "divisor"), [(True, 2.0), (False, 1.0)])
def test_the_threshold_is_chosen_on_validation_and_reported_on_test(run, calibrated, divisor):
    folder, parts = run
    scored = {name: (softmax(logits / divisor, axis=1), labels) for name, (logits, labels) in parts.items()}
    threshold, line = threshold_of_run(folder, 0.8, calibrated)
    assert threshold == pytest.approx(choose_threshold(*scored["validation"], 0.8))
    for name, (probabilities, labels) in scored.items():
        scores = scores_of_answered(probabilities, labels, threshold - 1e-9)
        assert f"{name} {scores['coverage']:.1%} of 200 posts answered, {scores['accuracy']:.1%} of them right" in line
    (folder / "predictions.parquet").unlink()
    assert "test" not in threshold_of_run(folder, 0.8, calibrated)[1]


def test_a_precision_that_no_threshold_reaches_and_a_folder_without_predictions_are_refused(run):
    folder, parts = run
    logits, labels = parts["validation"]
    wrong = (logits.argmax(axis=1) + 1) % 3
    table = prediction_table([str(n) for n in range(200)], NAMES, softmax(logits, axis=1), wrong)
    write_predictions(folder / "validation_predictions.parquet", table)
    with pytest.raises(ValueError, match=r"on the 200 validation posts of .*; the highest precision is 0.000"):
        threshold_of_run(folder, 0.9)
    (folder / "validation_predictions.parquet").unlink()
    with pytest.raises(ValueError, match=r"validation_predictions.parquet, which `train` writes.*abstain_below"):
        threshold_of_run(folder, 0.9)


@pytest.fixture
def trained(tmp_path, rows):
    """Folder of a model at the temperature 0.05, with its predictions of validation posts."""
    pipe = tiny_processor.pipeline(calibration_temperature=0.05)
    pipe.save_pretrained(tmp_path / "trained")
    table = predict(pipe, Dataset.from_list(rows), progress=False).data.table
    right = pa.array([name if n % 5 else NAMES[1] for n, name in enumerate(table["prediction"].to_pylist())])
    write_predictions(tmp_path / "trained" / "validation_predictions.parquet", table.set_column(1, "label", right))
    return tmp_path / "trained"


def test_posts_below_the_threshold_are_marked_and_none_is_left_out(trained, rows):
    posts = Dataset.from_list(rows)
    plain = predict(trained, posts, progress=False).to_list()
    highest = [max(row[f"probability_{name}"] for name in NAMES) for row in plain]
    threshold = sorted(highest)[20]
    marked = predict(trained, posts, abstain_below=threshold, progress=False).to_list()
    assert [row.pop("abstained") for row in marked] == [value < threshold for value in highest] and marked == plain
    uncalibrated = predict(trained, posts, calibrated=False, progress=False).to_list()
    assert [row["prediction"] for row in uncalibrated] == [row["prediction"] for row in plain]
    assert max(row["probability_neutral"] for row in uncalibrated) < max(row["probability_neutral"] for row in plain)
    for each in (True, False):
        chosen = predict(trained, posts, target_precision=0.85, calibrated=each, progress=False).to_list()
        threshold = threshold_of_run(trained, 0.85, each)[0]
        probabilities = [max(row[f"probability_{name}"] for name in NAMES) for row in chosen]
        assert [row["abstained"] for row in chosen] == [value < threshold for value in probabilities]
    with pytest.raises(ValueError, match="`abstain_below` and `target_precision` both choose"):
        predict(trained, posts, abstain_below=0.5, target_precision=0.9)


def test_the_command_takes_the_options_and_reports_the_threshold(trained, rows, capsys):
    Path("posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [str(trained), "posts.jsonl", "--calibrated", "false", "--output", "out.parquet"]
    commands.main(["predict", *command, "--target_precision", "0.85"])
    threshold, line = threshold_of_run(trained, 0.85, calibrated=False)
    assert line in capsys.readouterr().out
    table = pa.parquet.read_table("out.parquet")
    assert len(table) == len(rows) and table["abstained"].type == pa.bool_()
    for options, abstained in (("0.99999", True), ("0.1", False)):
        commands.main(["predict", str(trained), "--text", "rain", "--calibrated", "false", "--abstain_below", options])
        assert ("abstained: the probability is below" in capsys.readouterr().out) == abstained
    assert commands.main(["predict", *command, "--abstain_below", "70"]) != 0
    assert "--abstain_below must be a probability from 0 to 1, got 70" in capsys.readouterr().err
