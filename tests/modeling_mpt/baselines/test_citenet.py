"""CiteNet against a plain computation of its divergence, fusion and losses."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from helpers import tiny, tiny_baselines
from modeling_mpt.baseline_citenet_mpt import normal_divergence
from modeling_mpt.baselines_visual_mpt import Tokens


def test_the_divergence_is_the_mean_of_both_directions():
    torch.manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4), 0.2 + torch.rand(2, 3, 4)
    first, second = (Normal(mean[side], deviation[side]) for side in (0, 1))
    expected = (kl_divergence(first, second) + kl_divergence(second, first)).mean(dim=-1) / 2
    first, second = torch.stack([mean, deviation], dim=2)
    torch.testing.assert_close(normal_divergence(first, second), expected)
    torch.testing.assert_close(normal_divergence(first[:, None], second[None]).diagonal(), expected)
    assert normal_divergence(first, first).abs().max() < 1e-6


def integrate(model, words: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Integrate the words and regions of one post without padding."""
    words, regions = model.word_projection(words)[None], model.region_projection(regions)[None]
    masks = [torch.ones(1, tokens.shape[1], dtype=torch.bool) for tokens in (words, regions)]
    for to_regions, to_words in zip(model.words_to_regions, model.regions_to_words, strict=True):
        words, regions = to_regions(words, regions, masks[1]), to_words(regions, words, masks[0])
    return model.integration(torch.cat([words[0].mean(dim=0), regions[0].mean(dim=0)]))


@torch.no_grad()
def test_incongruity_weights_the_modalities_against_their_integration():
    model, batch = tiny_baselines.model("citenet"), tiny.batch()
    output, tokens = model(**batch), tiny_baselines.encode(model, batch)
    for row in range(5):
        words, regions = (tokens[name].states[row, tokens[name].mask[row]] for name in ("text", "image"))
        text = model.text_projection(words[0]) if len(words) else torch.zeros(16)
        image = model.image_projection(tokens["image"].summary[row]) if len(regions) else torch.zeros(16)
        score, integrated = 0.0, torch.zeros(16)
        if len(words) and len(regions):
            aligned = [model.text_alignment(text), model.image_alignment(image)]
            normals = []
            for encoder, vector in zip((model.text_distribution, model.image_distribution), aligned, strict=True):
                mean, deviation = encoder(vector / vector.norm() * len(vector) ** 0.5).chunk(2)
                normals.append(torch.stack([mean, torch.log1p(deviation.exp()) + 0.01]))
            divergence = normal_divergence(*normals)
            score, integrated = 1 - math.exp(-divergence.item()), integrate(model, words, regions)
            assert score > 0
        assert output.incongruity[row].item() == pytest.approx(score, abs=1e-5)
        expected = torch.cat([(1 - score) * text, (1 - score) * image, score * integrated])
        torch.testing.assert_close(output.fused_embeds[row], expected, atol=1e-5, rtol=1e-4)


def test_the_losses_are_over_the_posts_that_have_the_modalities():
    torch.manual_seed(0)
    changes = {"contrastive_temperature": 0.5, "class_weights": [1.0, 2.0, 3.0]}
    model, labels = tiny_baselines.model("citenet", **changes), [0, 1, 2, 0, 1]
    has = {"text": [1, 1, 1, 0, 1], "image": [1, 1, 0, 1, 1]}
    text, image, text_logits, image_logits = *torch.randn(2, 5, 8), *torch.randn(2, 5, 3)
    normals = torch.stack([torch.randn(2, 5, 4), 0.5 + torch.rand(2, 5, 4)], dim=2)
    mask = torch.tensor([has["text"], has["image"], [0] * 5]).T.bool()
    losses = model.auxiliary_losses(torch.tensor(labels), text, image, *normals, text_logits, image_logits, mask)

    both = [i for i in range(5) if has["text"][i] and has["image"][i]]
    alignment = 0.0
    similarities = (
        lambda i, j: F.cosine_similarity(text[i], image[j], dim=0).item(),
        lambda i, j: -normal_divergence(normals[0][i], normals[1][j]).item(),
    )
    for similarity in similarities:
        for i in both:
            own = math.exp(similarity(i, i) / 0.5)
            to_images = sum(math.exp(similarity(i, j) / 0.5) for j in both)
            to_texts = sum(math.exp(similarity(j, i) / 0.5) for j in both)
            alignment -= math.log(own**2 / to_images / to_texts) / len(both) / 2
    assert losses["alignment"].item() == pytest.approx(alignment, rel=1e-5)

    unimodal = 0.0
    for modality, logits in (("text", text_logits), ("image", image_logits)):
        rows = [i for i in range(5) if has[modality][i]]
        weights = [changes["class_weights"][labels[i]] for i in rows]
        values = [-math.log(logits[i].softmax(dim=0)[labels[i]].item()) for i in rows]
        unimodal += sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights) / 2
    assert losses["unimodal"].item() == pytest.approx(unimodal, rel=1e-5)


def test_posts_with_one_modality_train():
    model, batch = tiny_baselines.model("citenet").train(), tiny_baselines.posts(4)
    del batch["pixel_values"], batch["image_mask"]
    output = model(**batch)
    assert output.loss_alignment == 0 and torch.isfinite(output.loss) and not output.incongruity.any()
    output.loss.backward()
    assert model.text_classifier.weight.grad.any() and not model.image_classifier.weight.grad.any()


def topics(model, draw: torch.Generator, shift: int = 0) -> dict:
    """Draw one post of each of eight topics; its image is that of the topic `shift` further on."""
    text_topics, image_topics = (torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    tokens = {}
    for name, vectors in (("text", text_topics), ("image", image_topics.roll(shift, dims=0))):
        states = vectors.repeat(1, 2).unsqueeze(1) + 0.3 * torch.randn(8, 4, 32, generator=draw)
        tokens[name] = Tokens(states, torch.ones(8, 4, dtype=torch.bool), states.mean(dim=1))
    return model.pool(**tokens)[1]


def test_after_training_the_incongruity_varies_and_separates_mismatched_from_matched_posts():
    model, draw = tiny_baselines.model("citenet"), torch.Generator().manual_seed(0)
    untrained = topics(model, draw)["incongruity"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    labels, mask = torch.arange(8) % 3, torch.ones(8, 3, dtype=torch.bool)
    for _ in range(80):
        fields = topics(model, draw)
        fields["modality_mask"] = mask
        losses = model.auxiliary_losses(labels, **{name: fields[name] for name in model.loss_inputs[1:]})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():  # new posts of these topics
        matched = topics(model, draw)["incongruity"]
        mismatched = torch.cat([topics(model, draw, shift)["incongruity"] for shift in range(1, 8)])
    assert mismatched.mean() - matched.mean() > 0.2, (untrained, matched, mismatched)
    assert (matched.unsqueeze(1) < mismatched).float().mean() > 0.9
    assert torch.cat([matched, mismatched]).std() > 0.1
