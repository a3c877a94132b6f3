"""MVAN against a plain computation, one post and one memory entry at a time."""

import torch

from helpers import plain_layers, tiny_baselines
from modeling_mpt.baselines_visual_mpt import Tokens


def pooled_post(model, words: torch.Tensor, objects: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Compute [mean; max] of the views of one post.

    Inputs are word embeddings, regions, and the global vector and regions of the scene. Each may be empty.
    """
    size = model.config.hidden_size
    empty = torch.zeros(0, size)
    text = model.lstm(words.unsqueeze(0))[0][0] if len(words) else empty
    objects = model.object_memory(objects) if len(objects) else empty
    scene = model.scene_memory(scene) if len(scene) else empty
    text_query, object_query, scene_query = (plain_layers.mean(memory) for memory in (text, objects, scene))
    for _ in range(model.config.num_hops):
        text_by_objects = plain_layers.read_memory(model.read_text_by_objects, text, object_query)
        text_by_scene = plain_layers.read_memory(model.read_text_by_scene, text, scene_query)
        objects_by_text = plain_layers.read_memory(model.read_objects, objects, text_query)
        scene_by_text = plain_layers.read_memory(model.read_scene, scene, text_query)
        views = []
        if len(text):
            views += [text_by_objects, text_by_scene]
            text_query = plain_layers.update_query(model.update_text, torch.cat(views), text_query)
        if len(objects):
            views.append(objects_by_text)
            object_query = plain_layers.update_query(model.update_objects, objects_by_text, object_query)
        if len(scene):
            views.append(scene_by_text)
            scene_query = plain_layers.update_query(model.update_scene, scene_by_text, scene_query)
    if not views:
        return torch.zeros(2 * size)
    first, second = model.view[0], model.view[2]
    stack = [torch.tanh(second(torch.tanh(first(view)))) for view in views]
    return torch.cat([sum(stack) / len(stack), torch.stack(stack).amax(dim=0)])


@torch.no_grad()
def test_memories_query_each_other_and_the_present_views_are_pooled():
    model, draw = tiny_baselines.model("mvan", num_hops=3), torch.Generator().manual_seed(0)

    def tokens(size: int, *counts: int) -> Tokens:
        mask = torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)
        states = torch.randn(*mask.shape, size, generator=draw) * mask.unsqueeze(-1)
        return Tokens(states, mask, torch.randn(len(counts), size, generator=draw) * mask[:, :1])

    # All modalities, no image, no text, other lengths, nothing, objects without a scene.
    text = tokens(model.text_size, 5, 3, 0, 1, 0, 2)
    image = tokens(model.image_size, 4, 0, 2, 3, 0, 1)
    scene = tokens(model.scene_size, 3, 0, 3, 1, 0, 0)
    pooled, _ = model.pool(text, image, scene)
    for row in range(6):
        words, objects, places = (part.states[row, part.mask[row]] for part in (text, image, scene))
        if len(places):
            places = torch.cat([scene.summary[row : row + 1], places])
        torch.testing.assert_close(pooled[row], pooled_post(model, words, objects, places), atol=1e-5, rtol=1e-4)
