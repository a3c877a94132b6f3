"""The equations of memory networks, a number at a time, for one post without padding."""

import torch


def read(module, memory: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
    """r = Σ α_i m_i, α_i = exp(e_i) / Σ exp(e_j), e_i = wᵀ tanh(W m_i + b + U q); memory `(entries, size)`."""
    if len(memory) == 0:
        return torch.zeros_like(question)
    energies = []
    for entry in memory:
        inner = module.memory.weight @ entry + module.memory.bias + module.question.weight @ question
        energies.append(sum(w * torch.tanh(x) for w, x in zip(module.scorer.weight[0], inner, strict=True)))
    total = sum(torch.exp(energy) for energy in energies)
    return sum(torch.exp(energy) / total * entry for energy, entry in zip(energies, memory, strict=True))


def update(module, read: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
    """Reset r, update z and candidate n of a GRU: q ← (1 - z) n + z q."""
    cell = module.cell
    inputs = (cell.weight_ih @ read + cell.bias_ih).chunk(3)
    states = (cell.weight_hh @ question + cell.bias_hh).chunk(3)
    reset, keep = torch.sigmoid(inputs[0] + states[0]), torch.sigmoid(inputs[1] + states[1])
    return (1 - keep) * torch.tanh(inputs[2] + reset * states[2]) + keep * question


def mean(memory: torch.Tensor) -> torch.Tensor:
    return sum(memory) / len(memory) if len(memory) else memory.new_zeros(memory.shape[-1])
