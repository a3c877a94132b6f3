"""Frozen encoders: their outputs in place of their inputs, and their mode in training."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BeitConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    DebertaV2Config,
    Dinov2Config,
    ElectraConfig,
    RobertaConfig,
    SwinConfig,
)

from helpers import tiny, tiny_baselines
from helpers.stored_outputs import stored_batch, stored_outputs
from modeling_mpt import SYSTEMS
from modeling_mpt.frozen_mpt import frozen_image_layers, frozen_text
from modeling_mpt.layers_mpt import freeze_first_layers
from modeling_mpt.packing_mpt import NO_LAYERS, token_states

every_system = pytest.mark.parametrize("name", SYSTEMS)
FROZEN = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}
WITH_DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
# Encoders that FROZEN freezes. Static word embeddings, layers that mix, and the plain CNN's last layer run live.
EXPECTED = {
    "mpt": {"text", "rationales", "cnn", "vision"},
    "bert": {"text", "rationales"},
    "image_cnn": {"rationales"},
    "vit": {"rationales", "image"},
    "cgaft": {"text", "rationales"},
    **dict.fromkeys(("text_cnn", "bilstm", "clstm"), {"rationales"}),
    **dict.fromkeys(("co_mem", "mvan", "mgnns"), {"rationales", "image"}),
    **dict.fromkeys(("pemnet", "itin", "clmlf", "citenet", "late_fusion"), {"text", "rationales", "image"}),
}
LIVE = {
    "image_cnn": {"pixel_values"},
    "cgaft": {"pixel_values"},
    "pemnet": {"pixel_values"},
    **dict.fromkeys(("text_cnn", "bilstm", "clstm", "co_mem", "mvan", "mgnns", "clmlf"), {"input_ids"}),
}


def build(name: str, **changes):
    """Build a system whose encoders and new layers have dropout."""
    changes = {"text_config": tiny.text_config(**WITH_DROPOUT), "dropout": 0.3, "rationale_dropout": 0.3} | changes
    if name == "mpt":
        return tiny.model(**changes)
    if name == "clmlf":
        changes = {"view_deletion": 0.3} | changes
    return tiny_baselines.model(name, **({"use_rationales": True} | changes))


def assert_same(network, batch, inputs, seed: int = 0):
    """Compare outputs and gradients of a batch with those of stored outputs, at one seed."""
    results = []
    for each in (batch, inputs):
        network.zero_grad()
        torch.manual_seed(seed)
        output = network(**each)
        output.loss.backward()
        gradients = {key: value.grad for key, value in network.named_parameters() if value.grad is not None}
        results.append((output, gradients))
    (expected, gradients), (output, stored_gradients) = results
    assert output.keys() == expected.keys()
    for field in expected:
        torch.testing.assert_close(output[field], expected[field], atol=1e-5, rtol=1e-5, msg=field)
    assert gradients and stored_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(stored_gradients[key], gradient, atol=1e-5, rtol=1e-4, msg=key)


# --- the outputs of frozen encoders in place of their inputs ---------------------------------------------------------


@every_system
@pytest.mark.parametrize("changes", [FROZEN, {"freeze_text_layers": 1}], ids=["frozen", "first layer"])
def test_outputs_of_frozen_encoders_give_the_same_loss_and_gradients(name, changes):
    network, batch = build(name, **changes), tiny.batch(labels=True)
    inputs = stored_batch(network, batch)
    if changes is FROZEN:
        assert {encoder.name for encoder in network.frozen_encoders()} == EXPECTED[name]
        assert set(network.live_inputs()) == LIVE.get(name, set())
    for training in (False, True):
        assert_same(network.train(training), batch, inputs)


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"share_text_encoder": False}, {"text", "rationales", "cnn", "vision"}),
        ({"modalities": ["rationales"], "loss_weight_mlcl": 0.0}, {"rationales"}),
        ({"modalities": ["image"], "image_branches": ["cnn"], "loss_weight_mlcl": 0.0}, {"cnn"}),
        ({"cnn_variant": "authors", "grid_size": 4}, {"text", "rationales", "cnn", "vision"}),
        ({"cnn_config": tiny.timm_config(), "freeze_batch_norm": False}, {"text", "rationales", "cnn", "vision"}),
    ],
    ids=["two text encoders", "rationales", "cnn", "authors' cnn", "timm cnn"],
)
def test_every_form_of_mpt_takes_the_outputs_of_its_encoders(changes, names):
    network, batch = build("mpt", **FROZEN, **changes), tiny.batch(labels=True)
    assert {encoder.name for encoder in network.frozen_encoders()} == names and network.live_inputs() == []
    assert_same(network.train(), batch, stored_batch(network, batch))


def test_words_of_its_own_are_read_beside_the_outputs_of_encoders():
    network, batch = build("mpt", **FROZEN, word_size=3), tiny.batch(labels=True)
    with torch.no_grad():
        for words in (network.mpt.text_words, network.mpt.rationale_words):
            words.weight.normal_()
    assert network.live_inputs() == ["input_ids", "rationale_input_ids"]
    inputs = stored_batch(network, batch)
    assert_same(network.train(), batch, inputs)
    with pytest.raises(ValueError, match="`input_ids` is required with `encoder_outputs`"):
        network(**{name: value for name, value in inputs.items() if name != "input_ids"})


@every_system
def test_a_batch_may_lack_what_no_post_of_it_has(name):
    network, batch = build(name, **FROZEN).eval(), tiny.batch(labels=True)
    inputs = stored_batch(network, batch)
    texts = {key: value[[2]] for key, value in inputs["encoder_outputs"].items() if key == "text_states"}
    ids = {} if texts and "input_ids" not in inputs else {"input_ids": batch["input_ids"][[2]]}
    logits = network(attention_mask=batch["attention_mask"][[2]], **ids, encoder_outputs=texts).logits
    torch.testing.assert_close(logits, network(**tiny.rows(batch, 2)).logits)  # the post has a text alone


@pytest.mark.parametrize("kind", [*tiny.TEXT_ENCODERS, "roberta", "deberta"])
def test_the_other_layers_continue_from_stored_states_exactly(kind):
    config = {
        "roberta": lambda: RobertaConfig(**tiny.TEXT, pad_token_id=1),
        "deberta": lambda: DebertaV2Config(**tiny.TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    }.get(kind, lambda: tiny.text_config(kind))()
    torch.manual_seed(0)
    encoder = AutoModel.from_config(config).eval()
    batch = tiny.batch()
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    freeze_first_layers(encoder, 1)
    frozen = frozen_text("text", "text", encoder)
    if kind == "deberta":  # whose layers return pairs: it is not stored by layers
        assert frozen is None
        return
    states = frozen.encode(input_ids=ids, attention_mask=mask)["text_states"]
    torch.testing.assert_close(states[0], encoder(ids[:1], mask[:1], output_hidden_states=True).hidden_states[1][0])
    torch.testing.assert_close(token_states(encoder, states, mask), token_states(encoder, ids, mask))
    assert frozen.settings["layers"] == 1
    trained = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    used = {id(parameter) for module in frozen.modules for parameter in module.parameters()}
    assert used and not used & trained
    assert "forward" not in vars(encoder) and all("forward" not in vars(part) for part in encoder.modules())


@pytest.mark.parametrize("name", [name for name in SYSTEMS if EXPECTED[name] & {"vision", "image"}])
def test_the_other_layers_of_a_vision_encoder_continue_from_stored_states(name):
    vision = tiny.vision_config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    network, batch = build(name, freeze_vision_layers=1, vision_config=vision), tiny.batch(labels=True)
    (frozen,) = network.frozen_encoders()
    assert frozen.name in ("vision", "image") and frozen.settings["layers"] == 1
    inputs = stored_batch(network, batch)
    assert inputs["encoder_outputs"]["vision_states"].shape[1:] == (17, 32)
    for training in (False, True):
        assert_same(network.train(training), batch, inputs)
    encoder = frozen.encoder
    assert "forward" not in vars(encoder) and all("forward" not in vars(part) for part in encoder.modules())
    trained = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    used = {id(parameter) for module in frozen.modules for parameter in module.parameters()}
    assert trained and used and not used & trained
    freeze_first_layers(encoder, 2)
    with pytest.raises(ValueError, match="whose frozen layers changed"):
        network(**inputs)


@pytest.mark.parametrize("kind", ["clip", "dinov2", "swin", "convnext", "beit"])
def test_vision_encoders_of_another_form_are_stored_only_if_their_layers_continue_exactly(kind):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"image_size": 32, "patch_size": 16}
    config = {
        "clip": lambda: CLIPVisionConfig(**small),
        "dinov2": lambda: Dinov2Config(**small, mlp_ratio=1),
        "swin": lambda: SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2]),
        "convnext": lambda: ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]),
        "beit": lambda: BeitConfig(**small, use_relative_position_bias=True),
    }[kind]()
    torch.manual_seed(0)
    encoder = AutoModel.from_config(config).eval()
    freeze_first_layers(encoder, 1)
    frozen = frozen_image_layers("vision", encoder)
    assert (frozen is not None) is (kind == "dinov2")  # CLIP has a layer norm before its layers, which is trained
    if frozen is not None:
        pixels = torch.randn(2, 3, 32, 32)
        states = frozen.encode(pixel_values=pixels)["vision_states"]
        torch.testing.assert_close(
            NO_LAYERS.images(encoder, states).last_hidden_state, encoder(pixel_values=pixels).last_hidden_state
        )


def test_layers_before_the_first_that_are_trained_prevent_storing_by_layers():
    encoder = AutoModel.from_config(ElectraConfig(**tiny.TEXT, embedding_size=16))
    freeze_first_layers(encoder, 1)  # not the projection of the embeddings
    assert frozen_text("text", "text", encoder) is None
    encoder.embeddings_project.requires_grad_(False)
    assert frozen_text("text", "text", encoder).settings["layers"] == 1


def test_one_frozen_image_encoder_and_a_live_one_read_a_batch_together():
    network, batch = build("mpt", freeze_cnn=True), tiny.batch(labels=True)
    inputs = stored_batch(network, batch)
    assert inputs["encoder_outputs"].keys() == {"cnn"} and "pixel_values" in inputs
    assert_same(network.train(), batch, inputs)
    del inputs["pixel_values"]
    with pytest.raises(ValueError, match="`pixel_values` are required"):
        network(**inputs)


def test_adapters_of_the_last_layer_leave_the_first_ones_stored():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        target_modules=r".*text_encoder.*\.1\..*\.(query|value)", modules_to_save=["text_branches", "classifier"]
    )
    model = peft.get_peft_model(build("mpt"), config)
    network, batch = model.base_model.model, tiny.batch(labels=True)
    depths = {encoder.name: encoder.settings.get("layers") for encoder in model.frozen_encoders()}
    assert depths == {"text": 1, "rationales": 1, "cnn": None, "vision": None}
    assert_same(network.train(), batch, stored_batch(network, batch))
    everywhere = peft.LoraConfig(target_modules=r".*text_encoder.*\.(query|value)")
    adapted = peft.get_peft_model(build("mpt"), everywhere)
    assert {encoder.name for encoder in adapted.frozen_encoders()} == {"cnn", "vision"}


def test_masks_may_be_padded_on_the_left():
    network, batch = build("mpt", **FROZEN).eval(), tiny.batch(labels=True)
    inputs = stored_batch(network, batch)
    for mask in ("attention_mask", "rationale_attention_mask"):
        inputs[mask] = inputs[mask].flip(-1)
    torch.testing.assert_close(network(**inputs).logits, network(**batch).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["mpt", "itin"])
def test_stored_outputs_of_half_precision_are_converted(name, dtype):
    network, batch = build(name, **FROZEN).eval(), tiny.batch(labels=True)
    inputs = stored_batch(network, batch)
    inputs["encoder_outputs"] = {key: value.to(dtype) for key, value in inputs["encoder_outputs"].items()}
    logits = network(**inputs).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(**batch).logits, atol=0.02, rtol=0)


def test_objects_and_places_are_stored_with_their_scores():
    places = tiny.vision_config(num_labels=4)
    network = tiny_baselines.model(
        "mgnns",
        vision_config=tiny_baselines.detector_config(),
        visual_provider="detector",
        scene_config=places,
        scene_provider="places",
        **FROZEN,
    )
    batch = tiny.batch(labels=True)
    network.visual.requires_grad_(False)
    network.scene.requires_grad_(False)
    inputs = stored_batch(network, batch)
    outputs = {f"{kind}_{part}" for kind in ("image", "scene") for part in ("states", "summary", "scores")}
    assert inputs["encoder_outputs"].keys() == outputs and "pixel_values" not in inputs
    assert_same(network.train(), batch, inputs)
    del inputs["encoder_outputs"]["scene_scores"]
    with pytest.raises(ValueError, match="must be its states, summary, scores, got states, summary alone"):
        network(**inputs)


def test_regions_are_stored_only_for_systems_that_read_them():
    sizes = {}
    for name in ("late_fusion", "itin"):
        (encoder,) = (each for each in build(name, **FROZEN).frozen_encoders() if each.reads == "image")
        sizes[name] = encoder.encode(pixel_values=torch.randn(2, 3, 32, 32))["image_states"].shape
    assert sizes == {"late_fusion": (2, 1, 32), "itin": (2, 16, 32)}


# --- identity of what is stored --------------------------------------------------------------------------------------


def test_settings_name_what_else_determines_the_outputs():
    first, same, other = (build("mpt", **FROZEN, **changes) for changes in ({}, {}, {"vision_pooling": "mean"}))
    settings = [{e.name: e.settings for e in each.frozen_encoders()} for each in (first, same, other)]
    assert settings[0] == settings[1]
    assert [name for name in settings[0] if settings[0][name] != settings[2][name]] == ["vision"]
    assert settings[0]["text"]["config"]["num_attention_heads"] == 4


def test_encoding_leaves_every_mode_as_it_was_and_has_no_gradients():
    network = build("mpt")
    network.train()
    network.mpt.text_encoder.requires_grad_(False)  # after the mode was set
    modes = [part.training for part in network.modules()]
    outputs = stored_outputs(network, tiny.batch())
    assert outputs.keys() == {"text_states", "rationale_means"}
    assert not any(value.requires_grad for value in outputs.values())
    assert all(value.equal(outputs[key]) for key, value in stored_outputs(network, tiny.batch()).items())
    assert [part.training for part in network.modules()] == modes


# --- evaluation mode of frozen parts in training ---------------------------------------------------------------------


@every_system
def test_frozen_encoders_stay_in_evaluation_mode(name):
    network = build(name, **FROZEN, freeze_batch_norm=False).train()
    for encoder in network.frozen_encoders():
        for module in encoder.modules:
            parts = [part for part in module.modules() if isinstance(part, nn.Dropout)]
            assert not any(part.training for part in parts), encoder.name
    assert network.training and network.classifier.training
    assert build(name).train().classifier.training
    assert not any(part.training for part in network.eval().modules())


def test_training_mode_follows_the_parameters_at_each_call():
    network = tiny.model(cnn_config=tiny.timm_config(), freeze_batch_norm=False).train()
    cnn = network.mpt.image_branches.cnn
    statistics = [part for part in cnn.modules() if isinstance(part, nn.BatchNorm2d)]
    assert statistics and all(part.training for part in network.modules())
    cnn.requires_grad_(False)
    network.train()
    assert not any(part.training for part in cnn.modules()) and network.mpt.text_encoder.training
    cnn.requires_grad_(True)
    network.train()
    assert all(part.training for part in network.modules())


def test_frozen_first_layers_have_no_dropout_and_the_others_do():
    network = build("mpt", freeze_text_layers=1).train()
    encoder = network.mpt.text_encoder
    first, second = encoder.encoder.layer
    assert not any(part.training for part in (*encoder.embeddings.modules(), *first.modules()))
    assert all(part.training for part in second.modules())


# --- inputs that are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("text_states", lambda value: value[:2], "one row per post"),
        ("text_states", lambda value: value[:, :3], "needs a `attention_mask` that begins with \\(5, 3\\)"),
        ("text_states", lambda value: value[..., :8], "the last of size 32, got torch.float32 of the shape"),
        ("text_states", lambda value: value.long(), "must have floating-point numbers"),
        ("rationale_means", lambda value: value[:, :2], "needs a `rationale_attention_mask`"),
        ("vision", lambda value: value.unsqueeze(1), "in 2 dimensions"),
        ("image_states", lambda value: value, "may have \\['cnn', .*got 'image_states'"),
    ],
)
def test_outputs_of_another_shape_or_name_are_refused(name, change, message):
    network = build("mpt", **FROZEN).eval()
    inputs = stored_batch(network, tiny.batch(labels=True))
    outputs = inputs["encoder_outputs"]
    outputs[name] = change(outputs.get(name, torch.zeros(5, 4, 32)))
    with pytest.raises(ValueError, match=message):
        network(**inputs)


@pytest.mark.parametrize(
    "path", ["text_encoder", "text_encoder.encoder.layer.1", "image_branches.cnn", "image_branches.vision_encoder"]
)
def test_outputs_of_an_encoder_that_is_trained_by_now_are_refused(path):
    network = build("mpt", **FROZEN).train()
    inputs = stored_batch(network, tiny.batch(labels=True))
    network.mpt.get_submodule(path).requires_grad_(True)
    with pytest.raises(ValueError, match="encoder that is trained, or whose frozen layers changed"):
        network(**inputs)


@pytest.mark.parametrize("name", ["mgnns", "clmlf"])
def test_systems_that_read_words_and_states_ask_for_both(name):
    network = build(name, text_provider="encoder", **FROZEN).train()
    inputs = stored_batch(network, tiny.batch(labels=True))
    del inputs["input_ids"]
    with pytest.raises(ValueError, match="`input_ids` are required with the `text_states`"):
        network(**inputs)


def test_layers_of_encoders_that_do_not_run_are_refused():
    network = build("mpt", **FROZEN).eval()
    inputs = stored_batch(network, tiny.batch(labels=True))
    with pytest.raises(ValueError, match="leave out `encoder_outputs`"):
        network(**inputs, output_hidden_states=True)
    network.config.output_hidden_states = True
    assert network.frozen_encoders() == []
    assert set(network.live_inputs()) == {"input_ids", "rationale_input_ids", "pixel_values"}
