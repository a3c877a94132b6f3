"""MVAN against its equations, a post and an entry at a time."""

import pytest
import torch

from helpers import slow_memory as slow
from helpers import tiny, tiny_baselines
from modeling_mpt.baselines_visual_mpt import Tokens


def linear(layer, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([layer.weight @ row + layer.bias for row in rows])


def expected(model, words: torch.Tensor, objects: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """[mean; max] of one post's views, from its embedded words, its regions, and its scene's global vector and
    regions, each of which may have no row."""
    empty = torch.zeros(0, model.config.hidden_size)
    text = model.lstm(words.unsqueeze(0))[0][0] if len(words) else empty
    objects = linear(model.object_memory, objects) if len(objects) else empty
    scene = linear(model.scene_memory, scene) if len(scene) else empty
    of_text, of_objects, of_scene = slow.mean(text), slow.mean(objects), slow.mean(scene)
    for _ in range(model.config.num_hops):
        text_o = slow.read(model.read_text_by_objects, text, of_objects)
        text_s = slow.read(model.read_text_by_scene, text, of_scene)
        objects_t = slow.read(model.read_objects, objects, of_text)
        scene_t = slow.read(model.read_scene, scene, of_text)
        if len(text):
            of_text = slow.update(model.update_text, torch.cat([text_o, text_s]), of_text)
        if len(objects):
            of_objects = slow.update(model.update_objects, objects_t, of_objects)
        if len(scene):
            of_scene = slow.update(model.update_scene, scene_t, of_scene)
    views = [text_o, text_s] * bool(len(text)) + [objects_t] * bool(len(objects)) + [scene_t] * bool(len(scene))
    if not views:
        return torch.zeros(2 * model.config.hidden_size)
    first, second = model.view[0], model.view[2]
    stack = [torch.tanh(second.weight @ torch.tanh(first.weight @ v + first.bias) + second.bias) for v in views]
    strongest = torch.stack([max(numbers) for numbers in zip(*stack, strict=True)])
    return torch.cat([sum(stack) / len(stack), strongest])


@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_views_and_their_pooling_follow_the_equations(num_hops):
    model, draw = tiny_baselines.model("mvan", num_hops=num_hops), torch.Generator().manual_seed(0)

    def tokens(size: int, *counts: int) -> Tokens:
        mask = torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)
        states = torch.randn(*mask.shape, size, generator=draw) * mask.unsqueeze(-1)
        return Tokens(states, mask, torch.randn(len(counts), size, generator=draw) * mask[:, :1])

    # All there, no image, no text, another number of entries, nothing, and objects without a scene.
    text = tokens(model.text_size, 5, 3, 0, 1, 0, 2)
    image = tokens(model.image_size, 4, 0, 2, 3, 0, 1)
    scene = tokens(model.scene_size, 3, 0, 3, 1, 0, 0)
    pooled, _ = model.pool(text, image, scene)
    for row in range(6):
        words, objects, places = (part.states[row, part.mask[row]] for part in (text, image, scene))
        if len(places):
            places = torch.cat([scene.summary[row : row + 1], places])
        torch.testing.assert_close(pooled[row], expected(model, words, objects, places), atol=1e-5, rtol=1e-4)


def test_the_scene_comes_from_its_own_network_where_one_is_named():
    batch = tiny.batch()
    model = tiny_baselines.model("mvan", scene_provider="places", scene_config=tiny.vision_config())
    before = model(**batch).fused_embeds
    for parameter in model.scene.parameters():
        parameter.data.mul_(0.5)
    changed = (model(**batch).fused_embeds != before).any(dim=1)
    assert changed.tolist() == batch["image_mask"].tolist()
    assert tiny_baselines.model("mvan").scene is None


@pytest.mark.parametrize("change", [{"num_hops": 0}, {"hidden_size": 15}], ids=str)
def test_sizes_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="e.g. 2 and 300"):
        tiny_baselines.config("mvan", **change)
