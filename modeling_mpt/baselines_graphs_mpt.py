"""Graphs of MGNNS: word pairs and image classes that co-occur in the train posts."""

import math
from collections import Counter
from itertools import combinations_with_replacement

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import is_tracing, logging

from .baselines_visual_mpt import Tokens
from .baselines_words_mpt import NormalEmbedding

logger = logging.get_logger(__name__)

NO_PAIR = torch.iinfo(torch.int64).max  # fills unused rows of the sorted table of pairs, after all real keys
POINTS_PER_CHUNK = 2**16


def pair_keys(sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Encode directed pairs of word ids as integers, for any size of vocabulary."""
    return sources * 2**31 + targets  # ONNX shifts no signed numbers


def rows_of(keys: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Count the entries of a sorted table that are below each key."""
    if not is_tracing():
        return torch.searchsorted(table, keys)
    rows = torch.zeros_like(keys)  # ONNX has no such search
    for step in (2**power for power in reversed(range(len(table).bit_length()))):
        following = rows + step
        below = (following <= len(table)) & (table[(following - 1).clamp(max=len(table) - 1)] < keys)
        rows = torch.where(below, following, rows)
    return rows


class PairCounter:
    """Counter of text windows of `width` words in which words and pairs of words occur.

    A shorter text is one window.
    """

    def __init__(self, width: int) -> None:
        self.width, self.windows = width, 0
        self.words: Counter[int] = Counter()
        self.pairs: Counter[tuple[int, int]] = Counter()

    def add(self, text: list[int]) -> None:
        """Count all windows of a text, given as word ids."""
        for start in range(max(len(text) - self.width, 0) + 1 if text else 0):
            window = sorted(set(text[start : start + self.width]))
            self.windows += 1
            self.words.update(window)
            self.pairs.update(combinations_with_replacement(window, 2))

    def associated(self, min_count: int) -> list[tuple[int, int]]:
        """List pairs with positive pointwise mutual information, the most frequent first.

        The pointwise mutual information is log(p_ij / (p_i p_j)). A pair must occur in `min_count` windows.
        """
        pairs = [
            (first, second)
            for (first, second), count in self.pairs.items()
            if count >= min_count and count * self.windows > self.words[first] * self.words[second]
        ]
        return sorted(pairs, key=lambda pair: (-self.pairs[pair], pair))


class TextGraph(nn.Module):
    """Graph network over the words of a post, with edge weights shared by all posts.

    Each word is connected to its neighbors and itself:

        m_i = max_j e_ji h_j,   h'_i = η_i h_i + (1 - η_i) m_i,   t = ReLU(W Σ_i h'_i + b)

    Args:
        size (`int`): size of a word's state h.
        output_size (`int`): size of t.
        window (`int`): number of neighbors on each side.
        max_pairs (`int`): number of directed word pairs with their own edge weight; all others share one.
    """

    def __init__(self, size: int, output_size: int, window: int, max_pairs: int) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("pairs", torch.full((max_pairs,), NO_PAIR))  # sorted
        self.edges = NormalEmbedding(max_pairs + 1, 1, mean=1.0, std=0.0)  # the last row is shared by all other pairs
        self.kept = nn.Linear(size, 1)
        self.readout = nn.Linear(size, output_size)

    def init_weights(self) -> None:
        init.constant_(self.pairs, NO_PAIR)

    @torch.no_grad()
    def add_edges(self, counter: PairCounter, min_count: int) -> int:
        """Give the associated pairs of the train posts their own edges; return their number."""
        pairs = counter.associated(min_count)
        keys = [key for a, b in pairs for key in {(a, b), (b, a)}]
        if len(keys) > len(self.pairs):
            logger.warning(
                f"{len(keys)} directed word pairs are associated, but `max_pairs` is {len(self.pairs)}: the "
                f"{len(keys) - len(self.pairs)} rarest share the edge weight of all other pairs."
            )
        keys = torch.tensor(keys[: len(self.pairs)], dtype=torch.long).view(-1, 2)
        self.pairs.fill_(NO_PAIR)
        self.pairs[: len(keys)] = pair_keys(keys[:, 0], keys[:, 1]).sort().values.to(self.pairs.device)
        self.edges.weight.fill_(1.0)
        return len(keys)

    def edge_weights(self, sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Look up e for directed pairs of word ids, of any shape."""
        keys = pair_keys(sources, targets)
        rows = rows_of(keys, self.pairs).clamp(max=len(self.pairs) - 1)
        return self.edges(torch.where(self.pairs[rows] == keys, rows, len(self.pairs))).squeeze(-1)

    def forward(self, text: Tokens, input_ids: torch.Tensor) -> torch.Tensor:
        """Compute t `(batch, output_size)`, zero for a post without text.

        `input_ids` `(batch, seq_len)` are the ids of the words, real words first.
        """
        states, mask = text.states, text.mask
        positions = torch.arange(mask.shape[1], device=mask.device)
        offsets, maximum = range(-self.window, self.window + 1), None
        neighbors = torch.stack([input_ids.roll(-offset, dims=1) for offset in offsets])
        for offset, weights in zip(offsets, self.edge_weights(neighbors, input_ids), strict=True):
            inside = (positions + offset >= 0) & (positions + offset < mask.shape[1])  # `roll` wraps around
            neighbor_mask = (mask.roll(-offset, dims=1) & inside).unsqueeze(-1)
            message = weights.unsqueeze(-1) * states.roll(-offset, dims=1)
            message = message.masked_fill(~neighbor_mask, torch.finfo(message.dtype).min)
            maximum = message if maximum is None else torch.maximum(maximum, message)
        kept = torch.sigmoid(self.kept(states))
        states = (kept * states + (1 - kept) * maximum).masked_fill(~mask.unsqueeze(-1), 0)
        return torch.relu(self.readout(states.sum(dim=1))) * mask.any(dim=1, keepdim=True)


class ClassGraph(nn.Module):
    """Graph convolution over image classes, connected by co-occurrence in the train images.

    X' = Â·LeakyReLU(Â X W_1)·W_2 are the nodes after two layers. f·X'ᵀ / √d scores the classes of an image with
    features f.

    Args:
        classes (`int`): number of nodes.
        size (`int`): size d of a region's state and of a node.
        inner_size (`int`): size between the layers.
        threshold (`float`): class i has an edge to j if P(j|i) is at least this.
        neighbor_share (`float`): total weight of a node's neighbors; its own weight is the rest.
    """

    def __init__(self, classes: int, size: int, inner_size: int, threshold: float, neighbor_share: float) -> None:
        super().__init__()
        self.threshold, self.neighbor_share = threshold, neighbor_share
        self.register_buffer("counts", torch.zeros(classes, classes, dtype=torch.long))
        self.nodes = NormalEmbedding(classes, size)
        self.inner = nn.Linear(size, inner_size, bias=False)
        self.outer = nn.Linear(inner_size, size, bias=False)

    def init_weights(self) -> None:
        init.zeros_(self.counts)

    @torch.no_grad()
    def add_edges(self, regions: torch.Tensor, present: torch.Tensor | None = None) -> None:
        """Count co-occurring classes in the train images and initialize the nodes by class means.

        `regions` are `(images, regions, size)`. `present` `(images, classes)` are the classes of each image, by
        default clusters of the regions.
        """
        device = self.counts.device
        if present is None:
            centers, nearest = k_means(regions.flatten(0, 1), len(self.counts), device)
            present = torch.zeros(len(regions), len(self.counts), dtype=torch.bool)
            present.scatter_(1, nearest.view(len(regions), -1), True)
            observed = torch.arange(len(centers), device=device)
        else:
            observed = present.any(dim=0).nonzero().squeeze(-1)
            members = present[:, observed].float()
            centers = (members.T @ regions.float().mean(dim=1)) / members.sum(dim=0).unsqueeze(-1)
        self.nodes.weight[observed.to(device)] = centers.to(self.nodes.weight)
        self.counts.copy_((present.double().T @ present.double()).long())

    def adjacency(self) -> torch.Tensor:
        """Compute the normalized adjacency matrix Â, `(classes, classes)`.

        Â = D^-½ Ā D^-½ with Ā_ij = p A_ij / Σ_j A_ij for i ≠ j, Ā_ii = 1 - p, and A_ij = 1 if P(j|i) ≥ threshold
        (Chen et al., *Multi-Label Image Recognition with Graph Convolutional Networks*).
        """
        counts = self.counts.float()
        itself = torch.eye(len(counts), device=counts.device)
        edges = (counts / counts.diagonal().clamp(min=1).unsqueeze(1) >= self.threshold).float() * (1 - itself)
        weights = self.neighbor_share * edges / edges.sum(dim=1, keepdim=True).clamp(min=1)
        weights = weights + (1 - self.neighbor_share) * itself
        scale = weights.sum(dim=1).rsqrt()
        return scale.unsqueeze(1) * weights * scale

    def forward(self, image: Tokens) -> torch.Tensor:
        """Weight the nodes by the class scores of each image, `(batch, classes, size)`.

        The features of an image are the maximum over its regions, per channel; zero without an image.
        """
        adjacency = self.adjacency().to(self.nodes.weight.dtype)
        nodes = nn.functional.leaky_relu(adjacency @ self.inner(self.nodes.weight), 0.2)
        nodes = adjacency.to(nodes.dtype) @ self.outer(nodes)
        states = image.states.masked_fill(~image.mask.unsqueeze(-1), torch.finfo(image.states.dtype).min)
        features = states.amax(dim=1).masked_fill(~image.mask.any(dim=1, keepdim=True), 0)
        scores = features @ nodes.T / math.sqrt(nodes.shape[-1])
        return scores.unsqueeze(-1) * nodes


def k_means(
    points: torch.Tensor, clusters: int, device: torch.device, max_rounds: int = 10
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster points `(points, size)` on the CPU by Lloyd's algorithm, with a fixed seed.

    An empty cluster keeps its center. The number of clusters is limited to that of the points.

    Returns:
        Centers `(clusters, size)` on the device, and the nearest center of each point `(points,)` on the CPU.
    """
    initial = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:clusters]
    centers = points[initial].to(device).float()
    nearest = None
    for round_number in range(max_rounds + 1):
        before, parts = nearest, []
        sums, sizes = torch.zeros_like(centers), torch.zeros(len(centers), 1, device=device)
        for chunk in points.split(POINTS_PER_CHUNK):
            chunk = chunk.to(device).float()
            parts.append(torch.cdist(chunk, centers).argmin(dim=1))
            sums.index_add_(0, parts[-1], chunk)
            sizes.index_add_(0, parts[-1], torch.ones(len(chunk), 1, device=device))
        nearest = torch.cat(parts).cpu()
        if round_number == max_rounds or (before is not None and before.equal(nearest)):
            break
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)
    return centers, nearest
