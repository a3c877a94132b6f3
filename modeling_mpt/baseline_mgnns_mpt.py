"""MGNNS baseline: graphs of words, objects and scenes with cross-modal attention (ACL 2021)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from .baselines_configuration_mpt import check_even_hidden_size
from .baselines_graphs_mpt import ClassGraph, PairCounter, TextGraph
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts, Tokens
from .baselines_words_mpt import NormalEmbedding, run_rnn
from .packing_mpt import compact, nonempty_mask

logger = logging.get_logger(__name__)

REGIONS_OBSERVED = 16  # evenly spaced regions of an image, so that those of all train images fit in memory


class MGNNSSentimentConfig(BaselineConfig):
    r"""Configuration of the MGNNS baseline.

    Args:
        hidden_size (`int`, defaults to 300): size of all vectors and memories; half of it for each direction of the
            LSTM.
        window (`int`, defaults to 4): number of neighbors on each side of a word.
        min_pair_count (`int`, defaults to 2): number of windows of train posts in which a pair of words must occur.
        max_pairs (`int`, defaults to 100000): number of directed word pairs with their own edge weight.
        num_objects, num_scenes (`int`, default 80 and 365): nodes of the image graphs if the provider predicts no
            classes. They are clusters of the regions of train images.
        score_threshold (`float`, defaults to 0.2): probability from which an image has a class of the provider.
        object_threshold, scene_threshold (`float`, default 0.3): smallest P(j|i) of an edge.
        neighbor_share (`float`, defaults to 0.2): total weight of a node's neighbors.
        gcn_size (`int`, defaults to 1024): size between the layers of graph convolution.
        num_heads (`int`, defaults to 4): number of heads of all attentions.
        num_layers (`int`, defaults to 2): number of times that a memory is read.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5): dropout on the words, in and after the attentions, and before the
            classifier.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "mgnns_sentiment"
    title = "MGNNS"
    source = "Yang et al., *Multimodal Sentiment Detection Based on Multi-channel Graph Neural Networks*, ACL 2021"
    remark = "partly a reconstruction, the published code does not run"
    reads = ("text", "image", "scene")
    counts = (
        *BaselineConfig.counts,
        *("window", "min_pair_count", "max_pairs", "num_objects", "num_scenes", "gcn_size", "num_heads", "num_layers"),
    )
    numbers = (
        *BaselineConfig.numbers,
        *("score_threshold", "object_threshold", "scene_threshold", "neighbor_share"),
    )

    def __init__(
        self,
        hidden_size: int = 300,
        window: int = 4,
        min_pair_count: int = 2,
        max_pairs: int = 100_000,
        num_objects: int = 80,
        num_scenes: int = 365,
        score_threshold: float = 0.2,
        object_threshold: float = 0.3,
        scene_threshold: float = 0.3,
        neighbor_share: float = 0.2,
        gcn_size: int = 1024,
        num_heads: int = 4,
        num_layers: int = 2,
        text_provider: str = "embeddings",
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.window = window
        self.min_pair_count = min_pair_count
        self.max_pairs = max_pairs
        self.num_objects = num_objects
        self.num_scenes = num_scenes
        self.score_threshold = score_threshold
        self.object_threshold = object_threshold
        self.scene_threshold = scene_threshold
        self.neighbor_share = neighbor_share
        self.gcn_size = gcn_size
        self.num_heads = num_heads
        self.num_layers = num_layers
        super().__init__(hidden_size=hidden_size, text_provider=text_provider, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        check_even_hidden_size(self)
        if self.hidden_size % self.num_heads:
            raise ValueError(f"`num_heads` must divide `hidden_size` {self.hidden_size}, got {self.num_heads}.")
        for name in ("score_threshold", "object_threshold", "scene_threshold"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must be above 0 and at most 1, got {getattr(self, name)}.")
        if not 0.0 <= self.neighbor_share < 1.0:
            raise ValueError(f"`neighbor_share` must be at least 0 and below 1, got {self.neighbor_share}.")


class SentimentAttention(nn.Module):
    """Attention from one trained query per label to the class nodes of an image."""

    def __init__(self, config: MGNNSSentimentConfig, size: int) -> None:
        super().__init__()
        hidden, reduced = config.hidden_size, max(config.hidden_size // 3, 1)
        self.sentiments = NormalEmbedding(config.num_labels, hidden)
        self.values = nn.Linear(size, hidden)
        self.attention = nn.MultiheadAttention(hidden, config.num_heads, config.dropout, batch_first=True)
        self.narrow = nn.Linear(hidden, reduced)
        self.join = nn.Linear(config.num_labels * reduced, hidden)

    def forward(self, nodes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Reduce nodes `(batch, classes, size)` to `(batch, hidden)`, zero without an image."""
        values = self.values(nodes)
        queries = self.sentiments.weight.to(values.dtype).expand(nodes.shape[0], -1, -1)
        attended, _ = self.attention(queries, values, values, need_weights=False)
        return torch.relu(self.join(self.narrow(attended).flatten(1))) * present.unsqueeze(-1)


class GuidedAttention(nn.Module):
    """Stacked attention of one vector q to a memory: q ← LayerNorm(q + MultiHead(q, memory))."""

    def __init__(self, config: MGNNSSentimentConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(size, config.num_heads, config.dropout, batch_first=True)
            for _ in range(config.num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(config.num_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read a memory `(batch, entries, size)` with a query `(batch, size)`, layer by layer.

        An empty memory gives the normalized query.
        """
        padding, present = ~nonempty_mask(mask).bool(), mask.any(dim=1).view(-1, 1, 1)
        query = query.unsqueeze(1)
        for attention, norm in zip(self.attentions, self.norms, strict=True):
            read, _ = attention(query, memory, memory, key_padding_mask=padding, need_weights=False)
            query = norm(query + self.dropout(read) * present)
        return query.squeeze(1)


class MGNNSForSentimentClassification(BaselineForSentimentClassification):
    """Multi-channel graph network: graphs of words, objects and scenes, fused by attention.

    The object and scene vectors attend to the outputs of a bidirectional LSTM over the words; the text vector attends
    to object regions and scene regions. Reconstructed or changed:

    - Objects and scenes. The paper uses the class names of COCO and Places365 with GloVe vectors as nodes, and
      adjacency files that were not published. Here a detector and a places classifier predict the classes if they are
      the providers. Otherwise the classes are clusters of the regions of train images, few for objects and many for
      scenes, of the same regions unless there is a scene provider. Nodes are initialized with the mean state of their
      class.
    - Sentiments. The published code reduces the scores of all classes to a single vector, so that the softmax of its
      attention is over channels. Here the sentiments attend to the nodes, each weighted by its score.
    - Edge weights of words start at 1. Each pair with positive pointwise mutual information in the train posts has its
      own, and all other pairs share one, as in Huang et al., *Text Level Graph Neural Network for Text
      Classification*. The share η of a word's own state is computed from its state by a trained layer; the published
      code resets it to zero in each pass.
    - Words. In the published code, a repeated word is one node with the neighbors of all its positions. Here each
      position is a node. With `text_provider="encoder"`, the state of a node depends on the whole text; the edges stay
      those of the pairs of token ids.
    - The published code's heads that read the memories have a width of 128; here they share the size of the vectors.
    - Object and scene graph have separate weights, and the vector before the classifier has a ReLU.
    - All layers are trained. The published code leaves its classifier and projections out of the optimizer.

    [`observe`] stores the counts of the train posts in buffers and initializes the nodes. Without it, the classes have
    no edges and all word pairs share one edge weight.
    """

    config_class = MGNNSSentimentConfig
    reads_input_ids = True

    def __init__(self, config: MGNNSSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        hidden = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.text_graph = TextGraph(self.text_size, hidden, config.window, config.max_pairs)
        self.lstm = nn.LSTM(
            self.text_size, hidden // 2, num_layers=2, dropout=config.dropout, batch_first=True, bidirectional=True
        )
        objects = self.visual.num_scores or config.num_objects
        scenes = (self.scene or self.visual).num_scores or config.num_scenes
        inner, share = config.gcn_size, config.neighbor_share
        self.object_graph = ClassGraph(objects, self.image_size, inner, config.object_threshold, share)
        self.scene_graph = ClassGraph(scenes, self.scene_size, inner, config.scene_threshold, share)
        self.object_sentiments = SentimentAttention(config, self.image_size)
        self.scene_sentiments = SentimentAttention(config, self.scene_size)
        self.object_memory = nn.Linear(self.image_size, hidden)
        self.scene_memory = nn.Linear(self.scene_size, hidden)
        self.readings = nn.ModuleList(GuidedAttention(config) for _ in range(4))
        self.fuse = nn.Linear(4 * hidden, hidden)
        self.add_head(hidden)

    @torch.no_grad()
    def observe(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Count words and classes that co-occur in the train posts. Pass no other posts.

        Args:
            batches (iterable of `dict`): all train posts once, as arguments of `forward`.
        """
        pairs = PairCounter(self.config.window + 1)  # pairs at most as far apart as neighbors
        regions: dict[str, list[torch.Tensor]] = {"image": [], "scene": []}
        present: dict[str, list[torch.Tensor]] = {"image": [], "scene": []}
        training = self.training
        self.eval()
        for batch in logging.tqdm(batches, desc="Counting words and classes"):
            ids, pixels = batch.get("input_ids"), batch.get("pixel_values")
            if ids is not None:
                mask = batch.get("attention_mask", torch.ones_like(ids)).bool()
                for row, kept in zip(ids, mask, strict=True):
                    pairs.add(row[kept].tolist())
            if pixels is None:
                continue
            pixels = pixels[batch.get("image_mask", torch.ones(len(pixels), device=pixels.device)).bool()]
            mask = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
            image = self.visual(pixels, mask) if len(pixels) else None
            scene = self.scene(pixels, mask) if len(pixels) and self.scene is not None else image
            for name, tokens in (("image", image), ("scene", scene)):
                if tokens is not None:
                    spaced = torch.linspace(0, tokens.states.shape[1] - 1, REGIONS_OBSERVED).round().long().unique()
                    regions[name].append(tokens.states[:, spaced.to(pixels.device)].half().cpu())
                    if tokens.scores is not None:
                        present[name].append((tokens.scores >= self.config.score_threshold).cpu())
        self.train(training)
        edges = self.text_graph.add_edges(pairs, self.config.min_pair_count)
        if not regions["image"]:
            logger.warning("No train post has an image, so the classes of objects and scenes have no edges.")
            return
        for name, graph in (("image", self.object_graph), ("scene", self.scene_graph)):
            graph.add_edges(torch.cat(regions[name]), torch.cat(present[name]) if present[name] else None)
        logger.info(
            f"{edges} directed word pairs have their own edge weight; "
            + ", ".join(
                f"{int((graph.adjacency() > 0).sum() - len(graph.counts))} edges between {len(graph.counts)} {classes}"
                for classes, graph in (("objects", self.object_graph), ("scenes", self.scene_graph))
            )
        )

    def represent(self, posts: Posts) -> tuple[torch.Tensor, Mapping[str, Any]]:
        input_ids, _, _ = compact(posts.input_ids, posts.attention_mask)
        return self.pool(**self.encode(posts), input_ids=input_ids)

    def pool(
        self, text: Tokens, image: Tokens, scene: Tokens, input_ids: torch.LongTensor
    ) -> tuple[torch.Tensor, dict]:
        """Fuse the four attended vectors, `(batch, hidden)`. `input_ids` are the word ids of `text`."""
        text_vector = self.dropout(self.text_graph(text, input_ids))
        object_vector = self.object_sentiments(self.object_graph(image), image.mask.any(dim=1))
        scene_vector = self.scene_sentiments(self.scene_graph(scene), scene.mask.any(dim=1))
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        objects, scenes = self.object_memory(image.states), self.scene_memory(scene.states)
        inputs = (
            (object_vector, words, text.mask),
            (scene_vector, words, text.mask),
            (text_vector, objects, image.mask),
            (text_vector, scenes, scene.mask),
        )
        attended = [attention(*arguments) for attention, arguments in zip(self.readings, inputs, strict=True)]
        return torch.relu(self.fuse(torch.cat(attended, dim=-1))), {}
