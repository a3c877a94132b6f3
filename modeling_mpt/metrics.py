"""Metrics of a sentiment classifier for the Trainer: accuracy, weighted and macro F1."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from transformers.trainer_utils import EvalPrediction


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy, weighted and macro F1 of an evaluation.

    Macro F1 averages over all classes of the model; a class that neither occurs nor is predicted counts as 0.

    Args:
        prediction ([`EvalPrediction`]):
            `predictions` holds the logits of shape `(num_posts, num_classes)`, or a tuple that starts with them;
            `label_ids` the class indices of shape `(num_posts,)`.

    Returns:
        `accuracy`, `f1_weighted`, `f1_macro`, to which the Trainer adds the prefix `eval_`.
    """
    outputs = prediction.predictions
    logits = np.asarray(outputs[0] if isinstance(outputs, tuple | list) else outputs)
    labels, predictions = prediction.label_ids, logits.argmax(axis=1)
    options = {"labels": range(logits.shape[1]), "zero_division": 0}
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1_weighted": float(f1_score(labels, predictions, average="weighted", **options)),
        "f1_macro": float(f1_score(labels, predictions, average="macro", **options)),
    }
