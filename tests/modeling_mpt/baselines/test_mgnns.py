"""MGNNS against a plain computation of its equations and of its counts on train posts."""

import math

import pytest
import torch
from transformers import ViTConfig

from helpers import tiny, tiny_baselines
from helpers.plain_layers import linear
from modeling_mpt import SYSTEMS
from modeling_mpt.baselines_graphs_mpt import PairCounter, k_means


def multi_head(attention, query: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    entries = torch.stack(memory).unsqueeze(0)
    return attention(query.view(1, 1, -1), entries, entries)[0].flatten()


def text_vector(graph, words: list[torch.Tensor], ids: list[int]) -> torch.Tensor:
    rows = {int(key): row for row, key in enumerate(graph.pairs)}
    total = torch.zeros_like(words[0])
    for i, word in enumerate(words):
        messages = []
        for j in range(max(i - graph.window, 0), min(i + graph.window, len(words) - 1) + 1):
            row = rows.get((ids[j] << 31) + ids[i], len(graph.pairs))
            messages.append(graph.edges.weight[row, 0] * words[j])
        kept = torch.sigmoid(linear(graph.kept, word))
        total = total + kept * word + (1 - kept) * torch.stack(messages).amax(dim=0)
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


def convolved_nodes(graph) -> list[torch.Tensor]:
    weights, nodes = adjacency(graph), list(graph.nodes.weight)
    for layer, slope in ((graph.inner, 0.2), (graph.outer, 1.0)):
        mapped = [linear(layer, node) for node in nodes]
        nodes = [sum(w * node for w, node in zip(row, mapped, strict=True)) for row in weights]
        nodes = [torch.where(node > 0, node, slope * node) for node in nodes]
    return nodes


def image_vector(graph, attention, regions: torch.Tensor) -> torch.Tensor:
    features = regions.amax(dim=0)
    weighted = [features @ node / math.sqrt(len(node)) * node for node in convolved_nodes(graph)]
    values = [linear(attention.values, node) for node in weighted]
    attended = [multi_head(attention.attention, query, values) for query in attention.sentiments.weight]
    return linear(attention.join, torch.cat([linear(attention.narrow, vector) for vector in attended])).clamp(min=0)


def guided(module, query: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    for attention, norm in zip(module.attentions, module.norms, strict=True):
        if len(memory):
            query = query + multi_head(attention, query, memory)
        query = norm(query)
    return query


def pooled_post(model, ids: torch.Tensor, regions: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Compute the pooled vector of one post from word ids, regions and scene regions."""
    states = model.text_encoder(input_ids=ids.unsqueeze(0)).last_hidden_state[0] if len(ids) else torch.zeros(0, 32)
    absent = torch.zeros(model.config.hidden_size)
    text = text_vector(model.text_graph, list(states), ids.tolist()) if len(ids) else absent
    objects = image_vector(model.object_graph, model.object_sentiments, regions) if len(regions) else absent
    places = image_vector(model.scene_graph, model.scene_sentiments, scene) if len(scene) else absent
    words = list(model.lstm(states.unsqueeze(0))[0][0]) if len(ids) else []
    object_memory = [linear(model.object_memory, region) for region in regions]
    scene_memory = [linear(model.scene_memory, region) for region in scene]
    inputs = ((objects, words), (places, words), (text, object_memory), (text, scene_memory))
    attended = [guided(module, *arguments) for module, arguments in zip(model.readings, inputs, strict=True)]
    return linear(model.fuse, torch.cat(attended)).clamp(min=0)


def observed(**changes):
    model = tiny_baselines.model("mgnns", **changes)
    model.observe([tiny_baselines.posts(8)])
    generator = torch.Generator().manual_seed(3)
    model.text_graph.edges.weight.data.normal_(1.0, 0.5, generator=generator)  # as if trained
    return model


# --- equations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text_provider", ["embeddings", "encoder"])
@torch.no_grad()
def test_graphs_and_attention_follow_the_equations(text_provider):
    scene = {"scene_provider": "cnn_grid", "scene_config": tiny.timm_config()}
    model = observed(
        window=2, num_heads=2, neighbor_share=0.5, object_threshold=0.6, text_provider=text_provider, **scene
    )
    batch, train_posts = tiny.batch(), tiny_baselines.posts(8)
    batch["input_ids"][0, :8] = train_posts["input_ids"][train_posts["attention_mask"].all(dim=1)][0]
    assert (model.text_graph.edge_weights(batch["input_ids"][0, :7], batch["input_ids"][0, 1:8]) != 1).any()
    fused, tokens = model(**batch).fused_embeds, tiny_baselines.encode(model, batch)
    for row in range(5):
        ids = batch["input_ids"][row, batch["attention_mask"][row].bool()]
        regions, scene = (tokens[name].states[row, tokens[name].mask[row]] for name in ("image", "scene"))
        torch.testing.assert_close(fused[row], pooled_post(model, ids, regions, scene), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_pair_has_a_weight_per_direction_and_unknown_pairs_share_one():
    graph = observed().text_graph
    keys = graph.pairs[graph.pairs < graph.pairs.max()]
    sources, targets = keys >> 31, keys & (2**31 - 1)
    weights = graph.edge_weights(sources, targets)
    assert weights.equal(graph.edges.weight[: len(keys), 0]) and len(weights.unique()) == len(keys)
    pairs = {(int(source), int(target)) for source, target in zip(sources, targets, strict=True)}
    assert pairs == {(target, source) for source, target in pairs}
    unknown = torch.tensor([[98, 1], [1, 98], [2**31 - 1, 2**31 - 1]])
    assert graph.edge_weights(unknown[:, 0], unknown[:, 1]).unique().tolist() == [graph.edges.weight[-1].item()]


# --- counts on train posts ----------------------------------------------------------------------------------------


def test_pairs_are_counted_by_window_and_kept_by_mutual_information():
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


def test_the_rarest_of_too_many_pairs_share_an_edge_with_a_warning(caplog):
    counter = PairCounter(width=2)
    for text in ([3, 4], [3, 4], [3, 4], [5, 6], [5, 6], [7, 8]):
        counter.add(text)
    graph = tiny_baselines.model("mgnns", max_pairs=4).text_graph
    with caplog.at_level("WARNING"):
        assert graph.add_edges(counter, min_count=1) == 4
    assert "the 8 rarest share" in caplog.text
    assert {(int(key) >> 31, int(key) & 255) for key in graph.pairs} == {(3, 3), (3, 4), (4, 3), (4, 4)}


def assert_counts(graph, classes_of_images: list[set[int]]) -> None:
    for i in range(len(graph.counts)):
        for j in range(len(graph.counts)):
            assert graph.counts[i, j] == sum(i in classes and j in classes for classes in classes_of_images)


def test_classes_of_a_provider_are_counted_from_its_scores():
    detector = tiny_baselines.detector_config(num_labels=9)
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
            scores = provider(batch["pixel_values"][rows], torch.ones(4, dtype=torch.bool)).scores
            assert_counts(graph, [set((row >= 0.25).nonzero().flatten().tolist()) for row in scores])
    assert model.scene_graph.counts.any()
    assert model(**batch).logits.isfinite().all()


@torch.no_grad()
def test_without_classes_of_a_provider_they_are_clusters_of_train_regions():
    model, batch = tiny_baselines.model("mgnns"), tiny_baselines.posts(8)
    model.observe([tiny.rows(batch, *range(5)), tiny.rows(batch, 5, 6, 7)])
    regions = model.visual(batch["pixel_values"], batch["image_mask"]).states
    assert regions.shape[1] == 16  # all of them are observed
    for graph in (model.object_graph, model.scene_graph):
        nearest = torch.cdist(regions, graph.nodes.weight).argmin(dim=-1)
        assert_counts(graph, [set(row.tolist()) for row in nearest])
        assert (graph.adjacency() > 0).sum() > len(graph.counts)


def test_k_means_converges_to_the_means_of_its_clusters():
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    draw = torch.Generator().manual_seed(0)
    points = middles.repeat_interleave(20, dim=0) + torch.randn(60, 2, generator=draw)
    centers, nearest = k_means(points, 3, torch.device("cpu"), max_rounds=50)
    for cluster in range(3):
        torch.testing.assert_close(centers[cluster], points[nearest == cluster].mean(dim=0))
    assert nearest.equal(torch.cdist(points, centers).argmin(dim=1))
    again = k_means(points, 3, torch.device("cpu"), max_rounds=50)
    assert again[0].equal(centers)
    assert len(k_means(points[:2], 3, torch.device("cpu"))[0]) == 2


def test_only_observe_changes_the_counts_and_they_are_saved(tmp_path):
    model, batch = observed(), tiny.batch(labels=True)
    counted = ("text_graph.pairs", "object_graph.counts", "scene_graph.counts")
    before = {name: model.state_dict()[name].clone() for name in counted}
    assert all(value.ne(0).any() for value in before.values())
    model.train()(**batch).loss.backward()
    assert all(model.state_dict()[name].equal(value) for name, value in before.items())
    model.eval().save_pretrained(tmp_path)
    loaded = SYSTEMS["mgnns"][1].from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert all(loaded.state_dict()[name].equal(value) for name, value in before.items())  # counts are not rounded


def test_observe_changes_neither_mode_nor_random_state_and_needs_no_image(caplog):
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
