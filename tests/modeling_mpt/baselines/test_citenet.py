"""CiteNet against the plain computation of its divergence, its fusion and its losses."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from helpers import tiny, tiny_baselines
from modeling_mpt.baseline_citenet_mpt import normal_divergence
from modeling_mpt.baselines_modeling_mpt import Posts


def encoded(model, batch):
    return model.encode(
        Posts(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], batch["image_mask"])
    )


def test_the_divergence_is_the_mean_of_both_directions():
    torch.manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4), 0.2 + torch.rand(2, 3, 4)
    found = normal_divergence(mean, deviation)
    for row in range(3):
        expected = 0.0
        for d in range(4):
            p, q = (Normal(mean[side, row, d], deviation[side, row, d]) for side in (0, 1))
            expected += (kl_divergence(p, q) + kl_divergence(q, p)).item() / 2
        assert found[row].item() == pytest.approx(expected, rel=1e-4)
    assert normal_divergence(mean[:1].expand(2, 3, 4), deviation[:1].expand(2, 3, 4)).abs().max() < 1e-6


@torch.no_grad()
def test_incongruity_divides_the_post_between_its_modalities_and_their_integration():
    model, batch = tiny_baselines.model("citenet"), tiny.batch()
    output, tokens = model(**batch), encoded(model, batch)
    for row in range(5):
        words = tokens["text"].states[row][tokens["text"].mask[row]]
        regions = tokens["image"].states[row][tokens["image"].mask[row]]
        text = model.text_projection(words[0]) if len(words) else torch.zeros(16)
        image = torch.zeros(16)
        if len(regions):
            image = model.image_projection(tokens["image"].summary[row])
        score, both = 0.0, torch.zeros(16)
        if len(words) and len(regions):
            aligned = [model.text_alignment(text), model.image_alignment(image)]
            parameters = [model.distribution(vector / vector.norm()) for vector in aligned]
            divergence = 0.0
            for d in range(4):
                (m1, m2), (s1, s2) = zip(
                    *((p[d].item(), 0.01 + math.log(1 + math.exp(p[4 + d].item()))) for p in parameters), strict=True
                )
                forth = math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
                back = math.log(s1 / s2) + (s2**2 + (m1 - m2) ** 2) / (2 * s1**2) - 0.5
                divergence += (forth + back) / 2
            score = 1 - math.exp(-divergence)
            both = integrated(model, words, regions)
        assert output.incongruity[row].item() == pytest.approx(score, abs=1e-5)
        expected = torch.cat([(1 - score) * text, (1 - score) * image, score * both])
        torch.testing.assert_close(output.fused_embeds[row], expected, atol=1e-5, rtol=1e-4)
    assert (output.incongruity[[0, 1, 4]] > 0).all()


def integrated(model, words: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Of one post, nothing masked; the layer itself has its own test."""
    words, regions = model.word_projection(words)[None], model.region_projection(regions)[None]
    whole = [torch.ones(1, tokens.shape[1], dtype=torch.bool) for tokens in (words, regions)]
    for to_regions, to_words in zip(model.words_to_regions, model.regions_to_words, strict=True):
        words, regions = to_regions(words, regions, whole[1]), to_words(regions, words, whole[0])
    return model.integration(torch.cat([sum(tokens[0]) / len(tokens[0]) for tokens in (words, regions)]))


@torch.no_grad()
def test_a_text_and_an_image_that_are_aligned_are_not_incongruous():
    model, vector = tiny_baselines.model("citenet"), F.normalize(torch.randn(3, 8), dim=-1)
    torch.testing.assert_close(model.incongruity(torch.stack([vector, vector])), torch.zeros(3))
    near, far = (model.incongruity(torch.stack([vector, F.normalize(vector + x, dim=-1)])) for x in (0.1, 2.0))
    assert (near < far).all() and (far < 1).all()


def test_the_losses_are_those_of_the_posts_that_have_what_they_need():
    torch.manual_seed(0)
    changes = {"contrastive_temperature": 0.5, "class_weights": [1.0, 2.0, 3.0]}
    model, labels = tiny_baselines.model("citenet", **changes), [0, 1, 2, 0, 1]
    has = {"text": [1, 1, 1, 0, 1], "image": [1, 1, 0, 1, 1]}
    text, image, text_logits, image_logits = *torch.randn(2, 5, 8), *torch.randn(2, 5, 3)
    mask = torch.tensor([has["text"], has["image"], [0] * 5]).T.bool()
    found = model.auxiliary_losses(torch.tensor(labels), text, image, text_logits, image_logits, mask)

    pairs = [i for i in range(5) if has["text"][i] and has["image"][i]]
    alignment = 0.0
    for one, other in ((text, image), (image, text)):
        for i in pairs:
            scores = {j: math.exp(F.cosine_similarity(one[i], other[j], dim=0).item() / 0.5) for j in pairs}
            alignment -= math.log(scores[i] / sum(scores.values())) / len(pairs) / 2
    assert found["alignment"].item() == pytest.approx(alignment, rel=1e-5)

    unimodal = 0.0
    for kind, logits in (("text", text_logits), ("image", image_logits)):
        rows = [i for i in range(5) if has[kind][i]]
        weights = [changes["class_weights"][labels[i]] for i in rows]
        losses = [-math.log(logits[i].softmax(dim=0)[labels[i]].item()) for i in rows]
        unimodal += sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights) / 2
    assert found["unimodal"].item() == pytest.approx(unimodal, rel=1e-5)


def test_posts_of_one_modality_train():
    model, batch = tiny_baselines.model("citenet").train(), tiny_baselines.posts(4)
    del batch["pixel_values"], batch["image_mask"]
    output = model(**batch)
    assert output.loss_alignment == 0 and torch.isfinite(output.loss) and not output.incongruity.any()
    output.loss.backward()
    assert model.text_classifier.weight.grad.any() and not model.image_classifier.weight.grad.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_size": 3}, "hidden_size=16, head_size=3"),
        ({"integration_layers": 0}, "integration_layers=0"),
        ({"contrastive_temperature": -1.0}, "contrastive_temperature=-1.0"),
        ({"loss_weight_unimodal": -0.5}, "loss_weight_unimodal=-0.5"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_baselines.config("citenet", **changes)
