"""Comparison: scores of each system, intervals, paired tests, table, CSV and chart."""

import csv

import numpy as np
import pytest
from PIL import Image

from mpt_sentiment.evaluation import evaluate_predictions, paired_bootstrap
from mpt_sentiment.evaluation.bootstrap import holm
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
            LABELS,
            predictions(0.9),
            rationales=True,
            published=(0.7795, 0.7562),
            parameters=1000,
            speed=50.0,
            tuned={"dropout": 0.1, "head_learning_rate": 3e-4},
        ),
        Entry(
            "bert",
            LABELS,
            predictions(0.9),
            parameters=500,
            trainable_parameters=400,
            updates=1250,
            optimizer="rmsprop",
            speed=100.0,
        ),
        Entry("majority", LABELS, np.zeros((1, len(LABELS)), dtype=int), remark="a floor"),
    ]
    return compare(entries, 3)


def test_scores_are_the_means_over_the_reports_of_the_runs(rows):
    runs = [evaluate_predictions(np.eye(3)[run], LABELS, NAMES) for run in predictions(0.9)]
    for score in SCORES:
        values = [run[score] for run in runs]
        assert rows[0][score]["mean"] == pytest.approx(np.mean(values))
        assert rows[0][score]["std"] == pytest.approx(np.std(values, ddof=1))
    assert rows[2]["f1_weighted"]["std"] is None
    assert [row["relative_speed"] for row in rows] == [1.0, 2.0, None]
    assert [row["is_reference"] for row in rows] == [True, False, False]
    # equal predictions tie, and the majority label is worse
    assert rows[0]["difference_f1_weighted"] is None and rows[1]["difference_f1_macro"]["p_holm"] == 1.0
    assert rows[1]["difference_f1_weighted"]["mean"] == 0 and rows[2]["difference_f1_weighted"]["p_holm"] < 0.001


def test_interval_and_p_value_of_single_runs_equal_those_of_their_own_reports():
    better, worse = predictions(0.8, runs=1), predictions(0.65, runs=1, seed=5)
    rows = compare([Entry("a", LABELS, worse), Entry("b", LABELS, better)], 3)
    report = evaluate_predictions(np.eye(3)[better[0]], LABELS, NAMES, num_resamples=10_000, seed=3)
    np.testing.assert_allclose(rows[1]["f1_macro"]["interval"], report["intervals"]["f1_macro"], atol=0.012)
    pair = paired_bootstrap(LABELS, worse[0], better[0], 3)["f1_weighted"]
    difference = rows[0]["difference_f1_weighted"]
    assert rows[1]["is_reference"] and difference["p_value"] == pytest.approx(pair["p_value"], abs=0.02)
    np.testing.assert_allclose(difference["interval"], pair["interval"], atol=0.01)


def test_duplicates_widen_the_intervals_as_if_each_group_were_one_post():
    once = predictions(0.7, runs=1)
    copies = np.repeat(np.arange(len(LABELS)), 4)
    entry = Entry("a", LABELS[copies], once[:, copies])
    alone = compare([Entry("a", LABELS, once)], 3)[0]["accuracy"]
    grouped = compare([entry], 3, groups=copies)[0]["accuracy"]
    assert grouped["mean"] == alone["mean"]
    np.testing.assert_allclose(grouped["interval"], alone["interval"], atol=1e-6)  # the same draws
    ungrouped = compare([entry], 3)[0]["accuracy"]["interval"]
    assert ungrouped[1] - ungrouped[0] == pytest.approx((alone["interval"][1] - alone["interval"][0]) / 2, rel=0.1)


def test_holm_equals_the_example_of_its_paper_and_the_definition():
    # α = 0.05: 0.01 * 4, 0.02 * 3, 0.03 * 2 raised to 0.06, 0.04 * 1 raised to 0.06
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert holm([0.7]) == [0.7] and holm([]) == [] and holm([0.6, 0.9]) == [1.0, 1.0]
    values = np.random.default_rng(0).random(9) ** 3
    order = sorted(range(9), key=lambda index: values[index])
    slow = {
        index: min(1, max(values[order[k]] * (9 - k) for k in range(rank + 1))) for rank, index in enumerate(order)
    }
    np.testing.assert_allclose(holm(values), [slow[index] for index in range(9)])


