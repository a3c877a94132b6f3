"""ITIN against its equations, a region and a word at a time."""

import math

import pytest
import torch

from helpers import tiny, tiny_baselines


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def linear(layer, vector: torch.Tensor) -> torch.Tensor:
    return layer.weight @ vector + (0 if layer.bias is None else layer.bias)


def unit(vector: torch.Tensor) -> torch.Tensor:
    length = math.sqrt(sum(float(x) ** 2 for x in vector))
    return vector / length if length else vector


def read(module, questions: list[torch.Tensor], memory: list[torch.Tensor]) -> list[torch.Tensor]:
    """u_i = Σ_j softmax_j((W_q q_i)ᵀ(W_k m_j) / √d) m_j."""
    found = []
    for question in questions:
        query = linear(module.query, question)
        scores = [query @ linear(module.key, entry) / math.sqrt(len(entry)) for entry in memory]
        weighed = [weight * entry for weight, entry in zip(softmax(scores), memory, strict=True)]
        found.append(sum(weighed, torch.zeros_like(question)))
    return found


def expected(model, states: torch.Tensor, regions: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The pooled vector of one post: word states (words, e), regions (regions, e') and global vector (e'') alone."""
    size = model.config.hidden_size
    outputs = model.gru(states.unsqueeze(0))[0][0] if len(states) else torch.zeros(0, 2 * size)
    words = [(output[:size] + output[size:]) / 2 for output in outputs]
    regions = [unit(linear(model.regions, region)) for region in regions]
    aligned = read(model.align, regions, words)
    aligned = [unit(vector) for vector in read(model.relate, aligned, aligned)]
    gated = []
    for region, vector in zip(regions, aligned, strict=True):
        gate = 1 / (1 + torch.exp(-(region @ vector)))
        gated.append(region + linear(model.mix, gate * torch.cat([region, vector])).clamp(min=0))
    hidden, score = model.scorer[0], model.scorer[2]
    scores = [linear(score, linear(hidden, region).clamp(min=0)) for region in gated]
    attended = torch.zeros(size)
    for head in range(model.config.num_heads):
        weights = softmax([each[head] for each in scores])
        attended = attended + sum((w * z for w, z in zip(weights, gated, strict=True)), torch.zeros(size))
    attended = unit(attended / model.config.num_heads)
    sentence = sum(words) / len(words) if words else torch.zeros(size)
    in_image = linear(model.in_image, torch.cat([attended, image])).clamp(min=0)
    in_text = linear(model.in_text, torch.cat([attended, sentence])).clamp(min=0)
    return model.config.visual_share * in_image + (1 - model.config.visual_share) * in_text


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_heads": 1, "visual_share": 0.7}, {"scene_provider": "cnn_grid", "scene_config": tiny.timm_config()}],
    ids=["patches", "one head", "context of its own"],
)
@torch.no_grad()
def test_it_computes_its_equations(changes):
    model, batch = tiny_baselines.model("itin", **changes), tiny.batch()
    fused = model(**batch).fused_embeds
    context = model.scene or model.visual
    for row, there in enumerate(batch["image_mask"]):
        mask = batch["attention_mask"][row].bool()
        ids = batch["input_ids"][row : row + 1, mask]
        states = model.text_encoder(ids).last_hidden_state[0] if mask.any() else torch.zeros(0, model.text_size)
        pixels = batch["pixel_values"][row : row + 1]
        regions, image = torch.zeros(0, model.image_size), torch.zeros(model.scene_size)
        if there:
            regions = model.visual(pixels, torch.tensor([True])).states[0]
            image = context(pixels, torch.tensor([True])).summary[0]
        torch.testing.assert_close(fused[row], expected(model, states, regions, image), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_both_mixes_of_its_two_classifiers_are_one():
    """The published code adds 0.2 and 0.8 of the logits that one layer gives both contexts."""
    logits = {}
    for share in (0.0, 0.2, 1.0):
        model = tiny_baselines.model("itin", visual_share=share)
        logits[share] = model(**tiny.batch()).logits
    torch.testing.assert_close(logits[0.2], 0.2 * logits[1.0] + 0.8 * logits[0.0])


@torch.no_grad()
def test_the_gate_lets_through_more_of_words_that_fit_their_region():
    model = tiny_baselines.model("itin")
    size = model.config.hidden_size
    model.mix.weight.copy_(torch.eye(size, 2 * size))  # o_i = ReLU(g_i r_i)
    region = torch.eye(size)[:1]
    opened = model.gate(region, region) - region
    closed = model.gate(region, -region) - region
    assert opened[0, 0] == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert closed[0, 0] == pytest.approx(torch.sigmoid(torch.tensor(-1.0)).item())


@torch.no_grad()
def test_masked_regions_get_no_attention():
    model = tiny_baselines.model("itin")
    regions = torch.randn(2, 5, model.config.hidden_size)
    mask = torch.arange(5) < torch.tensor([[3], [0]])
    found = model.attend(regions, mask)
    torch.testing.assert_close(found[:1], model.attend(regions[:1, :3], mask[:1, :3]))
    assert found[1].eq(0).all()


@pytest.mark.parametrize("change", [{"num_heads": 0}, {"context_size": 0}, {"visual_share": 1.2}], ids=str)
def test_values_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        tiny_baselines.config("itin", **change)
