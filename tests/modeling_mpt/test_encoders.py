"""Encoders: padding never counts, any encoder fits, pretrained weights survive, frozen ones stay."""

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
from modeling_mpt import MPTConfig, MPTForSentimentClassification, MPTModel
from modeling_mpt.branches_mpt import ConvNet, SelectiveKernel, TextBranches
from modeling_mpt.packing_mpt import compact, length_buckets, masked_mean, token_states, undo_compact

# --- padding ---------------------------------------------------------------------------------------------------------


def test_compact_moves_real_tokens_to_the_front_in_their_order_and_back():
    ids = torch.tensor([[0, 0, 7, 8], [5, 0, 6, 0], [0, 0, 0, 0]])
    moved, mask, order = compact(ids, ids.bool())
    assert moved.tolist() == [[7, 8, 0, 0], [5, 6, 0, 0], [0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [2, 2, 0] and mask[:2, :2].all()
    states = moved.unsqueeze(-1).float()
    assert undo_compact(states, order).squeeze(-1).long().tolist() == ids.tolist()
    attention = moved.unsqueeze(2) * 10 + moved.unsqueeze(1)  # entry (query, key)
    assert undo_compact(attention.unsqueeze(1), order).squeeze(1).equal(ids.unsqueeze(2) * 10 + ids.unsqueeze(1))


@pytest.mark.parametrize("lengths", [[], [0, 0], [5], [320, 1, 0, 300, 17, 9, 9, 240], list(range(100))], ids=str)
def test_length_buckets_cover_each_row_with_tokens_once(lengths):
    buckets = length_buckets(lengths)
    assert sorted(row for bucket in buckets for row in bucket) == [r for r, length in enumerate(lengths) if length]
    for bucket in buckets:
        assert max(lengths[row] for row in bucket) == lengths[bucket[0]]
        longest, shortest = lengths[bucket[0]], min(lengths[row] for row in bucket)
        assert shortest >= min(0.75 * longest, longest - 8)


def test_token_states_are_those_of_each_sequence_alone():
    encoder = BertModel(tiny.text_config(), add_pooling_layer=False).eval()
    lengths = [40, 3, 0, 38, 12, 1]
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(3, tiny.VOCABULARY, (6, 40))
    states = token_states(encoder, ids, mask)
    assert states.shape == (6, 40, 32)
    for row, length in enumerate(lengths):
        assert not states[row, length:].any()
        if length:
            torch.testing.assert_close(states[row, :length], encoder(ids[row : row + 1, :length]).last_hidden_state[0])


def test_token_states_of_nothing_are_zero():
    encoder = BertModel(tiny.text_config()).eval()
    assert not token_states(encoder, torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4)).any()


def test_few_encoder_calls_and_little_padding():
    widths = []

    class Counting(BertModel):
        def forward(self, input_ids, attention_mask):
            widths.append(input_ids.shape)
            return super().forward(input_ids, attention_mask)

    lengths = torch.randint(1, 61, (64,), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(64) < lengths.unsqueeze(1)
    token_states(Counting(tiny.text_config()).eval(), mask.long(), mask)
    assert len(widths) <= 6
    assert sum(rows * width for rows, width in widths) < 1.25 * lengths.sum()


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
@pytest.mark.parametrize("vision", tiny.VISION_ENCODERS)
def test_a_post_alone_or_in_a_batch_padded_left_or_right_is_the_same(text, vision):
    """Logits are too flat at initialisation to show a difference: the features are compared too."""
    model = tiny.model(text=text, vision=vision, cnn_config=tiny.timm_config() if vision == "vit" else None)
    batch = tiny.batch()
    left = dict(batch)
    for name in ("", "rationale_"):
        ids, mask = f"{name}input_ids", f"{name}attention_mask"
        left[ids], left[mask] = tiny.padded_left(batch[ids], batch[mask])
    with torch.no_grad():
        together = model(**batch)
        assert together.logits.shape == (5, 3) and torch.isfinite(together.logits).all()
        alone = [model(**tiny.rows(batch, row)) for row in range(5)]
        cut = [model(**{k: v for k, v in tiny.rows(left, row).items() if k != "image_mask"}) for row in (0, 1, 3, 4)]
        for name in ("logits", "text_embeds", "image_embeds", "rationale_embeds", "modality_weights"):
            one = torch.cat([output[name] for output in alone])
            torch.testing.assert_close(one, together[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(model(**left)[name], together[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(
                torch.cat([output[name] for output in cut]), together[name][[0, 1, 3, 4]], atol=1e-5, rtol=0
            )


def test_attention_masks_may_be_left_out():
    model, batch = tiny.model(), tiny.rows(tiny.batch(), 0)
    full = {name: value for name, value in batch.items() if "mask" not in name}
    batch["rationale_attention_mask"] = torch.ones_like(batch["rationale_attention_mask"])
    torch.testing.assert_close(model(**full).logits, model(**batch).logits)


# --- text ------------------------------------------------------------------------------------------------------------


def test_selective_kernel_is_the_weighted_mean_of_its_convolutions():
    torch.manual_seed(0)
    module = SelectiveKernel(6, 4, kernel_sizes=[1, 3], reduction=2)
    states = torch.randn(1, 5, 6)
    output = module(states, torch.ones(1, 5, dtype=torch.bool))
    maps = [conv(states.transpose(1, 2)).relu() for conv in module.convolutions]
    squeezed = module.squeeze(sum(maps).mean(2))
    select = torch.stack([excite(squeezed) for excite in module.excitations]).softmax(0)
    mixed = sum(weight.unsqueeze(2) * feature for weight, feature in zip(select, maps, strict=True))
    torch.testing.assert_close(output, module.projection(mixed.mean(2)))


def test_selective_kernel_squeezes_to_the_reduction_but_not_below_32():
    assert SelectiveKernel(768, 4, [3], 16).squeeze[0].out_features == 48
    assert SelectiveKernel(64, 4, [3], 16).squeeze[0].out_features == 32


def test_lstm_gives_the_state_at_the_last_real_token():
    config = tiny.config(text_branches=["lstm"])
    branches = TextBranches(config, 32)
    states = torch.randn(2, 6, 32)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    output = branches(states * mask.unsqueeze(-1), mask)
    torch.testing.assert_close(output[1:], branches.lstm(states[1:, :2])[1][0][0])
    assert output.shape == (2, 16)


@pytest.mark.parametrize("text_branches", [["sknet"], ["lstm"], ["lstm", "sknet"]], ids=str)
@pytest.mark.parametrize("image_branches", [["cnn"], ["vit"]], ids=str)
def test_one_branch_alone_gives_the_full_size(text_branches, image_branches):
    model = tiny.model(text_branches=text_branches, image_branches=image_branches)
    output = model(**tiny.batch())
    assert output.text_embeds.shape == output.image_embeds.shape == (5, 16)
    names = {name for name, _ in model.named_parameters()}
    assert any("sknet" in name for name in names) is ("sknet" in text_branches)
    assert any("lstm" in name for name in names) is ("lstm" in text_branches)
    assert any(".cnn." in name for name in names) is ("cnn" in image_branches)
    assert any("vision_encoder" in name for name in names) is ("vit" in image_branches)


def test_rationales_may_have_an_encoder_of_their_own(tmp_path):
    shared, separate = tiny.model(), tiny.model(share_text_encoder=False)
    encoder_size = sum(p.numel() for p in shared.mpt.text_encoder.parameters())
    assert separate.num_parameters() - shared.num_parameters() == encoder_size
    separate.mpt.text_encoder.embeddings.word_embeddings.weight.data.zero_()
    batch = tiny.batch()
    before, after = tiny.model(share_text_encoder=False)(**batch), separate(**batch)
    torch.testing.assert_close(after.rationale_embeds, before.rationale_embeds)
    assert not torch.allclose(after.text_embeds, before.text_embeds)


def test_both_text_encoders_start_from_the_pretrained_one(tmp_path):
    BertModel(tiny.text_config()).save_pretrained(tmp_path)
    model = MPTModel.from_backbones(str(tmp_path), tiny.vision_config(), share_text_encoder=False, hidden_size=16)
    for one, other in zip(model.text_encoder.parameters(), model.rationale_encoder.parameters(), strict=True):
        assert one is not other and one.equal(other)


# --- image -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 32, 65])
def test_plain_cnn_takes_any_size_of_image(size):
    assert ConvNet([4, 6, 5])(torch.randn(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_any_timm_model_is_a_cnn(architecture, tmp_path):
    model = tiny.model(cnn_config=tiny.timm_config(architecture))
    batch = tiny.batch()
    expected = model(**batch)
    assert expected.image_embeds.shape == (5, 16)
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    assert_same_weights(loaded, model.state_dict())
    torch.testing.assert_close(loaded(**batch).logits, expected.logits)


def test_a_timm_cnn_sees_pixels_normalised_with_its_own_statistics():
    cnn = tiny.timm_config()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    cnn.pretrained_cfg = {"mean": mean, "std": std}
    model = tiny.model(cnn_config=cnn, pixel_mean=[0.5, 0.4, 0.3], pixel_std=[0.5, 0.6, 0.7])
    seen = []
    model.mpt.image_branches.cnn.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    picture = torch.rand(1, 3, 32, 32)  # as the file holds it

    def normalised(mean, std):
        return (picture - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    model(pixel_values=normalised([0.5, 0.4, 0.3], [0.5, 0.6, 0.7]))
    torch.testing.assert_close(seen[0], normalised(mean, std))


def test_a_cnn_without_statistics_sees_the_pixels_as_they_come():
    model = tiny.model(cnn_config=tiny.timm_config())
    seen = []
    model.mpt.image_branches.cnn.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    pixels = torch.randn(1, 3, 32, 32)
    model(pixel_values=pixels)
    torch.testing.assert_close(seen[0], pixels)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_normalisation_stay_unless_asked_to_move(frozen):
    model = tiny.model(cnn_config=tiny.timm_config(), freeze_batch_norm=frozen).train()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(**tiny.batch())
    assert norm.training is not frozen
    assert norm.running_mean.equal(before) is frozen


@pytest.mark.parametrize("vision", [v for v in tiny.VISION_ENCODERS if v not in tiny.WITH_CLASS_TOKEN])
def test_a_class_token_is_only_taken_from_an_encoder_that_has_one(vision):
    with pytest.raises(ValueError, match="no class token. Write vision_pooling='mean'"):
        tiny.model(vision=vision, vision_pooling="cls")


def test_an_encoder_with_a_class_token_may_be_averaged():
    cls, mean = tiny.model(), tiny.model(vision_pooling="mean")
    batch = tiny.batch()
    assert not torch.allclose(cls(**batch).image_embeds, mean(**batch).image_embeds)


def test_an_image_encoder_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="MobileNetV2Model is not in its configuration"):
        tiny.model(vision_config=MobileNetV2Config(), vision_pooling="mean")


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
@pytest.mark.parametrize("vision", tiny.VISION_ENCODERS)
def test_every_trainable_weight_gets_a_gradient(text, vision):
    """What nothing reads would stop data-parallel training: "parameters that were not used in producing the loss"."""
    model = tiny.model(text=text, vision=vision).train()
    model(**tiny.batch(labels=True)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# --- pretrained weights ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved encoders, with weights that no initialisation would give."""
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
    assert loaded.mpt.image_branches.scale == model.mpt.image_branches.scale != [1.0] * 3
    batch = tiny.batch()
    torch.testing.assert_close(loaded(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("dual, pooling", [("clip", "cls"), ("siglip", "mean")])
def test_of_a_pretrained_dual_encoder_the_vision_part_is_taken(folders, dual, pooling, tmp_path):
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


def test_from_backbones_takes_configurations_too():
    model = MPTForSentimentClassification.from_backbones(
        tiny.text_config(), tiny.vision_config(), tiny.timm_config(), hidden_size=16, num_labels=2
    )
    assert model(**tiny.batch()).logits.shape == (5, 2)


def test_from_backbones_gives_every_new_layer_finite_weights(folders):
    paths, _ = folders
    model = MPTForSentimentClassification.from_backbones(paths["bert"], paths["vit"], hidden_size=16)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model(**tiny.batch()).logits.std() < 10


# --- freezing --------------------------------------------------------------------------------------------------------


def frozen(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("text", tiny.TEXT_ENCODERS)
@pytest.mark.parametrize("vision", ["vit", "dinov2", "clip", "siglip", "convnext"])
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
    with pytest.raises(ValueError, match="first 3 layers of a BertModel with 2 layers.*-1 to freeze all"):
        tiny.model(freeze_text_layers=3)
    with pytest.raises(ValueError, match="ResNetModel with None layers.*-1 to freeze all"):
        tiny.model(vision="resnet", freeze_vision_layers=1)


def test_modalities_that_are_left_out_are_not_built():
    def parts(**changes) -> set[str]:
        return {
            name.split(".")[0] for name, _ in MPTModel(tiny.config(loss_weight_mlcl=0, **changes)).named_parameters()
        }

    text, image = {"text_encoder", "text_branches"}, {"image_branches"}
    rationales = {"text_encoder", "perspective_attention"}
    assert parts(modalities=["text"]) == text | {"fusion"}
    assert parts(modalities=["image"]) == image | {"fusion"}
    assert parts(modalities=["rationales"]) == rationales | {"fusion"}
    assert parts(modalities=["rationales"], share_text_encoder=False) == rationales | {"fusion"}
    assert parts(modalities=["rationales", "text"]) == text | rationales | {"fusion"}


@pytest.mark.parametrize("perspectives", [["only"], ["a", "b"], ["a", "b", "c", "d", "e"]], ids=str)
@pytest.mark.parametrize("num_labels", [2, 7])
def test_any_number_of_perspectives_and_labels(perspectives, num_labels):
    model = tiny.model(perspectives=perspectives, num_labels=num_labels)
    output = model(**tiny.batch(perspectives=len(perspectives)))
    assert output.logits.shape == (5, num_labels)
    assert output.perspective_weights.shape == (5, len(perspectives))


def test_rationales_of_another_number_of_perspectives_are_refused():
    with pytest.raises(ValueError, match=r"shape \(5, 2, 20\): write \(batch, 3, rationale_len\)"):
        tiny.model()(**tiny.batch(perspectives=2))


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(1, 3, 2), torch.zeros(1, 3)).tolist() == [[0.0, 0.0]]


def test_default_configuration_describes_the_paper_size():
    config = MPTConfig()
    assert config.text_config.num_hidden_layers == config.vision_config.num_hidden_layers == 12
