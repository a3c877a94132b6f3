"""Visual providers, and the baselines image CNN, ViT and late fusion."""

import math

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForObjectDetection,
    DetrForObjectDetection,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    YolosConfig,
)

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS
from modeling_mpt.baseline_vit_mpt import positions

DETR = tiny_baselines.detector_config()
YOLOS = YolosConfig(
    image_size=[32, 32],
    num_detection_tokens=6,
    num_labels=4,
    **{k: v for k, v in tiny.VISION.items() if k != "image_size"},
)
PLACES_VIT = ViTConfig(**tiny.VISION, num_labels=9)
PLACES_RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=9)
# Fields of the provider, number and size of the regions of an image of 32 pixels, number of classes.
PROVIDERS = {
    "vit": ({"vision_config": tiny.vision_config()}, 16, 32, None),
    "dinov2": ({"vision_config": tiny.vision_config("dinov2")}, 16, 32, None),
    "siglip": ({"vision_config": tiny.vision_config("siglip"), "vision_pooling": "mean"}, 16, 32, None),
    "convnext": ({"vision_config": tiny.vision_config("convnext"), "vision_pooling": "mean"}, 16, 16, None),
    "plain CNN": ({"visual_provider": "cnn_grid"}, 4, 8, None),
    "timm": ({"visual_provider": "cnn_grid", "cnn_config": tiny.timm_config()}, 1, None, None),
    "detr": ({"visual_provider": "detector", "vision_config": DETR}, 7, 16, 5),
    "detr, most confident": ({"visual_provider": "detector", "vision_config": DETR, "max_regions": 3}, 3, 16, 5),
    "yolos": ({"visual_provider": "detector", "vision_config": YOLOS}, 6, 32, 4),
    "places, ViT": ({"visual_provider": "places", "vision_config": PLACES_VIT}, 16, 32, 9),
    "places, ResNet": ({"visual_provider": "places", "vision_config": PLACES_RESNET}, 16, 16, 9),
}
every_provider = pytest.mark.parametrize("kind", PROVIDERS)


@every_provider
def test_every_provider_returns_tokens_of_the_same_form_and_can_be_saved(kind, tmp_path):
    changes, regions, size, classes = PROVIDERS[kind]
    model, batch = tiny_baselines.model("late_fusion", **changes), tiny.batch()
    tokens = model.visual(batch["pixel_values"], batch["image_mask"])
    size = size or model.image_size
    assert model.image_size == size and tokens.summary.shape == (5, size)
    assert tokens.states.shape == (5, regions, size) and tokens.mask.shape == (5, regions)
    assert tokens.mask.all(dim=1).tolist() == tokens.mask.any(dim=1).tolist() == [True, True, False, True, True]
    assert (tokens.states[2] == 0).all() and (tokens.summary[2] == 0).all()
    assert (tokens.scores is None) == (classes is None)
    if classes is not None:
        assert tokens.scores.shape == (5, classes) and (tokens.scores[2] == 0).all()
        assert ((0 <= tokens.scores) & (tokens.scores <= 1)).all() and tokens.scores[0].sum() > 0
    empty = model.visual(None, torch.zeros(5, dtype=torch.bool))
    assert not empty.mask.any() and empty.states.shape == (5, 1, size) and (empty.scores is None) == (classes is None)
    logits = model(**batch).logits
    assert torch.isfinite(logits).all()

    model.save_pretrained(tmp_path)
    loaded, info = SYSTEMS["late_fusion"][1].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.providers == model.config.providers
    torch.testing.assert_close(loaded(**batch).logits, logits)


def test_the_class_token_is_the_summary_and_no_patch():
    model, batch = tiny_baselines.model("vit"), tiny.batch()
    rows = batch["image_mask"]
    states = model.visual.vision_encoder(batch["pixel_values"][rows]).last_hidden_state
    tokens = model.visual(batch["pixel_values"], rows)
    torch.testing.assert_close(tokens.states[rows], states[:, 1:])
    torch.testing.assert_close(tokens.summary[rows], states[:, 0])
    torch.testing.assert_close(model(**batch).logits[rows], model.classifier[1](states[:, 0]))


