"""Tests of MPTTrainer and MPTTrainingArguments in one process."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

import modeling_mpt
from helpers.training_runs import (
    VIEWS,
    Call,
    Gradients,
    Kill,
    arguments,
    collate,
    kill_at,
    logged,
    posts,
    steps_of_one_epoch,
    tiny_model,
    train,
    weights,
)
from modeling_mpt import MPTTrainer, MPTTrainingArguments
from modeling_mpt.trainer_mpt import last_complete_checkpoint


def different(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """List the names of tensors that differ in any bit."""
    assert actual.keys() == expected.keys()
    return [name for name in expected if not torch.equal(actual[name], expected[name])]


def assert_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def lora_model(dropout: float = 0.0) -> PeftModel:
    adapters = LoraConfig(r=2, target_modules=["query", "q_proj"], modules_to_save=["classifier"])
    return get_peft_model(tiny_model(dropout), adapters)


def epochs_with_f1(values: list[float]):
    """Return a `compute_metrics` with these scores of the epochs."""
    remaining = iter(values)
    return lambda predictions: {"f1_weighted": next(remaining)}


# ---- Loss ----


@pytest.mark.parametrize(
    "config",
    [*({"contrastive_view": view} for view in VIEWS), {"loss_weight_mlcl": 0.0, "class_weights": [1.0, 5.0, 0.2]}],
    ids=str,
)
def test_four_accumulated_batches_of_4_give_loss_and_gradients_of_one_with_16(config):
    # 22 posts: the second step has a batch of 4 and one of 2.
    whole = steps_of_one_epoch(tiny_model(**config), posts(22), batch=16, accumulation=1)
    split = steps_of_one_epoch(tiny_model(**config), posts(22), batch=4, accumulation=4)
    assert len(whole["loss"]) == 2
    for name in ("loss", "loss_ce", "loss_mlcl", "grad_norm"):
        assert split[name] == pytest.approx(whole[name], rel=1e-4)
    for actual, expected in zip(split["gradients"], whole["gradients"], strict=True):
        assert_close(actual, expected)


class OtherNetwork(nn.Module):
    """Network on the trainer's contract with another loss, dropout and batch normalization."""

    loss_inputs = ("logits", "states", "absent")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 16 * 16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(8, 3)

    def forward(self, pixel_values: torch.Tensor, **kwargs: torch.Tensor) -> ModelOutput:
        states = self.dropout(self.norm(self.first(pixel_values.flatten(1))))
        return ModelOutput(logits=self.last(states), states=states)

    def compute_losses(self, labels, logits, states, absent):
        assert absent is None
        losses = {"loss_ce": F.cross_entropy(logits, labels), "loss_spread": -states.std(dim=0).mean()}
        return {"loss": losses["loss_ce"] + 0.3 * losses["loss_spread"], **losses}


def test_accumulation_draws_dropout_once_and_updates_batch_statistics_once(tmp_path):
    torch.manual_seed(0)
    network, plain = OtherNetwork(), OtherNetwork()
    plain.load_state_dict(network.state_dict())
    batches, gradients = [], Gradients()

    def remember(rows):
        batches.append(collate(rows))
        return batches[-1]

    def seed(state):
        torch.manual_seed(7)

    args = arguments(tmp_path, batch=4, accumulation=3, max_steps=1, max_grad_norm=1e9)
    trainer = MPTTrainer(
        network,
        args,
        train_dataset=posts(12),
        data_collator=remember,
        callbacks=[gradients, Call("on_step_begin", seed)],
    )
    trainer.train()

    torch.manual_seed(7)
    outputs = [plain(batch["pixel_values"]) for batch in batches]
    joined = {name: torch.cat([output[name] for output in outputs]) for name in ("logits", "states")}
    losses = plain.compute_losses(torch.cat([batch["labels"] for batch in batches]), **joined, absent=None)
    losses["loss"].backward()
    assert logged(trainer, "loss_spread") == pytest.approx([losses["loss_spread"].item()])
    assert_close(gradients.steps[0], {name: parameter.grad for name, parameter in plain.named_parameters()})
    assert different(dict(network.named_buffers()), dict(plain.named_buffers())) == []


