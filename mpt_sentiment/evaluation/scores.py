"""Accuracy and F1 from confusion matrices, for one matrix or for a stack of thousands at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# The scores that every table of this project reports, with the headings they get in print.
SCORES: Mapping[str, str] = {"accuracy": "Accuracy", "f1_weighted": "Weighted F1", "f1_macro": "Macro F1"}


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count posts by true label (row) and predicted label (column).

    Args:
        labels (`np.ndarray` of shape `(num_posts,)`): True class indices.
        predictions (`np.ndarray` of shape `(num_posts,)`): Predicted class indices.
        num_classes (`int`): Number of classes; indices lie in `[0, num_classes)`.

    Returns:
        `np.ndarray` of shape `(num_classes, num_classes)`, integers that sum to `num_posts`.
    """
    cells = np.asarray(labels) * num_classes + np.asarray(predictions)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class; a ratio with nothing below the line is 0.

    Args:
        confusion (`np.ndarray` of shape `(..., num_classes, num_classes)`): Rows are true labels.

    Returns:
        `precision`, `recall`, `f1`, `support`, each of shape `(..., num_classes)`.
    """
    confusion = np.asarray(confusion)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
        "support": support,
    }


def overall_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, weighted F1 and macro F1 of each matrix in a stack.

    Weighted F1 excludes nothing: every class enters with its share of the true labels. Macro F1 averages over all
    `num_classes` classes; one that neither occurs nor is predicted enters as 0 (scikit-learn with
    `labels=range(num_classes), zero_division=0`).

    Args:
        confusion (`np.ndarray` of shape `(..., num_classes, num_classes)`): Rows are true labels; not all zero.

    Returns:
        `accuracy`, `f1_weighted`, `f1_macro`, each of shape `(...)`.
    """
    per_class = class_scores(confusion)
    num_posts = per_class["support"].sum(axis=-1)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    return {
        "accuracy": hits / num_posts,
        "f1_weighted": (per_class["f1"] * per_class["support"]).sum(axis=-1) / num_posts,
        "f1_macro": per_class["f1"].mean(axis=-1),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
