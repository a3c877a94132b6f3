"""Sections of a report: their numbers against direct computations."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score, silhouette_score

from helpers.report_runs import TEMPERATURE
from mpt_sentiment.evaluation import label_suspects
from mpt_sentiment.evaluation.calibration import expected_calibration_error
from mpt_sentiment.reporting import (
    ablation,
    calibration,
    cases,
    contrastive_weight,
    errors,
    lmm,
    maps,
    noise,
    polarities,
)
from mpt_sentiment.reporting.section import Omitted, flattened


def of(context, row: str, seed: int) -> np.ndarray:
    """Read the probabilities of a run from the table, post by post."""
    names = context.label_names
    found = {
        each["id"]: [each[f"probability_{name}"] for name in names]
        for each in context.table.to_pylist()
        if (each["row"], each["seed"]) == (row, seed)
    }
    return np.array([found[post_id] for post_id in context.ids])


def mean_accuracy(context, row: str, chosen: np.ndarray) -> float:
    runs = [of(context, row, seed).argmax(axis=1) for seed in (1, 2)]
    return float(np.mean([accuracy_score(context.labels[chosen], run[chosen]) for run in runs]))


def without_own_labels(context):
    """Return the context with posts that have no labels of text and image."""
    parts = {
        fold: part._replace(posts=part.posts.map(lambda _: {"text_label": None, "image_label": None}))
        for fold, part in context.plan.parts.items()
    }
    return dataclasses.replace(context, plan=dataclasses.replace(context.plan, parts=parts))


def test_polarities_are_scored_on_posts_with_opposite_labels(context):
    section = polarities.section(context)
    texts, images = (np.array(context.tested[name][:]) for name in ("text_label", "image_label"))
    positive, neutral, negative = range(3)
    opposite = (texts != images) & (texts != neutral) & (images != neutral)
    conflict = (texts != images) & ~opposite
    for table, chosen in zip(section.tables, (opposite, conflict), strict=True):
        assert f"{chosen.sum()} posts" in table.caption
        for record in table.records:
            assert record["accuracy"]["mean"] == pytest.approx(mean_accuracy(context, record["title"], chosen))
    assert [record["title"] for record in section.tables[0].records][:2] == ["mpt", "mpt -rationales"]
    assert "label of its own" in section.prose[0]


def test_polarities_without_labels_are_decided_by_two_networks_and_the_page_says_so(context):
    context = without_own_labels(context)
    section = polarities.section(context)
    assert "no labels of text and image" in section.prose[0] and "`mpt -image -rationales`" in section.prose[0]
    text, image = (
        np.mean([of(context, row, seed) for seed in (1, 2)], axis=0).argmax(axis=1)
        for row in ("mpt -image -rationales", "mpt -text -rationales")
    )
    opposite = (text != image) & (text != 1) & (image != 1)
    assert f"{opposite.sum()} posts" in section.tables[0].caption


def test_posts_that_the_rule_drops_are_counted_by_the_label_that_is_followed():
    names, posts = ["positive", "neutral", "negative"], {"id": ["a", "b", "c", "d"]}
    posts |= {"text_label": [0, 0, 2, 2], "image_label": [2, 2, 0, 0]}
    predictions = pa.table({"id": ["d", "a", "b", "c"], "prediction": ["positive", "positive", "neutral", "negative"]})
    records = polarities.follow_counts(predictions, names, posts)
    assert [record["posts"] for record in records] == [2, 1, 1]
    assert records[0]["share"] == 0.5 and records[0]["interval"][0] < 0.5 < records[0]["interval"][1]


def test_the_ablation_has_every_part_the_control_and_table_6(context):
    section = ablation.section(context)
    paper, parts = section.tables
    assert [record["title"] for record in paper.records] == [
        *("mpt -rationales -mlcl", "mpt -mlcl", "mpt -rationales", "mpt"),
    ]
    titles = [record["title"] for record in parts.records]
    wanted = "shuffled -sknet -lstm -cnn -vit -mlcl -text -image perspectives=positive fusion=concat"
    assert {f"mpt {word}" for word in [*wanted.split(), "share_text_encoder=false"]} < {*titles}
    everything = np.full(len(context.labels), True)
    for record in parts.records:
        assert record["accuracy"]["mean"] == pytest.approx(mean_accuracy(context, record["title"], everything))
        runs = [of(context, record["title"], seed).argmax(axis=1) for seed in (1, 2)]
        scores = [f1_score(context.labels, run, average="weighted") for run in runs]
        assert record["f1_weighted"]["std"] == pytest.approx(np.std(scores, ddof=1))
    assert section.notes == []


def test_rows_that_a_frozen_network_with_single_branches_cannot_have(context):
    model = dataclasses.replace(
        context.plan.base.model, text_branches=["mean"], image_branches=["cnn"], freeze_text_layers=-1
    )
    plan = dataclasses.replace(context.plan, base=dataclasses.replace(context.plan.base, model=model))
    rows = ablation.rows(plan)
    assert {"mpt +sknet", "mpt +lstm"} < {*rows}
    assert not any("share_text_encoder" in row or "-cnn" in row for row in rows)
    (sentences,) = ablation.single_branches(plan)
    assert "`mpt -text`" in sentences and "`mpt -image`" in sentences and "encoder is frozen" in sentences
    assert ablation.single_branches(context.plan) == []


def test_rows_with_fewer_runs_are_marked(context):
    runs = zip(context.table["row"].to_pylist(), context.table["seed"].to_pylist(), strict=True)
    fewer = context.table.filter(pa.array([run != ("mpt -vit", 2) for run in runs]))
    section = ablation.section(dataclasses.replace(context, table=fewer))
    table = section.tables[1]
    runs = dict(zip([record["title"] for record in table.records], [row[1] for row in table.rows()], strict=True))
    assert list(table.columns)[1] == "Runs" and runs.pop("mpt -vit") == "1" and {*runs.values()} == {"2"}
    assert "of which some rows have fewer runs" in table.caption
    assert "Runs" not in ablation.section(context).tables[1].columns


def test_a_row_without_predictions_is_named(context):
    table = context.table.filter(pa.compute.not_equal(context.table["row"], "mpt -vit"))
    reduced = dataclasses.replace(context, table=table, errors={"mpt -vit, seed 1": "MemoryError: too large"})
    assert ablation.section(reduced).notes == ["`mpt -vit` is missing: MemoryError: too large"]


def test_the_lmm_is_compared_on_the_posts_that_it_labelled(context, zero_shot):
    with pytest.raises(Omitted, match="No predictions of the LMM were given"):
        lmm.section(context)
    table = pa.parquet.read_table(zero_shot)
    section = lmm.section(dataclasses.replace(context, zero_shot=table))
    common = np.array([post_id in {*table["id"].to_pylist()} for post_id in context.ids])
    assert common.sum() == len(context.ids) - 10 and f"{common.sum()} posts" in section.tables[0].caption
    mpt, other = section.tables[0].records
    assert mpt["accuracy"]["mean"] == pytest.approx(mean_accuracy(context, "mpt", common))
    right = [each["label"] == each["prediction"] for each in table.to_pylist()]
    assert other["accuracy"]["mean"] == pytest.approx(np.mean(right))


def test_lambda_uses_the_rows_that_have_the_value(context):
    assert contrastive_weight.weights(context.plan) == {
        "mpt -mlcl": 0.0,
        "mpt loss_weight_mlcl=0.05": 0.05,
        "mpt": 0.1,
        "mpt loss_weight_mlcl=0.15": 0.15,
        "mpt loss_weight_mlcl=0.2": 0.2,
    }
    records = contrastive_weight.section(context).tables[0].records
    everything = np.full(len(context.labels), True)
    expected = [mean_accuracy(context, row, everything) for row in contrastive_weight.weights(context.plan)]
    assert [record["accuracy"]["mean"] for record in records] == pytest.approx(expected)


def test_separation_agrees_with_a_direct_computation():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    vectors = rng.normal(size=(40, 5)) + labels[:, None]
    numbers = maps.separation(vectors, labels)
    assert numbers["silhouette"] == pytest.approx(silhouette_score(vectors, labels))
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=2) + np.diag([np.inf] * 40)
    shares = [(labels[np.argsort(row)[:10]] == label).mean() for row, label in zip(distances, labels, strict=True)]
    assert numbers["purity"] == pytest.approx(np.mean(shares))
    same = labels[:, None] == labels
    assert numbers["purity_by_chance"] == pytest.approx((same.sum() - 40) / (40 * 39))
    assert numbers["silhouette_interval"][0] < numbers["silhouette"] < numbers["silhouette_interval"][1]
    for method in ("t-SNE", "PCA"):
        np.testing.assert_array_equal(maps.project(vectors, method), maps.project(vectors, method))


def test_cases_are_chosen_by_rule(context):
    section = cases.section(context)
    wins, losses = (heading.split(": ")[1] for heading in section.posts)
    mpt, text, image = (
        np.mean([of(context, row, seed) for seed in (1, 2)], axis=0)
        for row in ("mpt", "mpt -image -rationales", "mpt -text -rationales")
    )
    right = [values.argmax(axis=1) == context.labels for values in (mpt, text, image)]
    assert wins == f"{(right[0] & ~right[1] & ~right[2]).sum()} posts"
    assert losses == f"{(~right[0] & right[1] & right[2]).sum()} posts"
    alone = np.flatnonzero(right[0] & ~right[1] & ~right[2])
    ordered = np.sort(mpt, axis=1)
    best = max(alone, key=lambda place: ordered[place, -1] - ordered[place, -2])
    first = next(iter(section.posts.values()))[0]
    assert first.id == context.ids[best] and first.facts["label"] == context.label_names[context.labels[best]]
    assert first.text and first.image is not None and "mpt" in first.facts
    assert any("Without the LMM" in note for note in section.notes)


def test_ties_of_cases_are_in_the_order_of_ids():
    labels, mpt, other = np.array([0, 0, 0]), np.array([[0.6, 0.4]] * 3), np.array([[0.2, 0.8]] * 3)
    assert cases.choose_cases(["c", "a", "b"], labels, mpt, [other]) == ([1, 2, 0], [])
    assert cases.choose_cases(["c", "a", "b"], labels, other, [mpt]) == ([], [1, 2, 0])


def test_calibration_is_measured_before_and_after_the_temperature(context):
    records = calibration.section(context).tables[0].records
    assert [(record["seed"], record["state"]) for record in records] == [
        *((1, "before"), (1, "after"), (2, "before"), (2, "after")),
    ]
    after = of(context, "mpt", 1)
    before = after**TEMPERATURE / (after**TEMPERATURE).sum(axis=1, keepdims=True)
    for record, values in zip(records, (before, after), strict=False):
        error = expected_calibration_error(values, context.labels)
        assert record["expected_calibration_error"] == pytest.approx(error)
        confident = np.argsort(-values.max(axis=1))[: int(np.ceil(0.8 * len(values)))]
        right = values.argmax(axis=1)[confident] == context.labels[confident]
        assert record["accuracy_at_coverage"] == pytest.approx(right.mean())
        low, high = record["accuracy_at_coverage_interval"]
        assert low < right.mean() < high


def test_errors_and_suspects_are_those_of_the_evaluation(context):
    record = errors.section(context).tables[0].records[0]
    mean = np.mean([of(context, "mpt", seed) for seed in (1, 2)], axis=0)
    own = context.labels == 0
    assert record["accuracy"] == pytest.approx((mean.argmax(axis=1) == context.labels)[own].mean())
    section = noise.section(context)
    suspects = label_suspects(context.table, "mpt")
    assert [each["id"] for each in section.tables[0].records] == [each["id"] for each in suspects[:10]]
    (shown,) = section.posts.values()
    assert [post.id for post in shown] == [each["id"] for each in suspects[:10]] and shown[0].image is not None
    kept = ~np.isin(context.ids, [each["id"] for each in suspects])
    of_mpt = section.tables[1].records[0]
    assert of_mpt["row"] == "mpt" and f"{kept.sum()} without the suspects" in section.tables[1].caption
    without = of_mpt["accuracy"]["without"]
    assert without["mean"] == pytest.approx(mean_accuracy(context, "mpt", kept))
    assert without["interval"][0] < without["mean"] < without["interval"][1]


def test_a_record_has_one_number_per_column():
    record = {"row": "mpt", "accuracy": {"mean": 0.5, "std": None, "interval": [0.4, 0.6]}, "range": (1, 2)}
    assert flattened(record) == {
        **{"row": "mpt", "accuracy": 0.5, "accuracy_std": None},
        **{"accuracy_interval_low": 0.4, "accuracy_interval_high": 0.6, "range_low": 1, "range_high": 2},
    }
