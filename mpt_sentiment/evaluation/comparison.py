"""Systems side by side: means over seeds, intervals over posts, a paired test against the best, and a chart."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import PercentFormatter

from mpt_sentiment.evaluation.files import atomic_path
from mpt_sentiment.evaluation.plots import BLUE, GREY, ORANGE, figure_with_axes, save_figure
from mpt_sentiment.evaluation.published import published
from mpt_sentiment.evaluation.scores import SCORES, confusion_matrix, overall_scores

NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Entry:
    """One system of a comparison.

    Attributes:
        system: its name, as `train.py --model` takes it.
        rationales: whether it read rationales.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices, the same for all entries.
        predictions (`np.ndarray` of shape `(num_runs, num_posts)`): class indices, one row a seed.
        parameters: of the network; `None` for what is not one.
        speed: training posts a second, for the ratio to MPT's; `None` where nothing was measured.
        remark: what a reader must know, e.g. the source of its visual inputs.
    """

    system: str
    rationales: bool
    labels: np.ndarray
    predictions: np.ndarray
    parameters: int | None = None
    speed: float | None = None
    remark: str = ""


def read_predictions(paths: Sequence[str | os.PathLike[str]], label_names: Sequence[str]) -> tuple[Any, Any, Any]:
    """Ids, labels and predictions of several runs over the same posts (files of `write_predictions`).

    Returns:
        Ids in the order of the first file, labels `(num_posts,)` and predictions `(num_runs, num_posts)`.

    Raises:
        ValueError: a file has other posts or labels than the first.
    """
    index = {name: position for position, name in enumerate(label_names)}
    ids: list[str] = []
    labels, predictions = np.empty(0), []
    for path in paths:
        table = pq.read_table(path, columns=["id", "label", "prediction"]).to_pydict()
        place = {post: row for row, post in enumerate(table["id"])}
        ids = ids or table["id"]
        if place.keys() != set(ids):
            raise ValueError(f"{path} has other posts than {paths[0]}: only runs on one test set can be compared.")
        order = [place[post] for post in ids]
        found = np.array([index[table["label"][row]] for row in order])
        if predictions and (found != labels).any():
            raise ValueError(f"{path} has other labels than {paths[0]} for the same posts: was the dataset changed?")
        labels = found
        predictions.append([index[table["prediction"][row]] for row in order])
    return ids, labels, np.array(predictions)


def compare(entries: Sequence[Entry], num_classes: int, dataset: str, seed: int = 0) -> list[dict[str, Any]]:
    """One row an entry, in the order given.

    All entries meet the same resampled posts. An interval is that of the mean over the entry's seeds when the posts
    are drawn anew; it does not hold the spread over seeds, which `std` tells. `p_value` is two-sided and compares
    weighted F1 with that of the best entry (`None` for the best itself); it is not corrected for the number of rows.

    Args:
        entries: at least one, all with the same labels.
        num_classes: number of classes.
        dataset: name under which the paper's numbers are looked up.
        seed: of the bootstrap.

    Returns:
        Rows with `system`, `rationales`, `num_runs`, for each score its `mean`, `std` and `interval`, `p_value`,
        `parameters`, `relative_speed`, `published_accuracy`, `published_f1_weighted` and `remark`.

    Raises:
        ValueError: no entry, or entries over other posts.
    """
    if not entries or any(not np.array_equal(entry.labels, entries[0].labels) for entry in entries):
        raise ValueError("compare needs at least one entry, and all of them over the same posts in the same order.")
    labels = entries[0].labels
    draws = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), NUM_RESAMPLES)
    draws = draws.astype(np.float32)  # exact for counts, and multiplied a hundred times faster than integers
    resampled = [_resampled_means(draws, labels, entry.predictions, num_classes) for entry in entries]
    scores = [_scores(labels, entry.predictions, num_classes) for entry in entries]
    best = int(np.argmax([each["f1_weighted"].mean() for each in scores]))
    mpt_speed = next((entry.speed for entry in entries if entry.system == "mpt" and entry.rationales), None)
    rows = []
    for position, (entry, values, drawn) in enumerate(zip(entries, scores, resampled, strict=True)):
        row: dict[str, Any] = {"system": entry.system, "rationales": entry.rationales}
        row["num_runs"] = len(entry.predictions)
        for name in SCORES:
            row[name] = {
                "mean": float(values[name].mean()),
                "std": float(values[name].std(ddof=1)) if len(entry.predictions) > 1 else None,
                "interval": [float(bound) for bound in np.quantile(drawn[name], [0.025, 0.975])],
            }
        row["p_value"] = None
        if position != best:
            difference = np.round(drawn["f1_weighted"] - resampled[best]["f1_weighted"], 12)
            tail = min((difference <= 0).sum(), (difference >= 0).sum())
            row["p_value"] = float(min(1.0, 2 * (tail + 1) / (NUM_RESAMPLES + 1)))
        row["parameters"] = entry.parameters
        row["relative_speed"] = entry.speed / mpt_speed if entry.speed and mpt_speed else None
        borrowed = published(entry.system, dataset, entry.rationales)
        row["published_accuracy"], row["published_f1_weighted"] = borrowed or (None, None)
        rows.append(row | {"remark": entry.remark})
    return rows


def comparison_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table; the paper's numbers in columns of their own, marked as borrowed."""
    header = ["System", "Rationales", "Runs", *(f"{title} (95 % interval)" for title in SCORES.values())]
    header += ["p against best", "Parameters", "Speed, MPT = 1", "*Paper's accuracy*", "*Paper's F1*", "Remark"]
    lines = ["| " + " | ".join(header) + " |", "|---|---|" + "---:|" * 9 + "---|"]
    for row in rows:
        cells = [row["system"], "yes" if row["rationales"] else "no", str(row["num_runs"])]
        for name in SCORES:
            low, high = row[name]["interval"]
            spread = "" if row[name]["std"] is None else f" ± {row[name]['std']:.4f}"
            cells.append(f"{row[name]['mean']:.4f}{spread} ({low:.3f}–{high:.3f})")
        cells.append("best" if row["p_value"] is None else f"{row['p_value']:.3f}")
        cells.append("" if row["parameters"] is None else f"{row['parameters']:,}")
        cells.append("" if row["relative_speed"] is None else f"{row['relative_speed']:.2f}")
        for name in ("published_accuracy", "published_f1_weighted"):
            cells.append("" if row[name] is None else f"*{row[name]:.4f}*")
        lines.append("| " + " | ".join([*cells, row["remark"]]) + " |")
    return "\n".join(lines) + "\n"


