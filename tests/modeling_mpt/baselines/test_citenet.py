"""CiteNet against a plain computation of its divergence, fusion and losses."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from helpers import tiny, tiny_baselines
from modeling_mpt.baseline_citenet_mpt import normal_divergence


def test_the_divergence_is_the_mean_of_both_directions():
    torch.manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4), 0.2 + torch.rand(2, 3, 4)
    first, second = (Normal(mean[side], deviation[side]) for side in (0, 1))
    expected = (kl_divergence(first, second) + kl_divergence(second, first)).sum(dim=-1) / 2
    torch.testing.assert_close(normal_divergence(mean, deviation), expected)
    assert normal_divergence(mean[:1].expand(2, 3, 4), deviation[:1].expand(2, 3, 4)).abs().max() < 1e-6


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
            parameters = torch.stack([model.distribution(vector / vector.norm()) for vector in aligned])
            mean, deviation = parameters.chunk(2, dim=-1)
            divergence = normal_divergence(mean[:, None], torch.log1p(deviation.exp())[:, None] + 0.01)
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
    mask = torch.tensor([has["text"], has["image"], [0] * 5]).T.bool()
    losses = model.auxiliary_losses(torch.tensor(labels), text, image, text_logits, image_logits, mask)

    both = [i for i in range(5) if has["text"][i] and has["image"][i]]
    alignment = 0.0
    for queries, keys in ((text, image), (image, text)):
        for i in both:
            scores = {j: math.exp(F.cosine_similarity(queries[i], keys[j], dim=0).item() / 0.5) for j in both}
            alignment -= math.log(scores[i] / sum(scores.values())) / len(both) / 2
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
