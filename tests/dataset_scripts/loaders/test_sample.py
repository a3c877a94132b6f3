"""Embedded sample: reproducible, and not solvable from one modality alone."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from dataset_scripts.loaders.sample import load_sample
from dataset_scripts.loaders.sample.choices import SeededChoices
from dataset_scripts.loaders.sample.posts import POST_TYPES, draw_post
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, rationale_column


@pytest.fixture(scope="module")
def posts() -> Dataset:
    return load_sample()[0]


@pytest.fixture(scope="module")
def frame(posts):
    return posts.remove_columns("image").to_pandas()


def test_the_default_sample_has_1200_posts_and_the_columns_of_the_schema(posts):
    assert posts.num_rows == len(set(posts["id"])) == 1200
    assert posts.features == features()
    images = [image["bytes"] for image in posts.with_format("arrow")[:]["image"].to_pylist()]
    assert len(set(images)) == 1200


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(posts):
    few, _ = load_sample(num_posts=7)
    assert few.num_rows == 7
    assert few.with_format("arrow")[:].equals(posts.select(range(7)).with_format("arrow")[:])


def test_choices_do_not_depend_on_the_python_version():
    choices = SeededChoices(0, "check")
    drawn = [choices.integer(0, 99) for _ in range(5)], choices.shuffled(range(5))
    assert drawn == ([37, 78, 75, 22, 14], [4, 3, 2, 1, 0])


def test_another_process_with_another_hash_order_draws_the_same_bytes():
    code = "import hashlib, dataset_scripts.loaders.sample.posts as s; "
    code += "drawn = repr([s.draw_post(4, n, 'negative', 'positive') for n in range(8)]); "
    code += "print(hashlib.sha256(drawn.encode()).hexdigest())"
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    drawn = repr([draw_post(4, number, "negative", "positive") for number in range(8)])
    assert output.strip() == hashlib.sha256(drawn.encode()).hexdigest()


def test_every_hundred_posts_have_each_combination_in_its_share(frame):
    for start in (0, 100, 1100):
        part = frame[start : start + 100]
        types = [(LABELS[tone], LABELS[mood]) for tone, mood in zip(part.text_label, part.image_label, strict=True)]
        assert Counter(types) == {post_type: share for post_type, (_, share) in POST_TYPES.items()}
        assert [LABELS[label] for label in part.label] == [POST_TYPES[post_type][0] for post_type in types]


def test_the_best_classifier_of_one_modality_is_little_better_than_chance(frame):
    for modality, bound in {"text": 0.53, "image": 0.56}.items():
        best = frame.groupby(f"{modality}_label").label.agg(lambda labels: labels.value_counts().max()).sum()
        assert best / len(frame) == pytest.approx(bound)


def test_text_and_picture_do_not_depend_on_each_other():
    glad, sad = (draw_post(0, 11, "positive", mood) for mood in ("positive", "negative"))
    assert glad["text"] == sad["text"] and glad["image"]["bytes"] != sad["image"]["bytes"]
    praise, complaint = (draw_post(0, 11, tone, "neutral") for tone in ("positive", "negative"))
    assert praise["text"] != complaint["text"] and praise["image"]["bytes"] == complaint["image"]["bytes"]


def tfidf_accuracy(texts, labels) -> float:
    tfidf = TfidfVectorizer(ngram_range=(1, 2)).fit(texts[:960])
    model = LogisticRegression(C=10, max_iter=300).fit(tfidf.transform(texts[:960]), labels[:960])
    return model.score(tfidf.transform(texts[960:]), labels[960:])


def test_words_give_the_tone_of_a_text_and_not_the_label_of_its_post(frame):
    assert tfidf_accuracy(frame.text, frame.text_label) > 0.98
    assert tfidf_accuracy(frame.text, frame.label) < 0.65


def test_rationales_quote_the_text_name_the_picture_and_never_the_label(frame):
    for perspective in PERSPECTIVES:
        for row in frame.dropna(subset=[rationale_column(perspective)]).itertuples():
            rationale = getattr(row, rationale_column(perspective))
            assert re.search('"(.+?)"', rationale)[1] in row.text
            assert "picture" in rationale
            assert not re.search("positive|neutral|negative", rationale.lower())


def test_lengths_and_gaps_of_the_rationales_do_not_reveal_the_label(frame):
    columns = [rationale_column(perspective) for perspective in PERSPECTIVES]
    missing = frame[columns].isna()
    assert missing.sum(axis=1).max() == 1 and 0.03 < missing.to_numpy().sum() / len(frame) < 0.07
    inputs = np.hstack([frame[columns].fillna("").map(len) / 100, missing])
    model = LogisticRegression(max_iter=500).fit(inputs[:960], frame.label[:960])
    majority = frame.label[960:].value_counts(normalize=True).max()
    assert model.score(inputs[960:], frame.label[960:]) < majority + 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_posts": 0}, "`num_posts` must be at least 1, got 0"),
        ({"num_posts": 2.5}, r"`num_posts` must be an integer, got 2\.5"),
        ({"seed": "a"}, "`seed` must be an integer, got 'a'"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_sample(**arguments)
