"""CLMLF against the plain computation of its losses and of its fusion."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers import tiny, tiny_baselines
from modeling_mpt.baselines_modeling_mpt import Posts


def plain_lbcl(embeds: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Over the pairs of different posts that share a label."""
    posts = range(len(labels))
    similarity = [
        [F.cosine_similarity(embeds[i], embeds[j], dim=0).item() / temperature for j in posts] for i in posts
    ]
    total = 0.0
    for i in posts:
        positives = [j for j in posts if j != i and labels[j] == labels[i]]
        log_sum = math.log(sum(math.exp(similarity[i][j]) for j in posts if j != i))
        total += sum(log_sum - similarity[i][j] for j in positives) / max(len(positives), 1)
    return total / len(labels)


def plain_dbcl(embeds: torch.Tensor, views: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for i, post in enumerate(embeds):
        similarity = [F.cosine_similarity(post, view, dim=0).item() / temperature for view in views]
        total += math.log(sum(math.exp(s) for s in similarity)) - similarity[i]
    return total / len(embeds)


def test_both_contrastive_losses_are_the_published_ones():
    torch.manual_seed(0)
    model, embeds, views = tiny_baselines.model("clmlf", contrastive_temperature=0.5), *torch.randn(2, 6, 16)
    labels = [0, 0, 0, 1, 1, 2]  # the last one has no partner
    losses = model.auxiliary_losses(torch.tensor(labels), embeds, views)
    assert losses["lbcl"].item() == pytest.approx(plain_lbcl(embeds, labels, 0.5), rel=1e-5)
    assert losses["dbcl"].item() == pytest.approx(plain_dbcl(embeds, views, 0.5), rel=1e-5)


def test_words_and_regions_meet_in_one_transformer_and_attention_pools_them():
    model, batch = tiny_baselines.model("clmlf"), tiny.batch()
    with torch.no_grad():
        fused = model(**batch).fused_embeds
        tokens = model.encode(posts_of(batch))
        for row in range(5):
            words = tokens["text"].states[row][tokens["text"].mask[row]]
            states = [model.word_projection(word) for word in words]
            if batch["image_mask"][row]:
                regions = [model.summary_projection(tokens["image"].summary[row])]
                regions += [model.region_projection(region) for region in tokens["image"].states[row]]
                states += list(through(model.image_transformer, torch.stack(regions)))
            states = through(model.fusion_transformer, torch.stack(states))
            scores = [math.exp(model.token_scorer(state).item()) for state in states]
            expected = sum(score / sum(scores) * state for score, state in zip(scores, states, strict=True))
            torch.testing.assert_close(fused[row], expected, atol=1e-5, rtol=1e-4)


def posts_of(batch):
    return Posts(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], batch["image_mask"])


def through(layers, states: torch.Tensor) -> torch.Tensor:
    """Self-attention of `(tokens, size)`, none of them masked; the layer itself has its own test."""
    everything = torch.ones(1, len(states), dtype=torch.bool)
    for layer in layers:
        states = layer(states[None], states[None], everything)[0]
    return states


def test_the_second_view_lacks_some_words_and_regions_and_only_training_has_one():
    model, batch = tiny_baselines.model("clmlf", view_deletion=0.5), tiny_baselines.posts(64)
    posts = posts_of(batch)
    assert model(**batch).view_embeds is None and model(**batch).loss_dbcl is None
    with torch.no_grad():
        tokens = model.encode(posts)
        torch.manual_seed(0)
        view = model.second_view(posts, tokens["image"])
    assert not view["image"].states[~view["image"].mask].any()
    for kind, there in (("text", batch["attention_mask"]), ("image", tokens["image"].mask)):
        assert view[kind].mask[:, 0].all()  # no post lost all of it
        left, before = view[kind].mask.sum() - 64, there.sum() - 64
        assert 0.4 < left / before < 0.6
    assert view["image"].summary.equal(tokens["image"].summary)
    output = model.train()(**batch)
    assert output.view_embeds.shape == output.contrastive_embeds.shape and output.loss_dbcl > 0


def test_a_weight_of_zero_saves_the_second_view():
    model = tiny_baselines.model("clmlf", loss_weight_dbcl=0.0).train()
    assert model(**tiny_baselines.posts(4)).view_embeds is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_size": 5}, "hidden_size=16, head_size=5"),
        ({"fusion_layers": -1}, "numbers from 0"),
        ({"contrastive_temperature": 0.0}, "positive number"),
        ({"view_deletion": 1.0}, "probability"),
        ({"loss_weight_dbcl": -1.0}, "loss_weight_dbcl=-1.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_baselines.config("clmlf", **changes)
