"""Callback that ends training once validation has not improved for several evaluations."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStopping(TrainerCallback):
    """Callback that counts the evaluations since the best one from the log.

    The callback of transformers counts in an attribute, so that a resumed run would train longer than an uninterrupted
    one.

    Args:
        patience (`int`): number of evaluations without a better value of `metric_for_best_model`.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        name = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        values = [
            entry[name] if args.greater_is_better else -entry[name] for entry in state.log_history if name in entry
        ]
        if values and len(values) - 1 - values.index(max(values)) >= self.patience:
            control.should_training_stop = True
            control.should_save = False  # a run that is resumed before it ends repeats this evaluation
