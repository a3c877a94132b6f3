"""Scores with intervals, predictions, figures, model card and an `evaluate` module."""

from pathlib import Path

from modeling_mpt.metrics import compute_metrics
from mpt_sentiment.evaluation.abstention import abstains, choose_threshold, risk_coverage
from mpt_sentiment.evaluation.bootstrap import paired_bootstrap
from mpt_sentiment.evaluation.calibration_plots import plot_reliability, plot_risk_coverage
from mpt_sentiment.evaluation.environment import environment
from mpt_sentiment.evaluation.errors import error_markdown, error_table
from mpt_sentiment.evaluation.label_noise import label_suspects, scores_without
from mpt_sentiment.evaluation.model_card import TrainingData, write_model_card
from mpt_sentiment.evaluation.plots import plot_confusion_matrix, plot_training_curve
from mpt_sentiment.evaluation.predictions import prediction_table, read_predictions, write_predictions
from mpt_sentiment.evaluation.report import aggregate_runs, evaluate_predictions, write_metrics
from mpt_sentiment.evaluation.scored_posts import scored_posts

# evaluate.load(str(METRIC_PATH)) needs no network.
METRIC_PATH = Path(__file__).parent / "metrics" / "mpt_sentiment"

__all__ = [
    "METRIC_PATH",
    "TrainingData",
    "abstains",
    "aggregate_runs",
    "choose_threshold",
    "compute_metrics",
    "environment",
    "error_markdown",
    "error_table",
    "evaluate_predictions",
    "label_suspects",
    "paired_bootstrap",
    "plot_confusion_matrix",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_training_curve",
    "prediction_table",
    "read_predictions",
    "risk_coverage",
    "scored_posts",
    "scores_without",
    "write_metrics",
    "write_model_card",
    "write_predictions",
]
