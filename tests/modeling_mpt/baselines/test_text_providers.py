"""Static words and encoder states as the two text providers of Co-Mem, MVAN and MGNNS."""

import pytest
import torch

from helpers import tiny, tiny_baselines

pytestmark = pytest.mark.parametrize("name", ["co_mem", "mvan", "mgnns"])


def test_rationales_add_no_encoder_to_a_system_that_reads_encoder_states(name):
    without, added = (tiny_baselines.model(name, text_provider="encoder", use_rationales=use) for use in (False, True))
    new = {key.split(".")[0] for key in set(added.state_dict()) - set(without.state_dict())}
    assert new == {"perspective_attention", "rationale_fusion"}


@pytest.mark.parametrize("text_provider", ["embeddings", "encoder"])
@torch.no_grad()
def test_only_encoder_states_of_a_word_depend_on_the_other_words(name, text_provider):
    model, batch = tiny_baselines.model(name, text_provider=text_provider), tiny.batch()
    before = tiny_baselines.encode(model, batch)["text"].states
    batch["input_ids"][0, 11] = batch["input_ids"][0, 11] % 90 + 4  # another last word
    after = tiny_baselines.encode(model, batch)["text"].states
    assert torch.allclose(before[0, 0], after[0, 0]) is (text_provider == "embeddings")
    assert torch.isfinite(model(**batch).logits).all()


def test_an_encoder_that_is_read_is_trained(name):
    model = tiny_baselines.model(name, text_provider="encoder").train()
    model(**tiny_baselines.posts(4)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.text_encoder.parameters())
