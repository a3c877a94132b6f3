"""Memory networks of Co-Mem and MVAN: attention over a memory and GRU updates of the query."""

import torch
from torch import nn

from .fusion_mpt import masked_softmax


class MemoryRead(nn.Module):
    """Additive attention of a query q over a memory m.

    r = Σ α_i m_i with α = softmax_i wᵀ tanh(W m_i + U q).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.memory = nn.Linear(size, size)
        self.question = nn.Linear(size, size, bias=False)
        self.scorer = nn.Linear(size, 1, bias=False)  # a bias would cancel in the softmax

    def forward(
        self, memory: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor, query: torch.Tensor
    ) -> torch.Tensor:
        """Read a memory `(batch, entries, size)` with a query `(batch, size)`.

        `keys` are W m_i, `self.memory(memory)`: the same in all hops. r is `(batch, size)`, zero for an empty memory.
        """
        hidden = torch.tanh(keys + self.question(query).unsqueeze(1))
        weights = masked_softmax(self.scorer(hidden).squeeze(-1), mask)
        return (weights.to(memory.dtype).unsqueeze(-1) * memory).sum(dim=1)


class QueryUpdate(nn.Module):
    """GRU cell that computes the query of the next hop: q ← GRU(r, q)."""

    def __init__(self, read_size: int, size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(read_size, size)

    def forward(self, read: torch.Tensor, query: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Update the query `(batch, size)`, to zero where the post lacks its modality."""
        return self.cell(read, query) * present.unsqueeze(-1)