def test_a_detector_returns_its_most_confident_objects_and_their_classes():
    model = tiny_baselines.model("late_fusion", visual_provider="detector", vision_config=DETR, max_regions=2)
    pixels = tiny.batch()["pixel_values"][:1]
    tokens = model.visual(pixels, torch.ones(1, dtype=torch.bool))
    output = model.visual.vision_encoder(pixels)
    probabilities = output.logits.softmax(dim=-1)[0, :, :-1]  # the last class is "no object"
    ranked = sorted(range(7), key=lambda query: -probabilities[query].max().item())[:2]
    torch.testing.assert_close(tokens.states[0], output.last_hidden_state[0, ranked])
    weights = torch.stack([probabilities[query].max() for query in ranked])
    expected = sum(w * output.last_hidden_state[0, q] for w, q in zip(weights, ranked, strict=True)) / weights.sum()
    torch.testing.assert_close(tokens.summary[0], expected)
    torch.testing.assert_close(tokens.scores[0], probabilities.max(dim=0).values)


def test_a_pretrained_detector_or_places_classifier_is_loaded_with_its_heads(tmp_path):
    torch.manual_seed(0)
    for folder, network in {
        "detr": DetrForObjectDetection(DETR),
        "vit": ViTForImageClassification(PLACES_VIT),
    }.items():
        network.save_pretrained(tmp_path / folder)
    texts = {"text": tiny.text_config(), "hidden_size": 16}
    for folder, provider in (("detr", "detector"), ("vit", "places")):
        model = SYSTEMS["late_fusion"][1].from_backbones(
            vision=str(tmp_path / folder), visual_provider=provider, **texts
        )
        auto_class = AutoModelForObjectDetection if folder == "detr" else ViTForImageClassification
        expected = auto_class.from_pretrained(tmp_path / folder).state_dict()
        loaded = model.visual.vision_encoder.state_dict()
        assert all(value.equal(loaded[name]) for name, value in expected.items())


def test_batch_normalization_keeps_its_statistics_and_a_frozen_network_its_weights():
    model = tiny_baselines.model("vit", visual_provider="places", vision_config=PLACES_RESNET, freeze_vision_layers=-1)
    before = {name: value.clone() for name, value in model.visual.state_dict().items()}
    model.train()(**tiny.batch(labels=True)).loss.backward()
    assert all(value.equal(before[name]) for name, value in model.visual.state_dict().items())
    assert all(parameter.grad is None for parameter in model.visual.parameters())
    assert isinstance(model.visual.vision_encoder, ResNetForImageClassification)


@pytest.mark.parametrize("name", [n for n in tiny_baselines.NAMES if "scene" in SYSTEMS[n][0].reads])
def test_a_scene_can_have_its_own_network(name, tmp_path):
    batch, scene = tiny.batch(), {"scene_provider": "places", "scene_config": PLACES_RESNET}
    model = tiny_baselines.model(name, **scene)
    assert model.scene_size == 16 and model.config.providers["scene"] == "places"
    assert tiny_baselines.model(name).scene is None
    model.save_pretrained(tmp_path)
    loaded = SYSTEMS[name][1].from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    for parameter in model.scene.parameters():
        parameter.data.zero_()
    assert not torch.equal(model(**batch).logits, loaded(**batch).logits)


