"""ITIN against a plain computation, one region and one word at a time."""

import torch

from helpers import tiny, tiny_baselines
from helpers.plain_layers import linear, mean, softmax, weighted_sum


def normalized(vector: torch.Tensor) -> torch.Tensor:
    length = vector.square().sum().sqrt()
    return vector / length if length else vector


def plain_attention(module, queries: list[torch.Tensor], memory: list[torch.Tensor]) -> list[torch.Tensor]:
    keys, rows = [linear(module.key, entry) for entry in memory], []
    for query in queries:
        weights = softmax([linear(module.query, query) @ key / len(key) ** 0.5 for key in keys])
        rows.append(weighted_sum(weights, memory, len(query)))
    return rows


def pooled_post(model, states: torch.Tensor, regions: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Compute the pooled vector of one post.

    Inputs are word states `(words, e)`, regions `(regions, e')` and the global vector of the visual context.
    """
    size = model.config.hidden_size
    outputs = model.gru(states.unsqueeze(0))[0][0] if len(states) else torch.zeros(0, 2 * size)
    words = (outputs[:, :size] + outputs[:, size:]) / 2
    regions = [normalized(linear(model.regions, region)) for region in regions]
    aligned = plain_attention(model.align, regions, list(words))
    aligned = [normalized(vector) for vector in plain_attention(model.relate, aligned, aligned)]
    gated = []
    for region, vector in zip(regions, aligned, strict=True):
        gate = torch.sigmoid(region @ vector)
        gated.append(region + linear(model.mix, gate * torch.cat([region, vector])).clamp(min=0))
    hidden, scorer = model.scorer[0], model.scorer[2]
    scores = [linear(scorer, linear(hidden, region).clamp(min=0)) for region in gated]
    attended = torch.zeros(size)
    for head in range(model.config.num_heads):
        attended = attended + weighted_sum(softmax([row[head] for row in scores]), gated, size)
    attended = normalized(attended / model.config.num_heads)
    in_image = linear(model.in_image, torch.cat([attended, image])).clamp(min=0)
    in_text = linear(model.in_text, torch.cat([attended, mean(words)])).clamp(min=0)
    return model.config.visual_share * in_image + (1 - model.config.visual_share) * in_text


@torch.no_grad()
def test_regions_are_aligned_with_words_gated_and_fused_with_both_contexts():
    scene = {"scene_provider": "cnn_grid", "scene_config": tiny.timm_config()}
    model, batch = tiny_baselines.model("itin", num_heads=3, visual_share=0.3, **scene), tiny.batch()
    fused, tokens = model(**batch).fused_embeds, tiny_baselines.encode(model, batch)
    for row in range(5):
        states, regions = (tokens[name].states[row, tokens[name].mask[row]] for name in ("text", "image"))
        expected = pooled_post(model, states, regions, tokens["scene"].summary[row])
        torch.testing.assert_close(fused[row], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rationales_are_fused_in_the_size_of_the_words_and_not_in_that_of_the_contexts():
    model, batch = tiny_baselines.model("itin", use_rationales=True, context_size=4), tiny.batch()
    output, pooled = model(**batch), model.pool(**tiny_baselines.encode(model, batch))[0]
    assert pooled.shape == (5, 4) and output.rationale_embeds.shape == output.fused_embeds.shape == (5, 16)
    own, rationales = model.rationale_fusion.transforms
    for row in range(5):
        system = linear(own, pooled[row]).tanh() * output.system_weights[row, 0]
        rationale = linear(rationales, output.rationale_embeds[row]).tanh() * output.system_weights[row, 1]
        torch.testing.assert_close(output.fused_embeds[row], system + rationale, atol=1e-5, rtol=1e-4)
    del batch["rationale_input_ids"], batch["rationale_attention_mask"]
    torch.testing.assert_close(model(**batch).fused_embeds, own(pooled).tanh(), atol=1e-5, rtol=1e-4)