def test_holms_correction_covers_every_tested_score_of_every_row():
    entries = [Entry("a", LABELS, predictions(0.8)), Entry("b", LABELS, predictions(0.7, seed=2))]
    entries.append(Entry("c", LABELS, predictions(0.6, seed=3)))
    rows = compare(entries, 3, reference="b")
    tests = [row[f"difference_{name}"] for row in (rows[0], rows[2]) for name in ("f1_weighted", "f1_macro")]
    assert [test["p_holm"] for test in tests] == holm([test["p_value"] for test in tests])
    assert max(test["p_holm"] / test["p_value"] for test in tests) == 4
    with pytest.raises(ValueError, match="`reference` must be one of the rows a, b, c, got 'd'"):
        compare(entries, 3, reference="d")


def test_untrained_images_are_not_ranked_beside_pretrained_ones(tmp_path):
    def table(images_of_second: bool) -> list[dict]:
        entries = [
            Entry("vit", LABELS, predictions(0.9), untrained_images=True),
            Entry("mvan", LABELS, predictions(0.7), untrained_images=images_of_second),
            Entry("bert", LABELS, predictions(0.5)),
        ]
        return compare(entries, 3)

    rows = table(images_of_second=False)
    assert [row["ranked"] for row in rows] == [False, True, True]
    assert rows[0]["difference_f1_macro"]["p_value"] is None and rows[1]["is_reference"]
    lines = comparison_markdown(rows).splitlines()[2:]
    assert ["not ranked" in line for line in lines] == [True, False, False] and "| reference |" in lines[1]
    assert Image.open(plot_comparison(tmp_path / "chart.png", rows, "MVSA-Single")).size[0] > 500
    rows = table(images_of_second=True)  # all alike
    assert all(row["ranked"] for row in rows) and rows[0]["is_reference"]


def test_the_papers_numbers_are_in_columns_of_their_own(rows):
    assert (rows[0]["published_accuracy"], rows[0]["published_f1_weighted"]) == (0.7795, 0.7562)
    assert rows[2]["published_accuracy"] is None
    text = comparison_markdown(rows)
    assert "*0.7795*" in text and "*Paper's accuracy*" in text and "a floor" in text
    assert "Weighted F1, difference to mpt" in text and "dropout 0.1, head_learning_rate 0.0003" in text
    assert "| 500 | 400 | 1,250 | rmsprop | 2.00 |" in text
    assert {line.count("|") for line in text.splitlines()} == {text.splitlines()[0].count("|")}


def test_table_4_has_three_systems_with_rationales_and_table_3_none():
    assert published("clmlf", "mvsa_multiple", True) == (0.7228, 0.7019)
    assert published("clmlf", "mvsa_multiple", False) == (0.7200, 0.6983)
    assert published("clmlf", "ch_mits", True) is None and published("mpt", "ch_mits", False) is None


def test_csv_and_chart_are_written(rows, tmp_path):
    write_comparison_csv(tmp_path / "table.csv", rows)
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert float(records[0]["accuracy_mean"]) == rows[0]["accuracy"]["mean"] and records[2]["parameters"] == ""
    assert float(records[2]["difference_f1_macro_p_holm"]) == rows[2]["difference_f1_macro"]["p_holm"]
    assert records[0]["difference_f1_macro_p_holm"] == ""
    assert Image.open(plot_comparison(tmp_path / "chart.png", rows, "MVSA-Single")).size[0] > 500


def test_entries_over_other_posts_are_refused():
    with pytest.raises(ValueError, match="same posts"):
        compare([Entry("a", LABELS, predictions(1)), Entry("b", LABELS[::-1], predictions(1))], 3)
