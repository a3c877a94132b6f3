"""`evaluate` module: scores with intervals, per class, confusion, calibration error."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

BINS = 15

_DESCRIPTION = """
The scores of image+text sentiment benchmarks (MVSA, Memotion, CH-Mits): accuracy, F1 weighted by the classes' true
shares, macro F1, their bootstrap intervals, precision, recall, F1 and support of each class, the confusion matrix, and
the expected calibration error in 15 bins of equal mass. A ratio with denominator 0 is 0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `int`): Predicted class indices.
    references (`list` of `int`): True class indices.
    label_names (`list` of `str`, *optional*): Name of each class, in index order. With it, macro F1 averages over
        all of them; without it, over the classes that occur in predictions or references, named by their index.
    probabilities (`list` of `list` of `float`, *optional*): Class probabilities of each post, in index order, for the
        calibration error. It compares the highest with the correctness of the prediction.
    num_resamples (`int`, defaults to 1000): Bootstrap samples of the posts; 0 leaves the intervals out.
    seed (`int`, defaults to 0): Seed of the bootstrap.
Returns:
    `dict` with `accuracy`, `f1_weighted`, `f1_macro`; `per_class`: label → `precision`, `recall`, `f1`, `support`;
    `confusion_matrix`: rows are true labels; `expected_calibration_error`, if there are probabilities; `intervals`:
    score → percentile 95 % interval `[low, high]`, of the calibration error the basic interval.
Examples:
    >>> metric = evaluate.load(str(mpt_sentiment.evaluation.METRIC_PATH))
    >>> metric.compute(predictions=[0, 1, 2, 2], references=[0, 1, 1, 2])["accuracy"]
    0.75
"""

_CITATION = """
@article{scikit-learn,
  title = {Scikit-learn: Machine Learning in {P}ython},
  author = {Pedregosa, F. and others},
  journal = {Journal of Machine Learning Research},
  volume = {12},
  pages = {2825--2830},
  year = {2011}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MPTSentiment(evaluate.Metric):
    """Metric class that `evaluate.load` finds."""

    def _info(self):
        index = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": index, "references": index}),
        )

    def _compute(self, predictions, references, label_names=None, probabilities=None, num_resamples=1000, seed=0):
        occurring = sorted(set(predictions) | set(references))
        if label_names is None:
            indices, names = occurring, [str(index) for index in occurring]
        else:
            indices, names = list(range(len(label_names))), list(label_names)
            unknown = [index for index in occurring if index not in range(len(names))]
            if unknown:
                raise ValueError(
                    f"Class index {unknown[0]} has no name: `label_names` has {len(names)} names {names}; pass one "
                    "name for each index in predictions and references."
                )
        columns = precision_recall_fscore_support(references, predictions, labels=indices, zero_division=0)
        precision, recall, f1, support = (column.tolist() for column in columns)
        confusion = confusion_matrix(references, predictions, labels=indices)
        scores = {name: float(value) for name, value in _scores(confusion).items()}
        drawn = np.random.default_rng(seed).multinomial(
            len(references), confusion.reshape(-1) / len(references), size=num_resamples
        )
        resampled = _scores(drawn.reshape(-1, *confusion.shape))
        intervals = {name: _quantiles(values) for name, values in resampled.items()} if num_resamples else {}
        if probabilities is not None:
            error, interval = _calibration_error(probabilities, predictions, references, num_resamples, seed)
            scores["expected_calibration_error"] = error
            intervals |= {"expected_calibration_error": interval} if num_resamples else {}
        return {
            **scores,
            "per_class": {
                name: {"precision": p, "recall": r, "f1": f, "support": s}
                for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
            },
            "confusion_matrix": confusion.tolist(),
            **({"intervals": intervals} if num_resamples else {}),
        }


def _scores(confusion):
    """Compute accuracy and mean F1 of a stack of confusion matrices."""
    correct, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    sizes = support + confusion.sum(axis=-2)
    f1 = np.divide(2 * correct, sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    total = support.sum(axis=-1)
    return {
        "accuracy": correct.sum(axis=-1) / total,
        "f1_weighted": (f1 * support).sum(axis=-1) / total,
        "f1_macro": f1.mean(axis=-1),
    }


def _calibration_error(probabilities, predictions, references, num_resamples, seed):
    """Compute the calibration error in bins of equal mass, and its basic bootstrap interval."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or len(probabilities) != len(references):
        raise ValueError(
            f"`probabilities` must be one list of class probabilities per post, {len(references)} in all, got the "
            f"shape {probabilities.shape}."
        )
    confidence, num_posts = probabilities.max(axis=1), len(references)
    bins = np.searchsorted(np.sort(confidence), confidence) * BINS // num_posts
    gaps = np.zeros((num_posts, BINS))
    gaps[np.arange(num_posts), bins] = np.equal(predictions, references) - confidence
    error = float(np.abs(gaps.sum(axis=0)).sum() / num_posts)
    if not num_resamples:
        return error, None
    draws = np.random.default_rng(seed).multinomial(num_posts, np.full(num_posts, 1 / num_posts), num_resamples)
    low, high = _quantiles(np.abs(draws.astype(np.float64) @ gaps).sum(axis=1) / num_posts)
    return error, [min(max(bound, 0.0), 1.0) for bound in (2 * error - high, 2 * error - low)]


def _quantiles(values):
    return np.quantile(values, (0.025, 0.975)).tolist()
