"""CGAFT against a plain computation of its policy and its mixed layers, and its frozen copy."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig

from helpers import tiny, tiny_baselines
from modeling_mpt.baseline_cgaft_mpt import MIXABLE, stages, transformer_layers


@torch.no_grad()
def test_a_layer_mixes_the_tuned_and_the_frozen_one_by_the_policy():
    model, batch = tiny_baselines.model("cgaft"), tiny.batch()
    for parameter in model.visual.vision_encoder.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # as if it had been tuned
    policy_weights = model(**batch).policy_weights
    text = model.encode_text(batch["input_ids"], batch["attention_mask"])
    tuned, frozen = model.visual.vision_encoder, model.visual.source.vision_encoder
    tokens = model.visual(batch["pixel_values"], batch["image_mask"], weights=policy_weights)
    first, _, second = model.policy
    for row in batch["image_mask"].nonzero().squeeze(-1):
        image = batch["pixel_values"][row][None]
        context = torch.cat([text.summary[row], frozen(pixel_values=image).last_hidden_state[0, 0]])
        weights = torch.sigmoid(second(F.gelu(first(context))))
        torch.testing.assert_close(policy_weights[row], weights)
        states = tuned.embeddings(image)
        for layer, weight in enumerate(weights):
            outputs = [transformer_layers(network)[layer](states) for network in (tuned, frozen)]
            states = weight * outputs[0] + (1 - weight) * outputs[1]
        states = tuned.layernorm(states)[0]
        torch.testing.assert_close(tokens.states[row], states[1:])
        torch.testing.assert_close(tokens.summary[row], states[0])
    assert not policy_weights[2].any() and not tokens.states[2].any()  # no image


def test_training_changes_the_policy_and_the_tuned_network_but_not_the_copy():
    model, batch = tiny_baselines.model("cgaft").train(), tiny_baselines.posts(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not model.visual.source.training and model.visual.vision_encoder.training
    for name, value in model.visual.source.vision_encoder.state_dict().items():
        assert value.equal(model.visual.vision_encoder.state_dict()[name])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # the policy has no gradient while both networks are equal
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    changed = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    for part in ("visual.vision_encoder", "policy"):
        assert any(name.startswith(part) for name in changed), part
    assert not any("source" in name for name in changed)


@pytest.mark.parametrize("vision", MIXABLE[1:])
def test_each_listed_vision_transformer_can_be_mixed(vision):
    pooling = "mean" if vision == "siglip_vision_model" else "cls"  # SigLIP has no class token
    config = AutoConfig.for_model(vision, **tiny.VISION)
    model = tiny_baselines.model("cgaft", vision_config=config, vision_pooling=pooling)
    batch = tiny_baselines.posts(4)
    with torch.no_grad():
        tokens = model.visual(batch["pixel_values"], batch["image_mask"], weights=torch.rand(4, 2))
        expected = model.visual.source(batch["pixel_values"], batch["image_mask"])
    if vision == "clip_vision_model":  # CLIP normalizes only its class token
        expected = expected._replace(states=model.visual.vision_encoder.post_layernorm(expected.states))
    torch.testing.assert_close(tokens.states, expected.states)
    torch.testing.assert_close(tokens.summary, expected.summary)
    model.train()(**batch).loss.backward()


def test_other_vision_encoders_are_refused():
    with pytest.raises(ValueError, match="vit, deit, .* got a ResNetModel"):
        tiny_baselines.model("cgaft", vision_config=tiny.vision_config("resnet"), vision_pooling="mean")


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_stage_of_a_cnn_mixes_the_tuned_and_the_frozen_one_by_the_policy(architecture, tmp_path):
    torch.manual_seed(0)
    cnn = tiny.timm_config(architecture)
    model = tiny_baselines.model("cgaft", visual_provider="cnn_grid", cnn_config=cnn)
    tuned, frozen = (provider.cnn.timm_model for provider in (model.visual, model.visual.source))
    for parameter in tuned.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # as if it had been tuned
    pixels, mask = torch.randn(2, 3, 32, 32), torch.ones(2, dtype=torch.bool)

    def cells(shares: list[float]) -> torch.Tensor:
        weights = torch.tensor(shares).expand(2, -1)
        return model.visual(pixels, mask, weights=weights).states.transpose(1, 2)

    count = model.visual.num_layers
    assert count == len(stages(model.visual.cnn)) == model.policy[-1].out_features >= 4
    torch.testing.assert_close(cells([1.0] * count), tuned.forward_features(pixels).flatten(2))
    share = [0.3] + [1.0] * (count - 1)  # the first stage is mixed, the others are tuned
    first, source = stages(model.visual.cnn)[0], stages(model.visual.source.cnn)[0]
    handle = first.register_forward_hook(lambda module, inputs, output: 0.3 * output + 0.7 * source(*inputs))
    expected = tuned.forward_features(pixels).flatten(2)
    handle.remove()
    torch.testing.assert_close(cells(share), expected)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    output = model(**tiny.batch())
    assert output.policy_weights.shape == (5, count) and not output.policy_weights[2].any()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**tiny.batch()).logits, output.logits)


def test_a_cnn_without_stages_cannot_be_mixed():
    with pytest.raises(ValueError, match="needs a timm CNN with stages as `cnn_config`.* got a plain ConvNet"):
        tiny_baselines.model("cgaft", visual_provider="cnn_grid")
