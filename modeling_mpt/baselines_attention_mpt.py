"""Attention of the baselines: single-head, and a Transformer layer with masked heads."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .fusion_mpt import masked_softmax
from .packing_mpt import nonempty_mask


def check_heads(hidden_size: int, head_size: int) -> None:
    """Raise a `ValueError` unless attention heads of `head_size` fill `hidden_size`."""
    if head_size < 1 or hidden_size % head_size:
        example = next(size for size in (64, 32, 16, 8, 4, 2, 1) if hidden_size % size == 0)
        raise ValueError(f"`head_size` must divide `hidden_size` {hidden_size}, e.g. {example}, got {head_size}.")


class SingleHeadAttention(nn.Module):
    """Attention of queries to a memory, without residual and normalization.

    u_i = Σ_j α_ij v_j with α_i = softmax_j((W_q q_i)ᵀ(W_k m_j) / √size). The values v are W_v m, or m itself without
    `project_values`.
    """

    def __init__(self, size: int, project_values: bool) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        self.value = nn.Linear(size, size) if project_values else nn.Identity()

    def forward(self, queries: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read a memory `(batch, entries, size)` for each query `(batch, queries, size)`.

        The result is `(batch, queries, size)`, zero for an empty memory.
        """
        scores = self.query(queries) @ self.key(memory).transpose(1, 2) / math.sqrt(memory.shape[-1])
        values = self.value(memory)
        return masked_softmax(scores, mask.unsqueeze(1)).to(values.dtype) @ values


class TransformerLayer(nn.Module):
    r"""Transformer layer with residuals and post-normalization, as in BERT.

    Vaswani et al., *Attention Is All You Need*, with one softmax per head h:

    $$x' = \mathrm{LN}\big(x + W_O [\mathrm{softmax}(q_h k_h^\top / \sqrt{d_h})\, v_h]_h\big), \qquad
      y = \mathrm{LN}\big(x' + W_2\,\mathrm{GELU}(W_1 x')\big)$$

    Queries come from the states; keys and values come from a context. If both are the same, this is self-attention. An
    empty context adds nothing.
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
        """Attend from states `(batch, queries, size)` to the context `(batch, keys, size)`.

        `mask` is false at the padding of the context. The caller masks padding among the queries.
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
