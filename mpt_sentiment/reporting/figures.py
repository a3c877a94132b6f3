"""Figures of a report; each takes several panels, e.g. one for each dataset or epoch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from mpt_sentiment.evaluation.fonts import readable_text
from mpt_sentiment.evaluation.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, figure_with_axes, save_figure

# Colours and markers of classes, in their order.
CLASSES = ((BLUE, "o"), (GREY, "s"), (ORANGE, "^"), (GREEN, "D"), (PURPLE, "v"))


def plot_scores_by_value(
    path: str | os.PathLike[str], panels: Mapping[str, Sequence[Mapping[str, Any]]], axis: str
) -> Path:
    """Draw weighted F1 and accuracy by the value of an argument, with intervals over posts.

    Args:
        path: The PNG to write; an SVG is written with it.
        panels (`Mapping[str, Sequence]`): heading → rows of a comparison, each with its `weight`, and with the
            accuracy of each seed as `runs`.
        axis (`str`): name of the argument.
    """
    with readable_text([*panels, axis]) as (*titles, axis):
        figure, drawn = figure_with_axes(6.4 * len(panels), 4.2, len(panels))
        for axes, title, rows in zip(np.atleast_1d(drawn), titles, panels.values(), strict=True):
            values = [row["weight"] for row in rows]
            for score, name, colour, marker in (
                ("f1_weighted", "weighted F1", BLUE, "o"),
                ("accuracy", "accuracy", ORANGE, "D"),
            ):
                low, high = zip(*(row[score]["interval"] for row in rows), strict=True)
                axes.fill_between(values, low, high, color=colour, alpha=0.12, linewidth=0)
                means = [row[score]["mean"] for row in rows]
                axes.plot(values, means, color=colour, marker=marker, markersize=6, label=name)
            for row in rows:
                if len(row["runs"]) > 1:
                    axes.plot([row["weight"]] * len(row["runs"]), row["runs"], ".", color=ORANGE, markersize=4)
            axes.set_xticks(values)
            axes.set_xlabel(axis)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_title(title.replace("`", ""), weight="bold", loc="left", fontsize=9)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
        return save_figure(figure, path)


def plot_maps(
    path: str | os.PathLike[str],
    panels: Mapping[str, np.ndarray],
    labels: np.ndarray,
    label_names: Sequence[str],
) -> Path:
    """Draw maps of posts, one panel for each epoch.

    Args:
        path: The PNG to write; an SVG is written with it.
        panels (`Mapping[str, np.ndarray]`): heading → coordinates `(num_posts, 2)`.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        label_names (`Sequence[str]`): names of the classes.
    """
    with readable_text([*panels, *label_names]) as texts:
        titles, names = texts[: len(panels)], texts[len(panels) :]
        figure, drawn = figure_with_axes(3.9 * len(panels), 4.1, len(panels))
        for axes, title, points in zip(np.atleast_1d(drawn), titles, panels.values(), strict=True):
            size = float(np.clip(2500 / len(points), 4, 26))
            for index, name in enumerate(names):
                colour, marker = CLASSES[index % len(CLASSES)]
                chosen = points[labels == index]
                axes.scatter(*chosen.T, s=size, color=colour, marker=marker, alpha=0.65, linewidths=0, label=name)
            axes.set_title(title, weight="bold", fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#D1D9E0")
        figure.legend(
            *np.atleast_1d(drawn)[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names)
        )
        return save_figure(figure, path)
