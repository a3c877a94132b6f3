"""Tests of padding-free encoding: padding never changes a result."""

import pytest
import torch
from transformers import BertModel

from helpers import tiny
from modeling_mpt.packing_mpt import compact, length_buckets, masked_mean, token_states, undo_compact


def test_compact_moves_real_tokens_to_the_front_in_their_order_and_back():
    ids = torch.tensor([[0, 0, 7, 8], [5, 0, 6, 0], [0, 0, 0, 0]])
    moved, mask, order = compact(ids, ids.bool())
    assert moved.tolist() == [[7, 8, 0, 0], [5, 6, 0, 0], [0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [2, 2, 0] and mask[:2, :2].all()
    states = moved.unsqueeze(-1).float()
    assert undo_compact(states, order).squeeze(-1).long().tolist() == ids.tolist()
    attention = moved.unsqueeze(2) * 10 + moved.unsqueeze(1)  # entry (query, key)
    assert undo_compact(attention.unsqueeze(1), order).squeeze(1).equal(ids.unsqueeze(2) * 10 + ids.unsqueeze(1))


@pytest.mark.parametrize("lengths", [[], [0, 0], [5], [320, 1, 0, 300, 17, 9, 9, 240], list(range(100))], ids=str)
def test_length_buckets_cover_each_row_with_tokens_once(lengths):
    buckets = length_buckets(lengths)
    assert sorted(row for bucket in buckets for row in bucket) == [r for r, length in enumerate(lengths) if length]
    for bucket in buckets:
        assert max(lengths[row] for row in bucket) == lengths[bucket[0]]
        longest, shortest = lengths[bucket[0]], min(lengths[row] for row in bucket)
        assert shortest >= min(0.75 * longest, longest - 8)


def test_token_states_are_those_of_each_sequence_alone():
    encoder = BertModel(tiny.text_config(), add_pooling_layer=False).eval()
    lengths = [40, 3, 0, 38, 12, 1]
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(3, tiny.VOCABULARY, (6, 40))
    states = token_states(encoder, ids, mask)
    assert states.shape == (6, 40, 32)
    for row, length in enumerate(lengths):
        assert not states[row, length:].any()
        if length:
            torch.testing.assert_close(states[row, :length], encoder(ids[row : row + 1, :length]).last_hidden_state[0])


def test_states_and_mean_of_empty_sequences_are_zero():
    encoder = BertModel(tiny.text_config()).eval()
    assert masked_mean(torch.ones(1, 3, 2), torch.zeros(1, 3)).tolist() == [[0.0, 0.0]]
    assert not token_states(encoder, torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4)).any()


def test_a_batch_takes_few_encoder_calls_and_little_padding():
    widths = []

    class Counting(BertModel):
        def forward(self, input_ids, attention_mask):
            widths.append(input_ids.shape)
            return super().forward(input_ids, attention_mask)

    lengths = torch.randint(1, 61, (64,), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(64) < lengths.unsqueeze(1)
    token_states(Counting(tiny.text_config()).eval(), mask.long(), mask)
    assert len(widths) <= 6
    assert sum(rows * width for rows, width in widths) < 1.25 * lengths.sum()


@pytest.mark.parametrize("text, vision", tiny.ENCODER_PAIRS)
def test_a_post_alone_or_in_a_batch_padded_left_or_right_is_the_same(text, vision):
    # Logits of new weights are too flat to show a difference: the features are compared too.
    model = tiny.model(text=text, vision=vision, cnn_config=tiny.timm_config() if vision == "vit" else None)
    batch = tiny.batch()
    left = dict(batch)
    for name in ("", "rationale_"):
        ids, mask = f"{name}input_ids", f"{name}attention_mask"
        left[ids], left[mask] = tiny.padded_left(batch[ids], batch[mask])
    with torch.no_grad():
        together = model(**batch)
        assert together.logits.shape == (5, 3) and torch.isfinite(together.logits).all()
        alone = [model(**tiny.rows(batch, row)) for row in range(5)]
        cut = [model(**{k: v for k, v in tiny.rows(left, row).items() if k != "image_mask"}) for row in (0, 1, 3, 4)]
        for name in ("logits", "text_embeds", "image_embeds", "rationale_embeds", "modality_weights"):
            one = torch.cat([output[name] for output in alone])
            torch.testing.assert_close(one, together[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(model(**left)[name], together[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(
                torch.cat([output[name] for output in cut]), together[name][[0, 1, 3, 4]], atol=1e-5, rtol=0
            )


def test_attention_masks_may_be_left_out():
    model, batch = tiny.model(), tiny.rows(tiny.batch(), 0)
    full = {name: value for name, value in batch.items() if "mask" not in name}
    batch["rationale_attention_mask"] = torch.ones_like(batch["rationale_attention_mask"])
    torch.testing.assert_close(model(**full).logits, model(**batch).logits)
