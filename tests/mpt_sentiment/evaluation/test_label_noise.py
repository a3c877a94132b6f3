"""Label noise: wrong labels are found, and scores without them."""

import builtins

import numpy as np
import pyarrow as pa
import pytest

from mpt_sentiment.evaluation.label_noise import label_suspects, scores_without
from mpt_sentiment.evaluation.predictions import prediction_table

NAMES = ["positive", "neutral", "negative"]


def out_of_fold(row="mpt", seeds=(1, 2), seed=0, labels=None):
    """Return predictions of 300 posts by a good system; every tenth post has a wrong label."""
    rng = np.random.default_rng(seed)
    true = np.arange(300) % 3
    labels = np.where(np.arange(300) % 10 == 0, (true + 1) % 3, true) if labels is None else labels
    tables = []
    for each in seeds:
        logits = rng.normal(0, 0.5, (300, 3))
        logits[np.arange(300), true] += 3
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        table = prediction_table([f"p{number}" for number in range(300)], NAMES, probabilities, labels)
        for name, value in (("row", row), ("seed", each)):
            table = table.append_column(name, pa.array([value] * 300))
        tables.append(table)
    return pa.concat_tables(tables)


def test_wrong_labels_are_listed_with_the_predicted_class_and_its_confidence():
    pytest.importorskip("cleanlab")
    suspects = label_suspects(out_of_fold())
    found = {int(suspect["id"][1:]) for suspect in suspects}
    wrong = set(range(0, 300, 10))
    assert found <= wrong and len(found) >= 20
    for suspect in suspects:
        assert suspect["predicted"] == NAMES[int(suspect["id"][1:]) % 3] != suspect["label"]
        assert suspect["confidence"] > suspect["label_probability"]
    assert label_suspects(out_of_fold()) == suspects


def test_scores_with_and_without_suspects_are_those_of_each_system():
    pytest.importorskip("cleanlab")
    table = pa.concat_tables([out_of_fold(), out_of_fold("text_cnn", seed=5)])
    with pytest.raises(ValueError, match="`row` must be one of the systems of the predictions, mpt, text_cnn"):
        label_suspects(table)
    with pytest.raises(ValueError, match="no row 'clip'"):
        label_suspects(table, "clip")
    ids = [suspect["id"] for suspect in label_suspects(table, "mpt")]
    scores = scores_without(table, ids)
    assert list(scores) == ["mpt", "text_cnn"]
    for row in scores.values():
        assert row["posts"] == 300 and row["posts_without"] == 300 - len(ids)
        assert row["all"]["accuracy"] == pytest.approx(0.9, abs=0.02) and row["without"]["accuracy"] > 0.95
    run = scores_without(out_of_fold().drop_columns(["row", "seed"]).slice(0, 300), [])[""]
    assert run["all"] == run["without"]
    with pytest.raises(ValueError, match="All posts are suspects"):
        scores_without(table, table["id"].to_pylist())


def test_without_cleanlab_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without_cleanlab(name, *args, **kwargs):
        if name.startswith("cleanlab"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cleanlab)
    with pytest.raises(ValueError, match=r"pip install 'mpt-sentiment\[noise\]'"):
        label_suspects(out_of_fold())
