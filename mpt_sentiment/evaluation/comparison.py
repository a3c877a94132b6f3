"""Comparison of systems: scores, intervals, paired tests, table, CSV and chart."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from dataset_scripts.output import atomic_path, markdown_table
from mpt_sentiment.evaluation.bootstrap import paired_p_value, percentile_interval, resampled_scores
from mpt_sentiment.evaluation.fonts import readable_text
from mpt_sentiment.evaluation.plots import BLUE, GREY, ORANGE, figure_with_axes, save_figure
from mpt_sentiment.evaluation.published import published
from mpt_sentiment.evaluation.scores import SCORES, confusion_matrix, overall_scores

NUM_RESAMPLES = 10_000
# Arm of a system: the title of its row. "words": static word embeddings in the place of the text encoder's states.
ARMS = {
    "without": "{}",
    "with": "{} + rationales",
    "shuffled": "{} + shuffled rationales",
    "words": "{}, static words",
}


@dataclass(frozen=True)
class Entry:
    """One system of a comparison.

    Attributes:
        system: name of the system, as `--model` takes it.
        arm: `"without"` or `"with"` rationales, `"shuffled"` for those of other posts, `"words"` for static words.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices, the same for all entries.
        predictions (`np.ndarray` of shape `(num_runs, num_posts)`): predicted class indices, one row per seed.
        parameters, trainable_parameters: numbers of parameters; `None` if the system is not a network.
        updates: steps of the optimizer, the mean over the runs.
        optimizer: name of the optimizer.
        speed: training posts per second, for the ratio to MPT's; `None` if it was not measured.
        tuned: values that were chosen on validation, by the name of the argument.
        untrained_images: whether no encoder of its images was pretrained; `None` if it reads no images.
        remark: a note for the reader, e.g. the source of the visual inputs.
    """

    system: str
    arm: str
    labels: np.ndarray
    predictions: np.ndarray
    parameters: int | None = None
    trainable_parameters: int | None = None
    updates: int | None = None
    optimizer: str | None = None
    speed: float | None = None
    tuned: Mapping[str, Any] | None = None
    untrained_images: bool | None = None
    remark: str = ""

    @property
    def title(self) -> str:
        return row_title(self.system, self.arm)


def row_title(system: str, arm: str) -> str:
    """Name a row of the table, e.g. `mvan + shuffled rationales`."""
    return ARMS[arm].format(system)


def compare(entries: Sequence[Entry], num_classes: int, dataset: str, seed: int = 0) -> list[dict[str, Any]]:
    """Score all entries on the same bootstrap samples and test each against the best.

    The interval covers the entry's mean over seeds if the posts were drawn again; `std` gives the spread over seeds.
    `p_value` is two-sided, compares weighted F1 with that of the best entry (`None` for the best entry) and is not
    corrected for the number of rows. An entry with untrained images is not ranked among entries with pretrained ones:
    it cannot be the best, and has no `p_value`.

    Args:
        entries (`Sequence[Entry]`): at least one, all with the same labels.
        num_classes (`int`): number of classes.
        dataset (`str`): dataset whose published numbers are added.
        seed (`int`, defaults to 0): seed of the bootstrap.

    Returns:
        One row per entry, in the given order: `title`, `system`, `arm`, `ranked`, `num_runs`, for each score its
        `mean`, `std` and `interval`, `p_value`, `parameters`, `trainable_parameters`, `updates`, `optimizer`,
        `relative_speed`, `published_accuracy`, `published_f1_weighted`, `tuned` and `remark`.

    Raises:
        ValueError: There is no entry, or the entries have different labels.
    """
    if not entries or any(not np.array_equal(entry.labels, entries[0].labels) for entry in entries):
        raise ValueError("`entries` must hold at least one entry, all over the same posts in the same order.")
    labels = entries[0].labels
    resampled = resampled_scores(labels, [entry.predictions for entry in entries], num_classes, NUM_RESAMPLES, seed)
    scores = [_scores_of_runs(labels, entry.predictions, num_classes) for entry in entries]
    pretrained = any(entry.untrained_images is False for entry in entries)
    ranked = [not (pretrained and entry.untrained_images) for entry in entries]
    best = max(np.flatnonzero(ranked), key=lambda index: scores[index]["f1_weighted"].mean())
    mpt_speed = next((entry.speed for entry in entries if entry.system == "mpt" and entry.arm == "with"), None)
    rows = []
    for index, entry in enumerate(entries):
        known = entry.arm != "shuffled" and published(entry.system, dataset, entry.arm == "with")
        paper = known or (None, None)
        rows.append(
            {
                "title": entry.title,
                "system": entry.system,
                "arm": entry.arm,
                "ranked": ranked[index],
                "num_runs": len(entry.predictions),
                **{
                    name: {
                        "mean": float(values.mean()),
                        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
                        "interval": percentile_interval(resampled[index][name]),
                    }
                    for name, values in scores[index].items()
                },
                "p_value": None
                if index == best or not ranked[index]
                else paired_p_value(resampled[index]["f1_weighted"], resampled[best]["f1_weighted"]),
                "parameters": entry.parameters,
                "trainable_parameters": entry.trainable_parameters,
                "updates": entry.updates,
                "optimizer": entry.optimizer,
                "relative_speed": entry.speed / mpt_speed if entry.speed and mpt_speed else None,
                "published_accuracy": paper[0],
                "published_f1_weighted": paper[1],
                "tuned": ", ".join(f"{name} {value:g}" for name, value in (entry.tuned or {}).items()),
                "remark": entry.remark,
            }
        )
    return rows


def comparison_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows as a Markdown table, with the paper's numbers in columns of their own."""
    header = ["System", "Runs", *(f"{score.heading} (95 % interval)" for score in SCORES.values())]
    header += ["p against best", "Parameters", "Trainable", "Updates", "Optimizer", "Speed, MPT = 1"]
    header += ["*Paper's accuracy*", "*Paper's F1*", "Tuned", "Remark"]
    lines = []
    for row in rows:
        cells = [row["title"], row["num_runs"]]
        for name in SCORES:
            low, high = row[name]["interval"]
            spread = "" if row[name]["std"] is None else f" ± {row[name]['std']:.4f}"
            cells.append(f"{row[name]['mean']:.4f}{spread} ({low:.3f}–{high:.3f})")
        best = "best" if row["ranked"] else "not ranked"
        cells.append(best if row["p_value"] is None else f"{row['p_value']:.3f}")
        for name, form in (
            ("parameters", "{:,}"),
            ("trainable_parameters", "{:,}"),
            ("updates", "{:,}"),
            ("optimizer", "{}"),
            ("relative_speed", "{:.2f}"),
            ("published_accuracy", "*{:.4f}*"),
            ("published_f1_weighted", "*{:.4f}*"),
        ):
            cells.append(None if row[name] is None else form.format(row[name]))
        lines.append([*cells, row["tuned"], row["remark"]])
    return markdown_table(header, lines, "l" + "r" * (len(header) - 3) + "ll") + "\n"