def test_the_plain_image_cnn_flattens_its_last_map():
    model, batch = tiny_baselines.model("image_cnn", cnn_channels=[2, 3], grid_size=8), tiny.batch()
    pixels = batch["pixel_values"][0]
    for convolution in (module for module in model.visual.cnn if isinstance(module, torch.nn.Conv2d)):
        pixels = torch.nn.functional.conv2d(pixels, convolution.weight, convolution.bias, padding=1).relu()
        pixels = torch.stack([pixels[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]).amax(dim=0)
    assert pixels.shape == (3, 8, 8)
    expected = model.visual.projection.weight @ pixels.flatten() + model.visual.projection.bias
    torch.testing.assert_close(model(**batch).fused_embeds[0], expected)


def test_the_plain_image_cnn_has_the_size_of_the_released_one_and_takes_other_image_sizes():
    with torch.device("meta"):
        model = SYSTEMS["image_cnn"][1](SYSTEMS["image_cnn"][0]())
        assert round(model.num_parameters() / 1e6, 1) == 38.6  # 38.5 million, and the classifier
    small = tiny_baselines.model("image_cnn", grid_size=4)
    assert torch.isfinite(small(**tiny.batch()).logits).all()


def test_late_fusion_adds_the_logits_of_text_and_image():
    model, batch = tiny_baselines.model("late_fusion"), tiny.batch()
    weight, bias = model.classifier[1].weight, model.classifier[1].bias
    tokens = model.encode_text(batch["input_ids"], batch["attention_mask"])
    image = model.visual(batch["pixel_values"], batch["image_mask"])
    expected = tokens.summary @ weight[:, :32].T + image.summary @ weight[:, 32:].T + bias
    torch.testing.assert_close(model(**batch).logits, expected)


@torch.no_grad()
def test_a_hybrid_vit_reads_the_cells_of_a_cnn(tmp_path):
    cnn = tiny.timm_config("test_efficientnet")
    model = tiny_baselines.model("vit", visual_provider="cnn_grid", cnn_config=cnn, head_size=4)
    batch = tiny.batch() | {"pixel_values": torch.randn(5, 3, 64, 64)}
    tokens = model.visual(batch["pixel_values"], batch["image_mask"])
    cells = model.cell_projection(tokens.states) + positions(tokens.states.shape[1], 16)
    states = torch.cat([model.class_token.weight.expand(5, 1, -1), cells], dim=1)
    everything = torch.ones(states.shape[:2], dtype=torch.bool)
    for layer in model.transformer:
        states = layer(states, states, everything)
    output = model(**batch)
    rows = batch["image_mask"]
    assert tokens.states.shape[1] == 4 and len(model.transformer) == 2
    torch.testing.assert_close(output.fused_embeds[rows], states[rows, 0])
    assert not output.fused_embeds[~rows].any()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(type(model).from_pretrained(tmp_path)(**batch).logits, output.logits)


def test_positions_are_sines_and_cosines():
    assert positions(3, 5).shape == (3, 5)
    rate = 10_000 ** (-2 / 4)
    expected = [math.sin(2), math.cos(2), math.sin(2 * rate), math.cos(2 * rate)]
    torch.testing.assert_close(positions(3, 4)[2], torch.tensor(expected))


# The systems that read images, with the fields that let them read a CNN.
IMAGE_SYSTEMS = {name: {} for name in SYSTEMS if name not in ("mpt", "text_cnn", "bilstm", "clstm", "bert")}
IMAGE_SYSTEMS |= {"vit": {"head_size": 4}}


@pytest.mark.parametrize("name", IMAGE_SYSTEMS)
def test_every_system_that_reads_images_can_read_a_pretrained_cnn(name, tmp_path):
    AutoModel.from_config(tiny.timm_config("test_resnet")).save_pretrained(tmp_path)
    fields = tiny_baselines.config(name, visual_provider="cnn_grid", **IMAGE_SYSTEMS[name]).to_dict()
    own = {field: fields[field] for field in ("hidden_size", "cnn_channels", *tiny_baselines.CHANGES.get(name, ()))}
    own |= IMAGE_SYSTEMS[name] | {"visual_provider": "cnn_grid"}
    text = tiny.text_config()
    model = SYSTEMS[name][1].from_backbones(text, cnn=str(tmp_path), **own)
    assert not model.config.untrained_images
    assert torch.isfinite(model(**tiny.batch()).logits).all()
    random = SYSTEMS[name][1].from_backbones(text, cnn=tiny.timm_config("test_resnet"), **own)
    assert random.config.untrained_images


def test_images_are_untrained_if_all_their_encoders_started_at_random(tmp_path):
    AutoModel.from_config(tiny.vision_config()).save_pretrained(tmp_path)
    text, vision = tiny.text_config(), tiny.vision_config()

    def untrained(name: str, vision=vision, **fields) -> bool:
        return SYSTEMS[name][1].from_backbones(text, vision, hidden_size=16, **fields).config.untrained_images

    assert untrained("vit") and untrained("mpt") and untrained("late_fusion", visual_provider="cnn_grid")
    assert not untrained("vit", str(tmp_path)) and not untrained("mpt", str(tmp_path))
    assert not untrained("bert")
    assert untrained("mpt", str(tmp_path), image_branches=["cnn"])
