"""Contract of all baselines: masking, rationales, saving, initialization, configuration."""

import dataclasses
import inspect
import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertModel, ViTModel

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS
from modeling_mpt.baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification

every_system = pytest.mark.parametrize("name", tiny_baselines.NAMES)
RATIONALES = ("rationale_input_ids", "rationale_attention_mask")


def without(batch: dict, *names: str) -> dict:
    return {name: value for name, value in batch.items() if name not in names}


# --- results --------------------------------------------------------------------------------------------------------


@every_system
@pytest.mark.parametrize("use_rationales", [False, True], ids=["plain", "with rationales"])
def test_missing_modalities_give_finite_outputs_losses_and_gradients(name, use_rationales):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales), tiny.batch(labels=True)
    output = model(**batch)
    assert isinstance(output, model.output_class) and output.logits.shape == (5, 3)
    for field, value in output.items():
        assert torch.isfinite(value.float()).all(), field
    expected = output.loss_ce
    for field in (field for field in output if field.startswith("loss_") and field != "loss_ce"):
        expected = expected + getattr(model.config, f"loss_weight_{field[5:]}") * output[field]
    torch.testing.assert_close(output.loss, expected)
    assert [bool(column.any()) for column in output.modality_mask.T] == [
        modality in model.config.modalities for modality in ("text", "image", "rationales")
    ]
    output.loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), parameter_name


@every_system
@torch.no_grad()
def test_padding_and_the_other_posts_of_a_batch_change_no_result(name):
    model, batch = tiny_baselines.model(name, use_rationales=True), tiny.batch()
    expected = model(**batch).logits
    padded_right, padded_left = dict(batch), dict(batch)
    for ids, mask in (("input_ids", "attention_mask"), RATIONALES):
        padded_right[ids] = torch.nn.functional.pad(batch[ids], (0, 5), value=7)
        padded_right[mask] = torch.nn.functional.pad(batch[mask], (0, 5))
        padded_left[ids], padded_left[mask] = tiny.padded_left(batch[ids], batch[mask])
    alone = torch.cat([model(**tiny.rows(batch, row)).logits for row in range(5)])
    for logits in (model(**padded_right).logits, model(**padded_left).logits, alone):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@every_system
@torch.no_grad()
def test_missing_inputs_equal_masked_inputs(name):
    model, batch = tiny_baselines.model(name, use_rationales=True), tiny.batch()
    inputs = {"attention_mask": ("input_ids", "attention_mask"), "image_mask": ("pixel_values", "image_mask")}
    for mask, fields in (inputs | {"rationale_attention_mask": RATIONALES}).items():
        masked = batch | {mask: torch.zeros_like(batch[mask])}
        torch.testing.assert_close(model(**without(batch, *fields)).logits, model(**masked).logits)


@every_system
@torch.no_grad()
def test_exactly_the_modalities_of_the_configuration_change_the_logits(name):
    model, batch = tiny_baselines.model(name), tiny_baselines.posts(4)
    changes = {
        "text": {"input_ids": batch["input_ids"].flip(0), "attention_mask": batch["attention_mask"].flip(0)},
        "image": {"pixel_values": batch["pixel_values"].flip(0)},
        "rationales": {"rationale_input_ids": batch["rationale_input_ids"].flip(0)},
    }
    logits = model(**batch).logits
    for modality, change in changes.items():
        same = torch.equal(model(**batch | change).logits, logits)
        assert same == (modality not in model.config.modalities), modality


# --- rationales -----------------------------------------------------------------------------------------------------


@every_system
@torch.no_grad()
def test_rationales_add_their_own_layers_and_are_weighted_per_post(name):
    plain, model = (tiny_baselines.model(name, use_rationales=use_rationales) for use_rationales in (False, True))
    added = model.state_dict().keys() - plain.state_dict().keys()
    assert plain.state_dict().keys() < model.state_dict().keys()
    assert {key.split(".")[0] for key in added} - {"rationale_encoder"} == {
        "perspective_attention",
        "rationale_fusion",
    }
    batch = tiny.batch()
    assert plain(**batch).logits.equal(plain(**without(batch, *RATIONALES)).logits)
    output = model(**batch)
    torch.testing.assert_close(output.system_weights.sum(dim=1), output.modality_mask.any(dim=1).float())
    assert (output.system_weights[0] > 0).all()
    assert output.system_weights[2, 1] == 0 and output.perspective_weights[2].sum() == 0  # has no rationales
    changed = batch | {"rationale_input_ids": batch["rationale_input_ids"].roll(1, dims=-1)}
    differs = (model(**changed).logits != output.logits).any(dim=1)
    assert differs[0] and not differs[2]


