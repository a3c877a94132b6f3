"""Explanations of posts: predictions, attributions, faithfulness, and their JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mpt_sentiment.explaining.faithfulness import Faithfulness
from mpt_sentiment.explaining.post import MODALITIES, PERSPECTIVES, RATIONALE_WORDS, REGIONS, WORDS, PostParts


@dataclass
class Explanation:
    """Prediction for one post, and the attributions of its parts.

    Attributes:
        id (`str`, *optional*): of the post.
        parts ([`PostParts`]): its words, regions, perspectives and modalities.
        result (`dict`): result of [`MPTPipeline`].
        label (`str`, *optional*): the post's own label.
        log_odds (`float`): of the predicted class.
        attributions (`dict[str, np.ndarray]`): by kind, one value for each of `parts.names`: what the part adds to the
            log-odds of the predicted class; with the method `attention`, its share of it.
        path_ends (`tuple[float, float]`, *optional*): of integrated gradients, see [`path_ends`].
        areas (`dict[str, tuple[float, float]]`): by kind, see [`deletion_areas`].
    """

    id: str | None
    parts: PostParts
    result: dict[str, Any]
    label: str | None
    log_odds: float
    attributions: dict[str, np.ndarray]
    path_ends: tuple[float, float] | None = None
    areas: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        parts, regions = self.parts, self.attributions.get(REGIONS)
        return {
            "id": self.id,
            "label": self.label,
            "prediction": self.result["label"],
            "probabilities": self.result["scores"],
            "log_odds": self.log_odds,
            "path_ends": self.path_ends,
            "modality_weights": self.result["modality_weights"],
            "perspective_weights": self.result["perspective_weights"],
            MODALITIES: self.values(MODALITIES),
            PERSPECTIVES: self.values(PERSPECTIVES),
            WORDS: self.words(None),
            RATIONALE_WORDS: {name: self.words(name) for name in parts.rationales},
            REGIONS: None if regions is None else np.reshape(regions, (parts.grid, parts.grid)).tolist(),
            "areas": {kind: {"attribution": a, "random": b} for kind, (a, b) in self.areas.items()},
        }

    @property
    def quadrature_error(self) -> float | None:
        """Return the difference of the path's ends that integrated gradients miss.

        `None` for other methods."""
        if self.path_ends is None:
            return None
        gated = [self.attributions[kind] for kind in (WORDS, RATIONALE_WORDS, REGIONS) if kind in self.attributions]
        return self.path_ends[1] - self.path_ends[0] - float(sum(values.sum() for values in gated))

    @property
    def num_unread(self) -> int:
        """Return the number of words after the tokenizer's limit."""
        texts = [self.parts.words, *self.parts.rationales.values()]
        return sum(len(words.spans) - len(words.read) for words in texts if words is not None)

    def values(self, kind: str) -> dict[Any, float]:
        """Map the parts of a kind to their attributions."""
        if kind not in self.attributions:
            return {}
        return dict(zip(self.parts.names[kind], map(float, self.attributions[kind]), strict=True))

    def named_values(self, kind: str) -> list[tuple[str, float]]:
        """List the parts of a kind as texts, with their attributions."""
        parts, named = self.parts, []
        for part, value in self.values(kind).items():
            if kind == WORDS:
                part = parts.words[part]
            elif kind == RATIONALE_WORDS:
                part = parts.rationales[part[0]][part[1]]
            elif kind == REGIONS:
                part = f"row {part // parts.grid + 1} column {part % parts.grid + 1}"
            named.append((part, value))
        return named

    def words(self, perspective: str | None) -> list[dict[str, Any]]:
        """List the words of the text, or of a rationale: `word`, `start`, `end` and `value`.

        The value is `None` for a word after the tokenizer's limit.
        """
        words = self.parts.words if perspective is None else self.parts.rationales[perspective]
        kind = WORDS if perspective is None else RATIONALE_WORDS
        if words is None:
            return []
        values = self.values(kind)
        rows = []
        for index, (start, end) in enumerate(words.spans):
            value = values.get(index if perspective is None else (perspective, index))
            rows.append({"word": words[index], "start": start, "end": end, "value": value})
        return rows


@dataclass
class Explanations:
    """Explanations of one or several posts by one model.

    Attributes:
        posts (`list[Explanation]`)
        faithfulness (`list[Faithfulness]`): for each kind of parts; empty for one post.
        method (`str`): one of `METHODS`.
        model (`str`): name of the model's folder, empty for a model in memory.
        notes (`list[str]`): counts of posts that were left out, and other remarks.
        settings (`dict`): arguments of `explain` that the numbers depend on.
    """

    posts: list[Explanation]
    faithfulness: list[Faithfulness]
    method: str
    model: str
    notes: list[str]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return {
            "model": self.model,
            "method": self.method,
            "unit": "share of attention" if self.method == "attention" else "log-odds of the predicted class",
            "settings": self.settings,
            "notes": self.notes,
            "faithfulness": [{**asdict(result), "trusted": result.trusted} for result in self.faithfulness],
            "posts": [post.to_dict() for post in self.posts],
        }
