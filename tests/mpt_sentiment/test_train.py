"""`examples/train.py` on a small sample: what it writes, what it refuses, and how it goes on after a stop."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoProcessor

import mpt_sentiment.recipe as recipe
import mpt_sentiment.training as train
from helpers.train_command import arguments, run

REPOSITORY = Path(__file__).parents[2]
PERSPECTIVES = ("positive", "neutral", "negative")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, arguments(folder))
    return folder


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
    rows = datasets.Dataset.from_parquet(str(finished / "predictions.parquet"), keep_in_memory=True)
    assert len(rows) == metrics["split"]["sizes"]["test"]
    hits = sum(row["label"] == row["prediction"] for row in rows)
    assert hits / len(rows) == pytest.approx(metrics["test"]["accuracy"])
    for row in rows:
        assert sum(row[f"weight_{m}"] for m in ("text", "image", "rationales")) == pytest.approx(1, abs=1e-5)
        assert sum(row[f"weight_rationale_{p}"] for p in PERSPECTIVES) == pytest.approx(1, abs=1e-5)


def test_the_saved_folder_answers_as_its_predictions_say(finished):
    rows = datasets.Dataset.from_parquet(str(finished / "predictions.parquet"), keep_in_memory=True)
    model = AutoModelForSequenceClassification.from_pretrained(finished, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(finished, trust_remote_code=True)
    posts, _ = train.load_splits(recipe.DataArguments(dataset_options='{"num_posts": 60, "seed": 3}'))
    post = posts["test"][0]
    rationales = {p: post[f"rationale_{p}"] for p in PERSPECTIVES}
    logits = model(**processor(images=post["image"], text=post["text"], rationales=rationales)).logits
    scores = logits.softmax(-1)[0].tolist()
    assert rows[0]["id"] == post["id"]
    for index, name in model.config.id2label.items():
        assert rows[0][f"probability_{name}"] == pytest.approx(scores[index], abs=1e-4)


def test_figures_and_a_card_without_paths_lie_beside_the_weights(finished):
    for name in ("confusion_matrix.png", "training_curve.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    card = ModelCard.load(finished / "README.md")
    assert "synthetic" in card.text and card.data.eval_results
    assert str(finished.parent) not in card.content


def test_the_same_command_again_reports_the_finished_run_and_trains_nothing(finished, monkeypatch, capsys):
    before = (finished / "metrics.json").stat().st_mtime_ns
    run(monkeypatch, arguments(finished))
    assert "holds this finished run" in capsys.readouterr().out
    assert (finished / "metrics.json").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused_by_name(finished, monkeypatch):
    with pytest.raises(ValueError, match=r"other settings \(hidden_size, learning_rate\).*--overwrite"):
        run(monkeypatch, arguments(finished, learning_rate=1e-4, hidden_size=32))


def test_a_stopped_run_goes_on_to_the_weights_of_an_undisturbed_one(finished, monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    words = arguments(tmp_path / "run")
    with monkeypatch.context() as patch:
        save = train.MPTTrainer._save_checkpoint

        def save_then_stop(self, *args, **kwargs):
            save(self, *args, **kwargs)
            raise Stopped

        patch.setattr(train.MPTTrainer, "_save_checkpoint", save_then_stop)
        with pytest.raises(Stopped):
            run(patch, words)
    assert not (tmp_path / "run" / "metrics.json").exists()
    run(monkeypatch, words)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_several_seeds_are_aggregated(monkeypatch, tmp_path, capsys):
    run(monkeypatch, arguments(tmp_path, num_train_epochs=1, seeds=[1, 2], modalities=["text"], loss_weight_mlcl=0))
    summary = json.loads((tmp_path / "metrics.json").read_text())["test"]
    single = [json.loads((tmp_path / f"seed-{s}" / "metrics.json").read_text())["test"]["accuracy"] for s in (1, 2)]
    assert summary["accuracy"]["values"] == single and summary["seeds"] == [1, 2]
    assert "mean (sd)" in capsys.readouterr().out


def test_two_processes_train_one_model(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(REPOSITORY / "examples" / "train.py"), *arguments(tmp_path / "two", num_train_epochs=1)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("Test: accuracy") == 1
    rows = datasets.Dataset.from_parquet(str(tmp_path / "two" / "predictions.parquet"), keep_in_memory=True)
    assert len(rows) == len(set(rows["id"]))


def test_a_recipe_is_found_by_name_and_the_command_line_wins():
    model, data, _, training = recipe.parse(["mvsa_single", "--data_dir", "x", "--learning_rate", "3e-4"])
    assert data.dataset == "mvsa_single" and model.text_model_name_or_path == "google-bert/bert-base-uncased"
    assert training.learning_rate == 3e-4 and training.num_train_epochs == 20


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe.RECIPES.glob("*.yaml")))
def test_every_recipe_parses(name):
    _, data, _, training = recipe.parse([name])
    assert training.output_dir == f"outputs/{name}" and training.lr_scheduler_type == "cosine"
    assert data.dataset in ("sample", "mvsa_single", "mvsa_multiple", "memotion", "ch_mits")


@pytest.mark.parametrize(
    ("name", "rate", "batch"),
    [("mvsa_single", 1e-5, 16), ("mvsa_multiple", 5e-6, 8), ("memotion", 1e-5, 16), ("ch_mits", 5e-5, 16)],
)
def test_recipes_hold_table_2_of_the_paper(name, rate, batch):
    model, _, _, training = recipe.parse([name])
    assert (training.learning_rate, training.per_device_train_batch_size) == (rate, batch)
    assert training.num_train_epochs == 20 and model.hidden_size == 768 and training.optim.startswith("adamw")


def test_a_misspelt_recipe_field_or_argument_or_name_says_what_was_meant(tmp_path):
    (tmp_path / "bad.yaml").write_text("learning_rat: 1.0e-5\n")
    with pytest.raises(ValueError, match="no argument 'learning_rat'. Did you mean 'learning_rate'"):
        recipe.parse([str(tmp_path / "bad.yaml")])
    with pytest.raises(ValueError, match="unrecognized arguments: --learnin 1"):
        recipe.parse(["--learnin", "1"])
    with pytest.raises(ValueError, match="no recipe 'mvsa_singl'.*'mvsa_single'"):
        recipe.parse(["mvsa_singl"])
    with pytest.raises(ValueError, match="--text_config '{bert' is not JSON"):
        recipe.parse(["--text_config", "{bert"])
