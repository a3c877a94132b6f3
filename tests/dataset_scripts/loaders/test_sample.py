"""The embedded sample: reproducible, honest about what it is, and unsolvable from one modality alone."""

import hashlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from dataset_scripts.loaders.sample.choices import SeededChoices
from dataset_scripts.loaders.sample.posts import CARD_TEXT, POST_TYPES, draw_post, load_sample, unimodal_bounds
from dataset_scripts.loaders.sample.texts import ADJECTIVES, REMARKS, VERBS
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, rationale_column


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Nothing here reads what an earlier run left in the cache of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def posts() -> Dataset:
    return load_sample()[0]


@pytest.fixture(scope="module")
def frame(posts):
    return posts.remove_columns("image").to_pandas()


def image_bytes(posts: Dataset) -> list[bytes]:
    return [image["bytes"] for image in posts.with_format("arrow")[:]["image"].to_pylist()]


def normalised(text: str) -> str:
    return " ".join(re.sub(r"https?://\S+|@\w+|#\w+", "", text.lower()).split())


def test_the_default_sample_has_1200_posts_and_the_columns_of_the_schema(posts):
    assert posts.num_rows == 1200
    assert posts.features == features()
    assert len(set(posts["id"])) == 1200
    assert set(posts["language"]) == {"en"}
    assert set(posts["source"]) == {"mpt_sample"}


def test_the_same_seed_draws_the_same_posts_again():
    first, again = ([draw_post(3, number, "positive", "negative") for number in range(5)] for _ in range(2))
    assert first == again


def test_another_seed_draws_other_posts():
    one, other = (draw_post(seed, 0, "neutral", "neutral") for seed in (0, 1))
    assert one["text"] != other["text"]
    assert one["image"]["bytes"] != other["image"]["bytes"]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(posts):
    few = load_sample(num_posts=7)[0]
    assert few.num_rows == 7
    assert few.with_format("arrow")[:].equals(posts.select(range(7)).with_format("arrow")[:])


def test_choices_do_not_depend_on_hash_order_or_python_version():
    # Written down once: a change here changes every sample that anyone has drawn.
    choices = SeededChoices(0, "check")
    drawn = [choices.integer(0, 99) for _ in range(5)], choices.shuffled(range(5))
    assert drawn == ([37, 78, 75, 22, 14], [4, 3, 2, 1, 0])


def test_another_process_with_another_hash_order_draws_the_same_bytes():
    code = "import hashlib, dataset_scripts.loaders.sample.posts as s; "
    code += "drawn = repr([s.draw_post(4, n, 'negative', 'positive') for n in range(8)]); "
    code += "print(hashlib.sha256(drawn.encode()).hexdigest())"
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(root)}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = repr([draw_post(4, number, "negative", "positive") for number in range(8)])
    assert there.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()


def test_images_are_embedded_small_and_never_the_same_twice(posts):
    encoded = image_bytes(posts)
    assert len(set(encoded)) == len(encoded)
    sizes = {Image.open(io.BytesIO(data)).size for data in encoded}
    assert len(sizes) > 30
    assert all(96 <= side <= 160 for size in sizes for side in size)


def test_the_label_follows_from_tone_and_mood_without_noise(frame):
    for row in frame.itertuples():
        label, _ = POST_TYPES[LABELS[row.text_label], LABELS[row.image_label]]
        assert LABELS[row.label] == label


def test_every_hundred_posts_hold_each_combination_in_its_share(frame):
    for start in (0, 100, 1100):
        part = frame[start : start + 100]
        counts = Counter(
            (LABELS[tone], LABELS[mood]) for tone, mood in zip(part.text_label, part.image_label, strict=True)
        )
        assert counts == {post_type: share for post_type, (_, share) in POST_TYPES.items()}


def test_no_classifier_of_one_modality_can_pass_sixty_five_percent(frame):
    assert unimodal_bounds() == {"text": 0.53, "image": 0.56}
    for modality, bound in unimodal_bounds().items():
        best = frame.groupby(f"{modality}_label").label.agg(lambda labels: labels.value_counts().max()).sum()
        assert best / len(frame) == pytest.approx(bound)
        assert bound < 0.65


