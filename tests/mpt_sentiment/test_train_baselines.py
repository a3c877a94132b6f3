"""Every baseline through `train.py`: its recipe, what it writes, and the folder that predict.py opens."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

import mpt_sentiment.predicting as predict
import mpt_sentiment.recipe as recipe
from helpers.train_command import arguments, run
from modeling_mpt import SYSTEMS
from modeling_mpt.systems import BASELINES


@pytest.mark.parametrize("name", BASELINES)
def test_its_recipe_is_for_any_dataset_and_names_only_fields_it_has(name):
    path = recipe.RECIPES / "baselines" / f"{name}.yaml"
    model, data, _, training = recipe.parse([f"baselines/{name}", "--dataset", "mvsa_single", "--data_dir", "x"])
    assert model.model == name and training.output_dir == f"outputs/{name}"
    fields = yaml.safe_load(path.read_text())
    assert not {"dataset", "data_dir"} & set(fields)
    config = SYSTEMS[name][0](**model.config_fields())
    assert config.modalities and "rationales" not in config.modalities


@pytest.mark.parametrize("name", ["bert", "late_fusion"])
@pytest.mark.parametrize("use_rationales", [False, True])
def test_a_run_leaves_a_folder_that_predicts(name, use_rationales, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "run"
    changes = {"model": name, "num_train_epochs": 1, "loss_weight_mlcl": None, "use_rationales": use_rationales}
    run(monkeypatch, arguments(folder, **changes))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["system"]["name"] == SYSTEMS[name][0].title
    image = {"image": "vit_patches"} if name == "late_fusion" else {}
    assert metrics["system"]["providers"] == {"text": "encoder"} | image
    assert ("rationales" in metrics["system"]["modalities"]) == use_rationales
    card = ModelCard.load(folder / "README.md")
    assert f"the baseline {SYSTEMS[name][0].title}" in card.text
    assert ("vit_patches" in card.text) == (name == "late_fusion")
    capsys.readouterr()
    predict.main([str(folder), "--text", "what a day", "--device", "cpu"])
    assert "probabilities" in capsys.readouterr().out


def test_what_the_train_posts_say_is_counted_before_training(monkeypatch, tmp_path):
    seen = []

    def observe(self, batches):
        seen.extend(label for batch in batches for label in batch["labels"].tolist())

    monkeypatch.setattr(SYSTEMS["bert"][1], "observe", observe, raising=False)
    run(monkeypatch, arguments(tmp_path, model="bert", num_train_epochs=1, loss_weight_mlcl=None))
    assert len(seen) == json.loads((tmp_path / "metrics.json").read_text())["split"]["sizes"]["train"]


def test_a_field_of_another_system_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="no such system; write one of.*Did you mean 'bert'"):
        recipe.parse(["sample", "--model", "bertt"])
    with pytest.raises(ValueError, match=r"modalities: the system 'bert' has no such field.*--use_rationales"):
        recipe.parse(["sample", "--model", "bert", "--modalities", "text"])
    with pytest.raises(ValueError, match=r"use_rationales: the system 'mpt' has no such field.*--modalities"):
        recipe.parse(["sample", "--use_rationales", "true"])
    with pytest.raises(ValueError, match="num_filter: the system 'text_cnn' has no such field"):
        recipe.parse(["sample", "--model", "text_cnn", "--model_options", '{"num_filter": 3}'])
    for name in ("mpt", "bert"):
        with pytest.raises(ValueError, match=f"scene_model_name_or_path: the system '{name}' reads no scene"):
            recipe.parse(["baselines/bert", "--model", name, "--scene_model_name_or_path", "x"])
    with pytest.raises(ValueError, match="write --scene_provider too"):
        recipe.parse(["sample", "--model", "mvan", "--scene_model_name_or_path", "x"])
