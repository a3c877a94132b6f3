"""Result files: their content, and that they are whole or the old ones."""

import json
import platform
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from mpt_sentiment.evaluation import atomic_path, environment, write_metrics, write_predictions

NAMES = ["positive", "negative"]


def test_a_failure_mid_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"accuracy": 0.5})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_metrics_convert_numpy_values_and_refuse_nan(tmp_path):
    path = write_metrics(tmp_path / "new" / "metrics.json", {"f1": np.float32(0.5), "confusion": np.eye(2, dtype=int)})
    assert json.loads(path.read_text()) == {"f1": 0.5, "confusion": [[1, 0], [0, 1]]}
    with pytest.raises(ValueError):
        write_metrics(path, {"f1": float("nan")})
    assert json.loads(path.read_text())["f1"] == 0.5


def test_predictions_have_one_row_per_post_with_names_scores_and_weights(tmp_path):
    path = write_predictions(
        tmp_path / "predictions.parquet",
        ids=["a", "b"],
        label_names=NAMES,
        probabilities=np.array([[0.75, 0.25], [0.5, 0.5]]),
        predictions=[0, 1],
        labels=[1, None],
        modality_weights=np.array([[0.5, 0.25, 0.25], [1, 0, 0]]),
        perspective_weights=np.array([[0.25, 0.75], [0, 0]]),
        perspectives=["joy", "anger"],
    )
    first, second = pq.read_table(path).to_pylist()
    assert first == {
        "id": "a",
        "label": "negative",
        "prediction": "positive",
        "probability_positive": 0.75,
        "probability_negative": 0.25,
        "weight_text": 0.5,
        "weight_image": 0.25,
        "weight_rationales": 0.25,
        "weight_rationale_joy": 0.25,
        "weight_rationale_anger": 0.75,
    }
    assert second["label"] is None and second["prediction"] == "negative"


def test_predictions_without_labels_keep_the_same_columns(tmp_path):
    path = write_predictions(tmp_path / "p.parquet", ["a"], NAMES, np.array([[0.25, 0.75]]))
    table = pq.read_table(path)
    assert table.column_names == ["id", "label", "prediction", "probability_positive", "probability_negative"]
    assert table.to_pylist()[0]["label"] is None and table.to_pylist()[0]["prediction"] == "negative"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": ["a"]}, "one per post is required"),
        ({"labels": [0, 2]}, r"labels\[1\] is 2"),
        ({"modality_weights": np.ones((2, 2))}, r"\(num_posts, 3\)"),
        ({"perspective_weights": np.ones((2, 3)), "perspectives": ["joy"]}, r"\(num_posts, 1\)"),
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(tmp_path, changed, message):
    arguments = {"ids": ["a", "b"], "label_names": NAMES, "probabilities": np.full((2, 2), 0.5)} | changed
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "p.parquet", **arguments)
    assert not list(tmp_path.iterdir())


def test_the_environment_names_versions_and_no_machine():
    described = environment()
    assert {"torch", "transformers", "datasets", "numpy"} <= described["libraries"].keys()
    assert described["hardware"]
    assert not re.search(r"(^|[\s\"'])[/~]\w", json.dumps(described)) and platform.node() not in described.values()
