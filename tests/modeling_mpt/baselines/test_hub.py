"""A saved baseline carries the code that opens it, and none of what it does not need."""

from pathlib import Path

import pytest
import torch

from helpers import tiny, tiny_baselines, tiny_processor
from helpers.hub_round_trip import closure, needs_oldest, round_trip, without_dtypes_of_encoders
from modeling_mpt import SYSTEMS
from processing_mpt import MPTProcessor

every_system = pytest.mark.parametrize("name", tiny_baselines.NAMES)


def build(name: str):
    """With weights far from their initialisation, so that none is right by chance and outputs differ visibly."""
    model = tiny_baselines.model(name, use_rationales=True, freeze_text_layers=1)
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hub") / "saved"
    for name in tiny_baselines.NAMES:
        build(name).save_pretrained(root / name)
        tiny_processor.processor().save_pretrained(root / name)
    torch.save({name: tiny.batch() for name in tiny_baselines.NAMES}, root.parent / "batches.pt")
    return root


@pytest.fixture(scope="module")
def reopened(saved):
    return round_trip(saved, saved.parent / "again")


def assert_same_model(name, found):
    config_class, model_class = SYSTEMS[name]
    names = [config_class.__name__, model_class.__name__, model_class.__name__, "MPTProcessor", "MPTPipeline"]
    assert found["classes"] == names and found["modules"] == ["transformers_modules"]
    model = build(name)
    with torch.no_grad():
        expected = model(**tiny.batch())
    torch.testing.assert_close(found["logits"], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["features"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
    assert found["weights"].keys() == model.state_dict().keys()
    assert found["frozen"] == [n for n, p in model.named_parameters() if not p.requires_grad]
    assert set(found["answer"]["scores"]) == set(model.config.label2id)


@every_system
def test_a_process_without_our_packages_opens_a_saved_folder(name, reopened):
    assert_same_model(name, reopened[name])


@every_system
def test_what_that_process_saves_is_complete(name, saved, reopened):
    first, second = saved / name, saved.parent / "again" / name
    shipped = {path.name for path in first.glob("*.py")}
    assert shipped == {path.name for path in closure((*SYSTEMS[name], MPTProcessor))}
    assert "modeling_mpt.py" not in shipped and sum(file == f"baseline_{name}_mpt.py" for file in shipped) == 1
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for file in shipped:
        assert (second / file).read_text() == (first / file).read_text()
    assert without_dtypes_of_encoders(second / "config.json") == without_dtypes_of_encoders(first / "config.json")


@pytest.fixture(scope="module")
def on_the_oldest(saved):
    return round_trip(saved, saved.parent / "oldest", oldest=True)


@needs_oldest
@every_system
def test_the_oldest_transformers_opens_what_the_newest_saved(name, on_the_oldest):
    assert_same_model(name, on_the_oldest[name])
