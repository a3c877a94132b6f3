"""Tests of encoders of transformers and timm: pooling, pretrained weights, and freezing."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    MobileNetV2Config,
    SiglipConfig,
    SiglipModel,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTModel,
)

from helpers import tiny
from modeling_mpt import MPTForSentimentClassification, MPTModel


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Save encoders with weights that no initialization gives."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(7)
    dual = dict(text_config=dict(tiny.TEXT), vision_config=dict(tiny.VISION))
    timm = TimmWrapperConfig(architecture="test_resnet")
    timm.pretrained_cfg = {"mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3]}
    encoders = {
        "bert": BertModel(tiny.text_config()),
        "masked_lm": BertForMaskedLM(tiny.text_config()),
        "modernbert": AutoModel.from_config(tiny.text_config("modernbert")),
        "distilbert": AutoModel.from_config(tiny.text_config("distilbert")),
        "vit": ViTModel(tiny.vision_config()),
        "dinov2": AutoModel.from_config(tiny.vision_config("dinov2")),
        "convnext": AutoModel.from_config(tiny.vision_config("convnext")),
        "clip": CLIPModel(CLIPConfig(**dual, projection_dim=8)),
        "siglip": SiglipModel(SiglipConfig(**dual)),
        "timm": TimmWrapperModel(timm),
    }
    for name, encoder in encoders.items():
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, 0.1, 0.3)
        encoder.save_pretrained(root / name)
    return {name: str(root / name) for name in encoders}, {n: e.state_dict() for n, e in encoders.items()}


def assert_same_weights(module: nn.Module, expected: dict[str, torch.Tensor], prefix: str = "") -> None:
    state = module.state_dict()
    assert len(state) > 10
    for name, value in state.items():
        assert value.equal(expected[prefix + name]), name


@pytest.mark.parametrize("text, vision", [("bert", "vit"), ("masked_lm", "dinov2"), ("modernbert", "convnext")])
def test_pretrained_weights_survive_construction_saving_and_loading(folders, text, vision, tmp_path):
    paths, weights = folders
    model = MPTForSentimentClassification.from_backbones(paths[text], paths[vision], paths["timm"], hidden_size=16)
    prefix = "bert." if text == "masked_lm" else ""
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    for each in (model, loaded):
        assert_same_weights(each.mpt.text_encoder, weights[text], prefix)
        assert_same_weights(each.mpt.image_branches.vision_encoder, weights[vision])
        assert_same_weights(each.mpt.image_branches.cnn, weights["timm"])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert loaded.mpt.image_branches.scale == model.mpt.image_branches.scale != [1.0] * 3
    batch = tiny.batch()
    torch.testing.assert_close(loaded(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("dual, pooling", [("clip", "cls"), ("siglip", "mean")])
def test_a_dual_encoder_contributes_its_vision_part(folders, dual, pooling, tmp_path):
    paths, weights = folders
    model = MPTForSentimentClassification.from_backbones(paths["distilbert"], paths[dual], hidden_size=16)
    assert model.config.vision_pooling == pooling
    assert model.config.vision_config.model_type == f"{dual}_vision_model"
    expected = {name.removeprefix("vision_model."): value for name, value in weights[dual].items()}
    vision = model.mpt.image_branches.vision_encoder
    for name, value in vision.state_dict().items():
        assert value.equal(expected[name.removeprefix("vision_model.")]), name
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    batch = tiny.batch()
    torch.testing.assert_close(loaded(**batch).logits, model.eval()(**batch).logits)


def test_both_text_encoders_start_from_the_pretrained_one(tmp_path):
    BertModel(tiny.text_config()).save_pretrained(tmp_path)
    model = MPTModel.from_backbones(str(tmp_path), tiny.vision_config(), share_text_encoder=False, hidden_size=16)
    for one, other in zip(model.text_encoder.parameters(), model.rationale_encoder.parameters(), strict=True):
        assert one is not other and one.equal(other)


def test_rationales_may_have_an_encoder_of_their_own():
    shared, separate = tiny.model(), tiny.model(share_text_encoder=False)
    encoder_size = sum(p.numel() for p in shared.mpt.text_encoder.parameters())
    assert separate.num_parameters() - shared.num_parameters() == encoder_size
    separate.mpt.text_encoder.embeddings.word_embeddings.weight.data.zero_()
    batch = tiny.batch()
    before, after = tiny.model(share_text_encoder=False)(**batch), separate(**batch)
    torch.testing.assert_close(after.rationale_embeds, before.rationale_embeds)
    assert not torch.allclose(after.text_embeds, before.text_embeds)


@pytest.mark.parametrize("vision", [v for v in tiny.VISION_ENCODERS if v not in tiny.WITH_CLASS_TOKEN])
def test_a_class_token_is_only_taken_from_an_encoder_that_has_one(vision):
    with pytest.raises(ValueError, match="no class token.*vision_pooling='mean'"):
        tiny.model(vision=vision, vision_pooling="cls")


def test_an_encoder_with_a_class_token_may_be_averaged():
    cls, mean = tiny.model(), tiny.model(vision_pooling="mean")
    batch = tiny.batch()
    assert not torch.allclose(cls(**batch).image_embeds, mean(**batch).image_embeds)


def test_an_image_encoder_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="MobileNetV2Model"):
        tiny.model(vision_config=MobileNetV2Config(), vision_pooling="mean")


@pytest.mark.parametrize("text, vision", tiny.ENCODER_PAIRS)
def test_every_trainable_weight_gets_a_gradient(text, vision):
    # Unused parameters stop data-parallel training.
    model = tiny.model(text=text, vision=vision).train()
    model(**tiny.batch(labels=True)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def frozen(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("text, vision", [pair for pair in tiny.ENCODER_PAIRS if "resnet" not in pair])
def test_the_embeddings_and_the_first_layers_can_be_frozen(text, vision, tmp_path):
    model = tiny.model(text=text, vision=vision, freeze_text_layers=1, freeze_vision_layers=1)
    model.save_pretrained(tmp_path)
    for each in (model, MPTForSentimentClassification.from_pretrained(tmp_path)):
        encoders = each.mpt.text_encoder, each.mpt.image_branches.vision_encoder
        for encoder in encoders:
            names = frozen(encoder)
            assert any("embeddings" in name for name in names)
            assert any(".0." in name for name in names)
            assert not any(".1." in name for name in names)
        inside = sum(len(frozen(encoder)) for encoder in encoders)
        assert len(frozen(each)) == inside


def test_all_of_an_encoder_can_be_frozen(tmp_path):
    model = tiny.model(freeze_text_layers=-1, freeze_vision_layers=-1, freeze_cnn=True, cnn_config=tiny.timm_config())
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path).train()
    loaded(**tiny.batch(labels=True)).loss.backward()
    encoders = ("text_encoder", "vision_encoder", ".cnn.")
    for name, parameter in loaded.named_parameters():
        assert parameter.requires_grad is not any(encoder in name for encoder in encoders), name
        assert (parameter.grad is not None) is parameter.requires_grad, name


def test_the_plain_cnn_and_a_second_text_encoder_can_be_frozen():
    model = tiny.model(freeze_cnn=True, freeze_text_layers=1, share_text_encoder=False).mpt
    assert len(frozen(model.image_branches.cnn)) == len(list(model.image_branches.cnn.parameters()))
    assert frozen(model.rationale_encoder) == frozen(model.text_encoder) != set()


def test_freezing_more_layers_than_there_are_is_refused():
    with pytest.raises(ValueError, match="3 layers.*BertModel.*2 layers"):
        tiny.model(freeze_text_layers=3)
    with pytest.raises(ValueError, match="ResNetModel"):
        tiny.model(vision="resnet", freeze_vision_layers=1)
