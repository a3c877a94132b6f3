"""Contract of all baselines in training: optimization, gradients, and the loss of a step."""

import pytest
import torch

from helpers import tiny, tiny_baselines
from helpers.training_runs import steps_of_one_epoch
from modeling_mpt import SYSTEMS

every_system = pytest.mark.parametrize("name", tiny_baselines.NAMES)
# The trainer handles all systems without auxiliary losses alike.
CONTRASTIVE = [name for name in tiny_baselines.NAMES if len(SYSTEMS[name][1].loss_inputs) > 1]


@every_system
def test_it_memorizes_sixteen_posts(name):
    model, batch = tiny_baselines.model(name).train(), tiny_baselines.posts(16)
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
def test_every_trained_parameter_has_a_gradient_which_checkpointing_does_not_change(name):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_baselines.model(name, use_rationales=True).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        model(**tiny_baselines.posts(4)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert [name for name, gradient in gradients[0].items() if gradient is None] == []
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], gradient)


@pytest.mark.parametrize("name", ["late_fusion", *CONTRASTIVE])
def test_the_loss_is_that_of_all_posts_of_an_optimizer_step(name):
    batch = tiny_baselines.posts(8)
    rows = [{field: values[index] for field, values in batch.items()} for index in range(8)]
    whole, accumulated = (
        steps_of_one_epoch(tiny_baselines.model(name, use_rationales=True), rows, *split) for split in ((8, 1), (4, 2))
    )
    assert accumulated["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    for parameter, gradient in whole["gradients"][0].items():
        torch.testing.assert_close(accumulated["gradients"][0][parameter], gradient, atol=1e-4, rtol=1e-2)


@every_system
def test_autocast_in_bfloat16_trains(name):
    model, batch = tiny_baselines.model(name, use_rationales=True).train(), tiny.batch(labels=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
