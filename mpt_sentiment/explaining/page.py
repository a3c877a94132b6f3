"""HTML page of explanations: coloured words, heat maps on images, bars of effects."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from dataset_scripts.output import atomic_path
from mpt_sentiment.explaining.explanation import Explanation, Explanations
from mpt_sentiment.explaining.faithfulness import MIN_POSTS, Faithfulness
from mpt_sentiment.explaining.post import MODALITIES, PERSPECTIVES, RATIONALE_WORDS, REGIONS, WORDS, PostParts
from mpt_sentiment.explaining.words import Words

TITLES = {
    WORDS: "words of the text",
    RATIONALE_WORDS: "words of the rationales",
    REGIONS: "regions of the image",
    PERSPECTIVES: "perspectives",
    MODALITIES: "modalities",
}
METHOD_TITLES = {
    "leave_one_out": "leave-one-out: each part is deleted in turn",
    "integrated_gradients": "integrated gradients of words and regions; perspectives and modalities left out in turn",
    "attention": "attention of the encoders' last layer, as in the paper's Fig. 8",
}
TEMPLATES = Path(__file__).parent
_IMAGE_SIDE = 640
_STRONGEST_COLOUR = 0.6  # opacity of the strongest part, which keeps text legible
_WEAK_EFFECT = 0.1  # log-odds; a change of the probability by at most 2.5 percentage points


def write_page(explanations: Explanations, output: str | Path) -> None:
    """Write the page, and its numbers to a JSON file of the same name."""
    with atomic_path(Path(output).with_suffix(".json")) as path:
        path.write_text(json.dumps(explanations.to_dict(), ensure_ascii=False, indent=1), encoding="utf-8")
    with atomic_path(output) as path:
        path.write_text(page_html(explanations), encoding="utf-8")


def page_html(explanations: Explanations) -> str:
    """Render a page without scripts and external references. Texts are escaped."""
    return environment(TEMPLATES).get_template("page.html").render(page_values(explanations))


def environment(*folders: Path) -> jinja2.Environment:
    """Create the environment of pages; texts are escaped."""
    loader = jinja2.FileSystemLoader(folders, encoding="utf-8")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"signed": signed, "points": points, "percent": percent}
    return pages


def page_values(explanations: Explanations) -> dict[str, Any]:
    """Return the variables of the templates `page.html` and `posts.html`."""
    tests = [
        {"title": TITLES[test.kind], "test": test, "verdict": verdict(test), "trusted": test.trusted}
        for test in explanations.faithfulness
    ]
    return {
        "explanations": explanations,
        "method": METHOD_TITLES[explanations.method],
        "tests": tests,
        "untrusted": {test.kind for test in explanations.faithfulness if test.trusted is False},
        "posts": [_post(explanation, explanations.method) for explanation in explanations.posts],
    }


def verdict(test: Faithfulness) -> str:
    """Say whether attributions of one kind can be trusted."""
    if test.trusted is None:
        return f"not decided: fewer than {MIN_POSTS} posts"
    if not test.trusted:
        return "not to be trusted"
    return "trusted" if points(test.difference) != points(0) else "trusted, but without effect"


def signed(value: float) -> str:
    """Write a number with its sign and three digits."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


def points(value: float) -> str:
    """Write a difference of probabilities in percentage points."""
    return f"{round(100 * value, 2) + 0.0:.2f}".replace("-", "−")


def percent(value: float) -> str:
    """Write a probability in percent."""
    return f"{100 * value:.1f} %"


def _post(explanation: Explanation, method: str) -> dict[str, Any]:
    """Prepare a post for the template."""
    parts, result = explanation.parts, explanation.result
    weak = 0.0 if method == "attention" else _WEAK_EFFECT  # attention is a share, most of them far below 0.1
    rows = [value for kind in (MODALITIES, PERSPECTIVES) for value in explanation.values(kind).values()]
    longest = max(map(abs, rows), default=0) or 1
    of_rationales = explanation.attributions.get(RATIONALE_WORDS)
    return {
        "explanation": explanation,
        "result": result,
        "image": None if parts.image is None else data_uri(parts.image),
        "box": None if parts.box is None else _percentages(parts.box),
        "cells": _cells(parts, explanation.attributions.get(REGIONS), weak),
        "strongest": {kind: values[np.abs(values).argmax()] for kind, values in explanation.attributions.items()},
        "text": _segments(parts.words, explanation.words(None), explanation.attributions.get(WORDS), weak),
        "rationales": {
            name: _segments(words, explanation.words(name), of_rationales, weak)
            for name, words in parts.rationales.items()
        },
        "bars": {
            MODALITIES: _bars(explanation.values(MODALITIES), result["modality_weights"], longest),
            PERSPECTIVES: _bars(explanation.values(PERSPECTIVES), result["perspective_weights"], longest),
        },
    }


def data_uri(image: Image.Image, side: int = _IMAGE_SIDE) -> str:
    """Encode an image as a JPEG of at most `side` pixels, by default 640, in a data URI."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _colour(value: float, strongest: float) -> dict[str, Any]:
    """Return class and opacity of a value; the `strongest` one is above 0."""
    opacity = _STRONGEST_COLOUR * abs(value) / strongest
    return {"sign": "for" if value >= 0 else "against", "opacity": round(opacity, 3), "value": value}


def _segments(
    words: Words | None, rows: list[dict[str, Any]], values: np.ndarray | None, weak: float
) -> list[dict[str, Any]]:
    """Cut a text into words, with their colours, and the spaces between them.

    One scale is used for `values`, all words of this kind. Without values, the text is one piece without colour.
    """
    if words is None:
        return []
    if values is None:
        return [{"text": words.text, "word": False}]
    strongest = _strongest(values, weak)
    segments, position = [], 0
    for row in rows:
        if row["start"] > position:
            segments.append({"text": words.text[position : row["start"]], "word": False})
        position = row["end"]
        colour = None if row["value"] is None else _colour(row["value"], strongest)
        segments.append({"text": row["word"], "word": True, "colour": colour})
    return segments


def _strongest(values: np.ndarray, weak: float) -> float:
    """Return the value that has the strongest colour."""
    return max(float(np.abs(values).max()), weak) or 1.0


def _cells(parts: PostParts, values: np.ndarray | None, weak: float) -> list[dict[str, Any]]:
    """Return the regions with row, column and colour."""
    if values is None:
        return []
    strongest = _strongest(values, weak)
    return [
        {"row": index // parts.grid, "column": index % parts.grid, **_colour(float(value), strongest)}
        for index, value in enumerate(values)
    ]


def _bars(effects: dict[str, float], weights: dict[str, float] | None, longest: float) -> list[dict[str, Any]]:
    """Return one row per modality or perspective: effect, its bar in percent, and weight."""
    return [
        {
            "name": name,
            "effect": effect,
            "sign": "for" if effect >= 0 else "against",
            "length": round(50 * abs(effect) / longest, 2),
            "weight": None if weights is None else weights[name],
        }
        for name, effect in effects.items()
    ]


def _percentages(box: tuple[float, float, float, float]) -> dict[str, float]:
    left, top, right, bottom = (round(100 * share, 3) for share in box)
    return {"left": left, "top": top, "width": right - left, "height": bottom - top}
