"""Saved baselines carry the code that loads them, and no file that they do not need."""

import torch

from helpers import tiny, tiny_baselines, tiny_processor
from helpers.hub_round_trip import OLDEST, closure, needs_oldest, round_trip, without_dtypes_of_encoders
from modeling_mpt import SYSTEMS
from processing_mpt import MPTProcessor


def build(name: str):
    """Build a baseline with weights far from their initialization."""
    model = tiny_baselines.model(name, use_rationales=True, freeze_text_layers=1)
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def round_trip_of_all(folder, environment: dict[str, str] | None = None) -> None:
    """Save all baselines, load and save them in a process without our packages, and compare."""
    models = {name: build(name) for name in tiny_baselines.NAMES}
    for name, model in models.items():
        model.save_pretrained(folder / "saved" / name)
        tiny_processor.processor().save_pretrained(folder / "saved" / name)
    torch.save({name: tiny.batch() for name in models}, folder / "batches.pt")
    loaded = round_trip(folder / "saved", folder / "again", environment)
    for name, model in models.items():
        config_class, model_class = SYSTEMS[name]
        names = [config_class.__name__, model_class.__name__, model_class.__name__, "MPTProcessor", "MPTPipeline"]
        assert loaded[name]["classes"] == names and loaded[name]["modules"] == ["transformers_modules"]
        with torch.no_grad():
            expected = model(**tiny.batch())
        torch.testing.assert_close(loaded[name]["logits"], expected.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(loaded[name]["features"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
        assert loaded[name]["weights"].keys() == model.state_dict().keys()
        assert loaded[name]["frozen"] == [n for n, p in model.named_parameters() if not p.requires_grad]
        assert all(set(answer["scores"]) == set(model.config.label2id) for answer in loaded[name]["answers"])


# One test for all systems, because the process that loads them imports transformers for seconds.
def test_a_process_without_our_packages_loads_and_saves_every_system(tmp_path):
    round_trip_of_all(tmp_path)
    for name in tiny_baselines.NAMES:
        first, second = tmp_path / "saved" / name, tmp_path / "again" / name
        code = {path.name for path in first.glob("*.py")}
        assert code == {path.name for path in closure((*SYSTEMS[name], MPTProcessor))}
        assert "modeling_mpt.py" not in code
        assert [file for file in code if file.startswith("baseline_")].count(f"baseline_{name}_mpt.py") == 1
        assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
        for file in code:
            assert (second / file).read_text() == (first / file).read_text()
        assert without_dtypes_of_encoders(second / "config.json") == without_dtypes_of_encoders(first / "config.json")


@needs_oldest
def test_the_oldest_transformers_loads_every_saved_system(tmp_path):
    round_trip_of_all(tmp_path, {"PYTHONPATH": OLDEST})