def test_the_log_holds_the_parts_of_the_loss_as_means_over_the_logging_interval(tmp_path):
    args = {"num_train_epochs": 2, "learning_rate": 1e-2, "eval_strategy": "epoch", "metric_for_best_model": "loss"}
    each = train(tiny_model(), posts(12), arguments(tmp_path, **args), eval_dataset=posts(10))
    every_third = train(tiny_model(), posts(12), arguments(tmp_path, logging_steps=3, **args), eval_dataset=posts(10))
    for name in ("loss", "loss_ce", "loss_mlcl"):
        steps = logged(each, name)
        assert logged(every_third, name) == pytest.approx([sum(steps[:3]) / 3, sum(steps[3:]) / 3])
    for prefix in ("", "eval_"):
        parts = [logged(each, f"{prefix}{name}") for name in ("loss", "loss_ce", "loss_mlcl")]
        assert parts[0] == pytest.approx([ce + 0.5 * mlcl for ce, mlcl in zip(*parts[1:], strict=True)], rel=1e-4)


def test_evaluation_returns_logits_alone_and_the_loss_of_the_model(tmp_path):
    model, rows = tiny_model(), posts(6)
    trainer = MPTTrainer(model, arguments(tmp_path), data_collator=collate)
    output = trainer.predict(rows)
    assert output.predictions.shape == (6, 3)
    with torch.no_grad():
        expected = model.eval()(**collate(rows))
    assert output.metrics["test_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    assert output.metrics["test_loss_mlcl"] == pytest.approx(expected.loss_mlcl.item(), rel=1e-5)
    for row in rows:
        del row["labels"]
    assert (trainer.predict(rows).predictions == output.predictions).all()


def test_training_in_bf16_follows_fp32_and_keeps_fp32_weights(tmp_path):
    losses = {}
    for bf16 in (False, True):
        args = arguments(tmp_path, batch=4, accumulation=2, num_train_epochs=3, bf16=bf16)
        trainer = train(tiny_model(), posts(16), args)
        losses[bf16] = logged(trainer, "loss")
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.03)


# ---- Optimizer ----


def test_each_kind_of_layer_has_its_learning_rate_and_vectors_do_not_decay(tmp_path):
    rates = {"learning_rate": 1e-5, "vision_learning_rate": 1e-4, "head_learning_rate": 1e-3}
    model = tiny_model(share_text_encoder=False)
    trainer = MPTTrainer(model, arguments(tmp_path, weight_decay=0.1, **rates))
    groups = trainer.create_optimizer().param_groups
    group_of = {id(parameter): group for group in groups for parameter in group["params"]}
    assert len(group_of) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        rate = 1e-3
        if name.startswith(("mpt.text_encoder.", "mpt.rationale_encoder.")):
            rate = 1e-5
        elif name.startswith("mpt.image_branches.vision_encoder."):
            rate = 1e-4
        assert group["lr"] == rate, name
        assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), name
    assert groups[0]["lr"] == 1e-5  # the rate in the log


def test_learning_rates_of_the_kinds_follow_the_schedule_and_default_to_the_common_one(tmp_path):
    args = arguments(tmp_path, learning_rate=1e-2, head_learning_rate=1e-3, num_train_epochs=2)
    trainer = train(tiny_model(), posts(8), args)
    assert logged(trainer, "learning_rate")[0] == 1e-2
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.0}  # the cosine's end
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {1e-2, 1e-3}


def test_frozen_layers_keep_their_weights_and_all_others_change(tmp_path):
    model = tiny_model(freeze_text_layers=-1, freeze_vision_layers=1)
    before, frozen = weights(model), {name for name, p in model.named_parameters() if not p.requires_grad}
    train(model, posts(8), arguments(tmp_path))
    moved = set(different(weights(model), before))
    assert frozen and not moved & frozen
    # The gradient of a key's bias is zero, because the softmax of attention cancels it.
    unmoved = {name for name, _ in model.named_parameters()} - moved - frozen
    assert {name for name in unmoved if not name.endswith("key.bias")} == set()


