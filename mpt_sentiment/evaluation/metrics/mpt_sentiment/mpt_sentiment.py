"""`evaluate` module: accuracy, weighted F1, macro F1 and per-class scores."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

_DESCRIPTION = """
The scores of image+text sentiment benchmarks (MVSA, Memotion, CH-Mits): accuracy, F1 weighted by the classes' true
shares, macro F1, and precision, recall, F1 and support of each class. A ratio with denominator 0 is 0.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `int`): Predicted class indices.
    references (`list` of `int`): True class indices.
    label_names (`list` of `str`, *optional*): Name of each class, in index order. With it, macro F1 averages over
        all of them; without it, over the classes that occur in predictions or references, named by their index.
Returns:
    `dict` with `accuracy`, `f1_weighted`, `f1_macro` and `per_class`: label → `precision`, `recall`, `f1`, `support`.
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

    def _compute(self, predictions, references, label_names=None):
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
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1_weighted": sum(a * b for a, b in zip(f1, support, strict=True)) / sum(support),
            "f1_macro": sum(f1) / len(f1),
            "per_class": {
                name: {"precision": p, "recall": r, "f1": f, "support": s}
                for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
            },
        }
