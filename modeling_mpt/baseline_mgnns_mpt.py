"""MGNNS: a graph of words and graphs of objects and scenes, each of which reads the other side's memory."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import logging

from .baselines_graphs_mpt import ClassGraph, PairCounter, TextGraph
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts, Tokens
from .baselines_words_mpt import NormalEmbedding, run_rnn
from .packing_mpt import compact, nonempty_mask

logger = logging.get_logger(__name__)

REGIONS_OBSERVED = 16  # of an image, evenly spread: what is counted must fit in memory


class MGNNSSentimentConfig(BaselineConfig):
    r"""
    Args:
        hidden_size (`int`, defaults to 300): of all vectors and memories; half of it in each direction of the LSTM.
        window (`int`, defaults to 4): how many words to each side of a word are its neighbours.
        min_pair_count (`int`, defaults to 2): windows of train posts in which a pair of words must occur.
        max_pairs (`int`, defaults to 100000): directed pairs of words with an edge weight of their own.
        num_objects, num_scenes (`int`, default 80 and 365): nodes of both image graphs, where the provider names no
            classes: clusters of the regions of train images.
        score_threshold (`float`, defaults to 0.2): an image holds a class that the provider gives this probability.
        object_threshold, scene_threshold (`float`, default 0.3): an edge stands for a P(j|i) of at least this.
        neighbor_share (`float`, defaults to 0.2): what the edges of a node weigh together.
        gcn_size (`int`, defaults to 1024): size between both layers of graph convolution.
        num_heads (`int`, defaults to 4): of all attentions.
        num_layers (`int`, defaults to 2): how often a memory is read.
        text_provider (`str`, defaults to `"embeddings"`): word embeddings, or `"encoder"` for a text encoder's states.
        dropout (`float`, defaults to 0.5)
        kwargs: see [`BaselineConfig`].
    """

    model_type = "mgnns_sentiment"
    title = "MGNNS"
    source = (
        "Yang et al., *Multimodal Sentiment Detection Based on Multi-channel Graph Neural Networks*, ACL 2021; partly "
        "a reconstruction, the published code does not run"
    )
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
        for name in ("window", "min_pair_count", "max_pairs", "num_objects", "num_scenes", "gcn_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: write a positive number.")
        if self.num_heads < 1 or self.hidden_size % self.num_heads or self.hidden_size % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size}, num_heads={self.num_heads}: write an even size that the number of "
                "heads divides, e.g. 300 and 4."
            )
        for name in ("score_threshold", "object_threshold", "scene_threshold"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: write a probability above 0.0, e.g. 0.3.")
        if not 0.0 <= self.neighbor_share < 1.0:
            raise ValueError(f"neighbor_share={self.neighbor_share}: write a share from 0.0 to below 1.0, e.g. 0.2.")


class SentimentReading(nn.Module):
    """What an image holds of its classes, as each sentiment sees it: a learnt vector for each label attends to the
    nodes, and their answers together make one vector.

    Args:
        config ([`MGNNSSentimentConfig`])
        size (`int`): size of a node.
    """

    def __init__(self, config: MGNNSSentimentConfig, size: int) -> None:
        super().__init__()
        hidden, narrow = config.hidden_size, max(config.hidden_size // 3, 1)
        self.sentiments = NormalEmbedding(config.num_labels, hidden)
        self.values = nn.Linear(size, hidden)
        self.attention = nn.MultiheadAttention(hidden, config.num_heads, config.dropout, batch_first=True)
        self.narrow = nn.Linear(hidden, narrow)
        self.join = nn.Linear(config.num_labels * narrow, hidden)

    def forward(self, nodes: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """`(batch, classes, size)` and which posts have an image `(batch,)` to `(batch, hidden)`; zero without one."""
        values = self.values(nodes)
        questions = self.sentiments.weight.to(values.dtype).expand(len(nodes), -1, -1)
        answers, _ = self.attention(questions, values, values, need_weights=False)
        return torch.relu(self.join(self.narrow(answers).flatten(1))) * there.unsqueeze(-1)


class GuidedReading(nn.Module):
    """A vector reads a memory, layer after layer: q ← LayerNorm(q + MultiHead(q, memory)).

    Args:
        config ([`MGNNSSentimentConfig`])
    """

    def __init__(self, config: MGNNSSentimentConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(size, config.num_heads, config.dropout, batch_first=True)
            for _ in range(config.num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(config.num_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, question: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(batch, size)`, `(batch, entries, size)` and its mask to `(batch, size)`. Nothing is read of an empty
        memory, and the vector stays."""
        padding, there = ~nonempty_mask(mask).bool(), mask.any(dim=1).view(-1, 1, 1)
        question = question.unsqueeze(1)
        for attention, norm in zip(self.attentions, self.norms, strict=True):
            read, _ = attention(question, memory, memory, key_padding_mask=padding, need_weights=False)
            question = norm(question + self.dropout(read) * there)
        return question.squeeze(1)


