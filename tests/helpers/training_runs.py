"""Tiny models, posts and training runs for the tests of the trainer.

`torchrun tests/helpers/training_runs.py FILE` saves the results of `distributed_runs`.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers import TrainerCallback, set_seed

from modeling_mpt import MPTConfig, MPTForSentimentClassification, MPTTrainer, MPTTrainingArguments

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VIEWS = ("cross_modal", "fused")
# Before, transformers asks torch for the optimizer's state on "cpu:0", which torch does not know.
RESUMES_ON_CPUS = Version(transformers.__version__) >= Version("5.18")
RATIONALE_FIELDS = ("rationale_input_ids", "rationale_attention_mask")


def tiny_model(dropout: float = 0.0, **config: Any) -> MPTForSentimentClassification:
    """Build a model with BERT, ViT and ConvNet of 16 channels, with the same weights each time."""
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    set_seed(0)
    return MPTForSentimentClassification(
        MPTConfig(
            text_config={"model_type": "bert", "vocab_size": 50, "max_position_embeddings": 32, **SMALL, **drop},
            vision_config={"model_type": "vit", "image_size": 16, "patch_size": 8, **SMALL, **drop},
            **{"hidden_size": 16, "cnn_channels": [4, 8], "loss_weight_mlcl": 0.5, "dropout": dropout, **config},
        )
    )


def posts(count: int, rationales: bool = True) -> list[dict[str, torch.Tensor]]:
    """Return posts of all lengths. Every fifth lacks an image, every third its rationales.

    With `rationales=False`, all lack them.
    """
    draw = torch.Generator().manual_seed(1)
    rows = []
    for index in range(count):
        length = torch.arange(8) < torch.randint(2, 9, (1,), generator=draw)
        rationale_length = torch.arange(6) < torch.randint(2, 7, (3, 1), generator=draw)
        rows.append(
            {
                "input_ids": torch.randint(1, 50, (8,), generator=draw),
                "attention_mask": length.long(),
                "pixel_values": torch.randn(3, 16, 16, generator=draw),
                "image_mask": torch.tensor(index % 5 != 4),
                "rationale_input_ids": torch.randint(1, 50, (3, 6), generator=draw),
                "rationale_attention_mask": rationale_length.long() * int(rationales and index % 3 != 2),
                "labels": torch.tensor([0, 0, 1, 2, 1, 0, 2][index % 7]),
            }
        )
    return rows


def collate(rows: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate posts as `MPTDataCollator` does: a batch without any rationale has no such fields."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    if not batch["rationale_attention_mask"].any():
        batch = {name: rows for name, rows in batch.items() if name not in RATIONALE_FIELDS}
    return batch


class Gradients(TrainerCallback):
    """Callback that collects the gradients of each optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        # Called after clipping, which tests switch off by a huge norm.
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        self.steps.append({name: gradient.clone() for name, gradient in gradients.items() if gradient is not None})


class Call(TrainerCallback):
    """Callback that calls `function(trainer state)` at each `event`."""

    def __init__(self, event: str, function: Callable) -> None:
        def called(args, state, control, **kwargs) -> None:
            function(state)

        setattr(self, event, called)


def arguments(output_dir: str | Path, batch: int = 4, accumulation: int = 1, **options: Any) -> MPTTrainingArguments:
    """Return arguments for one epoch on the CPU with logging of each step, without evaluation."""
    defaults = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    return MPTTrainingArguments(str(output_dir), **{**defaults, **options})


def train(
    model: nn.Module,
    rows: list[dict[str, torch.Tensor]],
    args: MPTTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool | str | None = None,
    **kwargs: Any,
) -> MPTTrainer:
    trainer = MPTTrainer(model, args, train_dataset=rows, data_collator=collate, callbacks=list(callbacks), **kwargs)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer: MPTTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def steps_of_one_epoch(
    model: nn.Module, rows: list[dict[str, torch.Tensor]], batch: int, accumulation: int
) -> dict[str, list]:
    """Train one epoch; return losses, their terms and gradients of each optimizer step."""
    gradients = Gradients()
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, batch, accumulation, max_grad_norm=1e9, optim="sgd")
        trainer = train(model, rows, args, [gradients])
    names = ("loss", "loss_ce", "loss_mlcl", "grad_norm")
    return {**{name: logged(trainer, name) for name in names}, "gradients": gradients.steps}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Kill(Exception):
    """Exception that ends a run without any clean-up by the trainer, as a signal does."""


def kill_at(step: int) -> Call:
    def kill(state: Any) -> None:
        if state.global_step == step:
            raise Kill

    return Call("on_step_begin", kill)


def distributed_runs(folder: Path) -> dict[str, Any]:
    """Make the runs of two processes that `test_distributed.py` compares with one process."""
    rows = posts(16)
    results: dict[str, Any] = {"num_processes": MPTTrainer(tiny_model(), arguments(folder)).accelerator.num_processes}
    for view in VIEWS:
        results[view] = steps_of_one_epoch(tiny_model(contrastive_view=view), rows, batch=8, accumulation=1)

    without = posts(8, rationales=False)
    results["no rationales"] = steps_of_one_epoch(tiny_model(), without, batch=4, accumulation=1)
    mixed = posts(16, rationales=False)
    mixed[3] = posts(16)[3]  # in one batch of one rank alone
    results["one rationale"] = steps_of_one_epoch(tiny_model(), mixed, batch=4, accumulation=2)

    evaluated = MPTTrainer(
        tiny_model(), arguments(folder, per_device_eval_batch_size=8), data_collator=collate, eval_dataset=rows
    )
    results["evaluation"] = evaluated.evaluate()

    if RESUMES_ON_CPUS:
        options = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3}
        whole, killed = (arguments(folder / name, batch=2, accumulation=2, **options) for name in ("whole", "killed"))
        results["uninterrupted"] = weights(train(tiny_model(0.1), rows, whole).model)
        try:
            train(tiny_model(0.1), rows, killed, [kill_at(5)])
        except Kill:
            results["resumed"] = weights(train(tiny_model(0.1), rows, killed, resume=True).model)
    return results


if __name__ == "__main__":
    target = Path(sys.argv[1])
    results = distributed_runs(target.parent)
    if torch.distributed.get_rank() == 0:
        torch.save(results, target)
    torch.distributed.destroy_process_group()