def write_comparison_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as CSV, one number a column."""
    flat = []
    for row in rows:
        numbers = {}
        for name, value in row.items():
            if isinstance(value, Mapping):
                numbers |= {f"{name}_mean": value["mean"], f"{name}_std": value["std"]}
                numbers |= dict(zip((f"{name}_low", f"{name}_high"), value["interval"], strict=True))
            else:
                numbers[name] = value
        flat.append(numbers)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    return Path(path)


def plot_comparison(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Weighted F1 with its interval, best at the top; hollow diamonds are the paper's numbers."""
    ordered = sorted(rows, key=lambda row: row["f1_weighted"]["mean"])
    figure, axes = figure_with_axes(8.5, 1.6 + 0.32 * len(ordered))
    for place, row in enumerate(ordered):
        score, colour = row["f1_weighted"], ORANGE if row["rationales"] else BLUE
        axes.plot(score["interval"], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot(score["mean"], place, "o", color=colour, markersize=6)
        if row["published_f1_weighted"] is not None:
            axes.plot(row["published_f1_weighted"], place, "D", color=GREY, markerfacecolor="none", markersize=6)
    names = [row["system"] + (" + rationales" if row["rationales"] else "") for row in ordered]
    axes.set_yticks(range(len(ordered)), names)
    for label, colour, marker in (("without rationales", BLUE, "o"), ("with", ORANGE, "o"), ("paper", GREY, "D")):
        face = "none" if marker == "D" else colour
        axes.plot([], [], marker, color=colour, markerfacecolor=face, label=label)
    axes.legend(fontsize=9, loc="lower right", edgecolor="none")
    axes.set_xlabel("weighted F1, 95 % interval over posts")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, weight="bold", loc="left")
    return save_figure(figure, path)


def _scores(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Each score `(num_runs,)`."""
    return overall_scores(np.stack([confusion_matrix(labels, run, num_classes) for run in predictions]))


def _resampled_means(
    draws: np.ndarray, labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Each score `(num_resamples,)` as the mean over runs; `draws` `(num_resamples, num_posts)` counts the posts."""
    cells = labels * num_classes + predictions  # (num_runs, num_posts)
    one_hot = cells[..., None] == np.arange(num_classes**2)
    shape = (len(predictions), len(draws), num_classes, num_classes)
    confusion = np.stack([draws @ run for run in one_hot.astype(draws.dtype)]).reshape(shape)
    return {name: values.mean(axis=0) for name, values in overall_scores(confusion).items()}
