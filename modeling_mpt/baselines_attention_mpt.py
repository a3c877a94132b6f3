"""Transformer layer of the baselines, with masked multi-head attention."""

import torch
from torch import nn
from torch.nn import functional as F

from .packing_mpt import nonempty_mask


def check_heads(hidden_size: int, head_size: int) -> None:
    """Raise a `ValueError` unless attention heads of `head_size` fill `hidden_size`."""
    if head_size < 1 or hidden_size % head_size:
        example = next(size for size in (64, 32, 16, 8, 4, 2, 1) if hidden_size % size == 0)
        raise ValueError(f"`head_size` must divide `hidden_size` {hidden_size}, e.g. {example}, got {head_size}.")


class TransformerLayer(nn.Module):
    r"""Transformer layer with residuals and post-normalization, as in BERT.

    Vaswani et al., *Attention Is All You Need*, with one softmax per head h:

    $$x' = \mathrm{LN}\big(x + W_O [\mathrm{softmax}(q_h k_h^\top / \sqrt{d_h})\, v_h]_h\big), \qquad
      y = \mathrm{LN}\big(x' + W_2\,\mathrm{GELU}(W_1 x')\big)$$

    Queries come from the states; keys and values come from a context. If both are the same, this is self-attention. An
    empty context adds nothing.

    Args:
        size (`int`): size of the states and of the context.
        head_size (`int`): size of a head; divides `size`.
        dropout (`float`)
    """

    def __init__(self, size: int, head_size: int, dropout: float) -> None:
        super().__init__()
        self.head_size = head_size
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.attention_norm = nn.LayerNorm(size)
        self.feedforward = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.feedforward_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, context: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend from `states` to `context`.

        Args:
            states (`torch.Tensor` of shape `(batch, queries, size)`)
            context (`torch.Tensor` of shape `(batch, keys, size)`)
            mask (`torch.BoolTensor` of shape `(batch, keys)`): false at the padding of the context.

        Returns:
            `torch.Tensor` of shape `(batch, queries, size)`. The caller masks padding among the queries.
        """
        query, key, value = (
            layer(tokens).unflatten(-1, (-1, self.head_size)).transpose(1, 2)  # (batch, heads, tokens, head_size)
            for layer, tokens in ((self.query, states), (self.key, context), (self.value, context))
        )
        allowed = nonempty_mask(mask).bool()[:, None, None, :]
        dropout = self.dropout.p if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
        attended = self.output(heads.transpose(1, 2).flatten(2)) * mask.any(dim=1)[:, None, None]
        states = self.attention_norm(states + self.dropout(attended))
        return self.feedforward_norm(states + self.dropout(self.feedforward(states)))