# --- initialization, saving, loading --------------------------------------------------------------------------------


@every_system
@torch.no_grad()
def test_a_saved_folder_is_loaded_with_its_weights_and_frozen_parameters(name, tmp_path):
    frozen = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}
    model, batch = tiny_baselines.model(name, use_rationales=True, **frozen), tiny.batch()
    frozen_names = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert any("rationale_encoder" in name or "text_encoder" in name for name in frozen_names)
    model.save_pretrained(tmp_path)
    for auto_class in (AutoModelForSequenceClassification, AutoModel):
        loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert (type(loaded.config), type(loaded)) == SYSTEMS[name]
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert all(value.equal(loaded.state_dict()[key]) for key, value in model.state_dict().items())
        assert [name for name, parameter in loaded.named_parameters() if not parameter.requires_grad] == frozen_names
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Save a BERT and a ViT with weights far from any initialization."""
    folder = tmp_path_factory.mktemp("backbones")
    for field, encoder in {"text": BertModel(tiny.text_config()), "vision": ViTModel(tiny.vision_config())}.items():
        for parameter in encoder.parameters():
            parameter.data.normal_(std=0.1)
        encoder.save_pretrained(folder / field)
    return folder


@every_system
def test_encoders_start_from_pretrained_weights(name, backbones):
    text, vision = BertModel.from_pretrained(backbones / "text"), ViTModel.from_pretrained(backbones / "vision")
    changes = tiny_baselines.CHANGES.get(name, {}) | {"use_rationales": True, "hidden_size": 16}
    model = SYSTEMS[name][1].from_backbones(str(backbones / "text"), str(backbones / "vision"), **changes)
    originals = {"text_encoder": text, "rationale_encoder": text, "vision_encoder": vision}
    compared = 0
    for key, value in model.state_dict().items():
        for part, original in originals.items():
            _, inside, rest = key.partition(f"{part}.")
            if inside and rest in original.state_dict():
                assert value.equal(original.state_dict()[rest]), key
                compared += 1
            elif inside and rest == "embeddings.weight":  # static word embeddings are rescaled
                assert value.std().item() == pytest.approx(0.25 / 3**0.5), key
                words = text.embeddings.word_embeddings.weight
                torch.testing.assert_close(value / value.std(), words / words.std())
                compared += 1
    assert compared


@every_system
def test_a_seed_fixes_the_initialization(name):
    first, same, other = (
        tiny_baselines.model(name, seed=seed, use_rationales=True).state_dict() for seed in (1, 1, 2)
    )
    assert all(value.equal(same[key]) for key, value in first.items())
    assert any(not value.equal(other[key]) for key, value in first.items())


# --- configuration --------------------------------------------------------------------------------------------------


@every_system
def test_every_field_is_documented_checked_and_saved(name, tmp_path):
    config_class, model_class = SYSTEMS[name]
    assert issubclass(config_class, BaselineConfig) and issubclass(model_class, BaselineForSentimentClassification)
    assert config_class.title != BaselineConfig.title and config_class.source and "; " not in config_class.source
    parameters = inspect.signature(config_class.__init__).parameters
    documented = re.findall(r"^ {8}([\w, ]+) \(", config_class.__doc__ or "", re.M)
    assert set(parameters) - {"self", "kwargs"} <= {field for group in documented for field in group.split(", ")}
    checked = {bool: config_class.switches, int: config_class.counts, float: config_class.numbers}
    for field, parameter in parameters.items():
        if type(parameter.default) in checked:
            assert field in checked[type(parameter.default)], f"the type of {field} is not checked"
    config = tiny_baselines.config(name, use_rationales=True, id2label={0: "no", 1: "yes"})
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is config_class
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
    assert loaded.num_labels == 2 and loaded.modalities[-1] == "rationales"
    outputs = {field.name for field in dataclasses.fields(model_class.output_class)}
    assert outputs - set(config_class.keys_to_ignore_at_inference) == {"loss", "logits"}
    assert set(model_class.loss_inputs) <= outputs
