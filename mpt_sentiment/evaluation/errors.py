"""Error table: accuracy by class, length, missing modality, language, label agreement."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from dataset_scripts.output import markdown_table
from dataset_scripts.schema import null_rows
from mpt_sentiment.evaluation.calibration import share_interval
from mpt_sentiment.evaluation.scored_posts import scored_posts

RATIONALE = "rationale_"


def error_table(predictions: pa.Table, posts: Dataset, row: str | None = None) -> list[dict[str, Any]]:
    """Compute the accuracy on parts of the posts.

    The parts are those of each true label, each quarter of the posts by the length of the text, each combination of
    missing modalities, each language, and each kind of agreement between the labels of text and image.

    Args:
        predictions (`pa.Table`): predictions of a run, or out-of-fold predictions of a comparison.
        posts (`Dataset`): the posts with these ids; others are ignored.
        row (`str`, *optional*): system of a comparison, needed if there are several.

    Returns:
        For each part: `aspect`, `part`, `posts`, `errors`, `accuracy`, its Wilson 95 % `interval`, and the mean
        `confidence` in the predictions.

    Raises:
        ValueError: predictions of posts that are not given, or see [`scored_posts`].
    """
    scored = scored_posts(predictions, row)
    place = {post_id: number for number, post_id in enumerate(posts["id"])}
    missing = [post_id for post_id in scored.ids if post_id not in place]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(scored.ids)} predicted posts, the first {missing[0]!r}, are not among the posts; "
            "pass the posts that were predicted."
        )
    posts = posts.select([place[post_id] for post_id in scored.ids])
    wrong = scored.probabilities.argmax(axis=1) != scored.labels
    confidence = scored.probabilities.max(axis=1)
    names = [scored.label_names[label] for label in scored.labels]
    rows = []
    for aspect, parts in [("label", names), *_parts(posts)]:
        for part in _in_order(parts, scored.label_names):
            chosen = np.array([each == part for each in parts])
            count, errors = int(chosen.sum()), int(wrong[chosen].sum())
            rows.append(
                {
                    "aspect": aspect,
                    "part": part,
                    "posts": count,
                    "errors": errors,
                    "accuracy": 1 - errors / count,
                    "interval": share_interval(count - errors, count),
                    "confidence": float(confidence[chosen].mean()),
                }
            )
    return rows


def error_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows of [`error_table`] as a Markdown table in percent."""
    cells = [
        [
            row["aspect"],
            row["part"],
            f"{row['posts']:,}",
            f"{row['errors']:,}",
            f"{100 * row['accuracy']:.1f}",
            " – ".join(f"{100 * bound:.1f}" for bound in row["interval"]),
            f"{100 * row['confidence']:.1f}",
        ]
        for row in rows
    ]
    header = ["By", "Part", "Posts", "Errors", "Accuracy, %", "95 % interval", "Mean confidence, %"]
    return markdown_table(header, cells, "llrrrrr")


def _parts(posts: Dataset) -> Iterator[tuple[str, list[str]]]:
    """Yield each aspect with the part that every post belongs to."""
    texts = [(text or "").strip() for text in posts["text"]]
    yield "length of text", _lengths(texts)
    rationales = [name for name in posts.column_names if name.startswith(RATIONALE)]
    columns = {"image": ["image"], "rationales": rationales}
    absent = {"text": {number for number, text in enumerate(texts) if not text}}
    absent |= {name: null_rows(posts, given) for name, given in columns.items() if given}
    yield (
        "missing",
        [
            " and ".join(name for name, rows in absent.items() if number in rows) or "nothing"
            for number in range(len(posts))
        ],
    )
    yield "language", [language or "unknown" for language in posts["language"]]
    if {"text_label", "image_label"} <= {*posts.column_names}:
        names = posts.features["text_label"].names
        pairs = zip(posts["text_label"], posts["image_label"], strict=True)
        yield "labels of text and image", [agreement(*pair, names) for pair in pairs]


def _lengths(texts: Sequence[str]) -> list[str]:
    """Name for each text the quarter of the posts that its number of characters is in."""
    lengths = np.array([len(text) for text in texts])
    given = np.sort(lengths[lengths > 0])
    # The last length of each quarter; equal lengths are in one part.
    ends = np.unique(given[np.arange(1, 5) * len(given) // 4 - 1]) if len(given) >= 4 else np.unique(given[-1:])
    starts = [1, *(ends[:-1] + 1)]
    parts = [
        f"{start} to {end} characters" if start < end else f"{end} characters"
        for start, end in zip(starts, ends, strict=True)
    ]
    return ["no text" if length == 0 else parts[np.searchsorted(ends, length)] for length in lengths]


def agreement(text: int | None, image: int | None, names: Sequence[str]) -> str:
    """Name the kind of agreement between the labels of a post's text and image."""
    if text is None or image is None:
        return "not labelled apart"
    if text == image:
        return "agree"
    return "one is neutral" if "neutral" in (names[text], names[image]) else "opposite"


def _in_order(parts: Sequence[str], label_names: Sequence[str]) -> list[str]:
    """List distinct parts, classes in their order, lengths by number, others by name."""
    present = set(parts)
    if present <= {*label_names}:
        return [name for name in label_names if name in present]
    return sorted(present, key=lambda part: (int(part.split()[0]) if part[0].isdigit() else 0, part))
