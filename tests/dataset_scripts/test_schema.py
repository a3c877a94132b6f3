"""Columns that every dataset shares."""

import pytest
from datasets import ClassLabel, Image, Value

from dataset_scripts.schema import features, rationale_column


def test_every_dataset_has_these_columns_and_label_ids_in_this_order():
    assert list(features()) == [
        "id",
        "image",
        "text",
        "rationale_positive",
        "rationale_neutral",
        "rationale_negative",
        "label",
        "text_label",
        "image_label",
        "language",
        "source",
    ]
    assert features()["image"] == Image()
    assert features()["rationale_neutral"] == Value("string")
    assert features()["label"] == ClassLabel(names=["positive", "neutral", "negative"])


def test_any_perspectives_and_labels_are_allowed():
    schema = features(labels=["sad", "glad"], perspectives=["visual", "ironic"])
    assert schema["label"].names == ["sad", "glad"]
    assert [column for column in schema if column.startswith("rationale")] == ["rationale_visual", "rationale_ironic"]
    assert rationale_column("ironic") == "rationale_ironic"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "at least one class"),
        ({"labels": "positive"}, "sequence of names, got the string 'positive'"),
        ({"labels": ["a", "a"]}, "'a' more than once"),
        ({"perspectives": ["positive", " "]}, "not blank, got ' '"),
    ],
)
def test_errors_name_the_argument_and_a_fix(arguments, message):
    with pytest.raises(ValueError, match=message):
        features(**arguments)
