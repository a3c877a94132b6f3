"""The four rows of a distillation, on the same test posts with paired intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from dataset_scripts.duplicates import group_ids
from dataset_scripts.splits import groups_in
from mpt_sentiment.distilling.targets import read_by
from mpt_sentiment.distilling.teacher import OF_THE_RUN
from mpt_sentiment.evaluation import prediction_table, write_predictions
from mpt_sentiment.evaluation.calibration import scaled
from mpt_sentiment.evaluation.comparison import TESTED, Entry, compare
from mpt_sentiment.evaluation.predictions import read_predictions
from mpt_sentiment.evaluation.scores import SCORES

TEACHER, STUDENT, ALONE, WITHHELD = (
    "teacher",
    "student",
    "student's network trained without a teacher",
    "teacher with rationales withheld",
)


def write_teacher_predictions(trainer: Any, test: Dataset, path: Path) -> None:
    """Write the predictions of a teacher for test posts."""
    names = list(trainer.model.config.id2label.values())
    probabilities = scaled(read_by(trainer, test, OF_THE_RUN).logits, 1.0)  # calibrated already
    if trainer.args.should_save:
        write_predictions(path, prediction_table(test["id"], names, probabilities, test["label"]))


def without_rationales(posts: Dataset) -> Dataset:
    """Return posts without their rationales."""
    return posts.remove_columns([name for name in posts.column_names if name.startswith("rationale_")])


def score_rows(
    predictions: Mapping[str, Sequence[Path]], test: Dataset, remarks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Score the rows and their differences to the student.

    Args:
        predictions (mapping): title of the row → `predictions.parquet` of each run.
        test (`Dataset`): the test posts.
        remarks (mapping): title → note for the reader.

    Returns:
        For each row `title`, `num_runs`, `remark`, for each score `mean`, `std` and `interval`, and of weighted and
        macro F1 the `difference_…` to the student, see [`~mpt_sentiment.evaluation.comparison.compare`].
    """
    names, entries = test.features["label"].names, []
    for title, paths in predictions.items():
        ids, labels, predicted = read_predictions(paths, names)
        row_of = {post_id: row for row, post_id in enumerate(ids)}
        order = [row_of[post_id] for post_id in test["id"][:]]
        entries.append(Entry(title, labels[order], predicted[:, order], remark=remarks.get(title, "")))
    groups = np.array(group_ids(test, groups_in(test, None)))
    rows = compare(entries, len(names), reference=STUDENT, groups=groups)
    kept = ["title", "num_runs", "remark", *SCORES, *(f"difference_{name}" for name in TESTED)]
    return [{name: row[name] for name in kept} for row in rows]


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows for a terminal."""
    lines = [f"{'test':<46}{'accuracy':>9}{'F1 weighted':>13}  minus student (95 % interval)"]
    for row in rows:
        difference = row["difference_f1_weighted"]
        shown = "" if difference is None else "{:+.4f} ({:+.4f} to {:+.4f})".format(
            difference["mean"], *difference["interval"]
        )  # fmt: skip
        scores = f"{row['accuracy']['mean']:>9.4f}{row['f1_weighted']['mean']:>13.4f}"
        lines.append(f"{row['title']:<46}{scores}  {shown}".rstrip())
    return "\n".join(lines)
