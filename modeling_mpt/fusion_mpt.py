"""Attention over modalities (LAFF) and over perspectives, any of which may be missing."""

import torch
from torch import nn


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the softmax over the entries of the last axis in `mask`; 0 elsewhere."""
    scores = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    return torch.softmax(scores, dim=-1) * mask


def weighted(vectors: torch.Tensor, weights: torch.Tensor, concat: bool = False) -> torch.Tensor:
    """Sum vectors `(batch, M, hidden)` with their weights `(batch, M)`, or concatenate them.

    Concatenated vectors `(batch, M * hidden)` keep their scale for equal weights: each is multiplied by M α.
    """
    products = weights.to(vectors.dtype).unsqueeze(-1) * vectors
    return (products * vectors.shape[1]).flatten(1) if concat else products.sum(dim=1)


class LightweightAttentionFusion(nn.Module):
    """LAFF: weighted sum of the modalities, with weights from one learned scorer (paper, Eq. 6).

    Each modality has its own tanh(linear) into a common space (Hu et al., *Lightweight Attentional Feature Fusion*,
    the paper's source). With `literal`, the vectors themselves are scored and summed, as Eq. 6 is written.

    The `input_sizes` are those of the vectors; by default all have the size of the common space.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden_size: int,
        literal: bool = False,
        input_sizes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.output_size = hidden_size
        sizes = input_sizes or (hidden_size,) * num_inputs
        self.transforms = None
        if not literal:
            self.transforms = nn.ModuleList(nn.Linear(size, hidden_size) for size in sizes)
        self.scorer = nn.Linear(hidden_size, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, vectors: list[torch.Tensor], mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse the M vectors `(batch, input_size)` of each post.

        A vector that `mask` `(batch, M)` excludes gets no weight.

        Returns:
            The fused vector `(batch, hidden)` and the weights α `(batch, M)`, which sum to 1 (to 0 for an empty post).
        """
        if self.transforms is not None:
            vectors = [
                torch.tanh(transform(vector)) for transform, vector in zip(self.transforms, vectors, strict=True)
            ]
        common = torch.stack(vectors, dim=1)  # (batch, M, hidden)
        weights = masked_softmax(self.scorer(common).squeeze(-1), mask)
        return weighted(common, weights), weights


class ConcatenationFusion(nn.Module):
    """Weighted concatenation of the modalities, not in the paper.

    The classifier can tell them apart. Each is GELU(f), times M α, so that equal weights keep the scale. One learned
    scorer gives the weights α.
    A vector may have several parts of `hidden_size`, as the perspectives of the rationales: their mean is scored.
    """

    def __init__(self, input_sizes: list[int], hidden_size: int) -> None:
        super().__init__()
        self.hidden_size, self.output_size = hidden_size, sum(input_sizes)
        self.scorer = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, vectors: list[torch.Tensor], mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse as [`LightweightAttentionFusion`], to `(batch, output_size)`."""
        vectors = [nn.functional.gelu(vector) for vector in vectors]
        common = torch.stack([vector.unflatten(-1, (-1, self.hidden_size)).mean(dim=1) for vector in vectors], dim=1)
        weights = masked_softmax(self.scorer(common).squeeze(-1), mask)
        scales = (weights * len(vectors)).to(common.dtype).unbind(dim=1)
        return torch.cat(
            [scale.unsqueeze(-1) * vector for scale, vector in zip(scales, vectors, strict=True)], -1
        ), weights


class PerspectiveAttention(nn.Module):
    """Weighted sum r' of the rationales of a post (paper, Eq. 5).

    Each perspective has its own linear layer, because a sum of equally transformed vectors would not tell which words
    argue for which polarity. With `concat`, r' is the weighted concatenation.
    """

    def __init__(self, num_perspectives: int, input_size: int, hidden_size: int, concat: bool = False) -> None:
        super().__init__()
        self.concat = concat
        self.output_size = hidden_size * num_perspectives if concat else hidden_size
        self.values = nn.ModuleList(nn.Linear(input_size, hidden_size) for _ in range(num_perspectives))
        self.scorer = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, rationales: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Combine rationales `(batch, num_perspectives, input_size)`, without those not in `mask`.

        Returns:
            r' `(batch, output_size)` and the weights of the perspectives `(batch, num_perspectives)`.
        """
        values = torch.stack([value(rationales[:, p]) for p, value in enumerate(self.values)], dim=1)
        weights = masked_softmax(self.scorer(torch.tanh(values)).squeeze(-1), mask)
        return weighted(values, weights, self.concat), weights


def new_fusion(kind: str, sizes: list[int], hidden_size: int) -> nn.Module:
    """Create the fusion of that name of vectors with these sizes, see [`MPTConfig`]."""
    if kind == "concat":
        return ConcatenationFusion(sizes, hidden_size)
    return LightweightAttentionFusion(len(sizes), hidden_size, kind == "literal")
