"""MGNNS against its equations, a word, a class and a head at a time; and what it counts on train posts."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import DetrConfig, ViTConfig

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS
from modeling_mpt.baselines_graphs_mpt import ClassGraph, PairCounter, k_means
from modeling_mpt.baselines_visual_mpt import Tokens


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def linear(layer, vector: torch.Tensor) -> torch.Tensor:
    return layer.weight @ vector + (0 if layer.bias is None else layer.bias)


def multi_head(attention, question: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    """Scaled dot-product attention of one question, head by head."""
    parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
    query, key, value = (SimpleNamespace(weight=weight, bias=bias) for weight, bias in parts)
    size, read = attention.head_dim, []
    for start in range(0, attention.embed_dim, size):
        head = slice(start, start + size)
        asked = linear(query, question)[head]
        weights = softmax([asked @ linear(key, entry)[head] / math.sqrt(size) for entry in memory])
        read.append(sum(w * linear(value, entry)[head] for w, entry in zip(weights, memory, strict=True)))
    return linear(attention.out_proj, torch.cat(read))


def text_vector(graph, words: list[torch.Tensor], ids: list[int]) -> torch.Tensor:
    table = {int(key): row for row, key in enumerate(graph.pairs)}
    total = torch.zeros_like(words[0])
    for i, word in enumerate(words):
        message = None
        for j in range(max(i - graph.window, 0), min(i + graph.window, len(words) - 1) + 1):
            row = table.get((ids[j] << 31) + ids[i], len(graph.pairs))
            sent = graph.edges.weight[row, 0] * words[j]
            message = sent if message is None else torch.maximum(message, sent)
        kept = torch.sigmoid(linear(graph.kept, word))
        total = total + kept * word + (1 - kept) * message
    return linear(graph.readout, total).clamp(min=0)


def adjacency(graph) -> torch.Tensor:
    counts, share = graph.counts.tolist(), graph.neighbor_share
    classes = range(len(counts))
    weights = torch.zeros(len(counts), len(counts))
    for i in classes:
        joined = [j for j in classes if j != i and counts[i][i] and counts[i][j] / counts[i][i] >= graph.threshold]
        for j in joined:
            weights[i, j] = share / len(joined)
        weights[i, i] = 1 - share
    degrees = [sum(float(weights[i, j]) for j in classes) for i in classes]
    for i in classes:
        for j in classes:
            weights[i, j] /= math.sqrt(degrees[i]) * math.sqrt(degrees[j])
    return weights


def nodes_in_context(graph) -> list[torch.Tensor]:
    weights, nodes = adjacency(graph), list(graph.nodes.weight)
    for layer, slope in ((graph.inner, 0.2), (graph.outer, 1.0)):
        mapped = [linear(layer, node) for node in nodes]
        nodes = [sum(w * node for w, node in zip(row, mapped, strict=True)) for row in weights]
        nodes = [torch.where(node > 0, node, slope * node) for node in nodes]
    return nodes


def image_vector(graph, reading, regions: list[torch.Tensor]) -> torch.Tensor:
    features = torch.stack([max(channel) for channel in zip(*regions, strict=True)])
    held = [features @ node / math.sqrt(len(node)) * node for node in nodes_in_context(graph)]
    values = [linear(reading.values, node) for node in held]
    answers = [multi_head(reading.attention, question, values) for question in reading.sentiments.weight]
    answers = torch.cat([linear(reading.narrow, answer) for answer in answers])
    return linear(reading.join, answers).clamp(min=0)


def guided(reading, question: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    for attention, norm in zip(reading.attentions, reading.norms, strict=True):
        if len(memory):
            question = question + multi_head(attention, question, memory)
        centred = question - question.mean()
        question = centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias
    return question


def expected(model, ids: torch.Tensor, regions: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """The pooled vector of one post: its words `(words,)`, its regions and those of its scene `(regions, size)`."""
    size = model.config.hidden_size
    states = model.text_encoder.embeddings(ids)
    absent = torch.zeros(size)
    of_text = text_vector(model.text_graph, list(states), ids.tolist()) if len(ids) else absent
    graphs = (model.object_graph, model.object_sentiments), (model.scene_graph, model.scene_sentiments)
    of_objects, of_scenes = (
        image_vector(graph, reading, list(part)) if len(part) else absent
        for (graph, reading), part in zip(graphs, (regions, scene), strict=True)
    )
    words = list(model.lstm(states.unsqueeze(0))[0][0]) if len(ids) else []
    objects = [linear(model.object_memory, region) for region in regions]
    scenes = [linear(model.scene_memory, region) for region in scene]
    asked = ((of_objects, words), (of_scenes, words), (of_text, objects), (of_text, scenes))
    read = [guided(reading, *each) for reading, each in zip(model.readings, asked, strict=True)]
    return linear(model.fuse, torch.cat(read)).clamp(min=0)


def observed(**changes):
    model = tiny_baselines.model("mgnns", **changes)
    model.observe([tiny_baselines.posts(8)])
    generator = torch.Generator().manual_seed(3)
    model.text_graph.edges.weight.data.normal_(1.0, 0.5, generator=generator)  # as if it had been trained
    return model


# --- the mechanism ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": 2, "num_layers": 1, "num_heads": 2, "neighbor_share": 0.5, "object_threshold": 0.6},
        {"scene_provider": "cnn_grid", "scene_config": tiny.timm_config()},
    ],
    ids=["same regions", "other sizes", "scene of its own"],
)
@torch.no_grad()
def test_it_computes_its_equations(changes):
    model = observed(**changes)
    batch, others = tiny.batch(), tiny_baselines.posts(8)
    batch["input_ids"][0, :8] = others["input_ids"][others["attention_mask"].all(dim=1)][0]  # pairs that were observed
    assert (model.text_graph.edge_weights(batch["input_ids"][0, :7], batch["input_ids"][0, 1:8]) != 1).any()
    fused = model(**batch).fused_embeds
    scene_provider = model.scene or model.visual
    for row, there in enumerate(batch["image_mask"]):
        ids = batch["input_ids"][row, batch["attention_mask"][row].bool()]
        regions, scene = torch.zeros(0, model.image_size), torch.zeros(0, model.scene_size)
        if there:
            pixels = batch["pixel_values"][row : row + 1]
            regions = model.visual(pixels, torch.tensor([True])).states[0]
            scene = scene_provider(pixels, torch.tensor([True])).states[0]
        torch.testing.assert_close(fused[row], expected(model, ids, regions, scene), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_pair_has_a_weight_for_each_direction_and_unknown_pairs_share_one():
    graph = observed().text_graph
    known = graph.pairs[graph.pairs < graph.pairs.max()]
    sources, targets = known >> 31, known & (2**31 - 1)
    weights = graph.edge_weights(sources, targets)
    assert weights.equal(graph.edges.weight[: len(known), 0])
    there = {(int(s), int(t)) for s, t in zip(sources, targets, strict=True)}
    assert there == {(t, s) for s, t in there} and len(weights.unique()) == len(known)
    unknown = torch.tensor([[98, 1], [1, 98], [2**31 - 1, 2**31 - 1]])
    assert graph.edge_weights(unknown[:, 0], unknown[:, 1]).unique().tolist() == [graph.edges.weight[-1].item()]


@torch.no_grad()
def test_an_image_holds_no_masked_region():
    graph = ClassGraph(4, 6, 8, threshold=0.3, neighbor_share=0.2)
    states, mask = torch.randn(2, 5, 6), torch.arange(5) < torch.tensor([[3], [0]])
    held = graph(Tokens(states, mask, states[:, 0]))
    shorter = graph(Tokens(states[:1, :3], mask[:1, :3], states[:1, 0]))
    torch.testing.assert_close(held[:1], shorter)
    assert held[1].eq(0).all()


# --- what is counted -------------------------------------------------------------------------------------------------


def test_pairs_are_counted_by_window_and_kept_where_they_go_together():
    texts = [[5, 6, 5, 7], [5, 6], [8, 9, 8], [], [6, 7, 9, 5, 6], [8]]
    counter = PairCounter(width=3)
    for text in texts:
        counter.add(text)
    windows = [set(text[i : i + 3]) for text in texts if text for i in range(max(1, len(text) - 2))]
    assert counter.windows == len(windows) == 8
    words = range(5, 10)
    both = {(a, b): sum(a in w and b in w for w in windows) for a in words for b in words if a <= b}
    assert {pair: count for pair, count in both.items() if count} == dict(counter.pairs)
    for minimum in (1, 2):
        kept = set()
        for (a, b), count in both.items():
            independent = both[a, a] / 8 * both[b, b] / 8
            if count >= minimum and math.log(count / 8 / independent) > 1e-9:
                kept.add((a, b))
        assert set(counter.associated(minimum)) == kept


def test_too_many_pairs_lose_the_rarest_and_say_so(caplog):
    counter = PairCounter(width=2)
    for text in ([3, 4], [3, 4], [3, 4], [5, 6], [5, 6], [7, 8]):
        counter.add(text)
    graph = tiny_baselines.model("mgnns", max_pairs=4).text_graph
    with caplog.at_level("WARNING"):
        assert graph.add_edges(counter, min_count=1) == 4
    assert "8 of the rarest" in caplog.text
    assert {(int(key) >> 31, int(key) & 255) for key in graph.pairs} == {(3, 3), (3, 4), (4, 3), (4, 4)}


def test_classes_that_a_provider_names_are_counted_from_its_scores():
    detector = DetrConfig(
        use_timm_backbone=False,
        backbone_config=tiny.vision_config("resnet"),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=6,
        num_labels=9,
    )
    places = ViTConfig(**tiny.VISION, num_labels=4)
    model = tiny_baselines.model(
        "mgnns",
        visual_provider="detector",
        vision_config=detector,
        scene_provider="places",
        scene_config=places,
        score_threshold=0.25,
    )
    batch = tiny.batch()
    model.observe([tiny.rows(batch, 0, 1), tiny.rows(batch, 2), tiny.rows(batch, 3, 4)])
    rows = torch.tensor([0, 1, 3, 4])
    with torch.no_grad():
        for provider, graph in ((model.visual, model.object_graph), (model.scene, model.scene_graph)):
            tokens = provider(batch["pixel_values"][rows], torch.ones(4, dtype=torch.bool))
            held = tokens.scores >= 0.25
            assert graph.counts.shape == (tokens.scores.shape[1],) * 2
            for i in range(len(graph.counts)):
                for j in range(len(graph.counts)):
                    assert graph.counts[i, j] == sum(bool(row[i]) and bool(row[j]) for row in held)
    assert model.scene_graph.counts.any()
    assert model(**batch).logits.isfinite().all()


@torch.no_grad()
def test_without_names_classes_are_clusters_of_train_regions():
    model, batch = tiny_baselines.model("mgnns"), tiny_baselines.posts(8)
    model.observe([tiny.rows(batch, *range(5)), tiny.rows(batch, 5, 6, 7)])
    regions = model.visual(batch["pixel_values"], batch["image_mask"]).states
    assert regions.shape[1] == 16  # all of them are observed
    for graph in (model.object_graph, model.scene_graph):
        nearest = torch.cdist(regions, graph.nodes.weight).argmin(dim=-1)
        held = [set(row.tolist()) for row in nearest]
        for i in range(len(graph.counts)):
            for j in range(len(graph.counts)):
                assert graph.counts[i, j] == sum(i in row and j in row for row in held)
        assert (graph.adjacency() > 0).sum() > len(graph.counts)


def test_clusters_are_found_and_each_centre_is_the_mean_of_its_points():
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    draw = torch.Generator().manual_seed(0)
    points = middles.repeat_interleave(20, dim=0) + torch.randn(60, 2, generator=draw)
    centres, nearest = k_means(points, 3, torch.device("cpu"), max_rounds=50)
    for cluster in range(3):
        torch.testing.assert_close(centres[cluster], points[nearest == cluster].mean(dim=0))
    assert nearest.equal(torch.cdist(points, centres).argmin(dim=1))
    again = k_means(points, 3, torch.device("cpu"), max_rounds=50)
    assert again[0].equal(centres)
    assert len(k_means(points[:2], 3, torch.device("cpu"))[0]) == 2


def test_only_what_is_observed_is_counted_and_it_is_saved(tmp_path):
    model, batch = observed(), tiny.batch(labels=True)
    counted = ("text_graph.pairs", "object_graph.counts", "scene_graph.counts")
    before = {name: model.state_dict()[name].clone() for name in counted}
    assert all(value.ne(0).any() for value in before.values())
    model.train()(**batch).loss.backward()
    assert all(model.state_dict()[name].equal(value) for name, value in before.items())
    model.eval().save_pretrained(tmp_path)
    loaded = SYSTEMS["mgnns"][1].from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert all(loaded.state_dict()[name].equal(value) for name, value in before.items())  # counts are not rounded


def test_observing_leaves_mode_and_chance_alone_and_copes_with_what_is_absent(caplog):
    model = tiny_baselines.model("mgnns").train()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    batch = tiny.batch()
    model.observe({name: value for name, value in tiny.rows(batch, 2).items() if name != "pixel_values"} for _ in "ab")
    assert model.training and torch.rand(1) == expected
    assert "No train post has an image" in caplog.text
    assert model.object_graph.counts.eq(0).all()
    torch.testing.assert_close(model.object_graph.adjacency(), torch.eye(len(model.object_graph.counts)))


@pytest.mark.parametrize(
    "change",
    [{"window": 0}, {"num_heads": 5}, {"hidden_size": 15}, {"object_threshold": 0.0}, {"neighbor_share": 1.0}],
    ids=str,
)
def test_values_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        tiny_baselines.config("mgnns", **change)
