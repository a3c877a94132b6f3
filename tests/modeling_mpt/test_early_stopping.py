"""Early stopping: patience counted from the log, also in resumed runs."""

import pytest
from transformers import TrainerControl, TrainerState

from helpers.training_runs import arguments, logged, posts, tiny_model, train
from modeling_mpt.early_stopping import EarlyStopping


def control_after(scores: list[float], tmp_path, patience: int = 2, metric: str = "f1_weighted") -> TrainerControl:
    args = arguments(tmp_path, metric_for_best_model=metric)
    history = [entry for score in scores for entry in ({"loss": 1.0}, {f"eval_{metric}": score})]
    control = TrainerControl(should_save=True)
    EarlyStopping(patience).on_evaluate(args, TrainerState(log_history=history), control)
    return control


@pytest.mark.parametrize(
    ("scores", "stops"),
    [([0.5], False), ([0.5, 0.6, 0.6], False), ([0.5, 0.6, 0.6, 0.5], True), ([0.5, 0.4, 0.6, 0.5], False)],
)
def test_training_ends_after_evaluations_without_improvement(tmp_path, scores, stops):
    control = control_after(scores, tmp_path)
    assert control.should_training_stop is stops
    assert control.should_save is not stops  # the last checkpoint is one from which the run ends in the same way


def test_a_lower_loss_is_an_improvement(tmp_path):
    assert not control_after([0.5, 0.4, 0.3], tmp_path, metric="loss").should_training_stop
    assert control_after([0.3, 0.4, 0.5], tmp_path, metric="loss").should_training_stop


def test_the_trainer_takes_the_patience_of_its_arguments(tmp_path):
    rows = posts(8)
    args = arguments(tmp_path, num_train_epochs=10, eval_strategy="epoch", early_stopping_patience=2)
    trainer = train(tiny_model(), rows, args, eval_dataset=rows, compute_metrics=lambda _: {"f1_weighted": 0.5})
    assert trainer.state.epoch == 3 and len(logged(trainer, "eval_f1_weighted")) == 3


def test_a_patience_below_1_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`early_stopping_patience` must be at least 1, got 0"):
        arguments(tmp_path, early_stopping_patience=0)
