"""Floors on posts that lack texts or rationales, in folds, and in the command `linear`."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS
from mpt_sentiment.commands.linear import main, score_floors
from mpt_sentiment.linear import BASELINES, tfidf, with_prepared_texts
from mpt_sentiment.recipe import training_setup

FIELDS = TINY_FIELDS | {"num_train_epochs": 1}


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


def columns(posts: DatasetDict, *names: str) -> DatasetDict:
    """Replace columns by null."""
    return posts.map(lambda row: dict.fromkeys(names), features=posts["train"].features)


def test_without_encoders_the_command_scores_tfidf_and_the_majority_label(capsys):
    main(["--dataset", "sample", "--dataset_options", json.dumps(SAMPLE_OPTIONS)])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].endswith("5 test posts") and lines[1].split() == [
        "row",
        "accuracy",
        "F1",
        "weighted",
        "F1",
        "macro",
    ]
    assert [line[:36].strip() for line in lines[2:]] == ["majority", "tfidf", "tfidf +rationales", "tfidf shuffled"]
    with pytest.raises(ValueError, match="must be one of none, tweet, got 'twitter'"):
        main(["--text_preprocessing", "twitter"])


def test_with_encoders_it_scores_the_modalities_that_they_read(posts, tmp_path):
    fields = FIELDS | {"output_dir": "unused", "feature_store": str(tmp_path)}
    setup = training_setup([], fields)
    setup.model.modalities = ["text", "rationales"]  # no encoder of images was named
    scores = score_floors(posts, setup)
    frozen = [title for title in scores if title.startswith(("logistic", "boosting"))]
    names = ["-image", "-text -image +rationales", "-image +rationales"]
    assert frozen == [*(f"logistic {name}" for name in names), *(f"boosting {name}" for name in names[:2])]
    assert scores["majority"]["accuracy"] == pytest.approx(scores["tfidf"]["majority"]["accuracy"])


def test_posts_that_lack_texts_or_rationales(posts):
    setup = training_setup([], {"output_dir": "unused"})
    setup.model.modalities = []
    rationales = [name for name in posts["train"].column_names if name.startswith("rationale_")]
    assert list(score_floors(columns(posts, *rationales), setup)) == ["majority", "tfidf"]
    both = ["majority", "tfidf +rationales", "tfidf shuffled"]
    assert list(score_floors(columns(posts, "text"), setup)) == both
    with pytest.raises(ValueError, match="TF-IDF reads text, and no train post has any"):
        BASELINES["tfidf"].predict(columns(posts, "text"), ["text"], setup)
    setup.model.modalities = ["text"]
    with pytest.raises(ValueError, match="It reads image, and there are text alone"):
        BASELINES["logistic"].predict(posts, ["image"], setup)


def test_floors_of_folds_are_rows_of_a_comparison_that_compute_features_once(tmp_path):
    rows = ["logistic +rationales", "logistic shuffled", "boosting -image"]
    result = mpt.compare(
        mpt.load_posts("sample", **SAMPLE_OPTIONS),
        rows,
        output_dir=tmp_path / "compared",
        split="folds",
        split_options={"fold": [0, 1]},
        **FIELDS | {"feature_store": str(tmp_path / "store")},
    )
    assert [row["title"] for row in result.rows] == rows and not result.failed
    cell = tmp_path / "compared" / "cells" / "logistic_+rationales" / "fold-0" / "seed-42"
    metrics = json.loads((cell / "metrics.json").read_text())
    assert metrics["system"] == {"modalities": ["text", "image", "rationales"], "untrained_images": True}
    assert metrics["chosen"]["C"] > 0 and 0 <= metrics["chosen"]["validation_f1_weighted"] <= 1
    table = (tmp_path / "compared" / "comparison.md").read_text()
    assert "logistic regression on frozen encoders; untrained images" in table
    assert Path(tmp_path / "store").is_dir()


def test_texts_are_prepared_as_the_processor_of_a_model_does(posts):
    tweets = posts.map(lambda row: {"text": f"@anna &amp; http://t.co/{row['id']}"}, features=posts["train"].features)
    prepared = with_prepared_texts(tweets, "tweet")
    assert set(prepared["test"]["text"]) == {"@user & http"}
    assert with_prepared_texts(tweets, "none")["test"]["text"][:] == tweets["test"]["text"][:]


def test_chinese_is_divided_into_characters_and_their_pairs():
    texts = {"text": ["今天很开心", "天很 开心", "a day with fun", "one day with fun"]}
    rows = DatasetDict(
        {"train": Dataset.from_dict(texts), "test": Dataset.from_dict({"text": ["天开心", "with fun"]})}
    )
    vectors = tfidf(rows, ["text"])
    assert vectors["test"][0].nnz == 4  # 天, 开, 心, 开心
    assert vectors["test"][1].nnz == 3  # with, fun, with fun
