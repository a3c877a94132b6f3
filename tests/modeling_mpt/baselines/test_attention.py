"""Transformer layer of the baselines against a plain computation, token by token."""

import torch
from torch.nn import functional as F

from helpers.plain_layers import softmax
from modeling_mpt.baselines_attention_mpt import TransformerLayer


def plain_layer(layer: TransformerLayer, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Compute the layer for `(queries, size)` and `(keys, size)` without padding."""
    size, rows = layer.head_size, []
    for query in layer.query(states):
        heads = []
        for first in range(0, len(query), size):
            head = slice(first, first + size)
            weights = softmax([query[head] @ key[head] / size**0.5 for key in layer.key(context)])
            heads.append(sum(w * value[head] for w, value in zip(weights, layer.value(context), strict=True)))
        rows.append(torch.cat(heads))
    mixed = layer.attention_norm(states + layer.output(torch.stack(rows)))
    inner, _, outer = layer.feedforward
    return layer.feedforward_norm(mixed + outer(F.gelu(inner(mixed))))


@torch.no_grad()
def test_it_is_attention_to_the_real_tokens_and_a_feedforward_network():
    torch.manual_seed(0)
    module, states, context = TransformerLayer(12, 4, dropout=0.5).eval(), torch.randn(3, 3, 12), torch.randn(3, 5, 12)
    mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    output = module(states, context, mask)
    for row, length in enumerate((5, 2)):
        torch.testing.assert_close(output[row], plain_layer(module, states[row], context[row, :length]))
    normalized = module.attention_norm(states[2])  # an empty context adds nothing
    torch.testing.assert_close(output[2], module.feedforward_norm(normalized + module.feedforward(normalized)))
    assert not module.train()(states, context, mask).equal(output)  # dropout
