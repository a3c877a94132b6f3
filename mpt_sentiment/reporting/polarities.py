"""Section on posts whose text and image have opposite polarities (paper, Table 5)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dataset_scripts import rationale_column
from mpt_sentiment.evaluation.calibration import share_interval
from mpt_sentiment.evaluation.comparison import plot_comparison
from mpt_sentiment.evaluation.errors import agreement
from mpt_sentiment.predicting import predict
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.score_tables import score_table
from mpt_sentiment.reporting.section import Omitted, Section, Table, share, shares
from mpt_sentiment.rows import parse_row

OPPOSITE, CONFLICT = "opposite", "one is neutral"
# Kind of posts, name of table and figure, and words for them.
SUBSETS = (
    (OPPOSITE, "polarities_opposite", "Labels of text and image are opposite"),
    (CONFLICT, "polarities_one_neutral", "Of the labels of text and image, one is neutral"),
)
TITLE = "Opposite polarities of text and image (Table 5)"


def rows(plan: Plan) -> list[str]:
    """Return MPT with and without rationales, and the networks of one modality."""
    without = ["mpt -rationales"] if {"rationales", "text"} <= {*plan.modalities} else []
    return [MPT, *without, *plan.unimodal()]


def section(context: Context) -> Section:
    """Score the rows on posts with opposite polarities, and with one neutral label."""
    context.probabilities(MPT)
    kinds, prose = kinds_of_posts(context)
    others = [title for title in context.runs if not {*parse_row(title).words} - {"+rationales"}]
    titles = list(dict.fromkeys([*context.present(rows(context.plan)), *context.present(others)]))
    names = {row: f"{modality} alone" for modality in ("text", "image") if (row := context.plan.alone(modality))}
    tables, figures, notes = [], [], context.missing(rows(context.plan))
    for kind, name, words in SUBSETS:
        chosen = kinds == kind
        if chosen.any():
            compared = context.compared(titles, chosen)
            caption = f"{words}: {context.describe(titles, int(chosen.sum()))}"
            tables.append(score_table(name, caption, compared, names))
            figures.append(context.figure(name, f"Weighted F1. {caption}", plot_comparison, compared, words))
    dropped = dropped_table(context)
    if dropped is not None:
        tables.append(dropped)
    if not tables:
        raise Omitted("No tested post has opposite polarities, or a polarity and neutral, in text and image.")
    return Section(TITLE, prose, tables, figures, notes=notes)


def kinds_of_posts(context: Context) -> tuple[np.ndarray, list[str]]:
    """Name for each tested post how the labels of text and image agree, and say who decided.

    Raises:
        Omitted: the posts have no such labels, and rows of one modality are missing.
    """
    posts = context.tested
    if {"text_label", "image_label"} <= {*posts.column_names}:
        pairs = list(zip(posts["text_label"][:], posts["image_label"][:], strict=True))
        if any(None not in pair for pair in pairs):
            names = posts.features["text_label"].names
            kinds = np.array([agreement(*pair, names) for pair in pairs])
            return kinds, [
                "The dataset has a label of its own for the text and for the image of a post. They alone decide what "
                "belongs to the subset.",
                counts_of(kinds),
            ]
    single = context.plan.unimodal()
    if len(single) < 2:
        raise Omitted("The posts have neither labels of text and image, nor both modalities.")
    predicted = [context.mean_probabilities(row).argmax(axis=1) for row in single]
    kinds = np.array(
        [agreement(int(text), int(image), context.label_names) for text, image in zip(*predicted, strict=True)]
    )
    listed = " and ".join(f"`{row}`" for row in single)
    return kinds, [
        f"**The dataset has no labels of text and image.** Two networks decide in their place: {listed}, trained on "
        "the training part and asked about posts that they have not seen. Their errors decide with them, so the "
        "subset is not the one of a person, and the scores of these two rows on it are no measure of their quality.",
        counts_of(kinds),
    ]


def counts_of(kinds: np.ndarray) -> str:
    """Count the posts of each kind in a sentence."""
    names, counts = np.unique(kinds, return_counts=True)
    listed = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    return f"Labels of text and image among the {len(kinds):,} tested posts: {listed}."


def dropped_table(context: Context) -> Table | None:
    """Count how often MPT follows the text or the image on posts that MVSA's rule drops."""
    posts = context.opposite()
    if posts is None or not len(posts):
        return None
    folder = context.train(MPT)
    predictions = predict(folder, posts, progress=False, on_error="skip")
    train = next(iter(context.plan.parts.values())).posts["train"]
    records = follow_counts(predictions.data.table, posts.features["text_label"].names, posts)
    prefix = rationale_column("")
    columns = [name for name in posts.column_names if name.startswith(prefix)]
    having = sum(any(row) for row in zip(*(posts[name][:] for name in columns), strict=True)) if columns else 0
    caption = (
        f"The {len(posts):,} posts with opposite polarities that MVSA's rule leaves out. They have no label of their "
        "own, so there is no accuracy: the table counts which of the two labels MPT gives. "
        f"{having:,} of them have rationales. One network, trained on {len(train):,} other posts; Wilson 95 % "
        "intervals."
    )
    return Table(
        "polarities_dropped",
        caption,
        records,
        {
            "MPT gives": lambda record: record["given"],
            "Posts": lambda record: f"{record['posts']:,}",
            "Share, % (95 % interval)": lambda record: f"{share(record['share'])} ({shares(record['interval'])})",
        },
    )


def follow_counts(predictions: pa.Table, names: Sequence[str], posts) -> list[dict]:
    """Count predictions that equal the label of the text, that of the image, or neither."""
    labels = dict(zip(posts["id"], zip(posts["text_label"], posts["image_label"], strict=True), strict=True))
    counts = dict.fromkeys(("the label of the text", "the label of the image", "neither"), 0)
    for post_id, prediction in zip(predictions["id"].to_pylist(), predictions["prediction"].to_pylist(), strict=True):
        text, image = (names[label] for label in labels[post_id])
        given = "the label of the text" if prediction == text else "the label of the image"
        counts[given if prediction in (text, image) else "neither"] += 1
    total = sum(counts.values())
    return [
        {"given": given, "posts": count, "share": count / total, "interval": share_interval(count, total)}
        for given, count in counts.items()
    ]
