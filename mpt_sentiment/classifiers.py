"""Classifiers on vectors of posts, whose strength is chosen by weighted F1 on validation."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

Splits = Mapping[str, Dataset]
# Inverse strengths of the regularization: of sparse TF-IDF, and of standardized vectors.
SPARSE_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DENSE_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
COMPONENTS = 128
MAX_TREES = 150


def logistic_regression(
    vectors: Mapping[str, Any],
    posts: Splits,
    strengths: Sequence[float],
    class_weights: Sequence[float] | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Predict test posts with the logistic regression that is best on validation.

    Args:
        vectors (mapping): `(num_posts, dim)` of train, validation and test, sparse or dense.
        posts (mapping of `Dataset`): the posts, with labels.
        strengths (sequence of `float`): values of `C`, the inverse of the regularization's strength.
        class_weights (sequence of `float`, *optional*): weight of each label in the loss.

    Returns:
        Probabilities `(num_posts, num_labels)` of the test posts, and the chosen value.
    """
    train, validation = np.array(posts["train"]["label"]), np.array(posts["validation"]["label"])
    weights = _of_posts(class_weights, train)
    candidates = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=2000).fit(vectors["train"], train, weights)
        candidates.append((weighted_f1(validation, model.predict(vectors["validation"])), model))
    score, best = max(candidates, key=lambda candidate: candidate[0])
    probabilities = _of_all_labels(best.predict_proba(vectors["test"]), best.classes_, posts)
    return probabilities, {"C": best.C, "validation_f1_weighted": score}


def boosted_trees(
    vectors: Mapping[str, np.ndarray], posts: Splits, class_weights: Sequence[float] | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Predict test posts with gradient-boosted trees on principal components.

    Trees on all dimensions of several encoders take minutes. The number of trees is chosen on validation.

    Args:
        vectors (mapping): `(num_posts, dim)` of train, validation and test.
        posts (mapping of `Dataset`): the posts, with labels.
        class_weights (sequence of `float`, *optional*): weight of each label in the loss.

    Returns:
        Probabilities `(num_posts, num_labels)` of the test posts, and the chosen number.
    """
    train, validation = np.array(posts["train"]["label"]), np.array(posts["validation"]["label"])
    size = min(COMPONENTS, *vectors["train"].shape)
    components = PCA(size, random_state=0).fit(vectors["train"])
    reduced = {name: components.transform(values) for name, values in vectors.items()}
    model = HistGradientBoostingClassifier(
        max_iter=MAX_TREES, learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=0
    ).fit(reduced["train"], train, _of_posts(class_weights, train))
    scores = [weighted_f1(validation, predicted) for predicted in model.staged_predict(reduced["validation"])]
    trees = int(np.argmax(scores))
    probabilities = next(itertools.islice(model.staged_predict_proba(reduced["test"]), trees, None))
    chosen = {"trees": trees + 1, "components": size, "validation_f1_weighted": scores[trees]}
    return _of_all_labels(probabilities, model.classes_, posts), chosen


def weighted_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the weighted F1; a class without predictions counts as 0."""
    return float(f1_score(labels, predictions, average="weighted", zero_division=0))


def _of_posts(class_weights: Sequence[float] | None, labels: np.ndarray) -> np.ndarray | None:
    """Return the weight of each post.

    Boosting reads its own `class_weight` by position among the labels that train has.
    """
    return None if class_weights is None else np.asarray(class_weights)[labels]


def _of_all_labels(probabilities: np.ndarray, classes: np.ndarray, posts: Splits) -> np.ndarray:
    """Add columns of zeros for labels that are absent from train."""
    result = np.zeros((len(probabilities), posts["train"].features["label"].num_classes))
    result[:, classes] = probabilities
    return result
