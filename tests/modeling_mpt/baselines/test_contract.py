"""What every baseline owes its users, whichever its mechanism."""

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
with_and_without = pytest.mark.parametrize("use_rationales", [False, True], ids=["plain", "with rationales"])
RATIONALES = ("rationale_input_ids", "rationale_attention_mask")


def without(batch: dict, *names: str) -> dict:
    return {name: value for name, value in batch.items() if name not in names}


# --- results ---------------------------------------------------------------------------------------------------------


@every_system
@with_and_without
def test_posts_with_every_kind_of_absence_get_finite_logits_and_losses(name, use_rationales):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales), tiny.batch(labels=True)
    output = model(**batch)
    assert isinstance(output, model.output_class) and output.logits.shape == (5, 3)
    assert output.fused_embeds.shape[0] == 5
    for field, value in output.items():
        assert torch.isfinite(value.float()).all(), field
    expected = output.loss_ce
    for field in (field for field in output if field.startswith("loss_") and field != "loss_ce"):
        expected = expected + getattr(model.config, f"loss_weight_{field[5:]}") * output[field]
    torch.testing.assert_close(output.loss, expected)
    reads = set(model.config.modalities)
    assert [bool(column.any()) for column in output.modality_mask.T] == [
        kind in reads for kind in ("text", "image", "rationales")
    ]
    model(**batch).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), parameter_name


@every_system
@with_and_without
def test_padding_changes_no_result(name, use_rationales):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales), tiny.batch()
    expected = model(**batch).logits
    wide = dict(batch)
    for ids, mask in (("input_ids", "attention_mask"), RATIONALES):
        wide[ids] = torch.nn.functional.pad(batch[ids], (0, 5), value=7)
        wide[mask] = torch.nn.functional.pad(batch[mask], (0, 5))
    torch.testing.assert_close(model(**wide).logits, expected, atol=1e-5, rtol=1e-4)
    left = dict(batch)
    for ids, mask in (("input_ids", "attention_mask"), RATIONALES):
        left[ids], left[mask] = tiny.padded_left(batch[ids], batch[mask])
    torch.testing.assert_close(model(**left).logits, expected, atol=1e-5, rtol=1e-4)


@every_system
@with_and_without
def test_a_post_is_read_alike_alone_and_in_company(name, use_rationales):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales), tiny.batch()
    together = model(**batch).logits
    for row in range(5):
        torch.testing.assert_close(model(**tiny.rows(batch, row)).logits[0], together[row], atol=1e-5, rtol=1e-4)


@every_system
def test_what_is_not_in_the_batch_is_as_what_is_masked(name):
    model, batch = tiny_baselines.model(name, use_rationales=True), tiny.batch()
    parts = {"attention_mask": ("input_ids", "attention_mask"), "image_mask": ("pixel_values", "image_mask")}
    for mask, fields in (parts | {"rationale_attention_mask": RATIONALES}).items():
        masked = batch | {mask: torch.zeros_like(batch[mask])}
        torch.testing.assert_close(model(**without(batch, *fields)).logits, model(**masked).logits)


@every_system
def test_each_modality_that_is_read_matters_and_no_other(name):
    model, batch = tiny_baselines.model(name), tiny_baselines.posts(4)
    changed = {
        "text": {"input_ids": batch["input_ids"].flip(0), "attention_mask": batch["attention_mask"].flip(0)},
        "image": {"pixel_values": batch["pixel_values"].flip(0)},
        "rationales": {"rationale_input_ids": batch["rationale_input_ids"].flip(0)},
    }
    before = model(**batch).logits
    for modality, change in changed.items():
        same = torch.equal(model(**batch | change).logits, before)
        assert same == (modality not in model.config.modalities), modality


# --- rationales ------------------------------------------------------------------------------------------------------


@every_system
def test_without_rationales_it_is_the_plain_system(name):
    plain, off, on = (
        tiny_baselines.model(name, **changes) for changes in ({}, {"use_rationales": False}, {"use_rationales": True})
    )
    assert plain.state_dict().keys() == off.state_dict().keys() < on.state_dict().keys()
    assert all(value.equal(off.state_dict()[key]) for key, value in plain.state_dict().items())
    batch = tiny.batch()
    assert off(**batch).logits.equal(plain(**without(batch, *RATIONALES)).logits)
    extra = on.state_dict().keys() - off.state_dict().keys()
    assert {key.split(".")[0] for key in extra} - {"rationale_encoder"} == {
        "perspective_attention",
        "rationale_fusion",
    }


