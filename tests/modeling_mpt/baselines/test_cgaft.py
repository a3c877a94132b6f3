"""CGAFT against the plain computation of its policy and of its mixing, layer by layer."""

import math

import pytest
import torch
from transformers import AutoConfig

from helpers import tiny, tiny_baselines
from modeling_mpt.baseline_cgaft_mpt import MIXABLE, transformer_layers
from modeling_mpt.baselines_modeling_mpt import Posts


def posts_of(batch) -> Posts:
    return Posts(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], batch["image_mask"])


def tuned(model, amount: float = 0.1):
    """The tuned network moved away from the frozen copy."""
    torch.manual_seed(3)
    for parameter in model.visual.vision_encoder.parameters():
        parameter.data += amount * torch.randn_like(parameter)
    return model


@torch.no_grad()
def test_a_layer_is_the_tuned_and_the_frozen_one_in_the_policys_shares():
    model, batch = tuned(tiny_baselines.model("cgaft")), tiny.batch()
    found = model(**batch).policy_weights
    text = model.encode_text(batch["input_ids"], batch["attention_mask"])
    network, source = model.visual.vision_encoder, model.visual.source.vision_encoder
    tokens = model.visual(batch["pixel_values"], batch["image_mask"], weights=found)
    first, _, second = model.policy
    for row in range(5):
        if not batch["image_mask"][row]:
            assert not found[row].any() and not tokens.states[row].any()
            continue
        image = batch["pixel_values"][row : row + 1]
        frozen_class_token = source(pixel_values=image).last_hidden_state[0, 0]
        inner = first(torch.cat([text.summary[row], frozen_class_token]))
        scores = second(torch.stack([0.5 * x * (1 + torch.erf(x / math.sqrt(2))) for x in inner]))
        weights = [1 / (1 + math.exp(-score)) for score in scores.tolist()]
        torch.testing.assert_close(found[row], torch.tensor(weights))
        states = network.embeddings(image)
        for layer, weight in enumerate(weights):
            both = [transformer_layers(each)[layer](states) for each in (network, source)]
            states = weight * both[0] + (1 - weight) * both[1]
        states = network.layernorm(states)[0]
        torch.testing.assert_close(tokens.states[row], states[1:])
        torch.testing.assert_close(tokens.summary[row], states[0])


@torch.no_grad()
def test_words_and_patches_attend_to_one_another_and_are_averaged():
    model, batch = tiny_baselines.model("cgaft"), tiny.batch()
    output, text = model(**batch), model.encode_text(batch["input_ids"], batch["attention_mask"])
    image = model.visual(batch["pixel_values"], batch["image_mask"], weights=output.policy_weights)
    for row in (0, 1, 4):  # those that have both
        words = model.word_projection(text.states[row][text.mask[row]])[None]
        patches = model.patch_projection(image.states[row])[None]
        whole = [torch.ones(1, tokens.shape[1], dtype=torch.bool) for tokens in (words, patches)]
        read = [model.words_to_patches(words, patches, whole[1]), model.patches_to_words(patches, words, whole[0])]
        expected = torch.cat([sum(tokens[0]) / len(tokens[0]) for tokens in read])
        torch.testing.assert_close(output.fused_embeds[row], expected, atol=1e-5, rtol=1e-4)
    assert not output.fused_embeds[2, 16:].any() and not output.fused_embeds[3, :16].any()  # no image; no text


@pytest.mark.parametrize(("share", "part"), [(1.0, "vision_encoder"), (0.0, "source.vision_encoder")])
@torch.no_grad()
def test_at_its_ends_the_mixture_is_one_of_the_two_networks(share, part):
    model, batch = tiny_baselines.model("cgaft"), tiny_baselines.posts(4)
    for parameter in transformer_layers(model.visual.vision_encoder).parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # what is before and behind the layers stays equal
    weights = torch.full((4, 2), share)
    tokens = model.visual(batch["pixel_values"], batch["image_mask"], weights=weights)
    alone = model.visual.get_submodule(part)(pixel_values=batch["pixel_values"]).last_hidden_state
    torch.testing.assert_close(tokens.states, alone[:, 1:])


def test_training_moves_the_policy_and_the_tuned_network_and_never_the_copy():
    model, batch = tiny_baselines.model("cgaft").train(), tiny_baselines.posts(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not model.visual.source.training and model.visual.vision_encoder.training
    for name, value in model.visual.source.vision_encoder.state_dict().items():
        assert value.equal(model.visual.vision_encoder.state_dict()[name])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # in the first step both networks are equal, and the policy decides nothing
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    changed = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    for part in ("visual.vision_encoder", "policy"):
        assert any(name.startswith(part) for name in changed), part
    assert not any("source" in name for name in changed)


@pytest.mark.parametrize("vision", MIXABLE[1:])
def test_other_vision_transformers_are_mixed_as_well(vision):
    pooling = "mean" if vision == "siglip_vision_model" else "cls"  # it has no class token
    config = AutoConfig.for_model(vision, **tiny.VISION)
    model = tiny_baselines.model("cgaft", vision_config=config, vision_pooling=pooling)
    batch = tiny_baselines.posts(4)
    with torch.no_grad():
        tokens = model.visual(batch["pixel_values"], batch["image_mask"], weights=torch.rand(4, 2))
        output = model.visual.source(batch["pixel_values"], batch["image_mask"])
    if vision == "clip_vision_model":  # normalises no patch itself
        output = output._replace(states=model.visual.vision_encoder.post_layernorm(output.states))
    torch.testing.assert_close(tokens.states, output.states)
    torch.testing.assert_close(tokens.summary, output.summary)
    model.train()(**batch).loss.backward()


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="visual_provider='vit_patches'"):
        tiny_baselines.config("cgaft", visual_provider="cnn_grid")
    with pytest.raises(ValueError, match="cannot mix the layers of a ResNetModel"):
        tiny_baselines.model("cgaft", vision_config=tiny.vision_config("resnet"), vision_pooling="mean")
    with pytest.raises(ValueError, match="hidden_size=16, head_size=3"):
        tiny_baselines.config("cgaft", head_size=3)
    with pytest.raises(ValueError, match="policy_size=0"):
        tiny_baselines.config("cgaft", policy_size=0)