def test_a_text_does_not_know_its_picture_nor_a_picture_its_text():
    glad, sad = (draw_post(0, 11, "positive", mood) for mood in ("positive", "negative"))
    assert glad["text"] == sad["text"]
    assert glad["image"]["bytes"] != sad["image"]["bytes"]
    praise, grumble = (draw_post(0, 11, tone, "neutral") for tone in ("positive", "negative"))
    assert praise["text"] != grumble["text"]
    assert praise["image"]["bytes"] == grumble["image"]["bytes"]


def tfidf_accuracy(texts, labels) -> float:
    tfidf = TfidfVectorizer(ngram_range=(1, 2)).fit(texts[:960])
    model = LogisticRegression(C=10, max_iter=300).fit(tfidf.transform(texts[:960]), labels[:960])
    return model.score(tfidf.transform(texts[960:]), labels[960:])


def test_words_tell_the_tone_of_a_text_but_not_the_label_of_its_post(frame):
    assert tfidf_accuracy(frame.text, frame.text_label) > 0.98
    assert tfidf_accuracy(frame.text, frame.label) < 0.65


def test_no_word_belongs_to_two_tones():
    for words in (ADJECTIVES, VERBS, REMARKS):
        every = [word for tone in words.values() for word in tone]
        assert len(set(every)) == len(every)


def test_texts_stay_distinct_once_case_urls_mentions_and_hashtags_are_gone(frame):
    assert frame.text.map(normalised).nunique() >= 0.99 * len(frame)


@pytest.mark.parametrize("perspective", PERSPECTIVES)
def test_a_rationale_quotes_the_text_names_the_picture_and_never_the_label(frame, perspective):
    for row in frame.dropna(subset=[rationale_column(perspective)]).itertuples():
        rationale = getattr(row, rationale_column(perspective))
        assert re.search('"(.+?)"', rationale)[1] in row.text
        assert "picture" in rationale
        assert not re.search("positive|neutral|negative", rationale.lower())


def test_every_perspective_argues_from_the_same_evidence():
    post = draw_post(0, 5, "positive", "negative")
    for perspective in PERSPECTIVES:
        quote = re.search('"(.+?)"', post[rationale_column(perspective)])[1]
        assert quote.lower() in (*ADJECTIVES["positive"], *VERBS["positive"], *REMARKS["positive"])


def test_one_post_in_twenty_lacks_one_rationale_whatever_its_label(frame):
    missing = frame[[rationale_column(perspective) for perspective in PERSPECTIVES]].isna()
    assert missing.sum(axis=1).max() == 1
    assert 0.03 < missing.to_numpy().sum() / len(frame) < 0.07
    assert (missing.sum() > 0).all()
    for number in range(40):
        lost = [
            {perspective for perspective in PERSPECTIVES if post[rationale_column(perspective)] is None}
            for post in (draw_post(0, number, tone, mood) for tone, mood in (("positive",) * 2, ("negative",) * 2))
        ]
        assert lost[0] == lost[1]


def test_lengths_and_gaps_of_the_rationales_do_not_give_the_label_away(frame):
    columns = [rationale_column(perspective) for perspective in PERSPECTIVES]
    lengths = frame[columns].fillna("").map(len)
    seen = np.hstack([lengths / 100, frame[columns].isna()])
    model = LogisticRegression(max_iter=500).fit(seen[:960], frame.label[:960])
    majority = frame.label[960:].value_counts(normalize=True).max()
    assert model.score(seen[960:], frame.label[960:]) < majority + 0.08


def test_the_card_says_that_the_posts_are_synthetic_and_not_for_real_use():
    assert "synthetic" in CARD_TEXT
    assert "do\nnot train a model for real use" in CARD_TEXT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_posts": 0}, r"num_posts=0 is too small; ask for at least 1 post"),
        ({"num_posts": 2.5}, r"num_posts=2\.5 is not a whole number"),
        ({"seed": "a"}, r"seed='a' is not a whole number"),
        ({"on_error": "ignore"}, r"on_error='ignore'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_sample(**arguments)
