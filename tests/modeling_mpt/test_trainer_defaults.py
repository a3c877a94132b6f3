"""Tests of the defaults of MPTTrainer: collator, metrics, observed posts, model card."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from peft import LoraConfig, get_peft_model

from helpers import tiny, tiny_processor
from helpers.odd_images import with_malformed_exif
from helpers.training_runs import arguments, posts, tiny_model, train
from modeling_mpt import MPTTrainer
from modeling_mpt.metrics import compute_metrics


@pytest.fixture
def rows() -> Dataset:
    texts = tiny_processor.SENTENCES * 2
    images = [tiny_processor.image((40 * index, 9, 90)) for index in range(6)]
    return Dataset.from_dict({"text": texts, "image": images, "rationale_positive": texts, "label": [0, 1, 2] * 2})


def test_a_processor_and_datasets_are_enough(tmp_path, rows):
    processor = tiny_processor.processor(perspectives=["positive"])
    model = tiny.model(perspectives=["positive"], modalities=["text", "image"])
    args = arguments(tmp_path, eval_strategy="epoch")
    trainer = MPTTrainer(model, args, train_dataset=rows, eval_dataset=rows, processing_class=processor)
    trainer.train()
    assert trainer.data_collator.processor is processor and trainer.data_collator.modalities == ["text", "image"]
    evaluation = next(entry for entry in trainer.state.log_history if "eval_f1_weighted" in entry)
    assert {"eval_accuracy", "eval_f1_weighted", "eval_f1_macro", "eval_loss_mlcl"} <= set(evaluation)


def test_images_that_datasets_does_not_decode_are_trained_on(tmp_path):
    images = [{"bytes": with_malformed_exif((8, 8 + index)), "path": None} for index in range(6)]
    rows = Dataset.from_dict({"image": images, "label": [0, 1, 2] * 2}).cast_column("image", Image())
    model = tiny.model(modalities=["image"], contrastive_view="fused")
    trainer = MPTTrainer(model, arguments(tmp_path), train_dataset=rows, processing_class=tiny_processor.processor())
    trainer.train()
    assert trainer.predict(rows).metrics["test_loss"] > 0
    with pytest.raises(TypeError):  # by `datasets`
        rows[0]


def test_a_collator_and_metrics_of_one_s_own_are_used(tmp_path):
    mine = tiny_processor.processor().data_collator(["text"])
    trainer = MPTTrainer(
        tiny_model(),
        arguments(tmp_path),
        mine,
        processing_class=tiny_processor.processor(),
        compute_metrics=lambda prediction: {"mine": 1.0},
    )
    assert trainer.data_collator is mine and trainer.compute_metrics(None) == {"mine": 1.0}


def test_metrics_are_those_of_the_logits_over_all_classes():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    labels = np.array([0, 0, 1, 0])  # predicted 0 1 0 0
    expected = {"accuracy": 0.5, "f1_weighted": 0.5, "f1_macro": pytest.approx(2 / 9)}
    assert compute_metrics(SimpleNamespace(predictions=logits, label_ids=labels)) == expected
    assert compute_metrics(SimpleNamespace(predictions=(logits, labels), label_ids=labels)) == expected


def test_a_model_observes_the_train_posts_once_before_a_new_training(tmp_path):
    seen = []

    def observe(batches):
        seen.append(torch.cat([batch["labels"] for batch in batches]).tolist())

    def observing():
        model = tiny_model()
        model.observe = observe
        return model

    options = {"save_strategy": "epoch", "num_train_epochs": 2}
    trainer = train(observing(), posts(8), arguments(tmp_path, **options))
    assert seen == [[row["labels"].item() for row in posts(8)]]
    trainer.train()
    train(observing(), posts(8), arguments(tmp_path, **options), resume=True)
    assert len(seen) == 1


def test_a_model_card_that_exists_is_kept(tmp_path):
    trainer = MPTTrainer(tiny_model(), arguments(tmp_path))
    trainer.create_model_card()
    generic = (tmp_path / "README.md").read_text()
    assert "generated" in generic
    (tmp_path / "README.md").write_text("our card")
    trainer.create_model_card(tags=["sentiment"])
    assert (tmp_path / "README.md").read_text() == "our card"


def test_learning_rates_by_part_apply_to_adapted_models(tmp_path):
    adapters = LoraConfig(
        r=2,
        target_modules=r".*encoder.*\.(query|q_proj|value|v_proj)",
        modules_to_save=["image_branches.cnn", "image_branches.projection", "classifier"],
    )
    model = get_peft_model(tiny_model(), adapters)
    rates = {"learning_rate": 1e-5, "vision_learning_rate": 1e-4, "head_learning_rate": 1e-3}
    groups = MPTTrainer(model, arguments(tmp_path, **rates)).create_optimizer().param_groups
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_part = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next(p for p in ("text_encoder", "vision_encoder", "cnn", "projection", "classifier") if p in name)
            by_part.setdefault(part, set()).add(rate_of[id(parameter)])
    assert by_part == {
        "text_encoder": {1e-5},
        "vision_encoder": {1e-4},
        "cnn": {1e-3},  # the plain ConvNet
        "projection": {1e-3},
        "classifier": {1e-3},
    }
