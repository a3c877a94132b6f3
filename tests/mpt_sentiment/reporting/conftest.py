"""Fixtures of the report: random predictions of a comparison, and its report."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mpt_sentiment as mpt
from helpers.report_runs import FIELDS, SEEDS, random_predictions
from mpt_sentiment.evaluation import prediction_table, write_predictions
from mpt_sentiment.protocol import Protocol
from mpt_sentiment.reporting.context import Context, Plan
from mpt_sentiment.reporting.run import SECTIONS
from mpt_sentiment.training_data import split_parts


@pytest.fixture(scope="package")
def posts():
    return mpt.load_posts("sample", num_posts=130, seed=3)


@pytest.fixture(scope="package")
def plan(posts) -> Plan:
    protocol = Protocol.of_fields(None, "sample", {"output_dir": "unused"} | FIELDS)
    base = protocol.setup("mpt", "sample", {})
    return Plan(split_parts(posts, base.data), base)


@pytest.fixture(scope="package")
def table(plan) -> pa.Table:
    """Draw predictions of every row that a section asks for."""
    rows = list(dict.fromkeys(row for section in SECTIONS.values() for row in section.rows(plan)))
    return random_predictions(Context(plan, None, Path(), lambda row: Path()), rows)


@pytest.fixture
def context(plan, table, tmp_path) -> Context:
    """Return what sections read that need no trained network."""
    return Context(plan, table, tmp_path, lambda row: tmp_path)


@pytest.fixture(scope="package")
def zero_shot(plan, tmp_path_factory) -> Path:
    """Draw predictions of the LMM for all but ten of the tested posts."""
    context = Context(plan, None, Path(), lambda row: Path())
    values = np.random.default_rng(9).dirichlet([1.0] * 3, len(context.ids))
    path = tmp_path_factory.mktemp("lmm") / "predictions.parquet"
    own = prediction_table(context.ids, context.label_names, values, context.labels)
    write_predictions(path, own.slice(10))
    return path


@pytest.fixture(scope="package")
def opposite():
    """Load posts as MVSA loaders do with `keep_opposite`: opposite ones have no label."""
    posts = mpt.load_posts("sample", num_posts=24, seed=5)

    def label(post: dict) -> dict:
        return {"label": None if {post["text_label"], post["image_label"]} == {0, 2} else post["label"]}

    return posts.map(label, features=posts.features)


@pytest.fixture(scope="package")
def written(posts, table, zero_shot, opposite, tmp_path_factory):
    """Write the whole report of the comparison, with trained networks for maps and explanations."""
    folder = tmp_path_factory.mktemp("report")
    write_predictions(folder / "given" / "predictions.parquet", table)
    return mpt.report(
        posts,
        output_dir=folder / "out",
        seeds=SEEDS,
        comparison=folder / "given",
        zero_shot=zero_shot,
        opposite=opposite,
        num_explained=10,
        num_shown=2,
        **FIELDS,
    )
