"""Scores with intervals, predictions, figures, model card and an `evaluate` module."""

from pathlib import Path

from modeling_mpt.metrics import compute_metrics
from mpt_sentiment.evaluation.bootstrap import paired_bootstrap
from mpt_sentiment.evaluation.calibration_plots import plot_reliability, plot_risk_coverage
from mpt_sentiment.evaluation.environment import environment
from mpt_sentiment.evaluation.model_card import TrainingData, write_model_card
from mpt_sentiment.evaluation.plots import plot_confusion_matrix, plot_training_curve
from mpt_sentiment.evaluation.predictions import prediction_table, read_predictions, write_predictions
from mpt_sentiment.evaluation.report import aggregate_runs, evaluate_predictions, write_metrics

# evaluate.load(str(METRIC_PATH)) needs no network.
METRIC_PATH = Path(__file__).parent / "metrics" / "mpt_sentiment"

__all__ = [
    "METRIC_PATH",
    "TrainingData",
    "aggregate_runs",
    "compute_metrics",
    "environment",
    "evaluate_predictions",
    "paired_bootstrap",
    "plot_confusion_matrix",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_training_curve",
    "prediction_table",
    "read_predictions",
    "write_metrics",
    "write_model_card",
    "write_predictions",
]
