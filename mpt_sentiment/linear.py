"""Baselines without a network of their own, the floors of every comparison.

The majority label, logistic regression on TF-IDF, and logistic regression and gradient boosting on the vectors of
frozen encoders. Strength and number of trees are chosen on validation by weighted F1; test is scored once. Classes
are weighed as those of networks are, by `class_weights`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import DatasetDict
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from dataset_scripts.schema import has_values
from mpt_sentiment.backbones import weights_of_classes
from mpt_sentiment.classifiers import (
    DENSE_STRENGTHS,
    SPARSE_STRENGTHS,
    Splits,
    boosted_trees,
    logistic_regression,
)
from mpt_sentiment.frozen_features import frozen_features
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.training_data import modalities_of
from processing_mpt.texts_mpt import TEXT_PREPROCESSING

# Words of two characters or more; of Chinese and Japanese, which have no spaces, single characters.
_CHARACTER = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
TOKENS = rf"[{_CHARACTER}]|[^\W{_CHARACTER}]{{2,}}"

# Probabilities `(num_posts, num_labels)` of the test posts, and facts for the metrics of the run.
Floor = tuple[np.ndarray, dict[str, Any]]


def with_prepared_texts(posts: Splits, text_preprocessing: str) -> Splits:
    """Return posts whose texts are prepared as the processor of a model does."""
    prepare = TEXT_PREPROCESSING[text_preprocessing]
    prepared = {}
    for name, split in posts.items():
        texts = [text and prepare(text) for text in split["text"]]
        prepared[name] = split.remove_columns("text").add_column("text", texts, feature=split.features["text"])
    return DatasetDict(prepared)


def rationale_columns(posts: Splits) -> list[str]:
    """List the columns of rationales that a train post has."""
    train = posts["train"]
    return [name for name in train.column_names if name.startswith("rationale_") and has_values(train, name)]


def majority(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> Floor:
    """Predict the most frequent label of train for every test post."""
    size = posts["train"].features["label"].num_classes
    most_frequent = int(np.bincount(posts["train"]["label"], minlength=size).argmax())
    return np.tile(np.eye(size)[most_frequent], (len(posts["test"]), 1)), {}


def tfidf_regression(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> Floor:
    """Predict test posts with logistic regression on TF-IDF of texts and rationales.

    Raises:
        ValueError: no word to learn from.
    """
    posts = with_prepared_texts(posts, setup.model.text_preprocessing)
    columns = ["text"] if "text" in modalities and has_values(posts["train"], "text") else []
    columns += rationale_columns(posts) if "rationales" in modalities else []
    if not columns:
        raise ValueError(f"TF-IDF reads {' and '.join(modalities)}, and no train post has any.")
    weights = weights_of_classes(setup.model.class_weights, posts["train"])
    probabilities, chosen = logistic_regression(tfidf(posts, columns), posts, SPARSE_STRENGTHS, weights)
    return probabilities, {"chosen": chosen}


def tfidf(splits: Splits, columns: Sequence[str]) -> dict[str, sparse.csr_matrix]:
    """Weigh unigrams and bigrams of the [`TOKENS`] of each column by TF-IDF, fitted on train."""
    parts: dict[str, list] = {name: [] for name in splits}
    for column in columns:
        vectorizer = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        try:
            vectorizer.fit(value or "" for value in splits["train"][column])
        except ValueError:  # the vocabulary is empty
            raise ValueError(
                f"TF-IDF needs a word that two train posts have in {column!r}, and there is none."
            ) from None
        for name, split in splits.items():
            parts[name].append(vectorizer.transform(value or "" for value in split[column]))
    return {name: sparse.hstack(blocks).tocsr() for name, blocks in parts.items()}


def frozen_regression(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> Floor:
    """Predict test posts with logistic regression on the vectors of frozen encoders."""
    return _on_frozen_features(
        lambda vectors, weights: logistic_regression(vectors, posts, DENSE_STRENGTHS, weights),
        posts,
        modalities,
        setup,
    )


def frozen_boosting(posts: Splits, modalities: Sequence[str], setup: TrainingSetup) -> Floor:
    """Predict test posts with gradient boosting on the vectors of frozen encoders."""
    return _on_frozen_features(
        lambda vectors, weights: boosted_trees(vectors, posts, weights), posts, modalities, setup
    )


def _on_frozen_features(
    predict: Callable[[dict[str, np.ndarray], list[float] | None], Floor],
    posts: Splits,
    modalities: Sequence[str],
    setup: TrainingSetup,
) -> Floor:
    """Predict from the vectors of those modalities that posts have, and that MPT reads.

    Raises:
        ValueError: there are none, or see [`frozen_features`].
    """
    present = setup.model.modalities or modalities_of(posts)
    read = [name for name in modalities if name in present]
    if not read:
        raise ValueError(f"It reads {' and '.join(modalities)}, and there are {', '.join(present)} alone.")
    features = frozen_features(posts, read, setup)
    probabilities, chosen = predict(features.vectors, weights_of_classes(setup.model.class_weights, posts["train"]))
    system = {"modalities": read, "untrained_images": features.untrained_images}
    return probabilities, {"system": system, "chosen": chosen}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A system of comparisons without a network of its own.

    Attributes:
        predict (callable): gets train, validation and test posts, the modalities of the row, and MPT's arguments,
            whose encoders and preparation of texts it may use. Returns probabilities of the test posts
            `(num_posts, num_labels)`, and facts for the metrics of the run; it must be deterministic.
        reads (`tuple[str]`): modalities that a row can have; without further words it has all but rationales.
        rows (`tuple[str]`): its rows of a comparison of all systems, e.g. `"+rationales"`; see `mpt_sentiment.rows`.
        remark (`str`): note in the table.
    """

    predict: Callable[[Splits, Sequence[str], TrainingSetup], Floor]
    reads: tuple[str, ...] = ()
    rows: tuple[str, ...] = ("",)
    remark: str = ""

    @property
    def reads_encoders(self) -> bool:
        """Return whether it reads vectors of encoders: it alone reads images."""
        return "image" in self.reads


_ALL = ("text", "image", "rationales")
_SINGLE = ("-image", "-text", "-text -image +rationales")

BASELINES: dict[str, Baseline] = {
    "majority": Baseline(majority),
    "tfidf": Baseline(tfidf_regression, ("text", "rationales"), ("", "+rationales", "shuffled")),
    "logistic": Baseline(
        frozen_regression,
        _ALL,
        (*_SINGLE, "", "-image +rationales", "+rationales", "shuffled"),
        "logistic regression on frozen encoders",
    ),
    "boosting": Baseline(
        frozen_boosting,
        _ALL,
        (*_SINGLE, "", "+rationales"),
        "gradient boosting on principal components of frozen encoders",
    ),
}
