"""PEMNet against its equations, a post and a token at a time."""

import math

import pytest
import torch

from helpers import tiny, tiny_baselines


def linear(layer, row: torch.Tensor) -> torch.Tensor:
    return layer.weight @ row if layer.bias is None else layer.weight @ row + layer.bias


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def attended(module, states: torch.Tensor) -> torch.Tensor:
    rows = []
    for state in states:
        query = linear(module.query, state)
        weights = softmax([query @ linear(module.key, other) / math.sqrt(len(state)) for other in states])
        rows.append(sum(w * linear(module.value, other) for w, other in zip(weights, states, strict=True)))
    return torch.stack(rows)


def selected(module, states: torch.Tensor) -> torch.Tensor:
    """SKNet: each channel's mix of convolutions of two widths, chosen by their mean sum; its mean over tokens."""
    maps = []
    for convolution in module.convolutions:
        width = convolution.kernel_size[0]
        padded = torch.nn.functional.pad(states, (0, 0, width // 2, width // 2))
        tokens = [
            sum(convolution.weight[:, :, offset] @ padded[token + offset] for offset in range(width))
            for token in range(len(states))
        ]
        maps.append(torch.stack([torch.relu(token + convolution.bias) for token in tokens]))
    squeezed = torch.relu(linear(module.squeeze[0], sum(maps).sum(dim=0) / len(states)))
    shares = softmax([linear(excite, squeezed) for excite in module.excitations])
    mixed = sum(share * feature for share, feature in zip(shares, maps, strict=True))
    return linear(module.projection, mixed.sum(dim=0) / len(states))


def text_vector(model, states: torch.Tensor) -> torch.Tensor:
    states = attended(model.attention, states)
    return torch.cat([selected(model.sknet, states), model.lstm(states.unsqueeze(0))[1][0][0, 0]])


def image_vector(model, pixels: torch.Tensor, vit: torch.Tensor) -> torch.Tensor:
    maps = pixels.unsqueeze(0)
    for layer in (module for module in model.flattened.cnn if isinstance(module, torch.nn.Conv2d)):
        maps = torch.relu(torch.nn.functional.conv2d(maps, layer.weight, layer.bias, padding=1))
        maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-2, -1))
    return linear(model.projection, torch.cat([linear(model.flattened.projection, maps.flatten()), vit]))


def test_extractors_and_fusion_follow_the_equations():
    model, batch = tiny_baselines.model("pemnet"), tiny.batch(labels=True)
    output = model(**batch)
    for row in range(5):
        kept = batch["attention_mask"][row].bool()
        vectors = []
        if kept.any():
            ids = batch["input_ids"][row, kept].unsqueeze(0)
            vectors.append((0, text_vector(model, model.text_encoder(ids).last_hidden_state[0])))
            torch.testing.assert_close(output.text_embeds[row], vectors[-1][1], atol=1e-5, rtol=1e-4)
        if batch["image_mask"][row]:
            pixels = batch["pixel_values"][row]
            vit = model.visual.vision_encoder(pixels.unsqueeze(0)).last_hidden_state[0, 0]
            vectors.append((1, image_vector(model, pixels, vit)))
            torch.testing.assert_close(output.image_embeds[row], vectors[-1][1], atol=1e-5, rtol=1e-4)
        common = [torch.tanh(linear(model.fusion.transforms[which], vector)) for which, vector in vectors]
        weights = softmax([linear(model.fusion.scorer, vector)[0] for vector in common])
        fused = sum(weight * vector for weight, vector in zip(weights, common, strict=True))
        torch.testing.assert_close(output.fused_embeds[row], fused, atol=1e-5, rtol=1e-4)
    assert not output.text_embeds[3].any() and not output.image_embeds[2].any()


def test_both_image_extractors_are_read_and_frozen_by_their_fields():
    model, batch = tiny_baselines.model("pemnet"), tiny_baselines.posts(4)
    before = model(**batch).image_embeds
    for part in (model.flattened.cnn, model.visual.vision_encoder):
        for parameter in part.parameters():
            parameter.data.mul_(0.5)
        after = model(**batch).image_embeds
        assert (after != before).any(dim=1).all()
        before = after
    frozen = tiny_baselines.model("pemnet", freeze_cnn=True, freeze_vision_layers=-1)
    trained = {name.split(".")[1] for name, p in frozen.named_parameters() if p.requires_grad and "flattened" in name}
    assert trained == {"projection"}
    assert not any(p.requires_grad for p in frozen.visual.parameters())


@pytest.mark.parametrize(
    ("change", "instead"),
    [({"sknet_kernel_sizes": [4]}, "[3, 5]"), ({"sknet_reduction": 0}, "24 and 28"), ({"grid_size": 0}, "24 and 28")],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(change, instead):
    with pytest.raises(ValueError) as error:
        tiny_baselines.config("pemnet", **change)
    assert instead in str(error.value)
