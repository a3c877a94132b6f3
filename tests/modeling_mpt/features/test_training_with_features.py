"""Tests of training with the feature store: same losses and predictions as without it."""

import logging

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.utils import logging as hf_logging

from helpers import feature_runs, tiny_baselines
from helpers.feature_runs import network, posts, results, trainer
from modeling_mpt import MPTForSentimentClassification
from modeling_mpt.features import FeatureDataset, FeatureStoreError

KINDS = {
    "mpt": {},
    "mpt, first layer frozen": {"freeze_text_layers": 1},
    "mpt, first layer of the ViT frozen": {"freeze_vision_layers": 1},
    "mpt, CNN trained": {"freeze_cnn": False},
    "mpt, text trained, rationales dropped": {"freeze_text_layers": 0, "rationale_dropout": 0.5},
    "mpt, two text encoders": {"share_text_encoder": False},
    "mpt, text alone": {"modalities": ["text"], "contrastive_view": "fused"},
}


def assert_same(with_store, without, tolerance=1e-5):
    (losses, logits), (expected, expected_logits) = with_store, without
    assert losses == pytest.approx(expected, abs=tolerance, rel=tolerance)
    torch.testing.assert_close(logits, expected_logits, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_mpt_has_the_losses_and_predictions_of_training_without_the_store(kind, tmp_path):
    rows = [row for row in posts() if row["text"]]
    expected = trainer(network(**KINDS[kind]), tmp_path / "out", "none", posts=rows)
    actual = trainer(network(**KINDS[kind]), tmp_path / "out", tmp_path / "store", posts=rows)
    assert_same(results(actual), results(expected))
    assert isinstance(actual.get_train_dataloader().dataset, FeatureDataset)


@pytest.mark.parametrize("name", tiny_baselines.NAMES)
def test_a_baseline_has_the_losses_and_predictions_of_training_without_the_store(name, tmp_path):
    config = {"use_rationales": True}
    actual = trainer(network(name, **config), tmp_path / "out", tmp_path / "store")
    assert_same(results(actual), results(trainer(network(name, **config), tmp_path / "out", "none")), 5e-5)
    assert isinstance(actual.get_train_dataloader().dataset, FeatureDataset)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2e-2), ("float16", 2e-3)])
def test_stored_halves_change_the_losses_by_their_rounding(dtype, tolerance, tmp_path):
    expected = trainer(network(), tmp_path / "out", "none")
    actual = trainer(network(), tmp_path / "out", tmp_path / "store", feature_store_dtype=dtype)
    assert_same(results(actual), results(expected), tolerance)


def test_frozen_encoders_do_not_run_in_training_and_evaluation(tmp_path):
    results(trainer(network(), tmp_path / "out", tmp_path / "store"))
    model = network()
    calls = []
    model.mpt.text_encoder.register_forward_hook(lambda *args: calls.append("text"))
    model.mpt.image_branches.cnn.register_forward_hook(lambda *args: calls.append("cnn"))
    results(trainer(model, tmp_path / "out", tmp_path / "store"))
    assert calls == []


def test_accumulated_batches_have_the_loss_of_the_whole_step(tmp_path):
    options = {"gradient_accumulation_steps": 3}
    expected = trainer(network(), tmp_path / "out", "none", **options)
    assert_same(results(trainer(network(), tmp_path / "out", tmp_path / "store", **options)), results(expected))


def test_adapted_encoders_run_and_the_others_are_stored(tmp_path):
    def adapted():
        adapters = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
        return get_peft_model(network(freeze_text_layers=0), adapters)

    actual = trainer(adapted(), tmp_path / "out", tmp_path / "store")
    assert_same(results(actual), results(trainer(adapted(), tmp_path / "out", "none")))
    batch = next(iter(actual.get_train_dataloader()))
    assert batch["encoder_outputs"].keys() == {"cnn", "vision"}
    assert {"input_ids", "rationale_input_ids"} <= batch.keys() and "pixel_values" not in batch


def test_a_dataset_reads_the_features_of_a_list_of_the_same_posts(tmp_path):
    rows = [{**row, "image": row["image"] and {"bytes": row["image"], "path": None}} for row in posts()]
    dataset = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    expected = results(trainer(network(), tmp_path / "out", tmp_path / "store"))
    before = feature_runs.files(tmp_path / "store")
    actual = trainer(network(), tmp_path / "out", tmp_path / "store", posts=dataset)
    actual.eval_dataset = dataset.select(range(5))
    assert_same(results(actual), expected)
    assert feature_runs.files(tmp_path / "store") == before


