"""Names of classes: their order, and warnings about doubtful ones."""

import logging

import pytest

from dataset_scripts.loaders.classes import class_names, is_placeholder


@pytest.mark.parametrize(
    ("names", "ordered", "warning"),
    [
        (["neutral", "positive"], ["positive", "neutral"], None),
        (["10", "-1", "2"], ["-1", "2", "10"], None),
        (["c++", "c", "-1", "1"], ["-1", "1", "c", "c++"], None),
        (["very sad", "very_sad"], ["very sad", "very_sad"], "'very sad' (1), 'very_sad' (1) differ in spelling only"),
        (["ｇｏｏｄ", "Good"], ["Good", "ｇｏｏｄ"], "differ in spelling only"),
        (["None", "a"], ["None", "a"], "'None' is a class (1 posts)"),
        (["0.5", "1.5"], ["0.5", "1.5"], "numbers such as '0.5' are taken for classes, 2 of them"),
    ],
)
def test_doubtful_classes_are_named(names, ordered, warning, caplog):
    with caplog.at_level(logging.WARNING):
        assert class_names(dict.fromkeys(names, 1), "posts.csv") == ordered
    assert (warning in caplog.text) if warning else not caplog.records


def test_words_for_a_missing_value():
    assert (
        is_placeholder("NaN") and is_placeholder(" N/A ") and not is_placeholder("naan") and not is_placeholder(None)
    )
