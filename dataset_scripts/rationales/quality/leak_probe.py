"""Leak probe: accuracy of a linear model that predicts the label from rationales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

from dataset_scripts.duplicates import group_ids
from dataset_scripts.rationales.quality.gate import HARD, is_written
from dataset_scripts.rationales.quality.summary import apply_gate, perspectives_of
from dataset_scripts.schema import rationale_column


def leak_probe(
    posts: Dataset,
    *,
    seed: int = 42,
    folds: int = 10,
    max_posts: int = 20_000,
    language: str | None = None,
) -> dict[str, Any]:
    """Cross-validate logistic regression on TF-IDF features of text and of rationales.

    Features are character n-grams.

    Interpretation: a generator that saw the post without its label writes its own opinion into the rationales. They
    alone may then score close to the text, or above it where the image decides, and text with rationales scores little
    above the better of the two. Rationales that score far above the zero-shot accuracy of their generator indicate a
    leak. `gate flags` predicts from hard flags and missing rationales alone: its gain over `majority` measures how
    much masking or dropping flagged rationales would reveal about the label.

    Args:
        posts (`Dataset`): with the columns of `schema.features`. Posts without label or without any rationale are
            omitted and counted.
        seed (`int`, defaults to 42): seed of the folds and of the sample.
        folds (`int`, defaults to 10): number of folds. Posts with the same text or image are in one fold
            (`duplicates.group_ids`).
        max_posts (`int`, defaults to 20,000): size of a random sample, taken from larger datasets to limit memory.
        language (`str`, *optional*): see `apply_gate`.

    Returns:
        JSON values: `posts`, `left_out`, `groups`, `folds`, `seed`, and `inputs`, a dictionary from each input to its
        `accuracy` and `f1_macro` over the held-out predictions of all posts.

    Raises:
        ValueError: fewer than two classes, or fewer posts of one class than folds.
    """
    perspectives = perspectives_of(posts)
    usable = _usable(posts, perspectives)
    left_out = len(posts) - len(usable)
    if len(usable) > max_posts:
        usable = np.sort(np.random.default_rng(seed).choice(usable, max_posts, replace=False))
    posts = posts.select(usable)
    labels = np.array(posts["label"], dtype=int)
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < folds:
        raise ValueError(
            f"The leak probe needs at least two classes with {folds} labelled posts that have rationales, got "
            f"{counts.tolist()} posts by class. Lower `folds`, or pass more posts."
        )
    groups = group_ids(posts)
    columns = {name: _count(posts[rationale_column(name)]) for name in perspectives} | {"text": _count(posts["text"])}
    inputs = _inputs(perspectives)
    flags = _flag_features(apply_gate(posts, language=language), perspectives)
    predicted = {name: np.empty_like(labels) for name in ("majority", *inputs, "gate flags")}
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in tqdm(splitter.split(labels, labels, groups), total=folds, desc="Leak probe"):
        weighted = {name: _weigh(counts, train, test) for name, counts in columns.items()}
        predicted["majority"][test] = np.bincount(labels[train]).argmax()
        predicted["gate flags"][test] = _fit(flags[train], labels[train]).predict(flags[test])
        for name, names in inputs.items():
            fitting, held_out = (sparse.hstack([weighted[column][half] for column in names], "csr") for half in (0, 1))
            predicted[name][test] = _fit(fitting, labels[train]).predict(held_out)
    return {
        "posts": len(posts),
        "left_out": left_out,
        "groups": len(set(groups)),
        "folds": folds,
        "seed": seed,
        "inputs": {name: _scores(labels, predictions) for name, predictions in predicted.items()},
    }


def _usable(posts: Dataset, perspectives: Sequence[str]) -> np.ndarray:
    written = np.zeros(len(posts), dtype=bool)
    for name in perspectives:
        written |= np.array(list(map(is_written, posts[rationale_column(name)])))
    labelled = np.array([label is not None for label in posts["label"]])
    return np.flatnonzero(written & labelled)


def _inputs(perspectives: Sequence[str]) -> dict[str, list[str]]:
    single = {f"{name} rationale": [name] for name in perspectives}
    together = {"all rationales": [*perspectives]} if len(perspectives) > 1 else {}
    return {"text": ["text"], **single, **together, "text + rationales": ["text", *perspectives]}


def _flag_features(flags: Dataset, perspectives: Sequence[str]) -> np.ndarray:
    """Encode missing rationales and hard codes: `(posts, perspectives * (1 + hard codes))`."""
    blocks = [
        [[codes is None, *(code in (codes or ()) for code in HARD)] for codes in flags[f"flags_{name}"]]
        for name in perspectives
    ]
    return np.hstack(blocks).astype(float)


def _count(values: Iterable[str | None]) -> sparse.csr_matrix:
    """Count character n-grams, which need no word segmentation of Chinese."""
    return CountVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2).fit_transform(
        value or "" for value in values
    )


def _weigh(counts: sparse.csr_matrix, train: np.ndarray, test: np.ndarray) -> tuple[sparse.csr_matrix, ...]:
    weights = TfidfTransformer(sublinear_tf=True).fit(counts[train])
    return weights.transform(counts[train]), weights.transform(counts[test])


def _fit(features: Any, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)


def _scores(labels: np.ndarray, predictions: np.ndarray) -> Mapping[str, float]:
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1_macro": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }
