"""Results of a training: calibration on validation, stored, applied and reported."""

import json
import logging

import numpy as np
import pyarrow.parquet
import pytest
from huggingface_hub import ModelCard
from transformers import AutoConfig, BertModel

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, TINY_TEXT
from mpt_sentiment.evaluation import calibration
from mpt_sentiment.evaluation.calibration import calibration_scores, fit_temperature, scaled
from mpt_sentiment.evaluation.predictions import read_predictions
from mpt_sentiment.evaluation.scored_posts import scored_posts
from processing_mpt import MPTPipeline

FIELDS = TINY_FIELDS | {"num_train_epochs": 1, "modalities": ["text"], "loss_weight_mlcl": 0, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, posts):
    """Folder of a text encoder, which adapters that are saved alone need."""
    folder = tmp_path_factory.mktemp("encoder")
    config = AutoConfig.for_model(**TINY_TEXT)
    BertModel(config).save_pretrained(folder)
    mpt.MPTProcessor.from_backbones(config, posts=posts["train"]).tokenizer.save_pretrained(folder)
    return str(folder)


def read(path):
    return scored_posts(pyarrow.parquet.read_table(path))


@pytest.mark.parametrize("changes", [{}, {"lora": True, "lora_merge": False}, {"lora": True}], ids=str)
def test_the_temperature_is_fitted_on_validation_stored_and_applied(posts, encoder, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(calibration, "MIN_POSTS", 3)
    if changes:
        changes |= {"text_config": None, "text_model_name_or_path": encoder}
    result = mpt.train(posts, tmp_path, **FIELDS | changes)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    temperature = AutoConfig.from_pretrained(tmp_path).calibration_temperature
    assert metrics["temperature"] == temperature != 1 and metrics["temperature_note"] is None

    validation, test = read(tmp_path / "validation_predictions.parquet"), read(tmp_path / "predictions.parquet")
    assert validation.ids == posts["validation"]["id"] and metrics["validation_posts"] == len(validation.ids)
    raw = np.log(validation.probabilities) * temperature
    assert fit_temperature(raw, validation.labels) == pytest.approx(temperature, rel=1e-3)

    if (tmp_path / "adapter_model.safetensors").is_file():
        processor = mpt.MPTProcessor.from_pretrained(tmp_path)
        pipe = MPTPipeline(model=mpt.load_adapter(tmp_path, text=encoder), processor=processor, device="cpu")
    else:
        pipe = result.pipeline
    rows = [{"text": text} for text in posts["test"]["text"]]
    calibrated, uncalibrated = pipe(rows), pipe(rows, calibrated=False)
    probabilities = np.array([[*each["scores"].values()] for each in calibrated])
    assert probabilities == pytest.approx(test.probabilities, abs=1e-4)
    before = np.array([[*each["scores"].values()] for each in uncalibrated])
    assert scaled(np.log(before), temperature) == pytest.approx(probabilities, abs=1e-5)
    assert [each["label"] for each in calibrated] == [each["label"] for each in uncalibrated]
    for name, value in calibration_scores(before, test.labels).items():
        assert metrics["uncalibrated"][name] == pytest.approx(value, abs=1e-3)
        assert metrics["test"][name] == pytest.approx(calibration_scores(probabilities, test.labels)[name], abs=1e-3)
        assert len(metrics["uncalibrated"]["intervals"][name]) == len(metrics["test"]["intervals"][name]) == 2

    card = ModelCard.load(tmp_path / "README.md").text
    assert f"The temperature {temperature:.3g} was fitted on the {len(validation.ids)} validation posts" in card
    nll = f"{metrics['uncalibrated']['nll']:.3f} | {metrics['test']['nll']:.3f} |"
    assert f"| Negative log-likelihood | {nll}" in card
    for figure in ("reliability", "risk_coverage", "confusion_matrix", "training_curve"):
        assert (tmp_path / f"{figure}.svg").is_file() and f"({figure}.png)" in card


def test_few_validation_posts_leave_the_probabilities_as_they_are(posts, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = mpt.train(posts, tmp_path, **FIELDS)
    note = f"{len(posts['validation'])} validation posts are too few to fit a temperature, 30 are needed"
    assert f"The probabilities are not calibrated: {note}." in caplog.text
    assert result.metrics["temperature"] == 1.0 and result.metrics["temperature_note"] == note
    assert f"No temperature was fitted: {note}." in (tmp_path / "README.md").read_text()
    ids, labels, _ = read_predictions(
        [tmp_path / "validation_predictions.parquet"], ["positive", "neutral", "negative"]
    )
    assert ids == posts["validation"]["id"] and labels.tolist() == posts["validation"]["label"]
    for row in result.metrics["abstention"]:
        assert row["abstain_below"] is None or row["validation"]["accuracy"] >= row["target_precision"]