class MGNNSForSentimentClassification(BaselineForSentimentClassification):
    """Three graphs, a bidirectional LSTM's memory of words and two memories of regions, and four readings: of words by
    objects and by scenes, of object and of scene regions by the text. What was reconstructed, or is mended:

    - Objects and scenes. The paper's are the names of COCO and Places365, with GloVe vectors as nodes and their
      co-occurrence in adjacency files that were not published. Here a detector and a places classifier name them where
      they are the providers; otherwise they are clusters of the train images' regions, few coarse ones for objects and
      many fine ones for scenes, of which the latter then read the same regions. Nodes start at the mean state of what
      holds their class.
    - Sentiments. The published code turns the scores of all classes into a single vector, and so takes the softmax of
      its attention over channels; here the sentiments attend to the nodes, each weighed by its score.
    - Edge weights of words start at 1, one for each pair that goes together in train posts by pointwise mutual
      information, and one for all other pairs, as in Huang et al., *Text Level Graph Neural Network for Text
      Classification*. The share η that a word keeps of itself is trained, from its state; the published code sets it
      to zero in each pass.
    - Object and scene graph have weights of their own, and the vector before the classifier has a ReLU.
    - All layers are trained. The published code leaves its classifier and projections out of the optimizer.

    What [`observe`] counts of train posts stands in buffers and in the nodes' start. Without it there are no edges
    between classes, and one edge weight for all words.
    """

    config_class = MGNNSSentimentConfig

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
        self.object_sentiments = SentimentReading(config, self.image_size)
        self.scene_sentiments = SentimentReading(config, self.scene_size)
        self.object_memory = nn.Linear(self.image_size, hidden)
        self.scene_memory = nn.Linear(self.scene_size, hidden)
        self.readings = nn.ModuleList(GuidedReading(config) for _ in range(4))
        self.fuse = nn.Linear(4 * hidden, hidden)
        self.add_head(hidden)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, NormalEmbedding):
            init.normal_(module.weight, mean=module.mean, std=module.std)
        else:
            super()._init_weights(module)

    @torch.no_grad()
    def observe(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Count on train posts, and on no others, which words and which classes go together.

        Args:
            batches (iterable of `dict`): all train posts once, as the arguments of `forward`.
        """
        pairs = PairCounter(self.config.window + 1)  # a window reaches as far as an edge
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
            there = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
            image = self.visual(pixels, there) if len(pixels) else None
            scene = self.scene(pixels, there) if len(pixels) and self.scene is not None else image
            for name, tokens in (("image", image), ("scene", scene)):
                if tokens is not None:
                    spread = torch.linspace(0, tokens.states.shape[1] - 1, REGIONS_OBSERVED).round().long().unique()
                    regions[name].append(tokens.states[:, spread.to(pixels.device)].half().cpu())
                    if tokens.scores is not None:
                        present[name].append((tokens.scores >= self.config.score_threshold).cpu())
        self.train(training)
        edges = self.text_graph.add_edges(pairs, self.config.min_pair_count)
        if not regions["image"]:
            logger.warning("No train post has an image: classes of objects and scenes have no edges.")
            return
        for name, graph in (("image", self.object_graph), ("scene", self.scene_graph)):
            graph.add_edges(torch.cat(regions[name]), torch.cat(present[name]) if present[name] else None)
        logger.info(
            f"{edges} directed pairs of words have an edge weight of their own; "
            + ", ".join(
                f"{int((graph.adjacency() > 0).sum() - len(graph.counts))} edges between {len(graph.counts)} {what}"
                for what, graph in (("objects", self.object_graph), ("scenes", self.scene_graph))
            )
        )

    def represent(self, posts: Posts) -> tuple[torch.Tensor, Mapping[str, Any]]:
        input_ids, _, _ = compact(posts.input_ids, posts.attention_mask)
        return self.pool(**self.encode(posts), input_ids=input_ids)

    def pool(
        self, text: Tokens, image: Tokens, scene: Tokens, input_ids: torch.LongTensor
    ) -> tuple[torch.Tensor, dict]:
        """As [`BaselineForSentimentClassification.pool`]; `input_ids` are the words of `text`."""
        of_text = self.dropout(self.text_graph(text, input_ids))
        of_objects = self.object_sentiments(self.object_graph(image), image.mask.any(dim=1))
        of_scenes = self.scene_sentiments(self.scene_graph(scene), scene.mask.any(dim=1))
        words = run_rnn(self.lstm, self.dropout(text.states), text.mask)
        objects, scenes = self.object_memory(image.states), self.scene_memory(scene.states)
        readings = (
            (of_objects, words, text.mask),
            (of_scenes, words, text.mask),
            (of_text, objects, image.mask),
            (of_text, scenes, scene.mask),
        )
        read = [reading(*about) for reading, about in zip(self.readings, readings, strict=True)]
        return torch.relu(self.fuse(torch.cat(read, dim=-1))), {}
