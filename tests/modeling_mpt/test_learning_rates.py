"""Tests of the learning rates of encoders, static words and new layers in every system."""

import pytest
from transformers import AutoModel

from helpers import tiny, tiny_baselines
from helpers.training_runs import arguments
from modeling_mpt import SYSTEMS, MPTTrainer
from modeling_mpt.learning_rates import kinds_of_parameters

WORDS = {"words": ["text_encoder"], "text": ["rationale_encoder"]}
WORDS_AND_IMAGES = WORDS | {"vision": ["visual.vision_encoder"]}
TEXT_AND_IMAGES = {"text": ["text_encoder"], "vision": ["visual.vision_encoder"]}
# Modules with an encoder or static words, by kind, with rationales. All other layers are new.
MODULES = {
    "mpt": {"text": ["mpt.text_encoder"], "vision": ["mpt.image_branches.vision_encoder"]},
    "text_cnn": WORDS,
    "bilstm": WORDS,
    "clstm": WORDS,
    "bert": {"text": ["text_encoder"]},
    "image_cnn": {"text": ["rationale_encoder"]},
    "vit": {"text": ["rationale_encoder"], "vision": ["visual.vision_encoder"]},
    "late_fusion": TEXT_AND_IMAGES,
    "co_mem": WORDS_AND_IMAGES,
    "mvan": WORDS_AND_IMAGES,
    "pemnet": TEXT_AND_IMAGES,
    "mgnns": WORDS_AND_IMAGES,
    "itin": TEXT_AND_IMAGES,
    "clmlf": TEXT_AND_IMAGES,
    "cgaft": {"text": ["text_encoder"], "vision": ["visual.vision_encoder", "visual.source.vision_encoder"]},
    "citenet": TEXT_AND_IMAGES,
}
RATES = {
    "learning_rate": 1e-5,
    "vision_learning_rate": 1e-4,
    "word_learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
}
RATE_OF = {"text": 1e-5, "vision": 1e-4, "words": 1e-3, "head": 1e-2}
RATIONALES_ALONE = {"modalities": ["rationales"], "loss_weight_mlcl": 0.0}


def system(name: str, **changes):
    """Build a tiny system with rationales."""
    if name == "mpt":
        return tiny.model(**changes)
    return tiny_baselines.model(name, use_rationales=True, **changes)


def kind_by_table(name: str, parameter: str) -> str:
    for kind, modules in MODULES[name].items():
        if any(parameter.startswith(f"{module}.") for module in modules):
            return kind
    return "head"


def rates(trainer: MPTTrainer) -> dict[str, float]:
    """Map each trained parameter to its rate; none may be in two groups or in none."""
    groups = trainer.create_optimizer().param_groups
    trained = [parameter for group in groups for parameter in group["params"]]
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    expected = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert len(rate_of) == len(trained) == len(expected)
    return {name: rate_of[id(parameter)] for name, parameter in expected.items()}


def test_the_table_names_every_system():
    assert MODULES.keys() == SYSTEMS.keys()


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_in_the_group_of_its_part(name, tmp_path):
    model = system(name)
    found = rates(MPTTrainer(model, arguments(tmp_path, **RATES)))
    assert found == {parameter: RATE_OF[kind_by_table(name, parameter)] for parameter in found}
    for modules in MODULES[name].values():
        assert all(
            any(parameter.startswith(module) for parameter, _ in model.named_parameters()) for module in modules
        )


@pytest.mark.parametrize("name", MODULES)
def test_an_encoder_that_started_at_random_has_the_rate_of_new_layers(name, tmp_path, caplog):
    found = rates(MPTTrainer(system(name, random_encoders=["vision"]), arguments(tmp_path, **RATES)))
    kinds = {parameter: kind_by_table(name, parameter) for parameter in found}
    assert found == {each: RATE_OF["head" if kind == "vision" else kind] for each, kind in kinds.items()}
    assert "`vision_learning_rate` is not used" in caplog.text or "vision" not in MODULES[name]
    caplog.clear()
    found = rates(MPTTrainer(system(name, random_encoders=["text"]), arguments(tmp_path, **RATES)))
    assert found == {each: RATE_OF["head" if kinds[each] == "text" else kinds[each]] for each in found}
    assert not caplog.text


