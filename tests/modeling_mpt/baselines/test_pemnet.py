"""PEMNet against a plain computation, one post and one token at a time."""

import torch

from helpers import tiny, tiny_baselines
from helpers.plain_layers import linear, softmax, weighted_sum


def plain_self_attention(module, states: torch.Tensor) -> torch.Tensor:
    keys, values = ([linear(layer, state) for state in states] for layer in (module.key, module.value))
    rows = []
    for state in states:
        query = linear(module.query, state)
        weights = softmax([query @ key / len(state) ** 0.5 for key in keys])
        rows.append(weighted_sum(weights, values, len(state)))
    return torch.stack(rows)


def plain_selective_kernel(module, states: torch.Tensor) -> torch.Tensor:
    """Mix two convolutions per channel, by weights from their mean sum, and average over tokens."""
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
    weights = softmax([linear(excitation, squeezed) for excitation in module.excitations])
    mixed = sum(weight * features for weight, features in zip(weights, maps, strict=True))
    return linear(module.projection, mixed.sum(dim=0) / len(states))


def plain_cnn(module, pixels: torch.Tensor) -> torch.Tensor:
    maps = pixels.unsqueeze(0)
    for layer in (layer for layer in module.cnn if isinstance(layer, torch.nn.Conv2d)):
        maps = torch.relu(torch.nn.functional.conv2d(maps, layer.weight, layer.bias, padding=1))
        maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-2, -1))
    return linear(module.projection, maps.flatten())


@torch.no_grad()
def test_four_extractors_are_fused_by_laff():
    model, batch = tiny_baselines.model("pemnet"), tiny.batch()
    output, tokens = model(**batch), tiny_baselines.encode(model, batch)
    for row in range(5):
        vectors = {}
        states = tokens["text"].states[row, tokens["text"].mask[row]]
        if len(states):
            states = plain_self_attention(model.attention, states)
            lstm_state = model.lstm(states.unsqueeze(0))[1][0][0, 0]
            vectors[0] = torch.cat([plain_selective_kernel(model.sknet, states), lstm_state])
            torch.testing.assert_close(output.text_embeds[row], vectors[0], atol=1e-5, rtol=1e-4)
        if batch["image_mask"][row]:
            cnn = plain_cnn(model.flattened, batch["pixel_values"][row])
            vectors[1] = linear(model.image_projection, torch.cat([cnn, tokens["image"].summary[row]]))
            torch.testing.assert_close(output.image_embeds[row], vectors[1], atol=1e-5, rtol=1e-4)
        common = [torch.tanh(linear(model.fusion.transforms[part], vector)) for part, vector in vectors.items()]
        weights = softmax([linear(model.fusion.scorer, vector) for vector in common])
        expected = weighted_sum(weights, common, len(common[0]))
        torch.testing.assert_close(output.fused_embeds[row], expected, atol=1e-5, rtol=1e-4)
    assert not output.text_embeds[3].any() and not output.image_embeds[2].any()  # no text; no image


def test_the_fields_of_both_image_extractors_freeze_them():
    model = tiny_baselines.model("pemnet", freeze_cnn=True, freeze_vision_layers=-1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "flattened" in name}
    assert trained == {"flattened.projection.weight", "flattened.projection.bias"}
    assert not any(parameter.requires_grad for parameter in model.visual.parameters())
