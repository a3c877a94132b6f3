"""What is measured: scores with intervals, result files, figures, the model card and an `evaluate` module."""

from pathlib import Path

from evaluation_mpt.environment import environment
from evaluation_mpt.files import atomic_path, write_metrics, write_predictions
from evaluation_mpt.model_card import TrainingData, write_model_card
from evaluation_mpt.plots import plot_confusion_matrix, plot_training_curve
from evaluation_mpt.report import aggregate_runs, compute_metrics, evaluate_predictions, paired_bootstrap

# evaluate.load(str(METRIC_PATH)) works offline.
METRIC_PATH = Path(__file__).parent / "metrics" / "mpt_sentiment"

__all__ = [
    "METRIC_PATH",
    "TrainingData",
    "aggregate_runs",
    "atomic_path",
    "compute_metrics",
    "environment",
    "evaluate_predictions",
    "paired_bootstrap",
    "plot_confusion_matrix",
    "plot_training_curve",
    "write_metrics",
    "write_model_card",
    "write_predictions",
]