def write_comparison_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows as CSV with one number per column."""
    records = []
    for row in rows:
        record = {}
        for name, value in row.items():
            if isinstance(value, Mapping):
                low, high = value["interval"]
                record |= {f"{name}_mean": value["mean"], f"{name}_std": value["std"]}
                record |= {f"{name}_low": low, f"{name}_high": high}
            else:
                record[name] = value
        records.append(record)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return Path(path)


def plot_comparison(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Draw weighted F1 with its interval, best at the top, and the paper's numbers."""
    ordered = sorted(rows, key=lambda row: (row["ranked"], row["f1_weighted"]["mean"]))
    with readable_text([title]) as (title,):
        figure, axes = figure_with_axes(8.5, 1.6 + 0.32 * len(ordered))
        for height, row in enumerate(ordered):
            score, colour = row["f1_weighted"], ORANGE if row["arm"] == "with" else BLUE
            axes.plot(score["interval"], [height, height], color=colour, linewidth=2, alpha=0.5)
            axes.plot(score["mean"], height, "o", color=colour, markersize=6)
            if row["published_f1_weighted"] is not None:
                axes.plot(row["published_f1_weighted"], height, "D", color=GREY, markerfacecolor="none", markersize=6)
        names = [row["title"] + ("" if row["ranked"] else " (not ranked)") for row in ordered]
        axes.set_yticks(range(len(ordered)), names)
        for label, colour, marker in (("with rationales", ORANGE, "o"), ("other", BLUE, "o"), ("paper", GREY, "D")):
            face = "none" if marker == "D" else colour
            axes.plot([], [], marker, color=colour, markerfacecolor=face, label=label)
        axes.legend(fontsize=9, loc="lower right", edgecolor="none")
        axes.set_xlabel("weighted F1, 95 % interval over posts")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title, weight="bold", loc="left")
        return save_figure(figure, path)


def _scores_of_runs(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Compute each score of each run, of shape `(num_runs,)`."""
    return overall_scores(np.stack([confusion_matrix(labels, run, num_classes) for run in predictions]))