@pytest.mark.parametrize("name", ["mpt", "pemnet", "image_cnn", "co_mem", "mvan"])
@pytest.mark.parametrize("pretrained", [True, False], ids=["timm", "plain"])
def test_a_plain_cnn_is_a_new_layer_and_a_pretrained_one_an_encoder(name, pretrained, tmp_path):
    changes = {} if name in ("mpt", "pemnet") else {"visual_provider": "cnn_grid"}
    model = system(name, cnn_config=tiny.timm_config() if pretrained else None, **changes)
    found = rates(MPTTrainer(model, arguments(tmp_path, **RATES)))
    of_cnn = {rate for parameter, rate in found.items() if "cnn" in parameter.split(".")}
    assert of_cnn == {1e-4 if pretrained and name != "pemnet" else 1e-2}


def test_unset_rates_default_to_those_of_head_and_encoder(tmp_path):
    model = system("mvan")
    found = rates(MPTTrainer(model, arguments(tmp_path, learning_rate=1e-5, head_learning_rate=1e-2)))
    default = {"text": 1e-5, "vision": 1e-5, "words": 1e-2, "head": 1e-2}
    assert found == {parameter: default[kind_by_table("mvan", parameter)] for parameter in found}
    assert set(rates(MPTTrainer(model, arguments(tmp_path, learning_rate=1e-4))).values()) == {1e-4}


def test_a_scene_network_is_a_vision_encoder_of_its_own():
    model = tiny_baselines.model("itin", scene_provider="vit_patches", scene_config=tiny.vision_config())
    kinds = kinds_of_parameters(model, ["scene"])
    assert {kinds[name] for name in kinds if name.startswith("scene.vision_encoder.")} == {"head"}
    assert {kinds[name] for name in kinds if name.startswith("visual.vision_encoder.")} == {"vision"}


def test_from_backbones_records_what_started_at_random_and_a_saved_model_keeps_it(tmp_path):
    AutoModel.from_config(tiny.text_config(vocab_size=tiny.VOCABULARY)).save_pretrained(tmp_path / "text")
    model_class = SYSTEMS["mpt"][1]
    fields = {"hidden_size": 16, "cnn_channels": [4, 8]}
    model = model_class.from_backbones(str(tmp_path / "text"), tiny.vision_config(), None, **fields)
    assert model.config.random_encoders == ["vision"]  # the plain CNN is no encoder
    model.save_pretrained(tmp_path / "saved")
    opened = model_class.from_pretrained(tmp_path / "saved")
    assert opened.config.random_encoders == ["vision"]
    options = arguments(tmp_path, learning_rate=1e-5, head_learning_rate=1e-2)
    assert rates(MPTTrainer(opened, options)) == rates(MPTTrainer(model, options))
    all_random = model_class.from_backbones(tiny.text_config(), tiny.vision_config(), tiny.timm_config(), **fields)
    assert all_random.config.random_encoders == ["text", "vision", "cnn"]
    rationales = model_class.from_backbones(tiny.text_config(), None, None, **fields, **RATIONALES_ALONE)
    assert rationales.config.random_encoders == ["text"]


# ---- Frozen layers ----


@pytest.mark.parametrize("name", [name for name, modules in MODULES.items() if "words" in modules])
@pytest.mark.parametrize("count", [1, -1])
def test_static_words_are_never_frozen_with_transformer_layers(name, count):
    model = system(name, freeze_text_layers=count)
    words = {parameter.requires_grad for parameter in model.text_encoder.parameters()}
    rationales = {each: parameter.requires_grad for each, parameter in model.rationale_encoder.named_parameters()}
    assert words == {True}
    assert not any(
        trained for each, trained in rationales.items() if each.startswith(("embeddings.", "encoder.layer.0."))
    )
    assert any(rationales.values()) == (count == 1)
