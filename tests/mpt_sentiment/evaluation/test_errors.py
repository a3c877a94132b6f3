"""Error table: parts of the posts with their accuracy."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from scipy.special import softmax

from dataset_scripts.schema import features, post_row
from mpt_sentiment.evaluation.errors import error_markdown, error_table
from mpt_sentiment.evaluation.predictions import prediction_table
from mpt_sentiment.evaluation.scored_posts import scored_posts

NAMES = ["positive", "neutral", "negative"]
# text, image given, text label, image label, language
POSTS = [
    ("a", True, "positive", "positive", "en"),
    ("ab", True, "positive", "neutral", "en"),
    ("abcd", False, "positive", "negative", "zh"),
    ("好天气", True, None, None, None),
    (None, True, "negative", "negative", "en"),
]
LABELS = [0, 0, 0, 1, 2]
PREDICTED = [0, 2, 2, 1, 2]


@pytest.fixture(scope="module")
def posts():
    image = {"bytes": b"any", "path": None}
    rows = [
        post_row(
            f"p{number}",
            {"positive": "good" if number < 4 else None},
            text=text,
            image=image if has_image else None,
            label=NAMES[label],
            text_label=text_label,
            image_label=image_label,
            language=language,
            source="test",
        )
        for number, ((text, has_image, text_label, image_label, language), label) in enumerate(
            zip(POSTS, LABELS, strict=True)
        )
    ]
    schema = features(perspectives=["positive"])
    return Dataset.from_list([{name: row[name] for name in schema} for row in rows], features=schema)


def predictions(labels=LABELS, predicted=PREDICTED):
    probabilities = np.where(np.eye(3)[predicted] > 0, 0.8, 0.1)
    return prediction_table([f"p{number}" for number in range(len(labels))], NAMES, probabilities, labels)


def test_every_aspect_counts_its_posts_and_errors(posts):
    rows = error_table(predictions(), posts)
    counts = {(row["aspect"], row["part"]): (row["posts"], row["errors"]) for row in rows}
    assert counts == {
        ("label", "positive"): (3, 2),
        ("label", "neutral"): (1, 0),
        ("label", "negative"): (1, 0),
        ("length of text", "no text"): (1, 0),
        ("length of text", "1 characters"): (1, 0),
        ("length of text", "2 characters"): (1, 1),
        ("length of text", "3 characters"): (1, 0),
        ("length of text", "4 characters"): (1, 1),
        ("missing", "nothing"): (3, 1),
        ("missing", "image"): (1, 1),
        ("missing", "text and rationales"): (1, 0),
        ("language", "en"): (3, 1),
        ("language", "zh"): (1, 1),
        ("language", "unknown"): (1, 0),
        ("labels of text and image", "agree"): (2, 0),
        ("labels of text and image", "one is neutral"): (1, 1),
        ("labels of text and image", "opposite"): (1, 1),
        ("labels of text and image", "not labelled apart"): (1, 0),
    }
    assert rows[0]["accuracy"] == pytest.approx(1 / 3) and rows[0]["confidence"] == pytest.approx(0.8)
    assert rows[0]["interval"][0] < 1 / 3 < rows[0]["interval"][1]
    assert "| label | positive | 3 | 2 | 33.3 |" in error_markdown(rows)


def test_predictions_of_other_posts_are_refused(posts):
    with pytest.raises(ValueError, match="1 of 5 predicted posts, the first 'p0', are not among the posts"):
        error_table(predictions(), posts.select(range(1, 5)))


def test_probabilities_are_averaged_over_seeds_and_posts_without_label_are_left_out():
    first, second = predictions(), predictions(predicted=[0, 0, 0, 0, 0])
    scored = scored_posts(pa.concat_tables([first, second]))
    assert scored.ids == ["p0", "p1", "p2", "p3", "p4"] and scored.labels.tolist() == LABELS
    assert scored.probabilities[1] == pytest.approx([0.45, 0.1, 0.45])
    assert scored_posts(predictions(labels=[0, None, 1, 2, 0])).ids == ["p0", "p2", "p3", "p4"]


def test_the_temperature_of_each_fold_can_be_undone():
    logits = np.random.default_rng(0).normal(size=(5, 3))
    temperatures = [2.0, 2.0, 0.5, None, None]
    divisors = np.array([[2.0], [2.0], [0.5], [1.0], [1.0]])
    table = prediction_table([f"p{number}" for number in range(5)], NAMES, softmax(logits / divisors, axis=1), LABELS)
    table = table.append_column("temperature", pa.array(temperatures))
    assert scored_posts(table).probabilities == pytest.approx(softmax(logits / divisors, axis=1))
    assert scored_posts(table, calibrated=False).probabilities == pytest.approx(softmax(logits, axis=1))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"id": ["a"], "label": ["positive"]}), "need the columns id, label and probability_LABEL"),
        (predictions().set_column(1, "label", pa.array(["joy"] * 5)), "The label 'joy' is none of the classes"),
        (predictions(labels=[None] * 5), "No post has a label of the classes"),
        (pa.concat_tables([predictions(), predictions(labels=[1, 0, 0, 1, 2])]), "'p0' has different labels"),
    ],
)
def test_tables_that_cannot_be_scored_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        scored_posts(table)
