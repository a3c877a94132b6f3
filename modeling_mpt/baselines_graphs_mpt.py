"""Graphs of the words of a post and of the classes that images hold, both counted on train posts before training."""

import math
from collections import Counter
from itertools import combinations_with_replacement

import torch
from torch import nn
from transformers.utils import logging

from .baselines_visual_mpt import Tokens

logger = logging.get_logger(__name__)

NO_PAIR = torch.iinfo(torch.int64).max  # fills up a table of pairs, behind all real ones
POINTS_AT_ONCE = 2**16


class DrawnEmbedding(nn.Embedding):
    """Embeddings that start at draws from a normal distribution of their own.

    Args:
        count, size (`int`)
        mean, std (`float`, default 0 and 1)
    """

    def __init__(self, count: int, size: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__(count, size)
        self.mean, self.std = mean, std


def pair_keys(sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One number for each directed pair of words, whatever the size of the vocabulary."""
    return sources << 31 | targets


class PairCounter:
    """In how many windows of text words, and pairs of them, occur.

    Args:
        width (`int`): words of a window; a shorter text is one window.
    """

    def __init__(self, width: int) -> None:
        self.width, self.windows = width, 0
        self.words: Counter[int] = Counter()
        self.pairs: Counter[tuple[int, int]] = Counter()

    def add(self, text: list[int]) -> None:
        for start in range(max(len(text) - self.width, 0) + 1 if text else 0):
            window = sorted(set(text[start : start + self.width]))
            self.windows += 1
            self.words.update(window)
            self.pairs.update(combinations_with_replacement(window, 2))

    def associated(self, min_count: int) -> list[tuple[int, int]]:
        """Pairs in `min_count` windows or more whose pointwise mutual information log(p_ij / (p_i p_j)) is positive,
        the most frequent first."""
        found = [
            (first, second)
            for (first, second), count in self.pairs.items()
            if count >= min_count and count * self.windows > self.words[first] * self.words[second]
        ]
        return sorted(found, key=lambda pair: (-self.pairs[pair], pair))


class TextGraph(nn.Module):
    """The words of a post, each joined to its neighbours and to itself by edges whose weights are shared by all posts:

        m_i = max_j e_ji h_j,   h'_i = η_i h_i + (1 - η_i) m_i,   t = ReLU(W Σ_i h'_i + b)

    Args:
        size (`int`): size of a word's state.
        output_size (`int`): size of t.
        window (`int`): how many words to each side are neighbours.
        max_pairs (`int`): directed pairs of words with an edge weight of their own; all others share one.
    """

    def __init__(self, size: int, output_size: int, window: int, max_pairs: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("pairs", torch.full((max_pairs,), NO_PAIR))  # sorted
        self.edges = DrawnEmbedding(max_pairs + 1, 1, mean=1.0, std=0.0)  # the last one is that of all other pairs
        self.kept = nn.Linear(size, 1)
        self.readout = nn.Linear(size, output_size)

    @torch.no_grad()
    def settle(self, counter: PairCounter, min_count: int) -> int:
        """Give the pairs that go together in train posts an edge each; returns how many there are."""
        pairs = counter.associated(min_count)
        keys = [key for a, b in pairs for key in {(a, b), (b, a)}]
        if len(keys) > len(self.pairs):
            logger.warning(
                f"{len(keys)} pairs of words go together; {len(keys) - len(self.pairs)} of the rarest share the edge "
                "weight of all others (max_pairs)."
            )
        keys = torch.tensor(keys[: len(self.pairs)], dtype=torch.long).view(-1, 2)
        self.pairs.fill_(NO_PAIR)
        self.pairs[: len(keys)] = pair_keys(keys[:, 0], keys[:, 1]).sort().values.to(self.pairs.device)
        self.edges.weight.fill_(1.0)
        return len(keys)

    def edge_weights(self, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """e of directed pairs of word ids, of any shape."""
        keys = pair_keys(sources, targets)
        rows = torch.searchsorted(self.pairs, keys).clamp(max=len(self.pairs) - 1)
        return self.edges(torch.where(self.pairs[rows] == keys, rows, len(self.pairs))).squeeze(-1)

    def forward(self, text: Tokens, input_ids: torch.Tensor) -> torch.Tensor:
        """
        Args:
            text ([`Tokens`]): real words first.
            input_ids (`torch.LongTensor` of shape `(batch, seq_len)`): the words, in the same places.

        Returns:
            t, `torch.Tensor` of shape `(batch, output_size)`, zero for a post without text.
        """
        states, mask = text.states, text.mask
        place = torch.arange(mask.shape[1], device=mask.device)
        message = None
        for step in range(-self.window, self.window + 1):
            # What stands `step` words ahead; the ends would wrap around.
            inside = (place + step >= 0) & (place + step < len(place))
            there = (mask.roll(-step, dims=1) & inside).unsqueeze(-1)
            weights = self.edge_weights(input_ids.roll(-step, dims=1), input_ids).unsqueeze(-1)
            sent = weights * states.roll(-step, dims=1)
            sent = sent.masked_fill(~there, torch.finfo(sent.dtype).min)
            message = sent if message is None else torch.maximum(message, sent)
        kept = torch.sigmoid(self.kept(states))
        states = (kept * states + (1 - kept) * message).masked_fill(~mask.unsqueeze(-1), 0)
        return torch.relu(self.readout(states.sum(dim=1))) * mask.any(dim=1, keepdim=True)


class ClassGraph(nn.Module):
    """The classes that images hold, joined where they occur together in train posts, and what a post's image holds of
    them. X' = Â·LeakyReLU(Â X W_1)·W_2 are the classes in their context, f·X'ᵀ / √d is how much of each the image with
    the features f holds.

    Args:
        classes (`int`): number of nodes.
        size (`int`): size d of a region's state, and of a node.
        inner_size (`int`): between both layers.
        threshold (`float`): class i has an edge to j where P(j|i) is at least this.
        neighbor_share (`float`): what the edges of a node weigh together; its own state has the rest.
    """

    def __init__(self, classes: int, size: int, inner_size: int, threshold: float, neighbor_share: float) -> None:
        super().__init__()
        self.threshold, self.neighbor_share = threshold, neighbor_share
        self.register_buffer("counts", torch.zeros(classes, classes, dtype=torch.long))
        self.nodes = DrawnEmbedding(classes, size)
        self.inner = nn.Linear(size, inner_size, bias=False)
        self.outer = nn.Linear(inner_size, size, bias=False)

    @torch.no_grad()
    def settle(self, regions: torch.Tensor, present: torch.Tensor | None = None) -> None:
        """Count which classes occur together in train images, and start each node at the mean of what holds it.

        Args:
            regions (`torch.Tensor` of shape `(images, regions, size)`)
            present (`torch.BoolTensor` of shape `(images, classes)`, *optional*): what each image holds, from a
                provider that names classes. By default the classes are clusters of the regions.
        """
        device = self.counts.device
        if present is None:
            centres, nearest = k_means(regions.flatten(0, 1), len(self.counts), device)
            present = torch.zeros(len(regions), len(self.counts), dtype=torch.bool)
            present.scatter_(1, nearest.view(len(regions), -1), True)
            known = torch.arange(len(centres), device=device)
        else:
            known = present.any(dim=0).nonzero().squeeze(-1)
            held = present[:, known].float()
            centres = (held.T @ regions.float().mean(dim=1)) / held.sum(dim=0).unsqueeze(-1)
        self.nodes.weight[known.to(device)] = centres.to(self.nodes.weight)
        self.counts.copy_((present.double().T @ present.double()).long())

    def adjacency(self) -> torch.Tensor:
        """Â = D^-½ Ā D^-½ with Ā_ij = p A_ij / Σ_j A_ij for i ≠ j, Ā_ii = 1 - p, and A_ij = 1 where P(j|i) ≥ threshold
        (Chen et al., *Multi-Label Image Recognition with Graph Convolutional Networks*); `(classes, classes)`."""
        counts = self.counts.float()
        edges = (counts / counts.diagonal().clamp(min=1).unsqueeze(1) >= self.threshold).float().fill_diagonal_(0)
        weights = self.neighbor_share * edges / edges.sum(dim=1, keepdim=True).clamp(min=1)
        weights = weights + (1 - self.neighbor_share) * torch.eye(len(counts), device=counts.device)
        scale = weights.sum(dim=1).rsqrt()
        return scale.unsqueeze(1) * weights * scale

    def forward(self, image: Tokens) -> torch.Tensor:
        """What an image holds of each class, times that class's node; `(batch, classes, size)`. Its features are each
        channel's strongest answer over the regions."""
        adjacency = self.adjacency().to(self.nodes.weight.dtype)
        nodes = nn.functional.leaky_relu(adjacency @ self.inner(self.nodes.weight), 0.2)
        nodes = adjacency.to(nodes.dtype) @ self.outer(nodes)
        hidden = image.states.masked_fill(~image.mask.unsqueeze(-1), torch.finfo(image.states.dtype).min)
        features = hidden.amax(dim=1).masked_fill(~image.mask.any(dim=1, keepdim=True), 0)
        scores = features @ nodes.T / math.sqrt(nodes.shape[-1])
        return scores.unsqueeze(-1) * nodes


def k_means(
    points: torch.Tensor, clusters: int, device: torch.device, rounds: int = 10
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from points drawn by a fixed seed; an empty cluster stays where it is.

    Args:
        points (`torch.Tensor` of shape `(points, size)`): on the CPU, in any precision.
        clusters (`int`): at most the number of points.
        device (`torch.device`): where to compute.
        rounds (`int`, defaults to 10): at most.

    Returns:
        Centres `(clusters, size)` on the device, and for each point the nearest of them `(points,)` on the CPU.
    """
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:clusters]
    centres = points[drawn].to(device).float()
    nearest = None
    for step in range(rounds + 1):
        before, parts = nearest, []
        sums, sizes = torch.zeros_like(centres), torch.zeros(len(centres), 1, device=device)
        for chunk in points.split(POINTS_AT_ONCE):
            chunk = chunk.to(device).float()
            parts.append(torch.cdist(chunk, centres).argmin(dim=1))
            sums.index_add_(0, parts[-1], chunk)
            sizes.index_add_(0, parts[-1], torch.ones(len(chunk), 1, device=device))
        nearest = torch.cat(parts).cpu()
        if step == rounds or (before is not None and before.equal(nearest)):
            break
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres, nearest
