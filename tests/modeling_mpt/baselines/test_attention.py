"""The Transformer layer of the baselines against the plain computation of its equations, token by token."""

import math

import pytest
import torch
from torch.nn import functional as F

from modeling_mpt.baselines_attention_mpt import TransformerLayer, check_heads


@torch.no_grad()
def plain_layer(layer: TransformerLayer, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """`(queries, size)` and `(keys, size)`, none of them masked."""
    size, rows = layer.head_size, []
    for query in layer.query(states):
        heads = []
        for first in range(0, len(query), size):
            part = slice(first, first + size)
            scores = [math.exp(query[part] @ key[part] / math.sqrt(size)) for key in layer.key(context)]
            values = [value[part] for value in layer.value(context)]
            heads.append(sum(score / sum(scores) * value for score, value in zip(scores, values, strict=True)))
        rows.append(torch.cat(heads))
    mixed = layer.attention_norm(states + layer.output(torch.stack(rows)))
    inner, _, outer = layer.feedforward
    return layer.feedforward_norm(mixed + outer(F.gelu(inner(mixed))))


def layer(dropout: float = 0.1) -> TransformerLayer:
    torch.manual_seed(0)
    return TransformerLayer(12, 4, dropout).eval()


def test_it_is_attention_and_a_feedforward_network_with_norms_behind():
    module, states, context = layer(), torch.randn(2, 3, 12), torch.randn(2, 5, 12)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    found = module(states, context, mask)
    for row, length in enumerate((5, 2)):
        torch.testing.assert_close(found[row], plain_layer(module, states[row], context[row, :length]))


def test_a_context_without_tokens_adds_nothing():
    module, states = layer(), torch.randn(1, 3, 12)
    found = module(states, torch.randn(1, 5, 12), torch.zeros(1, 5, dtype=torch.bool))
    normed = module.attention_norm(states)
    torch.testing.assert_close(found, module.feedforward_norm(normed + module.feedforward(normed)))


def test_dropout_is_for_training():
    module, states = layer(dropout=0.5), torch.randn(1, 3, 12)
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert module(states, states, mask).equal(module(states, states, mask))
    module.train()
    assert not module(states, states, mask).equal(module(states, states, mask))


def test_heads_that_do_not_fill_the_state_are_refused():
    with pytest.raises(ValueError, match="hidden_size=96, head_size=64: .* e.g. 32"):
        check_heads(96, 64)
    check_heads(96, 32)
