"""Every baseline trains as MPT does: the same trainer, and the loss of all posts of an optimizer step."""

import pytest
import torch

from helpers import tiny, tiny_baselines
from helpers.training_runs import steps_of_one_epoch
from modeling_mpt import SYSTEMS

every_system = pytest.mark.parametrize("name", tiny_baselines.NAMES)
with_and_without = pytest.mark.parametrize("use_rationales", [False, True], ids=["plain", "with rationales"])


@every_system
@with_and_without
def test_it_learns_sixteen_posts_by_heart(name, use_rationales):
    model, batch = tiny_baselines.model(name, use_rationales=use_rationales).train(), tiny_baselines.posts(16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        output = model(**batch)
        if (output.logits.argmax(dim=-1) == batch["labels"]).all():
            break
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert (model.eval()(**batch).logits.argmax(dim=-1) == batch["labels"]).all()


@every_system
def test_every_weight_that_is_trained_gets_a_gradient(name):
    model = tiny_baselines.model(name, use_rationales=True).train()
    model(**tiny_baselines.posts(8)).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@every_system
def test_the_loss_is_that_of_all_posts_of_an_optimizer_step(name):
    batch = tiny_baselines.posts(8)
    rows = [{field: values[index] for field, values in batch.items()} for index in range(8)]
    whole, parts = (
        steps_of_one_epoch(tiny_baselines.model(name, use_rationales=True), rows, *split) for split in ((8, 1), (4, 2))
    )
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    for parameter, gradient in whole["gradients"][0].items():
        torch.testing.assert_close(parts["gradients"][0][parameter], gradient, atol=1e-4, rtol=1e-2)


@every_system
def test_gradient_checkpointing_changes_no_gradient(name):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_baselines.model(name, use_rationales=True).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        model(**tiny_baselines.posts(4)).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient)


@every_system
def test_autocast_in_bfloat16_trains(name):
    model, batch = tiny_baselines.model(name, use_rationales=True).train(), tiny.batch(labels=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every_system
def test_frozen_encoders_stay_frozen_after_loading(name, tmp_path):
    frozen = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}
    model = tiny_baselines.model(name, use_rationales=True, **frozen)
    expected = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert any("rationale_encoder" in n or "text_encoder" in n for n in expected)
    model.save_pretrained(tmp_path)
    loaded = SYSTEMS[name][1].from_pretrained(tmp_path)
    assert {n for n, p in loaded.named_parameters() if not p.requires_grad} == expected
