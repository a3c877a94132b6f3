"""Tests of the fusion: weights over the modalities of a post, none for missing ones."""

import itertools
import math

import pytest
import torch

from helpers import tiny
from modeling_mpt.fusion_mpt import (
    ConcatenationFusion,
    LightweightAttentionFusion,
    PerspectiveAttention,
    masked_softmax,
)


def test_masked_softmax_is_the_softmax_of_the_entries_in_the_mask():
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False]])
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights[0], scores[0].softmax(0))
    torch.testing.assert_close(weights[1, [0, 2]], scores[1, [0, 2]].softmax(0))
    assert weights[1, 1] == 0 and weights[2].tolist() == [0, 0, 0]


def test_masked_softmax_has_finite_gradients_without_any_entry():
    scores = torch.randn(2, 3, requires_grad=True)
    masked_softmax(scores, torch.tensor([[True, False, True], [False, False, False]])).square().sum().backward()
    assert torch.isfinite(scores.grad).all() and not scores.grad[1].any()


def test_laff_is_equation_6():
    torch.manual_seed(0)
    fusion = LightweightAttentionFusion(3, 4)
    vectors = list(torch.randn(3, 2, 4))
    fused, weights = fusion(vectors, torch.ones(2, 3, dtype=torch.bool))
    for post in range(2):
        common = [torch.tanh(fusion.transforms[m](vectors[m][post])) for m in range(3)]
        alpha = torch.stack([fusion.scorer.weight[0] @ vector for vector in common]).softmax(0)
        torch.testing.assert_close(weights[post], alpha)
        torch.testing.assert_close(fused[post], sum(a * vector for a, vector in zip(alpha, common, strict=True)))


def test_literal_fusion_is_equation_6_as_written():
    torch.manual_seed(0)
    fusion = LightweightAttentionFusion(3, 4, literal=True)
    vectors, mask = list(torch.randn(3, 2, 4)), torch.tensor([[True, True, True], [True, False, True]])
    fused, weights = fusion(vectors, mask)
    for post, present in enumerate(([0, 1, 2], [0, 2])):
        scores = [math.exp((fusion.scorer.weight[0] @ vectors[m][post]).item()) for m in present]
        alpha = [score / sum(scores) for score in scores]
        assert weights[post, present].tolist() == pytest.approx(alpha)
        expected = sum(a * vectors[m][post] for a, m in zip(alpha, present, strict=True))
        torch.testing.assert_close(fused[post], expected)
    assert [name for name, _ in tiny.model(fusion="literal").mpt.fusion.named_parameters()] == ["scorer.weight"]


def test_concatenation_keeps_the_weighted_parts_and_a_missing_one_is_zero():
    torch.manual_seed(0)
    fusion = ConcatenationFusion([4, 4, 8], 4)
    vectors, mask = (
        [torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 8)],
        torch.tensor([[True] * 3, [True, False, True]]),
    )
    fused, weights = fusion(vectors, mask)
    parts = [torch.nn.functional.gelu(vector) for vector in vectors]
    scored = [*parts[:2], (parts[2][:, :4] + parts[2][:, 4:]) / 2]
    alpha = torch.stack([part[0] @ fusion.scorer.weight[0] for part in scored]).softmax(0)
    torch.testing.assert_close(weights[0], alpha)
    expected = torch.cat([3 * weights[:, [m]] * part for m, part in enumerate(parts)], dim=1)
    torch.testing.assert_close(fused, expected)
    assert fused.shape == (2, fusion.output_size) and not fused[1, 4:8].any()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))


def test_a_network_with_concatenation_tells_perspectives_apart_and_takes_posts_that_lack_some():
    model, batch = tiny.model(fusion="concat"), tiny.batch(labels=True)
    output = model(**batch)
    assert output.rationale_embeds.shape[1] == 3 * 16 and output.fused_embeds.shape[1] == (1 + 1 + 3) * 16
    assert torch.isfinite(output.loss)
    lacking = ~batch["rationale_attention_mask"][..., 0].bool()  # rationales begin with a token
    assert lacking.any() and not output.rationale_embeds.view(5, 3, 16)[lacking].any()


def test_the_order_of_perspectives_matters():
    # The same words argue for another label in another perspective.
    attention = PerspectiveAttention(2, 4, 3)
    rationales, mask = torch.randn(1, 2, 4), torch.ones(1, 2, dtype=torch.bool)
    assert not torch.allclose(attention(rationales, mask)[0], attention(rationales.flip(1), mask)[0])


