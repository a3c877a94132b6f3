"""Systems side by side: the numbers are those of their predictions, the test is paired, the borrowed are marked."""

import csv

import numpy as np
import pytest
from PIL import Image

from mpt_sentiment.evaluation import evaluate_predictions, paired_bootstrap, write_predictions
from mpt_sentiment.evaluation.comparison import (
    Entry,
    compare,
    comparison_markdown,
    plot_comparison,
    read_predictions,
    write_comparison_csv,
)
from mpt_sentiment.evaluation.published import published

NAMES = ["positive", "neutral", "negative"]
LABELS = np.random.default_rng(0).integers(0, 3, 150)


def answers(share: float, runs: int = 2, seed: int = 1) -> np.ndarray:
    """Predictions `(runs, 150)` of which about `share` are right."""
    rng = np.random.default_rng(seed)
    wrong = rng.integers(0, 3, (runs, len(LABELS)))
    return np.where(rng.random(wrong.shape) < share, LABELS, wrong)


@pytest.fixture(scope="module")
def rows():
    entries = [
        Entry("mpt", True, LABELS, answers(0.9), parameters=1000, speed=50.0),
        Entry("bert", False, LABELS, answers(0.9), parameters=500, speed=100.0),
        Entry("majority", False, LABELS, np.zeros((1, len(LABELS)), dtype=int), remark="a floor"),
    ]
    return compare(entries, 3, "mvsa_single")


def test_scores_are_means_over_seeds_of_what_each_run_reports(rows):
    one_hot = np.eye(3)[answers(0.9)]
    runs = [evaluate_predictions(each, LABELS, NAMES) for each in one_hot]
    for score in ("accuracy", "f1_weighted", "f1_macro"):
        values = [run[score] for run in runs]
        assert rows[0][score]["mean"] == pytest.approx(np.mean(values))
        assert rows[0][score]["std"] == pytest.approx(np.std(values, ddof=1))
    assert rows[2]["f1_weighted"]["std"] is None


def test_intervals_of_one_run_are_those_of_its_own_report():
    prediction = answers(0.7, runs=1)
    row = compare([Entry("vit", False, LABELS, prediction)], 3, "ch_mits")[0]
    report = evaluate_predictions(np.eye(3)[prediction[0]], LABELS, NAMES, num_resamples=10_000, seed=3)
    np.testing.assert_allclose(row["accuracy"]["interval"], report["intervals"]["accuracy"], atol=0.01)
    np.testing.assert_allclose(row["f1_macro"]["interval"], report["intervals"]["f1_macro"], atol=0.012)


def test_the_test_is_paired_and_agrees_with_that_of_two_runs():
    better, worse = answers(0.8, runs=1), answers(0.65, runs=1, seed=5)
    rows = compare([Entry("a", False, LABELS, worse), Entry("b", False, LABELS, better)], 3, "memotion")
    alone = paired_bootstrap(LABELS, worse[0], better[0], 3)["f1_weighted"]
    assert rows[1]["p_value"] is None
    assert rows[0]["p_value"] == pytest.approx(alone["p_value"], abs=0.02)


def test_equal_answers_do_not_differ_and_a_floor_does(rows):
    assert rows[1]["p_value"] == 1.0
    assert rows[2]["p_value"] < 0.001


def test_speed_is_relative_to_mpt_with_rationales(rows):
    assert [row["relative_speed"] for row in rows] == [1.0, 2.0, None]


def test_the_papers_numbers_stand_apart(rows):
    assert (rows[0]["published_accuracy"], rows[0]["published_f1_weighted"]) == (0.7795, 0.7562)
    assert rows[2]["published_accuracy"] is None
    text = comparison_markdown(rows)
    assert "*0.7795*" in text and "*Paper's accuracy*" in text and "a floor" in text
    assert {line.count("|") for line in text.splitlines()} == {text.splitlines()[0].count("|")}


def test_table_4_has_three_systems_with_rationales_and_table_3_none():
    assert published("clmlf", "mvsa_multiple", True) == (0.7228, 0.7019)
    assert published("clmlf", "mvsa_multiple", False) == (0.7200, 0.6983)
    assert published("clmlf", "ch_mits", True) is None and published("mpt", "ch_mits", False) is None


def test_csv_and_chart_are_written(rows, tmp_path):
    write_comparison_csv(tmp_path / "table.csv", rows)
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["accuracy_mean"]) == rows[0]["accuracy"]["mean"] and read[2]["parameters"] == ""
    assert Image.open(plot_comparison(tmp_path / "chart.png", rows, "MVSA-Single")).size[0] > 500


def test_predictions_of_several_runs_are_matched_by_id(tmp_path):
    first, second = answers(0.8)
    ids = [str(number) for number in range(len(LABELS))]
    turned = list(range(len(LABELS)))[::-1]
    for name, order, prediction in (("a", range(len(LABELS)), first), ("b", turned, second)):
        write_predictions(
            tmp_path / f"{name}.parquet",
            ids=[ids[row] for row in order],
            label_names=NAMES,
            probabilities=np.eye(3)[prediction[list(order)]],
            labels=LABELS[list(order)],
        )
    found, labels, predictions = read_predictions([tmp_path / "a.parquet", tmp_path / "b.parquet"], NAMES)
    assert found == ids and (labels == LABELS).all() and (predictions == [first, second]).all()


def test_runs_over_other_posts_are_refused(tmp_path):
    for name, post in (("a", "1"), ("b", "2")):
        write_predictions(
            tmp_path / f"{name}.parquet", ids=[post], label_names=NAMES, probabilities=np.eye(3)[:1], labels=[0]
        )
    with pytest.raises(ValueError, match="b.parquet has other posts"):
        read_predictions([tmp_path / "a.parquet", tmp_path / "b.parquet"], NAMES)
    with pytest.raises(ValueError, match="same posts"):
        compare([Entry("a", False, LABELS, answers(1)), Entry("b", False, LABELS[::-1], answers(1))], 3, "memotion")
