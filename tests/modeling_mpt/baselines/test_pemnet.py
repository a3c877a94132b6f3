"""PEMNet against a plain computation of one post at a time."""

import torch
from torch.nn import functional as F

from helpers import tiny, tiny_baselines
from helpers.plain_layers import linear, softmax, weighted_sum


@torch.no_grad()
def test_four_extractors_are_fused_by_laff():
    model, batch = tiny_baselines.model("pemnet"), tiny.batch()
    output, tokens = model(**batch), tiny_baselines.encode(model, batch)
    for row in range(5):
        vectors = {}
        states = tokens["text"].states[row, tokens["text"].mask[row]]
        if len(states):
            query, key, value = (
                layer(states) for layer in (model.attention.query, model.attention.key, model.attention.value)
            )
            states = F.scaled_dot_product_attention(query, key, value)[None]
            sknet_state = model.sknet(states, torch.ones(states.shape[:2], dtype=torch.bool))[0]
            vectors[0] = torch.cat([sknet_state, model.lstm(states)[1][0][0, 0]])
            torch.testing.assert_close(output.text_embeds[row], vectors[0], atol=1e-5, rtol=1e-4)
        if batch["image_mask"][row]:
            _, cnn, _ = model.flattened.encode_images(batch["pixel_values"][row : row + 1])
            vectors[1] = linear(model.image_projection, torch.cat([cnn[0], tokens["image"].summary[row]]))
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
