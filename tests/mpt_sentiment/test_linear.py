"""Linear baselines on posts that lack texts or rationales."""

import pytest
from datasets import DatasetDict

import mpt_sentiment as mpt
from mpt_sentiment.linear import score_linear_baselines, with_prepared_texts


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", num_posts=60, seed=3))


def columns(posts: DatasetDict, *names: str) -> DatasetDict:
    """Replace columns by null."""
    return posts.map(lambda row: dict.fromkeys(names), features=posts["train"].features)


def test_features_that_no_post_has_are_left_out(posts):
    rationales = [name for name in posts["train"].column_names if name.startswith("rationale_")]
    both, texts = "TF-IDF, text + rationales", "TF-IDF, text"
    assert list(score_linear_baselines(posts)) == [texts, both]
    assert list(score_linear_baselines(columns(posts, *rationales))) == [texts]
    assert list(score_linear_baselines(columns(posts, "text"))) == [both]
    with pytest.raises(ValueError, match="neither texts nor rationales"):
        score_linear_baselines(columns(posts, "text", *rationales))


def test_texts_are_prepared_as_the_processor_of_a_model_does(posts):
    tweets = posts.map(lambda row: {"text": f"@anna &amp; http://t.co/{row['id']}"}, features=posts["train"].features)
    prepared = with_prepared_texts(tweets, "tweet")
    assert set(prepared["test"]["text"]) == {"@user & http"}
    assert with_prepared_texts(tweets, "none")["test"]["text"][:] == tweets["test"]["text"][:]
    assert score_linear_baselines(tweets, text_preprocessing="tweet").keys() == score_linear_baselines(tweets).keys()
    with pytest.raises(ValueError, match="must be one of none, tweet, got 'twitter'"):
        score_linear_baselines(posts, text_preprocessing="twitter")
