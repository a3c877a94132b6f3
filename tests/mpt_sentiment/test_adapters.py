"""LoRA: adapted encoders, new layers trained in full, and saved folders that open."""

import json

import pyarrow.parquet
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModelForSequenceClassification, BertModel

import mpt_sentiment as mpt
from helpers import tiny_baselines
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, TINY_TEXT
from mpt_sentiment.adapters import add_adapters
from mpt_sentiment.training_arguments import LoraArguments
from processing_mpt.handler import EndpointHandler

FIELDS = TINY_FIELDS | {"num_train_epochs": 1, "lora": True, "lora_r": 2, "modalities": ["text", "rationales"]}
FIELDS |= {"contrastive_view": "fused"}
WITHOUT_ENCODERS = ("text_cnn", "bilstm", "clstm", "image_cnn")


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, posts):
    """Folder of a pretrained text encoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = AutoConfig.for_model(**TINY_TEXT)
    BertModel(config).save_pretrained(folder)
    mpt.MPTProcessor.from_backbones(config, posts=posts["train"]).tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", [name for name in tiny_baselines.NAMES if name not in WITHOUT_ENCODERS])
def test_all_layers_outside_the_encoders_are_trained_and_only_adapters_inside(name):
    batch = tiny_baselines.posts(4)
    plain = tiny_baselines.model(name)
    with torch.no_grad():
        expected = plain(**batch).logits
    model = add_adapters(plain, LoraArguments(lora=True, lora_r=2)).eval()
    torch.testing.assert_close(model(**batch).logits, expected)  # new adapters start at zero
    for path, weight in model.named_parameters():
        encoders = {"text_encoder", "rationale_encoder", "vision_encoder"}
        if plain.config.text_provider == "embeddings":  # static words are new layers
            encoders.remove("text_encoder")
        inside = bool(encoders & {*path.split(".")})
        if "original_module" not in path and not (name == "cgaft" and "vision_encoder" in path):  # CGAFT freezes it
            assert weight.requires_grad == (not inside or "lora_" in path), path


def test_the_merged_folder_opens_without_peft_and_the_encoder_moved(posts, encoder, tmp_path, capsys):
    fields = FIELDS | {"text_config": None, "text_model_name_or_path": str(encoder), "learning_rate": 0.05}
    result = mpt.train(posts, tmp_path, **fields)
    assert result.metrics["trainable_parameters"] < result.metrics["parameters"]
    assert result.metrics["lora"]["r"] == 2 and result.metrics["lora"]["merged"]
    assert "LoRA" in ModelCard.load(tmp_path / "README.md").text
    assert f"  {result.metrics['parameters']:,} parameters" in capsys.readouterr().out
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=True)
    before, after = BertModel.from_pretrained(encoder).state_dict(), model.mpt.text_encoder.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(before[name], value)}
    assert changed and all(name.endswith(("query.weight", "value.weight")) for name in changed)
    rows = mpt.predict(tmp_path, posts["test"]).to_list()
    saved = json.loads((tmp_path / "metrics.json").read_text())["test"]["accuracy"]
    labels = posts["test"].features["label"].int2str(posts["test"]["label"])
    assert sum(row["prediction"] == label for row, label in zip(rows, labels, strict=True)) / len(rows) == saved


def test_saved_adapters_load_onto_their_encoder(posts, encoder, tmp_path):
    fields = FIELDS | {"text_config": None, "text_model_name_or_path": str(encoder), "lora_merge": False}
    mpt.train(posts, tmp_path, **fields)
    assert (tmp_path / "adapter_model.safetensors").is_file() and not (tmp_path / "model.safetensors").exists()
    assert {path.stat().st_mode for path in tmp_path.glob("adapter_*")} == {(tmp_path / "config.json").stat().st_mode}
    with pytest.raises(ValueError, match="text encoder that was read from a local folder"):
        mpt.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="--lora_merge true"):
        EndpointHandler(str(tmp_path))
    model = mpt.load_adapter(tmp_path, text=str(encoder))
    processor = mpt.MPTProcessor.from_pretrained(tmp_path)
    post = posts["test"][0]
    rationales = {name: post[f"rationale_{name}"] for name in processor.perspectives}
    scores = model(**processor(text=post["text"], rationales=rationales)).logits.softmax(-1)[0].tolist()
    row = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pylist()[0]
    assert row["probability_positive"] == pytest.approx(scores[0], abs=1e-4)


def test_adapters_of_random_encoders_are_refused_before_training(posts, tmp_path):
    with pytest.raises(ValueError, match="`lora_merge` must be true: the text encoder starts at random"):
        mpt.train(posts, tmp_path, **FIELDS | {"lora_merge": False})


def test_nothing_to_adapt_is_one_line_with_a_remedy():
    with pytest.raises(ValueError, match="--lora_target_modules"):
        add_adapters(tiny_baselines.model("text_cnn"), LoraArguments(lora=True, lora_target_modules="nothing"))
