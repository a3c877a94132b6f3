"""Training on a small sample: results, refusals, resumption, and the Python interface."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoProcessor, BertConfig

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, arguments, run
from modeling_mpt import MPTTrainer
from mpt_sentiment import commands
from mpt_sentiment.backbones import build, build_processor
from mpt_sentiment.recipe import training_setup
from mpt_sentiment.results import kept_evaluation
from mpt_sentiment.run_identity import NOT_IN_IDENTITY

REPOSITORY = Path(__file__).parents[2]
PERSPECTIVES = ("positive", "neutral", "negative")


@pytest.fixture(scope="module")
def posts() -> datasets.DatasetDict:
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one finished run."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    run(folder)
    return folder


def predictions(folder: Path) -> list[dict]:
    return datasets.Dataset.from_parquet(str(folder / "predictions.parquet"), keep_in_memory=True).to_list()


def test_metrics_hold_scores_intervals_split_and_versions(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    test = metrics["test"]
    assert 0 <= test["intervals"]["accuracy"][0] <= test["accuracy"] <= test["intervals"]["accuracy"][1] <= 1
    assert set(test["per_class"]) == {"positive", "neutral", "negative"}
    assert metrics["split"]["protocol"] == "grouped" and len(metrics["split"]["split_hash"]) == 16
    assert sum(metrics["split"]["sizes"].values()) == 60
    assert metrics["settings"]["seed"] == 42
    assert "transformers" in metrics["environment"]["libraries"]
    assert metrics["trainable_parameters"] <= metrics["parameters"]


def test_predictions_have_one_row_for_each_test_post_and_its_weights(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    rows = predictions(finished)
    assert len(rows) == metrics["split"]["sizes"]["test"]
    hits = sum(row["label"] == row["prediction"] for row in rows)
    assert hits / len(rows) == pytest.approx(metrics["test"]["accuracy"])
    for row in rows:
        assert sum(row[f"weight_{m}"] for m in ("text", "image", "rationales")) == pytest.approx(1, abs=1e-5)
        assert sum(row[f"weight_rationale_{p}"] for p in PERSPECTIVES) == pytest.approx(1, abs=1e-5)


def test_the_saved_folder_reproduces_its_predictions(finished, posts):
    rows = predictions(finished)
    model = AutoModelForSequenceClassification.from_pretrained(finished, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(finished, trust_remote_code=True)
    post = posts["test"][0]
    rationales = {p: post[f"rationale_{p}"] for p in PERSPECTIVES}
    logits = model(**processor(images=post["image"], text=post["text"], rationales=rationales)).logits
    scores = logits.softmax(-1)[0].tolist()
    assert rows[0]["id"] == post["id"]
    for index, name in model.config.id2label.items():
        assert rows[0][f"probability_{name}"] == pytest.approx(scores[index], abs=1e-4)


def test_the_folder_has_figures_and_a_card_without_paths(finished):
    for name in ("confusion_matrix.png", "training_curve.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    card = ModelCard.load(finished / "README.md")
    assert "synthetic" in card.text and card.data.eval_results
    assert str(finished.parent) not in card.content


def test_python_reaches_the_same_result_as_the_command(finished, posts, tmp_path):
    result = mpt.train(posts, tmp_path / "run", loss_weight_mlcl=0.1, **TINY_FIELDS)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert result.test == metrics["test"]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    answer = result.pipeline({"text": "what a day", "image": posts["test"][0]["image"]})
    assert set(answer["scores"]) == {"positive", "neutral", "negative"}
    again = mpt.train(posts, tmp_path / "run", loss_weight_mlcl=0.1, **TINY_FIELDS)
    assert again.metrics == result.metrics


def test_the_same_command_again_reports_the_finished_run_and_trains_nothing(finished, capsys):
    before = (finished / "metrics.json").stat().st_mtime_ns
    run(finished, logging_steps=7)  # not part of a run's identity
    assert "holds this finished run" in capsys.readouterr().out
    assert (finished / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 1e-4, "hidden_size": 32}, "hidden_size, learning_rate"),
        ({"lr_scheduler_kwargs": {"num_cycles": 0.3}}, "lr_scheduler_kwargs"),
        ({"optim_args": "betas=0.8"}, "optim_args"),
        ({"lora": True, "lora_r": 2}, "lora_r"),
        ({"dataset_options": SAMPLE_OPTIONS | {"num_posts": 50}}, "split"),
    ],
)
def test_other_settings_or_posts_in_the_folder_of_a_run_are_refused_by_name(finished, changes, named):
    with pytest.raises(ValueError, match=f"other settings .*{named}.*--overwrite"):
        run(finished, **changes)


def test_edited_posts_are_not_taken_for_the_posts_of_the_run(finished, posts):
    def edit(row, index):
        return {"text": row["text"] + " (edited)"} if index == 0 else row

    edited = datasets.DatasetDict(posts | {"test": posts["test"].map(edit, with_indices=True)})
    with pytest.raises(ValueError, match="content of the posts: edited texts"):
        mpt.train(edited, finished, loss_weight_mlcl=0.1, **TINY_FIELDS)


def test_arguments_outside_the_identity_of_a_run_exist(finished):
    known = {field.name for field in mpt.MPTTrainingArguments.__dataclass_fields__.values()}
    assert "learning_rate" not in NOT_IN_IDENTITY and len(NOT_IN_IDENTITY & known) > 40


def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_the_corrected_command(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise ValueError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(MPTTrainer, "train", fail)
        with pytest.raises(ValueError, match="out of memory"):
            run(tmp_path, num_train_epochs=1)
    run(tmp_path, num_train_epochs=1, per_device_train_batch_size=8)
    assert (tmp_path / "metrics.json").is_file()


def test_checkpoints_of_another_program_are_not_deleted(tmp_path):
    (tmp_path / "checkpoint-10").mkdir()
    with pytest.raises(ValueError, match="checkpoints of another program.*--overwrite"):
        run(tmp_path)
    assert (tmp_path / "checkpoint-10").is_dir()


def test_a_stopped_run_resumes_to_the_weights_of_an_undisturbed_one(finished, monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    with monkeypatch.context() as patch:
        save = MPTTrainer._save_checkpoint

        def save_then_stop(self, *args, **kwargs):
            save(self, *args, **kwargs)
            raise Stopped

        patch.setattr(MPTTrainer, "_save_checkpoint", save_then_stop)
        with pytest.raises(Stopped):
            run(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    with pytest.raises(ValueError, match="learning_rate"):
        run(tmp_path / "run", learning_rate=1e-4)
    run(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_several_seeds_are_aggregated_and_reach_the_cards(posts, tmp_path, capsys):
    fields = TINY_FIELDS | {"num_train_epochs": 1, "modalities": ["text"], "loss_weight_mlcl": 0}
    result = mpt.train(posts, tmp_path, seeds=[1, 2], **fields)
    singles = [run.test["accuracy"] for run in result.runs]
    assert result.test["accuracy"]["values"] == singles and result.test["seeds"] == [1, 2]
    assert json.loads((tmp_path / "metrics.json").read_text())["test"] == result.test
    assert "mean (sd)" in capsys.readouterr().out
    for seed in (1, 2):
        card = ModelCard.load(tmp_path / f"seed-{seed}" / "README.md")
        assert "Over 2 training seeds" in card.text and "Seed 1 | Seed 2" in card.text
    assert result.pipeline({"text": "what a day"})["label"] in ("positive", "neutral", "negative")


def test_posts_without_a_modality_are_trained_on_the_others(posts, tmp_path, caplog):
    def without(row):
        return dict.fromkeys([f"rationale_{p}" for p in PERSPECTIVES]) | {"image": None}

    texts = datasets.DatasetDict({name: split.map(without, features=split.features) for name, split in posts.items()})
    result = mpt.train(texts, tmp_path, **TINY_FIELDS | {"num_train_epochs": 1})
    assert result.metrics["system"]["modalities"] == ["text"]
    assert "No post has image or rationales" in caplog.text


def test_encoders_of_images_are_not_fetched_for_texts_alone(posts, tmp_path):
    named = {"vision_config": None, "cnn_model_name_or_path": "timm/none", "vision_model_name_or_path": "none/none"}
    fields = TINY_FIELDS | named | {"num_train_epochs": 1, "modalities": ["text"], "loss_weight_mlcl": 0.0}
    assert mpt.train(posts, tmp_path, **fields).metrics["system"]["modalities"] == ["text"]


@pytest.mark.parametrize(("choose", "epoch"), [(True, 2), (False, 3)])
def test_the_kept_epoch_has_the_lowest_loss_if_the_loss_chooses_else_it_is_the_last(choose, epoch):
    history = [{"epoch": epoch, "eval_loss": loss} for epoch, loss in ((1, 0.9), (2, 0.4), (3, 0.7))]
    args = mpt.MPTTrainingArguments("unused", metric_for_best_model="loss", bf16=False, load_best_model_at_end=choose)
    assert kept_evaluation(history, args)["epoch"] == epoch


def test_a_run_without_choice_reports_the_last_epoch_and_its_card_claims_none(posts, tmp_path):
    fields = {"num_train_epochs": 2, "load_best_model_at_end": False, "learning_rate": 1e-30}
    metrics = mpt.train(posts, tmp_path, **TINY_FIELDS | fields).metrics
    assert metrics["validation"]["epoch"] == 2  # of equal scores, a choice would have kept the first
    assert "was chosen by weighted F1" not in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split.select([]), "'test' has no posts"),
        (lambda split: split.remove_columns("source"), "'test' has no column 'source'.*load_posts"),
        (lambda split: split.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"])), "same names.*'train'"),
        (lambda split: split.map(lambda row: {"label": None}), "'test' has . posts without label .*posts.filter"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(posts, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mpt.train(datasets.DatasetDict(posts | {"test": change(posts["test"])}), tmp_path, **TINY_FIELDS)
    with pytest.raises(ValueError, match="`posts` must be a Dataset or DatasetDict, got a str"):
        mpt.train("my_posts", tmp_path)


def test_class_weights_are_a_power_of_the_inverse_frequency(posts):
    counts = np.bincount(posts["train"]["label"], minlength=3)
    for given, power in (("balanced", 1.0), (0.2, 0.2), (0, 0.0)):
        setup = training_setup(["sample"], TINY_FIELDS | {"class_weights": given})
        network = build(setup.model, posts["train"])[1]
        np.testing.assert_allclose(network.config.class_weights, (counts.sum() / (3 * counts)) ** power)


@pytest.mark.parametrize("value", ["inverse", 1.5, -0.1, True])
def test_other_class_weights_are_refused(posts, tmp_path, value):
    with pytest.raises(ValueError, match="`class_weights` must be 'balanced'"):
        mpt.train(datasets.DatasetDict(posts), tmp_path, class_weights=value, **TINY_FIELDS)


def test_balanced_weights_need_every_label_in_train(posts, tmp_path):
    train = posts["train"].filter(lambda label: label != 1, input_columns="label")
    with pytest.raises(ValueError, match="no train post has the label 'neutral'"):
        mpt.train(datasets.DatasetDict(posts | {"train": train}), tmp_path, class_weights="balanced", **TINY_FIELDS)


def test_an_encoder_without_weights_is_one_line(tmp_path, capsys):
    BertConfig(vocab_size=400).save_pretrained(tmp_path / "bert")
    argv = arguments(tmp_path / "run", text_config=None, text_model_name_or_path=tmp_path / "bert")
    assert commands.main(["train", *argv]) == 1
    assert f"An encoder ({tmp_path / 'bert'}) cannot be loaded" in capsys.readouterr().err.splitlines()[-1]


def test_a_cnn_alone_needs_no_vision_encoder_and_gets_images_of_its_own_size(posts):
    cnn = {"model_type": "timm_wrapper", "architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 48, 48]}}
    fields = {"image_branches": ["cnn"], "cnn_config": cnn, "text_config": TINY_FIELDS["text_config"]}
    for vision in ({}, {"vision_config": TINY_FIELDS["vision_config"]}):
        setup = training_setup(["mvsa_single"], fields | vision)
        assert build_processor(setup.model, posts["train"]).image_size == (48, 48)


def test_the_processor_prepares_tweets_as_the_run_says(posts):
    setup = training_setup(["mvsa_single"], TINY_FIELDS | {"text_preprocessing": "tweet"})
    assert build_processor(setup.model, posts["train"]).text_preprocessing == "tweet"
    with pytest.raises(ValueError, match="text_preprocessing: must be one of none, tweet, got 'tweets'"):
        training_setup(["mvsa_single"], {"text_preprocessing": "tweets"})


@pytest.mark.parametrize("name", ["bert", "late_fusion"])
@pytest.mark.parametrize("use_rationales", [False, True])
def test_a_baseline_leaves_a_folder_that_predicts(posts, name, use_rationales, tmp_path):
    fields = TINY_FIELDS | {"model": name, "num_train_epochs": 1, "use_rationales": use_rationales}
    result = mpt.train(posts, tmp_path, **fields)
    system = result.metrics["system"]
    assert system["name"] == mpt.SYSTEMS[name][0].title
    image = {"image": "vit_patches"} if name == "late_fusion" else {}
    assert system["providers"] == {"text": "encoder"} | image
    assert ("rationales" in system["modalities"]) == use_rationales
    card = ModelCard.load(tmp_path / "README.md")
    assert mpt.SYSTEMS[name][0].title in card.text
    assert ("vit_patches" in card.text) == (name == "late_fusion")
    assert system["untrained_images"] == ("Untrained images" in card.text) == (name == "late_fusion")
    assert result.pipeline({"text": "what a day"})["label"] in ("positive", "neutral", "negative")


def test_two_processes_train_one_model(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(REPOSITORY / "examples" / "train.py"), *arguments(tmp_path / "two", num_train_epochs=1)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("Test: accuracy") == 1
    ids = [row["id"] for row in predictions(tmp_path / "two")]
    assert len(ids) == len(set(ids))
