"""Faithfulness test: deletion by attribution, against random deletion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from mpt_sentiment.evaluation.bootstrap import percentile_interval
from mpt_sentiment.explaining.network import log_odds_without
from mpt_sentiment.explaining.post import PostParts

# Deleted shares of the parts of a post; at least one part.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
NUM_DRAWS = 5
NUM_RESAMPLES = 10_000
# With fewer posts a bootstrap interval says nothing.
MIN_POSTS = 10


@dataclass(frozen=True)
class Faithfulness:
    """Result of the test for one kind of parts.

    Attributes:
        kind (`str`): kind of the parts.
        num_posts (`int`): posts with at least two parts of this kind.
        area (`float`): area over the perturbation curve: mean fall of the probability of the predicted class, over
            posts and deleted shares, when the parts with the highest attribution are deleted.
        random_area (`float`): the same for random parts.
        difference (`float`): `area - random_area`.
        interval (`tuple[float, float]`, *optional*): its 95 % interval by bootstrap over posts, for at least 10.
    """

    kind: str
    num_posts: int
    area: float
    random_area: float
    difference: float
    interval: tuple[float, float] | None

    @property
    def trusted(self) -> bool | None:
        """Return whether the attribution finds what the network uses; `None` with too few posts."""
        return None if self.interval is None else self.interval[0] > 0


def deletion_areas(
    model: PreTrainedModel,
    post: PostParts,
    kind: str,
    attribution: np.ndarray,
    label: int,
    *,
    batch_size: int = 32,
    num_draws: int = NUM_DRAWS,
    seed: int | Sequence[int] = 0,
) -> tuple[float, float] | None:
    """Compute the areas over the perturbation curves of one post (Samek et al., 2017).

    Args:
        model: a network in evaluation mode.
        post ([`PostParts`])
        kind (`str`): kind of the parts to delete.
        attribution (`np.ndarray` of shape `(parts,)`): the highest is deleted first.
        label (`int`): the predicted class.
        batch_size (`int`, defaults to 32): variants of the post per forward pass.
        num_draws (`int`, defaults to 5): random orders of the parts.
        seed (`int` or sequence of `int`, defaults to 0): seed of these orders.

    Returns:
        Mean fall of the probability of the class over `SHARES`, for the order of the attribution and for random
        orders; `None` for a post with fewer than two parts.
    """
    count = len(attribution)
    if count < 2:
        return None
    random = np.random.default_rng(seed)
    orders = [np.argsort(-attribution, kind="stable"), *(random.permutation(count) for _ in range(num_draws))]
    deleted = np.zeros((1 + len(orders) * len(SHARES), count), dtype=bool)
    row = 1  # the first variant is the post itself
    for order in orders:
        for share in SHARES:
            deleted[row, order[: max(1, round(share * count))]] = True
            row += 1
    values = log_odds_without(model, post, kind, deleted, label, batch_size)
    probabilities = 1 / (1 + np.exp(-values))
    falls = (probabilities[0] - probabilities[1:]).reshape(len(orders), len(SHARES)).mean(axis=1)
    return float(falls[0]), float(falls[1:].mean())


def summarize(areas: Mapping[str, Sequence[tuple[float, float]]], seed: int = 0) -> list[Faithfulness]:
    """Average the areas of several posts, with a bootstrap interval over posts.

    Args:
        areas (mapping): kind of parts → results of [`deletion_areas`], one per post.
        seed (`int`, defaults to 0): seed of the bootstrap.
    """
    results = []
    for kind, pairs in areas.items():
        if not pairs:
            continue
        by_post = np.array(pairs)
        differences = by_post[:, 0] - by_post[:, 1]
        interval = None
        if len(pairs) >= MIN_POSTS:
            draws = np.random.default_rng(seed).integers(len(pairs), size=(NUM_RESAMPLES, len(pairs)))
            interval = tuple(percentile_interval(differences[draws].mean(axis=1)))
        area, random_area = by_post.mean(axis=0)
        results.append(
            Faithfulness(kind, len(pairs), float(area), float(random_area), float(differences.mean()), interval)
        )
    return results
