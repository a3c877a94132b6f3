"""Predictions: one schema in three formats, and reading the runs of a comparison."""

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from mpt_sentiment.evaluation import prediction_table, read_predictions, write_predictions
from mpt_sentiment.evaluation.predictions import table_of_results

NAMES = ["positive", "negative"]
ROW = {
    "id": "a",
    "label": "negative",
    "prediction": "positive",
    "probability_positive": 0.7,
    "probability_negative": 0.3,
    "weight_text": 0.5,
    "weight_image": 0.25,
    "weight_rationales": 0.25,
    "weight_rationale_joy": 0.1,
    "weight_rationale_anger": 0.9,
}


def table():
    return prediction_table(
        ["a", "b"],
        NAMES,
        np.array([[0.7, 0.3], [0.4, 0.6]]),
        labels=[1, None],
        modality_weights=np.array([[0.5, 0.25, 0.25], [np.nan] * 3]),
        perspective_weights=np.array([[0.1, 0.9], [np.nan] * 2]),
        perspectives=["joy", "anger"],
    )


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_file_has_one_row_per_post_in_full_precision(tmp_path, ending):
    path = write_predictions(tmp_path / f"predictions{ending}", table())
    if ending == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        read = {".parquet": pyarrow.parquet.read_table, ".csv": pyarrow.csv.read_csv}[ending]
        rows = read(path).to_pylist()
    assert rows[0] == ROW
    assert rows[1]["prediction"] == "negative" and not rows[1]["label"]
    assert rows[1]["weight_text"] is None and rows[1]["weight_rationale_joy"] is None


def test_pipeline_results_give_the_same_table():
    weights = {"modality_weights": {"text": 0.5, "image": 0.25, "rationales": 0.25}}
    results = [
        {"scores": {"positive": 0.7, "negative": 0.3}, "perspective_weights": {"joy": 0.1, "anger": 0.9}} | weights,
        {"scores": {"positive": 0.4, "negative": 0.6}, "perspective_weights": None, "modality_weights": None},
    ]
    assert table_of_results(results, ["a", "b"], [1, None], ["joy", "anger"]).equals(table())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": ["a"]}, "2 rows for 1 ids"),
        ({"labels": [0, 2]}, r"labels\[1\].*got 2"),
        ({"modality_weights": np.ones((2, 2))}, r"\(num_posts, 3\)"),
        ({"perspective_weights": np.ones((2, 3)), "perspectives": ["joy"]}, r"\(num_posts, 1\)"),
    ],
)
def test_inconsistent_columns_are_refused(changed, message):
    arguments = {"ids": ["a", "b"], "label_names": NAMES, "probabilities": np.full((2, 2), 0.5)} | changed
    with pytest.raises(ValueError, match=message):
        prediction_table(**arguments)


def test_an_unknown_ending_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet, \.csv, \.jsonl.*'\.txt'"):
        write_predictions(tmp_path / "predictions.txt", table())
    assert not list(tmp_path.iterdir())


def write_run(path, ids, predictions, labels):
    return write_predictions(path, prediction_table(ids, NAMES, np.eye(2)[predictions], labels))


def test_predictions_of_several_runs_are_matched_by_id(tmp_path):
    first = write_run(tmp_path / "a.parquet", ["x", "y", "z"], [0, 1, 1], [0, 0, 1])
    second = write_run(tmp_path / "b.parquet", ["z", "x", "y"], [0, 0, 1], [1, 0, 0])
    ids, labels, predictions = read_predictions([first, second], NAMES)
    assert ids == ["x", "y", "z"] and labels.tolist() == [0, 0, 1]
    assert predictions.tolist() == [[0, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("post", "label", "message"), [("y", 0, "b.parquet has other posts"), ("x", 1, "b.parquet has other labels")]
)
def test_runs_over_other_posts_or_labels_are_refused(tmp_path, post, label, message):
    first = write_run(tmp_path / "a.parquet", ["x"], [0], [0])
    second = write_run(tmp_path / "b.parquet", [post], [0], [label])
    with pytest.raises(ValueError, match=message):
        read_predictions([first, second], NAMES)
