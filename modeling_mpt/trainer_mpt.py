"""MPTTrainer: loss over the full optimizer step, logging of its terms, verified resumption."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, TrainOutput

from .checkpoints import last_complete_checkpoint, missing_from_checkpoint
from .early_stopping import EarlyStopping
from .features.contents import with_undecoded_images
from .features.dataset import FeatureDataset
from .features.wrapping import FeatureWrapper
from .grad_cache import AccumulatedStep, gathered_losses
from .learning_rates import kinds_of_parameters, rates_of_kinds
from .metrics import compute_metrics as accuracy_and_f1
from .pretrained_mpt import apply_umask
from .training_arguments import MPTTrainingArguments

logger = logging.getLogger(__name__)


class MPTTrainer(Trainer):
    """Trainer of MPT, the baselines, and any model with the same contract.

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
        args: MPTTrainingArguments | None = None,
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
        self._unwrapped: tuple[nn.Module, nn.Module] | None = None
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
        self._own_collator = data_collator is None and hasattr(processing_class, "data_collator")
        if self._own_collator:
            self.data_collator = processing_class.data_collator(network.config.modalities)
        self.features = FeatureWrapper(
            getattr(self.args, "feature_store", "auto"),
            getattr(self.args, "feature_store_dtype", "bfloat16"),
            autocast={"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision),
            progress=self.args.should_log and not self.args.disable_tqdm,
        )
        if not self._own_collator:
            self.features.reason = "the batches are made by another collator"
        elif self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.features.reason = "the weights are divided over processes"
        self.model_accepts_loss_kwargs = False  # the loss is a mean: the Trainer divides it by accumulation steps
        if patience := getattr(self.args, "early_stopping_patience", None):
            self.add_callback(EarlyStopping(patience))
        self._observed = False
        self._step: AccumulatedStep | None = None
        self._train_losses, self._eval_losses = _Means(), _Means()

    def _network(self) -> nn.Module:
        """Return the model without wrappers for distribution, compilation or adapters."""
        if self._unwrapped is None or self._unwrapped[0] is not self.model:  # it visits all modules, in every step
            network = self.accelerator.unwrap_model(self.model)
            network = network.get_base_model() if hasattr(network, "get_base_model") else network
            self._unwrapped = (self.model, network)
        return self._unwrapped[1]

    def with_features(self, *posts: Any) -> list[Any]:
        """Return posts with stored outputs of frozen encoders.

        Posts that are given together are encoded together. Without a store, they are returned as they are, see
        `features.reason`.
        """
        return self.features.wrap(self._network(), self.processing_class, posts)

    def _get_dataloader(self, dataset: Any, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        evaluated = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        others = [posts for posts in evaluated.values() if posts is not None] if is_training else []
        dataset = self.with_features(dataset, *others)[0]
        kwargs["is_training"] = is_training
        if not isinstance(dataset, FeatureDataset):
            return super()._get_dataloader(with_undecoded_images(dataset), *args, **kwargs)
        collator, self.data_collator = self.data_collator, dataset.collate
        try:
            return super()._get_dataloader(dataset, *args, **kwargs)
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        if isinstance(train_dataset, FeatureDataset) and self.args.train_sampling_strategy == "group_by_length":
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthGroupedSampler(size, lengths=train_dataset.lengths.tolist())
        return super()._get_train_sampler(train_dataset)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Estimate the operations of a step from its tokens; 0 with stored outputs of encoders."""
        main = getattr(self._network(), "main_input_name", None)
        runs = "encoder_outputs" not in inputs and (main is None or main in inputs)
        return super().floating_point_ops(inputs) if runs else 0

    # ---- Loss ----

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        """Return the micro-batches of the next optimizer step, see [`Trainer.get_batch_samples`]."""
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
        """Compute the loss of the whole optimizer step in training, of the batch in evaluation.

        Args:
            inputs: a batch with `labels`.

        Raises:
            ValueError: For a batch without labels.
        """
        inputs = dict(inputs)
        labels = inputs.pop("labels", None)
        if labels is None:
            raise ValueError(f"Each batch must have `labels`, got the fields {sorted(inputs)}. Label all posts.")
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
        """Log the terms of the training loss with it."""
        if "loss" in logs:
            logs = {**logs, **self._train_losses.pop()}  # the same on every rank
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate, and add the terms of the loss as means over the posts."""
        self._eval_losses = _Means()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        parts = self._eval_losses.pop(reduce=self.accelerator.reduce)
        output.metrics.update({f"{prefix}_{name}": value for name, value in parts.items()})
        return output

    # ---- Optimizer ----

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """List the parameters with weight decay: all but vectors."""
        dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
        # Some names of a MultiheadAttention belong to no parameter.
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) > 1]

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """Create the optimizer with the learning rates of [`MPTTrainingArguments`]."""
        exists = self.optimizer is not None  # given by the user, or created by an earlier call of `train`
        optimizer = super().create_optimizer(*args)
        rates = rates_of_kinds(self.args) if isinstance(self.args, MPTTrainingArguments) else {}
        if exists or len(set(rates.values())) < 2:
            return optimizer
        model = args[0] if args else self.model
        random_encoders = getattr(getattr(self._network(), "config", None), "random_encoders", [])
        names = kinds_of_parameters(model, random_encoders)
        kinds = {id(parameter): names[name] for name, parameter in model.named_parameters()}
        if self.args.vision_learning_rate and {*random_encoders} - {"text"} and "vision" not in kinds.values():
            logger.warning(
                "`vision_learning_rate` is not used: no vision encoder is pretrained. Those that start at random have "
                "`head_learning_rate`, %g.",
                rates["head"],
            )
        groups = []
        for kind, rate in rates.items():  # the rate of the first group is logged
            for group in optimizer.param_groups:
                parameters = [parameter for parameter in group["params"] if kinds[id(parameter)] == kind]
                if parameters:
                    groups.append({**group, "params": parameters, "lr": rate})
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
                    f"{self.args.output_dir} has no complete checkpoint to resume from. Omit `resume_from_checkpoint` "
                    "to start from the beginning."
                )
        elif resume_from_checkpoint and (missing := missing_from_checkpoint(resume_from_checkpoint)):
            raise ValueError(
                f"{resume_from_checkpoint} lacks {missing}: it is incomplete, or was saved with `save_only_model`. "
                "Pass `resume_from_checkpoint=True` for the last complete checkpoint."
            )
        network = self._network()
        if hasattr(network, "observe") and not resume_from_checkpoint and not self._observed:
            posts = with_undecoded_images(self.train_dataset)
            loader = DataLoader(posts, self.args.eval_batch_size, collate_fn=self.data_collator)
            network.observe({name: rows.to(network.device) for name, rows in batch.items()} for batch in loader)
            self._observed = True
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card of [`Trainer`] unless `output_dir` has a README.md."""
        if not (Path(self.args.output_dir) / "README.md").exists():
            super().create_model_card(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # The state is written last and marks a complete checkpoint, so that of an older checkpoint must go first.
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        apply_umask(output_dir or self.args.output_dir)  # adapters are saved by peft

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if model is None and self._is_plain_model():
            self._restore(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self.accelerator.wait_for_everyone()  # the first rank writes it
        if self._is_plain_model():
            logger.info("Loading the best model from %s.", self.state.best_model_checkpoint)
            self._restore(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _is_plain_model(self) -> bool:
        return isinstance(self.model, PreTrainedModel) and not (self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def _restore(self, folder: str) -> None:
        """Load the weights of a checkpoint into the model.

        The Trainer would skip unknown names in the file, but `save_pretrained` renames weights (of a ViT, nearly all),
        which `from_pretrained` alone reverts.
        """
        saved, report = type(self.model).from_pretrained(
            folder,
            config=copy.deepcopy(self.model.config),
            dtype=torch.promote_types(self.model.dtype, torch.float32),  # holds any saved number exactly
            output_loading_info=True,
        )
        if report["missing_keys"]:
            raise ValueError(
                f"{folder} is of another network: it lacks the weights {sorted(report['missing_keys'])}. Build the "
                "model from the same configuration."
            )
        self.model.load_state_dict(saved.state_dict())


class _Means:
    """Weighted means of the terms of a loss."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weight = 0.0

    def add(self, losses: Mapping[str, torch.Tensor], weight: float = 1.0) -> None:
        """Add the result of `compute_losses`, without `loss`, which the Trainer logs."""
        for name, value in losses.items():
            if name != "loss":
                self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * weight
        self._weight += weight

    def pop(self, reduce: Any = None) -> dict[str, float]:
        """Return the means since the last call, over all ranks if `reduce` sums a tensor over them."""
        sums, weight = self._sums, self._weight
        self._sums, self._weight = {}, 0.0
        if not sums:
            return {}
        totals = torch.stack([*sums.values(), torch.full_like(next(iter(sums.values())), weight)])
        *totals, weight = (totals if reduce is None else reduce(totals)).tolist()
        return {name: total / weight for name, total in zip(sums, totals, strict=True)}
