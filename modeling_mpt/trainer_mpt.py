"""MPTTrainer: the joint loss of a whole optimizer step, its parts in the log, checkpoints that really come back."""

import copy
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, TrainOutput
from transformers.utils import is_torch_xla_available

from .grad_cache import AccumulatedStep, gathered_losses
from .metrics import compute_metrics as accuracy_and_f1

logger = logging.getLogger(__name__)

# Names of the modules that hold an encoder, in a parameter's dotted name. Everything else is new and starts at random.
TEXT_ENCODERS = ("text_encoder", "rationale_encoder")
VISION_ENCODERS = ("vision_encoder", "cnn")


@dataclass
class MPTTrainingArguments(TrainingArguments):
    r"""
    [`TrainingArguments`] with the paper's defaults (Table 2, MVSA-Single): AdamW, cosine annealing, 20 epochs of
    batches of 16 at a learning rate of 1e-5. Each epoch is evaluated and saved, and the one with the best validation
    weighted F1 is kept. Other fields are those of [`TrainingArguments`].

    Args:
        head_learning_rate (`float`, *optional*):
            Learning rate of the new layers, i.e. of all outside a text encoder, a vision encoder and a CNN. They start
            at random and usually want 10 to 100 times the rate of a pretrained encoder. Defaults to `learning_rate`.
        vision_learning_rate (`float`, *optional*):
            Learning rate of the vision encoder and the CNN, e.g. where they are trained from scratch. Defaults to
            `learning_rate`.
        bf16 (`bool`, *optional*):
            Whether to compute in bf16 under autocast, weights staying in fp32. By default where the hardware
            multiplies matrices in bf16 (recent GPUs; CPUs with AMX) and `fp16` is off.
        use_cpu (`bool`, defaults to `False`):
            Whether to train on the CPU. Set for you where there is no accelerator: without it, `torchrun` on such a
            machine starts processes that do not know of one another.
        data_seed (`int`, *optional*):
            Seed of the order of the posts. Defaults to `seed`.
        ddp_find_unused_parameters (`bool`, *optional*, defaults to `True`):
            A batch whose posts all lack a modality leaves that modality's weights without a gradient.
        save_total_limit (`int`, *optional*, defaults to 1):
            How many checkpoints to keep; the best and the last are always kept until training ends.

    Raises:
        ValueError: where a value cannot be used; the message says what to write instead.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the encoders."})
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the new layers. Defaults to `learning_rate`."}
    )
    vision_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of vision encoder and CNN. Defaults to `learning_rate`."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "The learning rate's schedule."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Number of passes over the training posts."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Posts per batch and device in training."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Posts per batch and device elsewhere."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps, epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch, best."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: no, steps, epoch."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Whether to end with the best checkpoint."})
    metric_for_best_model: str | None = field(default="f1_weighted", metadata={"help": "What makes it the best."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether the best is the greatest."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep, beside best and last."})
    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bf16. By default where the hardware multiplies matrices in bf16."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator reads the dataset's columns."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Needed where all posts of a batch may lack a modality."}
    )

    def __post_init__(self) -> None:
        for name in ("head_learning_rate", "vision_learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(
                    f"{name}={value}: write a positive number, or leave it out for `learning_rate`. To freeze "
                    "encoders, use `freeze_text_layers`, `freeze_vision_layers` and `freeze_cnn` of MPTConfig."
                )
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor}: the joint loss smooths labels itself. Write "
                f"MPTConfig(label_smoothing={self.label_smoothing_factor}) instead."
            )
        if not torch.accelerator.is_available() and not is_torch_xla_available():
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = not self.fp16 and _multiplies_in_bf16(self.use_cpu)
        if self.data_seed is None:
            self.data_seed = self.seed
        super().__post_init__()


class MPTTrainer(Trainer):
    """[`Trainer`] of [`MPTForSentimentClassification`], the baselines, and any model with the same contract.

    The contract: `model(**batch)` without `labels` returns named outputs; `loss_inputs` names those that the loss
    reads, each `None` or a tensor of shape `(batch, …)`; `compute_losses(labels, **those)` returns `loss` and its
    terms (`loss_…`) as scalars, reaching trainable weights through its arguments alone. The loss is that of all posts
    of an optimizer step, however they are split over devices and accumulation steps. Its terms are logged.

    A model with a method `observe(batches)` is shown the train posts once before a new training starts.

    Args:
        model, args, train_dataset, eval_dataset: see [`Trainer`].
        data_collator (`Callable`, *optional*): default: the collator of `processing_class` for the modalities that the
            model reads.
        processing_class ([`MPTProcessor`], *optional*): processor of the posts, saved with each checkpoint.
        compute_metrics (`Callable`, *optional*): default: accuracy, weighted and macro F1.
        kwargs: see [`Trainer`].

    Raises:
        ValueError: For a model without the contract, or a `compute_loss_func`.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError(
                "`compute_loss_func` would replace the joint loss. Override `compute_losses` of the model."
            )
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=accuracy_and_f1 if compute_metrics is None else compute_metrics,
            **kwargs,
        )
        network = self._network()
        if not hasattr(network, "compute_losses") or not hasattr(network, "loss_inputs"):
            raise ValueError(
                f"The model must have `compute_losses` and `loss_inputs` as MPTForSentimentClassification does, got a "
                f"{type(network).__name__}."
            )
        if data_collator is None and hasattr(processing_class, "data_collator"):
            self.data_collator = processing_class.data_collator(network.config.modalities)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: the Trainer divides it by accumulation steps
        self._observed = False
        self._step: AccumulatedStep | None = None
        self._train_losses, self._eval_losses = _Means(), _Means()

    def _network(self) -> nn.Module:
        """The model without what wraps it for distribution, compilation or adapters."""
        network = self.accelerator.unwrap_model(self.model)
        return network.get_base_model() if hasattr(network, "get_base_model") else network

    # ---- Loss ----

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """As [`Trainer.get_batch_samples`]: the micro-batches of the next optimizer step."""
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step = AccumulatedStep(batches) if len(batches) > 1 else None
        return batches, num_items_in_batch

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The joint loss: in training that of the whole optimizer step, in evaluation that of the batch.

        Args:
            inputs: a batch with `labels`.
        """
        inputs = dict(inputs)
        labels = inputs.pop("labels", None)
        if labels is None:
            raise ValueError(f"A batch with the fields {sorted(inputs)} has no `labels`: give each post a label.")
        network = self._network()
        if model.training and self._step is not None:
            if self._step.losses is None:
                # Not earlier: a resumed run sets its random state between `get_batch_samples` and the first batch.
                self._step.embed(model, network, self.accelerator, self._prepare_inputs)
                self._train_losses.add(self._step.losses)
            loss, outputs = self._step.backpropagate(model, inputs)
            return (loss, outputs) if return_outputs else loss
        outputs = model(**inputs)
        read = {name: outputs.get(name) for name in network.loss_inputs}
        if model.training:
            losses = gathered_losses(network, labels, read, self.accelerator)
            self._train_losses.add(losses)
        else:
            losses = network.compute_losses(labels, **read)
            self._eval_losses.add(losses, weight=len(labels))
        return (losses["loss"], outputs) if return_outputs else losses["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As [`Trainer.log`], with the parts of the training loss."""
        if "loss" in logs:
            logs = {**logs, **self._train_losses.pop()}  # the same on every rank
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As [`Trainer.evaluation_loop`], with the parts of the loss, as means over the posts."""
        self._eval_losses = _Means()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        parts = self._eval_losses.pop(reduce=self.accelerator.reduce)
        output.metrics.update({f"{prefix}_{name}": value for name, value in parts.items()})
        return output

    # ---- Optimizer ----

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """As [`Trainer.get_decay_parameter_names`], less all vectors: batch normalisation has its scale there."""
        dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
        # A MultiheadAttention names parameters that it does not have.
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) > 1]

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """As [`Trainer.create_optimizer`], with the learning rates of [`MPTTrainingArguments`]."""
        rates = {
            "vision": getattr(self.args, "vision_learning_rate", None),
            "head": getattr(self.args, "head_learning_rate", None),
        }
        rates = {kind: rate for kind, rate in rates.items() if rate is not None}
        if self.optimizer is not None:  # the user's, or that of an earlier call of `train`
            return super().create_optimizer(*args)
        optimizer = super().create_optimizer(*args)
        if rates:
            model = args[0] if args else self.model
            kinds = {id(parameter): _kind(name) for name, parameter in model.named_parameters()}
            groups = []
            for kind in ("text", "vision", "head"):  # the first group's rate is the one that is logged
                for group in optimizer.param_groups:
                    parameters = [parameter for parameter in group["params"] if kinds[id(parameter)] == kind]
                    if parameters:
                        groups.append({**group, "params": parameters, "lr": rates.get(kind, group["lr"])})
            optimizer.param_groups = groups
        return optimizer

    # ---- Checkpoints ----

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train the model, from the start or from a checkpoint.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): folder of a complete checkpoint; `True` for the last
                complete one in `output_dir`.

        Raises:
            ValueError: For an incomplete checkpoint, or none.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(
                    f"{self.args.output_dir} has no complete checkpoint to resume from. Leave "
                    "`resume_from_checkpoint` out to start anew."
                )
        elif resume_from_checkpoint and (missing := missing_from_checkpoint(resume_from_checkpoint)):
            raise ValueError(
                f"{resume_from_checkpoint} lacks {missing}: it was not written to its end (or with "
                "`save_only_model`). Name an earlier checkpoint, or write resume_from_checkpoint=True for the last "
                "complete one."
            )
        network = self._network()
        if hasattr(network, "observe") and not resume_from_checkpoint and not self._observed:
            loader = DataLoader(self.train_dataset, self.args.eval_batch_size, collate_fn=self.data_collator)
            network.observe({name: rows.to(network.device) for name, rows in batch.items()} for batch in loader)
            self._observed = True
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card of [`Trainer`] unless `output_dir` has a README.md."""
        if not (Path(self.args.output_dir) / "README.md").exists():
            super().create_model_card(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The state is written last and so tells a complete checkpoint: a folder that is written anew must not keep its
        # old one.
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if model is None and self._is_plain_model():
            self._restore(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self.accelerator.wait_for_everyone()  # until the first rank has written it
        if self._is_plain_model():
            logger.info("Loading the best model from %s.", self.state.best_model_checkpoint)
            self._restore(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _is_plain_model(self) -> bool:
        return isinstance(self.model, PreTrainedModel) and not (self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def _restore(self, folder: str) -> None:
        """Set the model's weights to those of a checkpoint.

        The Trainer reads the file itself and passes over names it does not know; but `save_pretrained` renames weights
        (of a ViT, nearly all), and only `from_pretrained` renames them back.
        """
        saved, report = type(self.model).from_pretrained(
            folder,
            config=copy.deepcopy(self.model.config),
            dtype=torch.promote_types(self.model.dtype, torch.float32),  # holds any saved number exactly
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise ValueError(
                f"{folder} lacks the weights {sorted(report['missing_keys'])}: it was saved from another network. "
                "Build the model from the same configuration."
            )
        self.model.load_state_dict(saved.state_dict())


class _Means:
    """Weighted means of the parts of a loss."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weight = 0.0

    def add(self, losses: Mapping[str, torch.Tensor], weight: float = 1.0) -> None:
        """Add what `compute_losses` returned; `loss` itself is the Trainer's to log."""
        for name, value in losses.items():
            if name != "loss":
                self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * weight
        self._weight += weight

    def pop(self, reduce: Any = None) -> dict[str, float]:
        """The means since the last call, over all ranks where `reduce` adds up a tensor of each."""
        sums, weight = self._sums, self._weight
        self._sums, self._weight = {}, 0.0
        if not sums:
            return {}
        totals = torch.stack([*sums.values(), torch.full_like(next(iter(sums.values())), weight)])
        *totals, weight = (totals if reduce is None else reduce(totals)).tolist()
        return {name: total / weight for name, total in zip(sums, totals, strict=True)}


def missing_from_checkpoint(folder: str | os.PathLike) -> list[str]:
    """Files that a checkpoint of [`Trainer`] needs to be resumed from and that `folder` lacks; the state of the run is
    among them where it cannot be read."""
    folder = Path(folder)
    missing = []
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        missing.append(TRAINER_STATE_NAME)
    sharded = any(path.is_dir() for path in folder.glob("*"))  # DeepSpeed and FSDP keep theirs in folders
    if not sharded:
        patterns = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth")
        missing += [pattern for pattern in patterns if not any(folder.glob(pattern))]
        if not any(folder.glob("*model*.safetensors")) and not any(folder.glob("*model*.bin")):
            missing.append("the weights")
    return missing


def last_complete_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The newest `checkpoint-STEP` in `output_dir` that was written to its end, or `None`. Logs what it skips."""
    steps = {}
    for path in Path(output_dir).glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal() and path.is_dir():
            steps[int(step)] = path
    for step in sorted(steps, reverse=True):
        missing = missing_from_checkpoint(steps[step])
        if not missing:
            return str(steps[step])
        logger.warning("Not resuming from %s, which was not written to its end: it lacks %s.", steps[step], missing)
    return None


def _kind(name: str) -> str:
    """`text` or `vision` for a parameter of an encoder, `head` for all others."""
    for part in name.split("."):
        if part in TEXT_ENCODERS:
            return "text"
        if part in VISION_ENCODERS:
            return "vision"
    return "head"


def _multiplies_in_bf16(use_cpu: bool) -> bool:
    if use_cpu:
        return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