def test_a_model_with_lora_trains_and_resumes_bit_for_bit(tmp_path):
    rows, options = posts(8), {"batch": 2, "accumulation": 2, "num_train_epochs": 3}
    options |= {"save_strategy": "steps", "save_steps": 1}
    model = lora_model(0.1)
    before = weights(model)
    trainer = train(model, rows, arguments(tmp_path / "whole", **options))
    moved = different(weights(trainer.model), before)
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)

    with pytest.raises(Kill):
        train(lora_model(0.1), rows, arguments(tmp_path / "killed", **options), [kill_at(3)])
    resumed = train(lora_model(0.1), rows, arguments(tmp_path / "killed", **options), resume=True)
    assert different(weights(resumed.model), weights(model)) == []


# ---- Checkpoints ----

RUN = {"batch": 2, "accumulation": 2, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Weights after three epochs of four steps, with dropout."""
    return weights(train(tiny_model(0.1), posts(16), arguments(tmp_path_factory.mktemp("whole"), **RUN)).model)


@pytest.mark.parametrize("step", [6, 8], ids=["in the middle of an epoch", "at the end of an epoch"])
def test_a_killed_run_resumes_to_the_weights_of_the_uninterrupted_one_bit_for_bit(tmp_path, uninterrupted, step):
    with pytest.raises(Kill):
        train(tiny_model(0.1), posts(16), arguments(tmp_path, **RUN), [kill_at(step)])
    resumed = train(tiny_model(0.1), posts(16), arguments(tmp_path, **RUN), resume=True)
    assert len(logged(resumed, "loss")) == 12
    assert different(weights(resumed.model), uninterrupted) == []


def test_an_unfinished_checkpoint_of_a_killed_run_is_skipped(tmp_path, uninterrupted, caplog):
    class KilledWhileSaving(MPTTrainer):
        def _save_rng_state(self, output_dir: str) -> None:
            if self.state.global_step == 6:
                raise Kill
            super()._save_rng_state(output_dir)

    args = arguments(tmp_path, **{**RUN, "save_total_limit": 3})
    with pytest.raises(Kill):
        KilledWhileSaving(tiny_model(0.1), args, train_dataset=posts(16), data_collator=collate).train()
    half = tmp_path / "checkpoint-6"
    assert (half / "model.safetensors").exists()
    with pytest.raises(ValueError, match=r"checkpoint-6 lacks .*trainer_state.json.* incomplete"):
        train(tiny_model(0.1), posts(16), args, resume=str(half))
    with caplog.at_level(logging.WARNING):
        resumed = train(tiny_model(0.1), posts(16), args, resume=True)
    assert "Skipping" in caplog.text and "checkpoint-6" in caplog.text
    assert different(weights(resumed.model), uninterrupted) == []


def test_a_half_overwritten_checkpoint_is_not_complete(tmp_path):
    train(tiny_model(), posts(8), arguments(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=2))

    class KilledWhileSaving(MPTTrainer):
        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            raise Kill

    args = arguments(tmp_path, save_strategy="steps", save_steps=2, save_total_limit=2)
    trainer = KilledWhileSaving(tiny_model(), args, train_dataset=posts(8), data_collator=collate)
    with pytest.raises(Kill):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


def test_a_checkpoint_without_one_of_its_files_is_skipped(tmp_path):
    train(tiny_model(), posts(8), arguments(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=2))
    last = tmp_path / "checkpoint-2"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        assert last_complete_checkpoint(tmp_path) == str(last)
        (last / name).rename(tmp_path / name)
        assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1"), name
        (tmp_path / name).rename(last / name)


def test_resuming_without_a_complete_checkpoint_raises_an_error(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"epoch": 1.0, "glo')
    with pytest.raises(ValueError, match="no complete checkpoint"):
        train(tiny_model(), posts(4), arguments(tmp_path), resume=True)


def test_resuming_with_another_network_raises_an_error_with_the_missing_weights(tmp_path):
    train(tiny_model(), posts(4), arguments(tmp_path, save_strategy="epoch"))
    with pytest.raises(ValueError, match="lacks the weights .*mpt.rationale_encoder"):
        train(tiny_model(share_text_encoder=False), posts(4), arguments(tmp_path), resume=True)


@pytest.mark.parametrize(
    ("build", "resume"),
    [(tiny_model, False), (tiny_model, True), (lora_model, False)],
    ids=["in one run", "after a kill", "with LoRA"],
)
def test_training_ends_with_the_weights_of_the_best_epoch(tmp_path, build, resume):
    after_epoch = {}
    model = build()
    keep = Call("on_evaluate", lambda state: after_epoch.setdefault(round(state.epoch), weights(model)))
    best = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    args = arguments(tmp_path, num_train_epochs=4, learning_rate=1e-2, **best)
    data = {"rows": posts(8), "args": args, "eval_dataset": posts(8)}
    if resume:
        with pytest.raises(Kill):  # in the last epoch; the best was two epochs before
            metrics = epochs_with_f1([0.2, 0.9, 0.3])
            train(model, callbacks=[keep, kill_at(7)], compute_metrics=metrics, **data)
        trainer = train(build(), resume=True, compute_metrics=epochs_with_f1([0.4]), **data)
    else:
        trainer = train(model, callbacks=[keep], compute_metrics=epochs_with_f1([0.2, 0.9, 0.3, 0.4]), **data)
        assert different(after_epoch[4], after_epoch[2]) != []
    assert trainer.state.best_metric == 0.9
    assert different(weights(trainer.model), after_epoch[2]) == []
    # After training, the best checkpoint alone is kept.
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


# ---- Arguments ----


def test_arguments_default_to_the_paper(tmp_path):
    args = MPTTrainingArguments(str(tmp_path), seed=5)
    assert (args.learning_rate, args.per_device_train_batch_size, args.num_train_epochs) == (1e-5, 16, 20)
    assert args.lr_scheduler_type == "cosine" and "adamw" in args.optim
    assert args.metric_for_best_model == "f1_weighted" and args.greater_is_better and args.load_best_model_at_end
    assert args.eval_strategy == args.save_strategy == args.logging_strategy == "epoch"
    assert args.data_seed == 5 and args.report_to == [] and not args.remove_unused_columns
    assert args.bf16 in (True, False)
    assert json.loads(args.to_json_string())["head_learning_rate"] is None


def test_a_machine_without_an_accelerator_trains_on_its_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "accelerator", SimpleNamespace(is_available=lambda: False))
    assert MPTTrainingArguments(str(tmp_path)).use_cpu


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_learning_rate": 0.0}, "`head_learning_rate`.*positive.*0.0"),
        ({"vision_learning_rate": -1e-4}, "`vision_learning_rate`.*positive.*-0.0001"),
        ({"word_learning_rate": 0.0}, "`word_learning_rate`.*positive.*0.0"),
        ({"label_smoothing_factor": 0.1}, "0.1.*`label_smoothing`"),
    ],
)
def test_arguments_that_cannot_be_used_raise_an_error(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        MPTTrainingArguments(str(tmp_path), **options)


def test_a_model_without_a_joint_loss_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match="`compute_losses` and `loss_inputs`.*Linear"):
        MPTTrainer(nn.Linear(2, 2), arguments(tmp_path))


def test_training_posts_without_labels_raise_an_error(tmp_path):
    rows = [{name: value for name, value in row.items() if name != "labels"} for row in posts(4)]
    with pytest.raises(ValueError, match="must have `labels`"):
        train(tiny_model(), rows, arguments(tmp_path))


def test_the_package_has_no_other_attributes():
    with pytest.raises(AttributeError, match="no attribute 'MPTTrainr'"):
        modeling_mpt.MPTTrainr  # noqa: B018