def test_weights_sum_to_one_over_the_modalities_a_post_has():
    output = tiny.model()(**tiny.batch())
    expected = [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1]]
    assert output.modality_mask.int().tolist() == expected
    assert (output.modality_weights > 0).int().tolist() == expected
    torch.testing.assert_close(output.modality_weights.sum(1), torch.ones(5))
    perspectives = [[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert (output.perspective_weights > 0).int().tolist() == perspectives
    torch.testing.assert_close(output.perspective_weights.sum(1), torch.tensor([1.0, 1, 0, 1, 1]))
    assert (
        not output.image_embeds[2].any() and not output.text_embeds[3].any() and not output.rationale_embeds[2].any()
    )


GROUPS = {
    "text": ("input_ids", "attention_mask"),
    "image": ("pixel_values", "image_mask"),
    "rationales": ("rationale_input_ids", "rationale_attention_mask"),
}


def absent_rows(batch: dict[str, torch.Tensor], modality: str) -> dict[str, torch.Tensor]:
    """Mask a modality in all rows of a batch."""
    mask = GROUPS[modality][1]
    return batch | {mask: torch.zeros_like(batch[mask])}


@pytest.mark.parametrize("absent", [c for n in (1, 2) for c in itertools.combinations(GROUPS, n)], ids=str)
def test_an_argument_left_out_is_the_same_as_one_masked_in_every_row(absent):
    model, batch = tiny.model(), tiny.rows(tiny.batch(), 0, 1, 4)
    left_out = {name: value for name, value in batch.items() if not any(name in GROUPS[m] for m in absent)}
    masked = batch
    for modality in absent:
        masked = absent_rows(masked, modality)
    one, other = model(**left_out), model(**masked)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.modality_weights, other.modality_weights)
    columns = [name not in absent for name in GROUPS]
    assert (one.modality_weights > 0).equal(torch.tensor([columns] * 3))


def test_an_empty_post_gets_finite_logits_and_no_weights():
    model, batch = tiny.model().train(), tiny.batch(labels=True)
    for modality in GROUPS:
        batch = absent_rows(batch, modality)
    output = model(**batch)
    assert not output.modality_weights.any() and not output.fused_embeds.any()
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.loss)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_absent_part_does_not_change_the_other_posts():
    model, batch = tiny.model(), tiny.batch()
    without = batch | {"image_mask": torch.tensor([True, False, False, True, True])}
    one, other = model(**batch).logits, model(**without).logits
    torch.testing.assert_close(one[[0, 2, 3, 4]], other[[0, 2, 3, 4]])
    assert not torch.allclose(one[1], other[1])


def test_the_pixels_of_a_missing_image_do_not_matter():
    model, batch = tiny.model(), tiny.batch()
    other = batch | {"pixel_values": batch["pixel_values"].clone()}
    other["pixel_values"][2] = float("nan")
    assert model(**other).logits.equal(model(**batch).logits)


def test_a_network_ignores_the_modalities_it_was_not_built_for():
    model, batch = tiny.model(modalities=["text"], loss_weight_mlcl=0), tiny.batch()
    text = {name: batch[name] for name in GROUPS["text"]}
    output = model(**batch)
    assert output.logits.equal(model(**text).logits)
    assert output.image_embeds is None and output.rationale_embeds is None and output.perspective_weights is None
    assert output.modality_weights.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    image = {name: batch[name] for name in GROUPS["image"]}
    assert not model(**image).modality_weights.any()


@pytest.mark.parametrize("modalities", [["rationales"], ["image", "text"], ["rationales", "image", "text"]], ids=str)
def test_weights_are_in_the_order_text_image_rationales_for_any_configuration(modalities):
    output = tiny.model(modalities=modalities, loss_weight_mlcl=0)(**tiny.rows(tiny.batch(), 0))
    assert (output.modality_weights[0] > 0).tolist() == [name in modalities for name in GROUPS]


def test_rationale_dropout_removes_all_rationales_of_some_training_posts():
    model = tiny.model(rationale_dropout=0.5)
    batch = {name: value.repeat(40, *[1] * (value.dim() - 1)) for name, value in tiny.rows(tiny.batch(), 0).items()}
    assert (model(**batch).modality_weights[:, 2] > 0).all()
    model.train()
    torch.manual_seed(0)
    output = model(**batch)
    kept = output.modality_mask[:, 2]
    assert 10 < kept.sum() < 30
    assert (output.perspective_weights.sum(1) > 0).equal(kept) and (output.modality_weights[:, 2] > 0).equal(kept)


def test_inputs_with_unequal_numbers_of_posts_raise_an_error():
    batch = tiny.batch()
    batch["pixel_values"] = batch["pixel_values"][:2]
    with pytest.raises(ValueError, match="'input_ids': 5, 'pixel_values': 2, 'rationale_input_ids': 5"):
        tiny.model()(**batch)
    with pytest.raises(ValueError, match="At least one of `input_ids`, `pixel_values`, `rationale_input_ids`"):
        tiny.model()()
