"""Co-Mem against its equations, a post and an entry at a time."""

import pytest
import torch

from helpers import slow_memory as slow
from helpers import tiny, tiny_baselines


def expected(model, words: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """[q_t; q_v] of one post from its word embeddings and regions alone."""
    words = model.lstm(words.unsqueeze(0))[0][0] if len(words) else words.new_zeros(0, model.config.hidden_size)
    rows = [torch.tanh(model.region_memory.weight @ region + model.region_memory.bias) for region in regions]
    regions = torch.stack(rows) if rows else regions.new_zeros(0, model.config.hidden_size)
    of_text, of_image = slow.mean(words), slow.mean(regions)
    for _ in range(model.config.num_hops):
        words_read = slow.read(model.read_words, words, of_image)
        regions_read = slow.read(model.read_regions, regions, of_text)
        if len(words):
            of_text = slow.update(model.update_text, words_read, of_text)
        if len(regions):
            of_image = slow.update(model.update_image, regions_read, of_image)
    return torch.cat([of_text, of_image])


@pytest.mark.parametrize("num_hops", [1, 3, 6])
@pytest.mark.parametrize("provider", ["vit_patches", "cnn_grid"])
def test_memories_are_read_and_questions_updated_by_the_equations(num_hops, provider):
    model = tiny_baselines.model("co_mem", num_hops=num_hops, visual_provider=provider)
    batch = tiny.batch()
    fused = model(**batch).fused_embeds
    embeddings = model.text_encoder.embeddings(batch["input_ids"])
    for row, there in enumerate(batch["image_mask"]):
        words = embeddings[row, batch["attention_mask"][row].bool()]
        pixels = batch["pixel_values"][row : row + 1]
        regions = model.visual(pixels, torch.tensor([True])).states[0] if there else torch.zeros(0, model.image_size)
        torch.testing.assert_close(fused[row], expected(model, words, regions), atol=1e-5, rtol=1e-4)


def test_each_memory_is_read_by_the_question_of_the_other():
    model = tiny_baselines.model("co_mem", num_hops=1)
    batch = tiny_baselines.posts(4)
    before = model(**batch).fused_embeds
    half = model.config.hidden_size
    other_images = model(**batch | {"pixel_values": batch["pixel_values"].flip(0)}).fused_embeds
    assert (other_images[:, :half] != before[:, :half]).any(dim=1).all()
    model.read_words.question.weight.data.zero_()
    before = model(**batch).fused_embeds
    other_images = model(**batch | {"pixel_values": batch["pixel_values"].flip(0)}).fused_embeds
    torch.testing.assert_close(other_images[:, :half], before[:, :half])
    assert (other_images[:, half:] != before[:, half:]).any(dim=1).all()


@pytest.mark.parametrize("change", [{"num_hops": 0}, {"hidden_size": 15}], ids=str)
def test_sizes_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="e.g. 6 and 256"):
        tiny_baselines.config("co_mem", **change)
