"""Scores of a classifier, computed from one confusion matrix or from a stack of thousands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count posts by true label (row) and predicted label (column).

    Args:
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        predictions (`np.ndarray` of shape `(num_posts,)`): predicted class indices.
        num_classes (`int`): number of classes; indices are in `[0, num_classes)`.

    Returns:
        `np.ndarray` of shape `(num_classes, num_classes)`, integers that sum to `num_posts`.
    """
    cells = np.asarray(labels) * num_classes + np.asarray(predictions)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall, F1 and support of each class; a ratio with denominator 0 is 0.

    Args:
        confusion (`np.ndarray` of shape `(..., num_classes, num_classes)`): rows are true labels.

    Returns:
        `precision`, `recall`, `f1`, `support`, each of shape `(..., num_classes)`.
    """
    confusion = np.asarray(confusion)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    return {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, support),
        "f1": _ratio(2 * correct, support + predicted),
        "support": support,
    }


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Compute the share of correct predictions of each matrix in a stack."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1).sum(axis=-1)


def f1_weighted(confusion: np.ndarray) -> np.ndarray:
    """Compute the mean F1 over all classes, each weighted by its share of the true labels."""
    per_class = class_scores(confusion)
    return (per_class["f1"] * per_class["support"]).sum(axis=-1) / per_class["support"].sum(axis=-1)


def f1_macro(confusion: np.ndarray) -> np.ndarray:
    """Compute the mean F1 over all `num_classes` classes.

    A class that neither occurs nor is predicted counts as 0 (scikit-learn with `labels=range(num_classes),
    zero_division=0`).
    """
    return class_scores(confusion)["f1"].mean(axis=-1)


@dataclass(frozen=True)
class Score:
    """One score of the reports: its heading in tables, its function and its name on the Hub.

    Attributes:
        heading: title in tables, figures and model cards.
        compute: maps a confusion matrix of shape `(..., num_classes, num_classes)` to scores of shape `(...)`.
        metric: name of the metric in the metadata of model cards.
        metric_args: its arguments there.
    """

    heading: str
    compute: Callable[[np.ndarray], np.ndarray]
    metric: str
    metric_args: Mapping[str, Any] = field(default_factory=dict)


# Reports, intervals, tests, tables, figures and model cards contain every score of this table. The Trainer logs those
# of `modeling_mpt.metrics.compute_metrics`.
SCORES: Mapping[str, Score] = {
    "accuracy": Score("Accuracy", accuracy, "accuracy"),
    "f1_weighted": Score("Weighted F1", f1_weighted, "f1", {"average": "weighted"}),
    "f1_macro": Score("Macro F1", f1_macro, "f1", {"average": "macro"}),
}


def overall_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every score of `SCORES` for each matrix in a stack.

    Args:
        confusion (`np.ndarray` of shape `(..., num_classes, num_classes)`): rows are true labels; not all zero.

    Returns:
        Name of the score → array of shape `(...)`.
    """
    confusion = np.asarray(confusion)
    return {name: score.compute(confusion) for name, score in SCORES.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
