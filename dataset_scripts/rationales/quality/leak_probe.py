"""How much of the label can a linear model read off the rationales?"""

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
from dataset_scripts.rationales.quality.gate import HARD
from dataset_scripts.rationales.quality.summary import judge, perspectives_of
from dataset_scripts.schema import rationale_column


def leak_probe(
    posts: Dataset,
    *,
    seed: int = 42,
    folds: int = 10,
    max_posts: int = 20_000,
    language: str | None = None,
) -> dict[str, Any]:
    """Cross-validated accuracy of logistic regression on TF-IDF of character n-grams, for text and rationales.

    What to read off it: a model that has seen the post and not the label writes its own opinion into the rationales,
    so they alone may come close to the text, or beat it where the image decides; text with rationales should gain
    little over the better of the two. Rationales that predict the label far better than the model that wrote them
    would by itself have seen it. `gate flags` predicts from hard flags and gaps alone: what it gains over `majority`
    is what masking or dropping flagged rationales would tell about the label.

    Args:
        posts (`Dataset`): with the columns of `schema.features`. Posts without label or without any rationale are
            left out, and counted.
        seed (`int`, defaults to 42): of the folds, and of the sample.
        folds (`int`, defaults to 10): posts with the same text or image are in one fold (`duplicates.group_ids`).
        max_posts (`int`, defaults to 20,000): a random sample of so many is enough, and all that fits into memory.
        language (`str`, *optional*): as for `judge`.

    Returns:
        Plain JSON values: `posts`, `left_out`, `groups`, `folds`, `seed`, and `inputs`, from the name of an input to
        its `accuracy` and `f1_macro` over all posts, each predicted once, by the model that has not seen its group.

    Raises:
        ValueError: fewer than two classes, or fewer posts of one than folds.
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
            f"The probe needs two classes or more with at least {folds} labelled posts each that have "
            f"rationales; these have {counts.tolist()}. Lower folds=…, or probe more posts."
        )
    groups = group_ids(posts)
    columns = {name: _count(posts[rationale_column(name)]) for name in perspectives} | {"text": _count(posts["text"])}
    inputs = _inputs(perspectives)
    flags = _flags(judge(posts, language=language), perspectives)
    predicted = {name: np.empty_like(labels) for name in ("majority", *inputs, "gate flags")}
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in tqdm(splitter.split(labels, labels, groups), total=folds, desc="Leak probe"):
        parts = {name: _weigh(counts, train, test) for name, counts in columns.items()}
        predicted["majority"][test] = np.bincount(labels[train]).argmax()
        predicted["gate flags"][test] = _fit(flags[train], labels[train]).predict(flags[test])
        for name, read in inputs.items():
            seen, unseen = (sparse.hstack([parts[column][side] for column in read], "csr") for side in (0, 1))
            predicted[name][test] = _fit(seen, labels[train]).predict(unseen)
    return {
        "posts": len(posts),
        "left_out": left_out,
        "groups": len(set(groups)),
        "folds": folds,
        "seed": seed,
        "inputs": {name: _scores(labels, guesses) for name, guesses in predicted.items()},
    }


def _usable(posts: Dataset, perspectives: Sequence[str]) -> np.ndarray:
    written = np.zeros(len(posts), dtype=bool)
    for name in perspectives:
        written |= np.array([bool(value and value.strip()) for value in posts[rationale_column(name)]])
    labelled = np.array([label is not None for label in posts["label"]])
    return np.flatnonzero(written & labelled)


def _inputs(perspectives: Sequence[str]) -> dict[str, list[str]]:
    single = {f"{name} rationale": [name] for name in perspectives}
    together = {"all rationales": [*perspectives]} if len(perspectives) > 1 else {}
    return {"text": ["text"], **single, **together, "text + rationales": ["text", *perspectives]}


def _flags(judged: Dataset, perspectives: Sequence[str]) -> np.ndarray:
    """`(posts, perspectives * (hard codes + 1))`: what the gate knows of a post."""
    rows = []
    for lists in zip(*(judged[f"flags_{name}"] for name in perspectives), strict=True):
        rows.append([value for found in lists for value in (found is None, *(code in (found or ()) for code in HARD))])
    return np.array(rows, dtype=float)


def _count(values: Iterable[str | None]) -> sparse.csr_matrix:
    """Of characters rather than words: Chinese has no blanks to split at."""
    return CountVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2).fit_transform(
        value or "" for value in values
    )


def _weigh(counts: sparse.csr_matrix, train: np.ndarray, test: np.ndarray) -> tuple[sparse.csr_matrix, ...]:
    weights = TfidfTransformer(sublinear_tf=True).fit(counts[train])
    return weights.transform(counts[train]), weights.transform(counts[test])


def _fit(features: Any, labels: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)


def _scores(labels: np.ndarray, guesses: np.ndarray) -> Mapping[str, float]:
    return {
        "accuracy": float(accuracy_score(labels, guesses)),
        "f1_macro": float(f1_score(labels, guesses, average="macro", zero_division=0)),
    }
