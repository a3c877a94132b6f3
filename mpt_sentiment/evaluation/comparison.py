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
from mpt_sentiment.evaluation.bootstrap import holm, paired_p_value, percentile_interval, resampled_scores
from mpt_sentiment.evaluation.fonts import readable_text
from mpt_sentiment.evaluation.plots import BLUE, GREY, ORANGE, figure_with_axes, save_figure
from mpt_sentiment.evaluation.scores import SCORES, confusion_matrix, overall_scores

NUM_RESAMPLES = 10_000
# Scores whose difference to the reference is tested.
TESTED = ("f1_weighted", "f1_macro")


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        title: the row as its grammar writes it, e.g. `"mpt -rationales"`.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices, the same for all entries.
        predictions (`np.ndarray` of shape `(num_runs, num_posts)`): predicted class indices, one row per seed.
        rationales: whether the row reads rationales.
        published: the paper's accuracy and weighted F1 of this row.
        parameters, trainable_parameters: numbers of parameters; `None` if the system is not a network.
        updates: steps of the optimizer, the mean over the runs.
        optimizer: name of the optimizer.
        speed: training posts per second, for the ratio to MPT's; `None` if it was not measured.
        tuned: values that were chosen on validation, by the name of the argument.
        untrained_images: whether no encoder of its images was pretrained; `None` if it reads no images.
        remark: a note for the reader, e.g. the source of the visual inputs.
    """

    title: str
    labels: np.ndarray
    predictions: np.ndarray
    rationales: bool = False
    published: tuple[float, float] | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    updates: int | None = None
    optimizer: str | None = None
    speed: float | None = None
    tuned: Mapping[str, Any] | None = None
    untrained_images: bool | None = None
    remark: str = ""


def compare(
    entries: Sequence[Entry],
    num_classes: int,
    *,
    reference: str | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score all entries on the same bootstrap samples and test each against the reference.

    An interval covers the entry's mean over seeds if the posts were drawn again; `std` gives the spread over seeds.
    The difference of an entry to the reference is taken on the same samples, and its p-value is two-sided. `p_holm` is
    the p-value after Holm's correction over all of them: every tested score of every ranked row. An entry with
    untrained images is not ranked among entries with pretrained ones and has no p-value.

    Args:
        entries (`Sequence[Entry]`): at least one, all with the same labels.
        num_classes (`int`): number of classes.
        reference (`str`, *optional*): title of the entry that the others are compared with. By default `"mpt"` if it
            is there, otherwise the ranked entry with the best weighted F1.
        groups (`np.ndarray` of shape `(num_posts,)`, *optional*): groups of duplicates, which the bootstrap draws
            as wholes.
        seed (`int`, defaults to 0): seed of the bootstrap.

    Returns:
        One row per entry, in the given order: `title`, `rationales`, `ranked`, `is_reference`, `num_runs`, for each
        score its `mean`, `std` and `interval`, for each of `TESTED` the `difference_{score}` to the reference (`mean`,
        `interval`, `p_value`, `p_holm`; `None` for the reference), `parameters`, `trainable_parameters`, `updates`,
        `optimizer`, `relative_speed`, `published_accuracy`, `published_f1_weighted`, `tuned` and `remark`.

    Raises:
        ValueError: There is no entry, the entries have different labels, or the reference is not among them.
    """
    if not entries or any(not np.array_equal(entry.labels, entries[0].labels) for entry in entries):
        raise ValueError("`entries` must hold at least one entry, all over the same posts in the same order.")
    labels = entries[0].labels
    predictions = [entry.predictions for entry in entries]
    resampled = resampled_scores(labels, predictions, num_classes, NUM_RESAMPLES, seed, groups)
    scores = [_scores_of_runs(labels, entry.predictions, num_classes) for entry in entries]
    pretrained = any(entry.untrained_images is False for entry in entries)
    ranked = [not (pretrained and entry.untrained_images) for entry in entries]
    titles = [entry.title for entry in entries]
    if reference is None:
        best = max(np.flatnonzero(ranked), key=lambda index: scores[index]["f1_weighted"].mean())
        chosen = titles.index("mpt") if "mpt" in titles else int(best)
    elif reference in titles:
        chosen = titles.index(reference)
    else:
        raise ValueError(f"`reference` must be one of the rows {', '.join(titles)}, got {reference!r}.")
    mpt_speed = next((entry.speed for entry in entries if entry.title == "mpt"), None)
    rows = []
    for index, entry in enumerate(entries):
        paper = entry.published or (None, None)
        rows.append(
            {
                "title": entry.title,
                "rationales": entry.rationales,
                "ranked": ranked[index],
                "is_reference": index == chosen,
                "num_runs": len(entry.predictions),
                **{
                    name: {
                        "mean": float(values.mean()),
                        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
                        "interval": percentile_interval(resampled[index][name]),
                    }
                    for name, values in scores[index].items()
                },
                **{
                    f"difference_{name}": None
                    if index == chosen
                    else {
                        "mean": float(scores[index][name].mean() - scores[chosen][name].mean()),
                        "interval": percentile_interval(resampled[index][name] - resampled[chosen][name]),
                        "p_value": paired_p_value(resampled[index][name], resampled[chosen][name])
                        if ranked[index]
                        else None,
                        "p_holm": None,
                    }
                    for name in TESTED
                },
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
    tests = [row[f"difference_{name}"] for row in rows for name in TESTED]
    tests = [test for test in tests if test is not None and test["p_value"] is not None]
    for test, corrected in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return rows


def comparison_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows as a Markdown table, with the paper's numbers in columns of their own."""
    reference = next(row["title"] for row in rows if row["is_reference"])
    header = ["Row", "Runs", *(f"{score.heading} (95 % interval)" for score in SCORES.values())]
    for name in TESTED:
        header += [f"{SCORES[name].heading}, difference to {reference} (95 % interval)", "p (Holm)"]
    header += ["Parameters", "Trainable", "Updates", "Optimizer", "Speed, MPT = 1"]
    header += ["*Paper's accuracy*", "*Paper's F1*", "Tuned", "Remark"]
    lines = []
    for row in rows:
        cells = [row["title"], row["num_runs"]]
        for name in SCORES:
            low, high = row[name]["interval"]
            spread = "" if row[name]["std"] is None else f" ± {row[name]['std']:.4f}"
            cells.append(f"{row[name]['mean']:.4f}{spread} ({low:.3f}–{high:.3f})")
        for name in TESTED:
            difference = row[f"difference_{name}"]
            if difference is None:
                cells += ["reference", None]
                continue
            low, high = difference["interval"]
            corrected = difference["p_holm"]
            cells.append(f"{difference['mean']:+.4f} ({low:+.3f} to {high:+.3f})")
            cells.append("not ranked" if corrected is None else f"{corrected:.4f}")
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
                numbers = {key: number for key, number in value.items() if key != "interval"}
                record |= {f"{name}_{key}": number for key, number in (numbers | {"low": low, "high": high}).items()}
            elif not name.startswith("difference_"):  # the reference has none
                record[name] = value
        records.append(record)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        writer.writerows(records)
    return Path(path)


def plot_comparison(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Draw weighted F1 with its interval, best at the top, and the paper's numbers."""
    ordered = sorted(rows, key=lambda row: (row["ranked"], row["f1_weighted"]["mean"]))
    with readable_text([title]) as (title,):
        figure, axes = figure_with_axes(8.5, 1.6 + 0.32 * len(ordered))
        for height, row in enumerate(ordered):
            score, colour = row["f1_weighted"], ORANGE if row["rationales"] else BLUE
            axes.plot(score["interval"], [height, height], color=colour, linewidth=2, alpha=0.5)
            axes.plot(score["mean"], height, "o", color=colour, markersize=6)
            if row["published_f1_weighted"] is not None:
                axes.plot(row["published_f1_weighted"], height, "D", color=GREY, markerfacecolor="none", markersize=6)
        names = [row["title"] + ("" if row["ranked"] else " (not ranked)") for row in ordered]
        axes.set_yticks(range(len(ordered)), names)
        of_paper = [("paper", GREY, "D")] if any(row["published_f1_weighted"] is not None for row in rows) else []
        for label, colour, marker in (("with rationales", ORANGE, "o"), ("other", BLUE, "o"), *of_paper):
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
