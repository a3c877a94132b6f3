"""What is measured: scores with intervals, result files, figures, the model card and an `evaluate` module."""

from pathlib import Path

from mpt_sentiment.evaluation.environment import environment
from mpt_sentiment.evaluation.files import atomic_path, write_metrics, write_predictions
from mpt_sentiment.evaluation.model_card import TrainingData, write_model_card
from mpt_sentiment.evaluation.plots import plot_confusion_matrix, plot_training_curve
from mpt_sentiment.evaluation.report import aggregate_runs, compute_metrics, evaluate_predictions, paired_bootstrap

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
