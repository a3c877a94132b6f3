"""Tests of the feature extractors of text and image."""

import pytest
import torch
from torch import nn

from helpers import tiny
from modeling_mpt import MPTForSentimentClassification, MPTModel
from modeling_mpt.branches_mpt import ConvNet, SelectiveKernel, TextBranches, authors_convnet


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


def test_selective_kernel_gives_frozen_states_the_vector_and_gradients_of_trained_ones():
    torch.manual_seed(0)
    module = SelectiveKernel(6, 4, kernel_sizes=[1, 3, 5], reduction=2)
    mask = torch.arange(7) < torch.tensor([[7], [0], [1], [4]])
    states = torch.randn(4, 7, 6) * mask.unsqueeze(-1)
    vectors, gradients = [], []
    for trained in (False, True):
        vectors.append(module(states.clone().requires_grad_(trained), mask))
        gradients.append(torch.autograd.grad(vectors[-1].pow(2).sum(), list(module.parameters())))
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.testing.assert_close(gradients[0], gradients[1])


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


@pytest.mark.parametrize("lengths", [[7, 0, 1, 4, 4, 7], [3], [0, 0]], ids=str)
def test_lstm_gives_frozen_states_the_vector_and_gradients_of_trained_ones(lengths):
    torch.manual_seed(0)
    branches = TextBranches(tiny.config(text_branches=["lstm"]), 32)
    mask = torch.arange(max(lengths) + 2) < torch.tensor(lengths).unsqueeze(1)
    states = torch.randn(*mask.shape, 32) * mask.unsqueeze(-1)
    vectors, gradients = [], []
    for trained in (False, True):
        vectors.append(branches(states.clone().requires_grad_(trained), mask))
        gradients.append(torch.autograd.grad(vectors[-1].pow(3).sum(), list(branches.parameters())))
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_lstm_on_frozen_states_computes_under_autocast_and_in_half_precision():
    branches, mask = TextBranches(tiny.config(text_branches=["lstm"]), 32), torch.ones(2, 5, dtype=torch.bool)
    states = torch.randn(2, 5, 32)
    expected = branches(states, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = branches(states, mask)
    rounded.float().sum().backward()
    torch.testing.assert_close(rounded.float(), expected, atol=0.02, rtol=0.02)
    half = branches.bfloat16()(states.bfloat16(), mask)
    half.sum().backward()
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.02)


def test_the_mean_branch_reads_the_mean_of_the_real_tokens_and_has_its_share():
    config = tiny.config(text_branches=["mean", "sknet", "lstm"], hidden_size=15)
    branches = TextBranches(config, 32)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    states = torch.randn(2, 6, 32) * mask.unsqueeze(-1)
    output = branches(states, mask)
    torch.testing.assert_close(output[1, 10:], branches.mean(states[1, :2].mean(dim=0)))
    torch.testing.assert_close(output[:, :5], branches.sknet(states, mask))
    assert output.shape == (2, 15) and config.hidden_size == 15


