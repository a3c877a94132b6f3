"""Threshold of abstention from the folder of a training."""

import numpy as np
import pytest
from scipy.special import softmax

from helpers import tiny
from mpt_sentiment.evaluation.abstention import choose_threshold, scores_of_answered
from mpt_sentiment.evaluation.predictions import prediction_table, write_predictions
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
