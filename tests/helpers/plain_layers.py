"""Plain computations of layers, one vector at a time, to compare implementations with."""

import torch


def linear(layer, vector: torch.Tensor) -> torch.Tensor:
    return layer.weight @ vector + (0 if layer.bias is None else layer.bias)


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def weighted_sum(weights: list[torch.Tensor], vectors: list[torch.Tensor], size: int) -> torch.Tensor:
    return sum((w * vector for w, vector in zip(weights, vectors, strict=True)), torch.zeros(size))


def mean(vectors: torch.Tensor) -> torch.Tensor:
    """Average `(count, size)`; zero for no vectors."""
    return sum(vectors) / len(vectors) if len(vectors) else vectors.new_zeros(vectors.shape[-1])


def read_memory(module, memory: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Compute r = Σ α_i m_i, α_i = exp(e_i) / Σ exp(e_j), e_i = wᵀ tanh(W m_i + b + U q)."""
    hidden = [torch.tanh(linear(module.memory, entry) + linear(module.question, query)) for entry in memory]
    weights = softmax([linear(module.scorer, vector) for vector in hidden])
    return weighted_sum(weights, list(memory), len(query))


def update_query(module, read: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Compute a GRU step with reset r, update z and candidate n: q ← (1 - z) n + z q."""
    cell = module.cell
    inputs = (cell.weight_ih @ read + cell.bias_ih).chunk(3)
    states = (cell.weight_hh @ query + cell.bias_hh).chunk(3)
    reset, update = torch.sigmoid(inputs[0] + states[0]), torch.sigmoid(inputs[1] + states[1])
    return (1 - update) * torch.tanh(inputs[2] + reset * states[2]) + update * query
