"""Cross-validation of one system by `train`."""

import json

import pyarrow.parquet
import pytest

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, arguments
from mpt_sentiment.commands import train

FOLDS = {"split": "folds", "split_options": {"fold": [0, 7]}}


def test_train_reports_the_predictions_of_all_folds(tmp_path, capsys):
    assert train.main(arguments(tmp_path, model="vit", num_train_epochs=1, loss_weight_mlcl=None, **FOLDS)) == 0
    table = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert {(row["fold"], row["row"], row["seed"]) for row in table} == {(0, "vit", 42), (7, "vit", 42)}
    assert len({row["id"] for row in table}) == len(table) == 12
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["title"] for row in result["rows"]] == ["vit"] and {*result["splits"]} == {"fold 0", "fold 7"}
    assert "2 folds (seed 42), 12 posts" in capsys.readouterr().out
    assert not list(tmp_path.rglob("model.safetensors"))


def test_python_trains_one_named_fold_and_refers_to_compare_for_several(tmp_path):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    with pytest.raises(ValueError, match=r"trains one fold.*mpt.compare\(posts, \['vit'\], split='folds'"):
        mpt.train(posts, tmp_path, model="vit", **FOLDS | TINY_FIELDS)
    one = FOLDS | {"split_options": {"fold": 7}} | TINY_FIELDS | {"num_train_epochs": 1}
    result = mpt.train(posts, tmp_path, model="vit", **one)
    assert result.metrics["split"]["protocol"] == "folds, fold 7"
    tested = pyarrow.parquet.read_table(tmp_path / "predictions.parquet")["id"].to_pylist()
    assert tested == mpt.split_posts(posts, "folds", fold=7)["test"]["id"]
