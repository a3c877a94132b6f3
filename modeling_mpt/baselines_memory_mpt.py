"""Memories of words and regions that a question from elsewhere in the post reads, hop after hop."""

import torch
from torch import nn

from .fusion_mpt import masked_softmax


class MemoryRead(nn.Module):
    """Additive attention of a question q over a memory m: r = Σ α_i m_i, α = softmax_i wᵀ tanh(W m_i + U q).

    Args:
        size (`int`): size of the question, of a memory's entry, and of what is read.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.memory = nn.Linear(size, size)
        self.question = nn.Linear(size, size, bias=False)
        self.scorer = nn.Linear(size, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, memory: torch.Tensor, mask: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        """
        Args:
            memory (`torch.Tensor` of shape `(batch, entries, size)`)
            mask (`torch.BoolTensor` of shape `(batch, entries)`)
            question (`torch.Tensor` of shape `(batch, size)`)

        Returns:
            r, `torch.Tensor` of shape `(batch, size)`, zero for an empty memory.
        """
        agreement = torch.tanh(self.memory(memory) + self.question(question).unsqueeze(1))
        weights = masked_softmax(self.scorer(agreement).squeeze(-1), mask)
        return (weights.to(memory.dtype).unsqueeze(-1) * memory).sum(dim=1)


class QuestionUpdate(nn.Module):
    """The question of the next hop, by a GRU cell: q ← GRU(r, q). That of an absent modality stays zero.

    Args:
        read_size (`int`): size of what was read.
        size (`int`): size of the question.
    """

    def __init__(self, read_size: int, size: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(read_size, size)

    def forward(self, read: torch.Tensor, question: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """r `(batch, read_size)`, q `(batch, size)`, which posts have the modality `(batch,)` -> q `(batch, size)`."""
        return self.cell(read, question) * there.unsqueeze(-1)
