"""Tiny runs of a report, and predictions drawn at random in the place of trained rows."""

import numpy as np
import pyarrow as pa

from helpers.train_command import TINY_FIELDS
from mpt_sentiment.evaluation import prediction_table
from mpt_sentiment.reporting.context import Context
from mpt_sentiment.rows import parse_row

SEEDS, TEMPERATURE = (1, 2), 2.0
FIELDS = TINY_FIELDS | {"num_train_epochs": 2, "split": "folds", "split_options": {"fold": [0, 1, 2]}}


def random_predictions(context: Context, rows: list[str], right: float = 1.0) -> pa.Table:
    """Draw calibrated probabilities of all tested posts for each row and seed."""
    tables, names = [], context.label_names
    for number, row in enumerate(rows):
        for seed in SEEDS:
            rng = np.random.default_rng((number, seed))
            logits = rng.normal(size=(len(context.ids), len(names))) + right * np.eye(len(names))[context.labels]
            values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            own = prediction_table(context.ids, names, values, context.labels)
            size = len(own)
            columns = {
                "fold": pa.array([0] * size, pa.int64()),
                "row": pa.array([parse_row(row).title] * size),
                "seed": pa.array([seed] * size, pa.int64()),
                "temperature": pa.array([TEMPERATURE] * size),
            }
            tables.append(pa.table(columns | {name: own[name] for name in own.column_names}))
    return pa.concat_tables(tables)