def test_loaded_weights_are_not_read_as_the_former_ones(tmp_path):
    model = network()
    trained = trainer(model, tmp_path / "out", tmp_path / "store")
    trained.evaluate()
    other = network()
    with torch.no_grad():
        other.mpt.text_encoder.embeddings.word_embeddings.weight.mul_(2)
    model.load_state_dict(other.state_dict())
    expected = trainer(other, tmp_path / "out", "none").evaluate()["eval_loss"]
    assert trained.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    options = {"num_train_epochs": 2, "save_strategy": "epoch", "save_total_limit": None}
    expected = results(trainer(network(), tmp_path / "one", tmp_path / "store", **options))[1]
    resumed = trainer(network(), tmp_path / "one", tmp_path / "store", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-3"))
    torch.testing.assert_close(torch.tensor(resumed.predict(posts()[:5]).predictions), expected)


def test_a_saved_model_is_complete(tmp_path):
    trained = trainer(network(), tmp_path / "out", tmp_path / "store")
    _, expected = results(trained)
    trained.save_model(str(tmp_path / "model"))
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path / "model")
    reread = trainer(loaded, tmp_path / "out", "none").predict(posts()[:5]).predictions
    torch.testing.assert_close(torch.tensor(reread), expected, atol=1e-5, rtol=1e-5)


def test_batches_of_similar_length_come_from_stored_lengths(tmp_path):
    def spread(strategy):
        options = {"posts": posts(40), "train_sampling_strategy": strategy}
        trained = trainer(network(), tmp_path / "out", tmp_path / "store", **options)
        lengths = [batch["attention_mask"].sum(dim=1) for batch in trained.get_train_dataloader()]
        assert len(torch.cat(lengths)) == 40
        return sum((each.max() - each.min()).item() for each in lengths)

    assert spread("group_by_length") < 0.6 * spread("random")


def test_a_batch_of_texts_alone_causes_no_warning_about_operations(tmp_path, caplog):
    hf_logging.enable_propagation()
    trainer(network(), tmp_path / "out", tmp_path / "store").train()
    assert "floating-point operations" not in caplog.text


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"feature_store": "none"}, "switched off"),
        ({"freeze_text_layers": 0, "freeze_vision_layers": 0, "freeze_cnn": False}, "no encoder is frozen"),
    ],
)
def test_the_summary_says_why_nothing_is_stored(change, reason, tmp_path):
    where = change.pop("feature_store", "auto")
    trained = trainer(network(**change), tmp_path / "out", where)
    trained.evaluate()
    assert reason in trained.features.describe()


def test_the_summary_says_what_is_stored_and_where(tmp_path):
    trained = trainer(network(), tmp_path / "out", tmp_path / "store")
    trained.evaluate()
    assert (
        trained.features.describe() == f"Feature store: text, rationales, cnn, vision (0 MB) in {tmp_path / 'store'}"
    )


def test_posts_with_a_transform_are_not_stored(tmp_path, caplog):
    rows = [{key: value for key, value in row.items() if key != "image"} for row in posts() if row["text"]]
    dataset = datasets.Dataset.from_list(rows).with_transform(lambda batch: batch)
    auto = trainer(network(), tmp_path / "out", "auto", posts=dataset)
    auto.eval_dataset = dataset
    with caplog.at_level(logging.WARNING):
        auto.evaluate()
    assert "without the feature store: the posts have a transform" in caplog.text
    named = trainer(network(), tmp_path / "out", tmp_path / "store", posts=dataset)
    with pytest.raises(FeatureStoreError, match="transform"):
        named.evaluate(dataset)


def test_a_full_disk_leaves_training_without_the_store(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with caplog.at_level(logging.WARNING):
        losses, _ = results(trainer(network(), tmp_path / "out", "auto"))
    assert "Training without the feature store" in caplog.text and len(losses) > 1
    with pytest.raises(FeatureStoreError, match="0 MB are free"):
        trainer(network(), tmp_path / "out", tmp_path / "store").train()
