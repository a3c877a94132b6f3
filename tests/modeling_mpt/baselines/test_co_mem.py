"""Co-Mem against a plain computation, one post and one memory entry at a time."""

import pytest
import torch

from helpers import plain_layers, tiny, tiny_baselines


def pooled_post(model, words: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Compute [q_t; q_v] of one post from the states of its words and regions."""
    empty = torch.zeros(0, model.config.hidden_size)
    words = model.lstm(words.unsqueeze(0))[0][0] if len(words) else empty
    regions = [torch.tanh(plain_layers.linear(model.region_memory, region)) for region in regions]
    regions = torch.stack(regions) if regions else empty
    text_query, image_query = plain_layers.mean(words), plain_layers.mean(regions)
    for _ in range(model.config.num_hops):
        words_read = plain_layers.read_memory(model.read_words, words, image_query)
        regions_read = plain_layers.read_memory(model.read_regions, regions, text_query)
        if len(words):
            text_query = plain_layers.update_query(model.update_text, words_read, text_query)
        if len(regions):
            image_query = plain_layers.update_query(model.update_image, regions_read, image_query)
    return torch.cat([text_query, image_query])


@pytest.mark.parametrize("text_provider", ["embeddings", "encoder"])
@torch.no_grad()
def test_each_memory_is_read_with_the_query_of_the_other(text_provider):
    model = tiny_baselines.model("co_mem", num_hops=3, visual_provider="cnn_grid", text_provider=text_provider)
    batch = tiny.batch()
    fused, image = model(**batch).fused_embeds, tiny_baselines.encode(model, batch)["image"]
    for row in range(5):
        ids = batch["input_ids"][row, batch["attention_mask"][row].bool()]
        words = model.text_encoder(input_ids=ids.unsqueeze(0)).last_hidden_state[0] if len(ids) else torch.zeros(0, 32)
        expected = pooled_post(model, words, image.states[row, image.mask[row]])
        torch.testing.assert_close(fused[row], expected, atol=1e-5, rtol=1e-4)