def test_normalized_features_do_not_depend_on_the_scale_of_an_encoder():
    config = tiny.config(text_branches=["mean"], normalize_features=True)
    branches, mask = TextBranches(config, 32), torch.ones(2, 6, dtype=torch.bool)
    states = torch.randn(2, 6, 32)
    torch.testing.assert_close(branches(states, mask), branches(7 * states + 2, mask), atol=1e-3, rtol=1e-3)
    mean = states.mean(dim=1)
    scaled = (mean - mean.mean(dim=1, keepdim=True)) / mean.std(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(branches(states, mask), branches.mean(scaled), atol=1e-3, rtol=1e-3)


def test_the_mean_branch_follows_the_others_so_that_their_first_weights_stay():
    two, three = (
        tiny.model(text_branches=names, hidden_size=size).state_dict()
        for names, size in ((["sknet", "lstm"], 16), (["sknet", "lstm", "mean"], 24))
    )
    names = [name for name in two if ".text_branches." in name]
    assert names and all(two[name].shape == three[name].shape for name in names)
    assert set(three) - set(two) == {"mpt.text_branches.mean.weight", "mpt.text_branches.mean.bias"}


@pytest.mark.parametrize("text_branches", [["sknet"], ["lstm"], ["mean"], ["lstm", "sknet"]], ids=str)
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


@pytest.mark.parametrize("size", [1, 7, 32, 65])
def test_plain_cnn_takes_any_size_of_image(size):
    assert ConvNet([4, 6, 5])(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_the_authors_cnn_has_the_layers_of_their_code():
    # Conv2d(3, 16, 3, padding=1), ReLU, MaxPool2d(2), …: 64·28·28 features of 224 pixels to 768.
    network = authors_convnet([16, 32, 64], grid_size=28, output_size=768)
    sizes = {name: tuple(weight.shape) for name, weight in network.named_parameters() if name.endswith("weight")}
    assert sizes == {
        "layers.0.weight": (16, 3, 3, 3),
        "layers.3.weight": (32, 16, 3, 3),
        "layers.6.weight": (64, 32, 3, 3),
        "projection.weight": (768, 50_176),
    }
    pixels = torch.randn(2, 3, 224, 224)
    maps = pixels
    for layer in (0, 3, 6):
        weights = network.layers[layer].weight, network.layers[layer].bias
        maps = nn.functional.max_pool2d(nn.functional.conv2d(maps, *weights, padding=1).relu(), 2)
    expected = maps.flatten(1) @ network.projection.weight.T + network.projection.bias
    torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-4)


def test_mpt_reads_images_with_the_authors_cnn(tmp_path):
    model = tiny.model(cnn_variant="authors", grid_size=8)
    output = model(**tiny.batch())
    cnn, projection = model.mpt.image_branches.cnn, model.mpt.image_branches.projection
    assert cnn.projection.out_features == 16 and projection.in_features == 16 + 32
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**tiny.batch()).logits, output.logits)
    assert not any(
        weight.requires_grad
        for weight in tiny.model(cnn_variant="authors", freeze_cnn=True).mpt.image_branches.cnn.parameters()
    )


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_any_timm_model_is_a_cnn(architecture, tmp_path):
    model = tiny.model(cnn_config=tiny.timm_config(architecture))
    batch = tiny.batch()
    expected = model(**batch)
    assert expected.image_embeds.shape == (5, 16)
    model.save_pretrained(tmp_path)
    loaded = MPTForSentimentClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, expected.logits)


def test_a_timm_cnn_reads_pixels_with_the_statistics_it_was_trained_with():
    cnn = tiny.timm_config()
    cnn.pretrained_cfg = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    model = tiny.model(cnn_config=cnn, pixel_mean=[0.5, 0.4, 0.3], pixel_std=[0.5, 0.6, 0.7])
    pixels = torch.rand(1, 3, 32, 32)  # before normalization
    seen = tiny.pixels_seen_by(model.mpt.image_branches.cnn)
    model(pixel_values=tiny.normalized(pixels, [0.5, 0.4, 0.3], [0.5, 0.6, 0.7]))
    torch.testing.assert_close(seen[0], tiny.normalized(pixels, **cnn.pretrained_cfg))


def test_a_timm_cnn_without_statistics_reads_the_pixels_unchanged():
    model = tiny.model(cnn_config=tiny.timm_config())
    seen, pixels = tiny.pixels_seen_by(model.mpt.image_branches.cnn), torch.randn(1, 3, 32, 32)
    model(pixel_values=pixels)
    torch.testing.assert_close(seen[0], pixels)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_normalization_follow_freeze_batch_norm(frozen):
    model = tiny.model(cnn_config=tiny.timm_config(), freeze_batch_norm=frozen).train()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(**tiny.batch())
    assert norm.training is not frozen
    assert norm.running_mean.equal(before) is frozen