@every_system
def test_rationales_join_by_attention_and_leave_alone_who_has_none(name):
    model, batch = tiny_baselines.model(name, use_rationales=True), tiny.batch()
    output = model(**batch)
    torch.testing.assert_close(output.system_weights.sum(dim=1), output.modality_mask.any(dim=1).float())
    assert output.system_weights[2, 1] == 0 and output.perspective_weights[2].sum() == 0
    assert (output.system_weights[0] > 0).all()
    changed = batch | {"rationale_input_ids": batch["rationale_input_ids"].roll(1, dims=-1)}
    differs = (model(**changed).logits != output.logits).any(dim=1)
    assert not differs[2] and differs[0]


# --- starting, saving, loading ---------------------------------------------------------------------------------------


@every_system
@with_and_without
def test_auto_classes_open_a_saved_folder(name, use_rationales, tmp_path):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales), tiny.batch()
    model.save_pretrained(tmp_path)
    for auto_class in (AutoModelForSequenceClassification, AutoModel):
        loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is SYSTEMS[name][1] and type(loaded.config) is SYSTEMS[name][0]
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert all(value.equal(loaded.state_dict()[key]) for key, value in model.state_dict().items())
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Folders of a BERT and a ViT, with weights far from any initialisation."""
    folder = tmp_path_factory.mktemp("backbones")
    for field, encoder in {"text": BertModel(tiny.text_config()), "vision": ViTModel(tiny.vision_config())}.items():
        for parameter in encoder.parameters():
            parameter.data.normal_(std=0.1)
        encoder.save_pretrained(folder / field)
    return folder


@every_system
def test_encoders_start_from_pretrained_weights(name, backbones):
    text, vision = BertModel.from_pretrained(backbones / "text"), ViTModel.from_pretrained(backbones / "vision")
    small = {key: value for key, value in tiny_baselines.CHANGES.get(name, {}).items()}
    model = SYSTEMS[name][1].from_backbones(
        str(backbones / "text"), str(backbones / "vision"), use_rationales=True, hidden_size=16, **small
    )
    state = model.state_dict()
    originals = {"text_encoder": text, "rationale_encoder": text, "vision_encoder": vision}
    found = 0
    for key, value in state.items():
        for part, original in originals.items():
            _, inside, rest = key.partition(f"{part}.")
            if inside and rest in original.state_dict():
                assert value.equal(original.state_dict()[rest]), key
                found += 1
            elif inside and rest == "embeddings.weight":
                # scaled to word2vec's variance
                assert value.std().item() == pytest.approx(0.25 / 3**0.5), key
                words = text.embeddings.word_embeddings.weight
                torch.testing.assert_close(value / value.std(), words / words.std())
                found += 1
    assert found


@every_system
def test_a_seed_fixes_the_initialisation(name):
    one, same, other = (tiny_baselines.model(name, seed=seed, use_rationales=True).state_dict() for seed in (1, 1, 2))
    assert all(value.equal(same[key]) for key, value in one.items())
    assert any(not value.equal(other[key]) for key, value in one.items())


# --- configuration ---------------------------------------------------------------------------------------------------


@every_system
def test_every_field_is_documented_checked_and_comes_back(name, tmp_path):
    config_class = SYSTEMS[name][0]
    parameters = inspect.signature(config_class.__init__).parameters
    documented = re.findall(r"^ {8}([\w, ]+) \(", config_class.__doc__ or "", re.M)
    documented = {field for group in documented for field in group.split(", ")}
    assert set(parameters) - {"self", "kwargs"} <= documented
    kinds = {bool: config_class.switches, int: config_class.counts, float: config_class.numbers}
    for field, parameter in parameters.items():
        if type(parameter.default) in kinds:
            assert field in kinds[type(parameter.default)], f"{field} is not checked to be a {type(parameter.default)}"
    config = tiny_baselines.config(name, use_rationales=True, id2label={0: "no", 1: "yes"})
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is config_class
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
    assert loaded.num_labels == 2 and loaded.modalities[-1] == "rationales"


@every_system
def test_it_says_what_it_is(name):
    config_class, model_class = SYSTEMS[name]
    assert config_class.title != BaselineConfig.title and config_class.source
    assert issubclass(config_class, BaselineConfig) and issubclass(model_class, BaselineForSentimentClassification)
    fields = {field.name for field in dataclasses.fields(model_class.output_class)}
    assert fields - set(config_class.keys_to_ignore_at_inference) == {"loss", "logits"}
    assert set(model_class.loss_inputs) <= fields
