"""Comparison: scores of each system, intervals, paired tests, table, CSV and chart."""

import csv

import numpy as np
import pytest
from PIL import Image

from mpt_sentiment.evaluation import evaluate_predictions, paired_bootstrap
from mpt_sentiment.evaluation.comparison import (
    Entry,
    compare,
    comparison_markdown,
    plot_comparison,
    write_comparison_csv,
)
from mpt_sentiment.evaluation.published import published
from mpt_sentiment.evaluation.scores import SCORES

NAMES = ["positive", "neutral", "negative"]
LABELS = np.random.default_rng(0).integers(0, 3, 150)


def predictions(share: float, runs: int = 2, seed: int = 1) -> np.ndarray:
    """Draw predictions of shape `(runs, 150)`, of which about `share` are right."""
    rng = np.random.default_rng(seed)
    wrong = rng.integers(0, 3, (runs, len(LABELS)))
    return np.where(rng.random(wrong.shape) < share, LABELS, wrong)


@pytest.fixture(scope="module")
def rows():
    entries = [
        Entry(
            "mpt",
            "with",
            LABELS,
            predictions(0.9),
            parameters=1000,
            speed=50.0,
            tuned={"dropout": 0.1, "head_learning_rate": 3e-4},
        ),
        Entry(
            "bert",
            "without",
            LABELS,
            predictions(0.9),
            parameters=500,
            trainable_parameters=400,
            updates=1250,
            optimizer="rmsprop",
            speed=100.0,
        ),
        Entry("majority", "without", LABELS, np.zeros((1, len(LABELS)), dtype=int), remark="a floor"),
    ]
    return compare(entries, 3, "mvsa_single")


def test_scores_are_the_means_over_the_reports_of_the_runs(rows):
    runs = [evaluate_predictions(np.eye(3)[run], LABELS, NAMES) for run in predictions(0.9)]
    for score in SCORES:
        values = [run[score] for run in runs]
        assert rows[0][score]["mean"] == pytest.approx(np.mean(values))
        assert rows[0][score]["std"] == pytest.approx(np.std(values, ddof=1))
    assert rows[2]["f1_weighted"]["std"] is None
    assert [row["relative_speed"] for row in rows] == [1.0, 2.0, None]
    # equal predictions tie, and the majority label is worse
    assert [row["p_value"] for row in rows[:2]] == [None, 1.0] and rows[2]["p_value"] < 0.001


def test_interval_and_p_value_of_single_runs_equal_those_of_their_own_reports():
    better, worse = predictions(0.8, runs=1), predictions(0.65, runs=1, seed=5)
    rows = compare([Entry("a", "without", LABELS, worse), Entry("b", "without", LABELS, better)], 3, "memotion")
    report = evaluate_predictions(np.eye(3)[better[0]], LABELS, NAMES, num_resamples=10_000, seed=3)
    np.testing.assert_allclose(rows[1]["f1_macro"]["interval"], report["intervals"]["f1_macro"], atol=0.012)
    pair = paired_bootstrap(LABELS, worse[0], better[0], 3)["f1_weighted"]
    assert rows[1]["p_value"] is None and rows[0]["p_value"] == pytest.approx(pair["p_value"], abs=0.02)


def test_untrained_images_are_not_ranked_beside_pretrained_ones(tmp_path):
    def table(images_of_mpt: bool) -> list[dict]:
        entries = [
            Entry("vit", "without", LABELS, predictions(0.9), untrained_images=True),
            Entry("mpt", "without", LABELS, predictions(0.7), untrained_images=images_of_mpt),
            Entry("bert", "without", LABELS, predictions(0.5)),
        ]
        return compare(entries, 3, "mvsa_single")

    rows = table(images_of_mpt=False)
    assert [row["ranked"] for row in rows] == [False, True, True]
    assert rows[0]["p_value"] is None and rows[1]["p_value"] is None and rows[2]["p_value"] is not None
    lines = comparison_markdown(rows).splitlines()[2:]
    assert ["not ranked" in line for line in lines] == [True, False, False] and "| best |" in lines[1]
    assert Image.open(plot_comparison(tmp_path / "chart.png", rows, "MVSA-Single")).size[0] > 500
    rows = table(images_of_mpt=True)  # all alike
    assert all(row["ranked"] for row in rows) and rows[0]["p_value"] is None and rows[1]["p_value"] is not None


def test_the_papers_numbers_are_in_columns_of_their_own(rows):
    assert (rows[0]["published_accuracy"], rows[0]["published_f1_weighted"]) == (0.7795, 0.7562)
    assert rows[2]["published_accuracy"] is None
    text = comparison_markdown(rows)
    assert "*0.7795*" in text and "*Paper's accuracy*" in text and "a floor" in text
    assert "| mpt + rationales |" in text and "dropout 0.1, head_learning_rate 0.0003" in text
    assert "| 500 | 400 | 1,250 | rmsprop | 2.00 |" in text
    assert {line.count("|") for line in text.splitlines()} == {text.splitlines()[0].count("|")}


def test_table_4_has_three_systems_with_rationales_and_table_3_none():
    assert published("clmlf", "mvsa_multiple", True) == (0.7228, 0.7019)
    assert published("clmlf", "mvsa_multiple", False) == (0.7200, 0.6983)
    assert published("clmlf", "ch_mits", True) is None and published("mpt", "ch_mits", False) is None


def test_the_paper_has_no_number_for_shuffled_rationales_and_that_of_the_plain_system_for_static_words():
    entries = [Entry("mvan", arm, LABELS, predictions(0.9)) for arm in ("shuffled", "words")]
    shuffled, words = compare(entries, 3, "mvsa_single")
    assert (shuffled["title"], shuffled["published_accuracy"]) == ("mvan + shuffled rationales", None)
    assert (words["title"], words["published_accuracy"]) == ("mvan, static words", 0.7298)


def test_csv_and_chart_are_written(rows, tmp_path):
    write_comparison_csv(tmp_path / "table.csv", rows)
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert float(records[0]["accuracy_mean"]) == rows[0]["accuracy"]["mean"] and records[2]["parameters"] == ""
    assert Image.open(plot_comparison(tmp_path / "chart.png", rows, "MVSA-Single")).size[0] > 500


def test_entries_over_other_posts_are_refused():
    with pytest.raises(ValueError, match="same posts"):
        compare(
            [Entry("a", "without", LABELS, predictions(1)), Entry("b", "without", LABELS[::-1], predictions(1))], 3, ""
        )
