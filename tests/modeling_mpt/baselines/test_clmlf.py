"""CLMLF against a plain computation of its fusion, and its second view."""

import torch

from helpers import tiny, tiny_baselines
from helpers.plain_layers import softmax, weighted_sum


def apply_layers(layers, states: torch.Tensor) -> torch.Tensor:
    """Apply self-attention layers to `(tokens, size)` without padding."""
    mask = torch.ones(1, len(states), dtype=torch.bool)
    for layer in layers:
        states = layer(states[None], states[None], mask)[0]
    return states


@torch.no_grad()
def test_words_and_regions_share_a_transformer_and_are_pooled_by_attention():
    model, batch = tiny_baselines.model("clmlf"), tiny.batch()
    fused, tokens = model(**batch).fused_embeds, tiny_baselines.encode(model, batch)
    for row in range(5):
        states = [model.word_projection(word) for word in tokens["text"].states[row, tokens["text"].mask[row]]]
        if batch["image_mask"][row]:
            regions = [model.summary_projection(tokens["image"].summary[row])]
            regions += [model.region_projection(region) for region in tokens["image"].states[row]]
            states += list(apply_layers(model.image_transformer, torch.stack(regions)))
        states = list(apply_layers(model.fusion_transformer, torch.stack(states)))
        weights = softmax([model.token_scorer(state) for state in states])
        torch.testing.assert_close(fused[row], weighted_sum(weights, states, 16), atol=1e-5, rtol=1e-4)


def test_only_training_has_a_second_view_which_lacks_words_and_regions():
    model, batch = tiny_baselines.model("clmlf", view_deletion=0.5), tiny_baselines.posts(64)
    assert model(**batch).view_embeds is None and model(**batch).loss_dbcl is None
    with torch.no_grad():
        tokens = tiny_baselines.encode(model, batch)
        torch.manual_seed(0)
        view = model.second_view(tiny_baselines.as_posts(batch), tokens["image"])
    assert not view["image"].states[~view["image"].mask].any()
    for name, mask in (("text", batch["attention_mask"]), ("image", tokens["image"].mask)):
        assert view[name].mask[:, 0].all()  # the first token of each post is kept
        assert 0.4 < (view[name].mask.sum() - 64) / (mask.sum() - 64) < 0.6
    assert view["image"].summary.equal(tokens["image"].summary)
    output = model.train()(**batch)
    assert output.view_embeds.shape == output.contrastive_embeds.shape and output.loss_dbcl > 0
    model.config.loss_weight_dbcl = 0.0
    assert model(**batch).view_embeds is None  # a loss without weight needs no second view
