"""Posts of a run: their own splits, or the protocol of the arguments."""

import json
import logging

import pytest
from datasets import DatasetDict

import mpt_sentiment as mpt
from mpt_sentiment.arguments import DataArguments
from mpt_sentiment.training_data import as_splits, load_splits

LABELS = ("positive", "neutral", "negative")


def write(folder, name, count, **changes):
    rows = [{"text": f"{name} {n}", "label": LABELS[n % 3]} | changes for n in range(count)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def arguments(folder, **fields):
    return DataArguments(dataset="folder", data_dir=str(folder), **fields)


def test_own_splits_are_used_as_given_and_a_protocol_is_said_to_have_no_effect(tmp_path, caplog):
    for name, count in (("train", 6), ("val", 3), ("test", 4)):
        write(tmp_path, name, count)
    posts, data = load_splits(arguments(tmp_path))
    assert data.sizes == {"train": 6, "validation": 3, "test": 4} and data.protocol == "as given"
    assert "without effect" not in caplog.text
    with caplog.at_level(logging.WARNING):
        same, _ = load_splits(arguments(tmp_path, split="folds", split_options={"fold": 2}))
    assert same["test"]["id"] == posts["test"]["id"]
    assert "validation, test, which are used as given; without effect: `protocol` and `split_options`" in caplog.text


def test_a_missing_validation_is_taken_from_train_and_a_missing_test_is_refused(tmp_path):
    write(tmp_path, "train", 30)
    write(tmp_path, "test", 5)
    posts, data = load_splits(arguments(tmp_path))
    assert data.sizes == {"train": 27, "validation": 3, "test": 5}
    assert data.protocol == "as given, validation taken from train"
    (tmp_path / "test.jsonl").rename(tmp_path / "dev.jsonl")
    with pytest.raises(ValueError, match="splits train, validation; train, validation and test are needed.*file=…"):
        load_splits(arguments(tmp_path))


def test_unlabelled_posts_are_left_out_on_request_and_counted_on_the_card(tmp_path):
    write(tmp_path, "posts", 30)
    with (tmp_path / "posts.jsonl").open("a") as file:
        file.write('{"text": "no label"}\n')
    with pytest.raises(ValueError, match="1 of 31 posts have no label .first ids: '30'"):
        load_splits(arguments(tmp_path))
    _, data = load_splits(arguments(tmp_path, on_error="skip"))
    assert sum(data.sizes.values()) == 30 and data.dropped == {"no label": 1} and data.protocol == "grouped"


def test_options_of_another_split_are_refused_before_posts_are_loaded():
    with pytest.raises(ValueError, match="no option 'fold'; its options are group_column. It is an option of folds"):
        arguments("nowhere", split_options={"fold": 1})


def test_splits_given_in_python_are_completed(tmp_path):
    write(tmp_path, "posts", 40)
    posts = mpt.load_posts("folder", tmp_path)
    splits, data = as_splits(DatasetDict({"train": posts.select(range(30)), "test": posts.select(range(30, 40))}))
    assert data.sizes == {"train": 27, "validation": 3, "test": 10}
    with pytest.raises(ValueError, match="no column 'id' and 'image'.*load_posts"):
        as_splits(posts.remove_columns(["id", "image"]))
