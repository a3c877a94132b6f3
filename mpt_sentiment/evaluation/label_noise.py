"""Label noise: posts whose label contradicts confident out-of-fold predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mpt_sentiment.evaluation.scored_posts import of_row, scored_posts
from mpt_sentiment.evaluation.scores import confusion_matrix, overall_scores


def label_suspects(predictions: pa.Table, row: str | None = None) -> list[dict[str, Any]]:
    """List posts whose label may be wrong, by confident learning (Northcutt et al., 2021).

    A post is listed if the system predicts another class for it with at least the mean confidence that it has in the
    posts labelled with that class. The predictions must be out of fold: a model contradicts no label that it was
    trained on. Whether a label is wrong is for a person to decide: the system may be.

    Args:
        predictions (`pa.Table`): out-of-fold predictions of a comparison; probabilities are averaged over seeds.
        row (`str`, *optional*): system of the comparison, needed if there are several.

    Returns:
        For each suspect, the most suspicious first: `id`, `label`, `predicted`, `confidence` (probability of the
        predicted class) and `label_probability`.

    Raises:
        ValueError: cleanlab is not installed, or see [`scored_posts`].
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise ValueError("Label noise needs cleanlab: pip install 'mpt-sentiment[noise]'.") from None
    scored = scored_posts(predictions, row)
    order = find_label_issues(
        scored.labels,
        scored.probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    predicted = scored.probabilities.argmax(axis=1)
    return [
        {
            "id": scored.ids[post],
            "label": scored.label_names[scored.labels[post]],
            "predicted": scored.label_names[predicted[post]],
            "confidence": float(scored.probabilities[post, predicted[post]]),
            "label_probability": float(scored.probabilities[post, scored.labels[post]]),
        }
        for post in order
    ]


def scores_without(predictions: pa.Table, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Score each system of a comparison on all posts, and on those that are not suspects.

    The scores of the system that found the suspects rise by construction, because it is wrong on all of them: compare
    the other systems.

    Args:
        predictions (`pa.Table`): out-of-fold predictions of a comparison, or predictions of a run.
        ids (sequence of `str`): ids of the suspects.

    Returns:
        System (`""` for a run) → `posts` and `all`, `posts_without` and `without`; the scores are means over seeds.

    Raises:
        ValueError: all posts are suspects, or see [`scored_posts`].
    """
    suspects = set(ids)
    rows = list(dict.fromkeys(predictions["row"].to_pylist())) if "row" in predictions.column_names else [None]
    results = {}
    for row in rows:
        of_system = of_row(predictions, row)
        seeds = np.array(of_system["seed"].to_pylist() if "seed" in of_system.column_names else [0] * len(of_system))
        runs = [scored_posts(of_system.filter(pa.array(seeds == seed)), row) for seed in dict.fromkeys(seeds.tolist())]
        kept = [np.array([post_id not in suspects for post_id in run.ids]) for run in runs]
        if not all(mask.any() for mask in kept):
            raise ValueError("All posts are suspects; no post is left to score.")
        results[row or ""] = {
            "posts": len(runs[0].ids),
            "all": _mean_scores(runs, [np.full(len(mask), True) for mask in kept]),
            "posts_without": int(kept[0].sum()),
            "without": _mean_scores(runs, kept),
        }
    return results


def _mean_scores(runs: Sequence[Any], masks: Sequence[np.ndarray]) -> dict[str, float]:
    scores = [
        overall_scores(
            confusion_matrix(run.labels[mask], run.probabilities[mask].argmax(axis=1), len(run.label_names))
        )
        for run, mask in zip(runs, masks, strict=True)
    ]
    return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
