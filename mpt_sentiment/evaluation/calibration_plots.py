"""Figures of confidence: reliability diagram and risk-coverage curves."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mpt_sentiment.evaluation.abstention import COVERAGE
from mpt_sentiment.evaluation.fonts import readable_text
from mpt_sentiment.evaluation.plots import BLUE, GREY, ORANGE, STYLES, figure_with_axes, save_figure


def plot_reliability(
    path: str | os.PathLike[str],
    bins: Sequence[Mapping[str, float]],
    uncalibrated: Sequence[Mapping[str, float]] | None = None,
    title: str = "Reliability",
) -> Path:
    """Draw accuracy by confidence in bins of equal mass; a calibrated model is on the diagonal.

    Args:
        path: The PNG to write; an SVG is written with it.
        bins (`Sequence[Mapping]`): the bins of [`~mpt_sentiment.evaluation.calibration.reliability`].
        uncalibrated (`Sequence[Mapping]`, *optional*): the bins before temperature scaling.
        title (`str`): Heading.
    """
    with readable_text([title]) as (title,):
        figure, axes = figure_with_axes(5.2, 4.8)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="calibrated")
        if uncalibrated is not None:
            axes.plot(*_points(uncalibrated), color=ORANGE, linestyle=":", marker="D", markersize=4, label="before")
        name = "after temperature" if uncalibrated is not None else "model"
        confidence, accuracy = _points(bins)
        low, high = zip(*(each["interval"] for each in bins), strict=True)
        axes.vlines(confidence, low, high, color=BLUE, alpha=0.35, linewidth=2)
        axes.plot(confidence, accuracy, color=BLUE, marker="o", markersize=5, label=name)
        least = min(each["confidence"] for each in [*bins, *(uncalibrated or [])])
        axes.set_xlim(max(0, least - 0.05), 1.01)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("mean confidence of the bin")
        axes.set_ylabel("accuracy of the bin, with 95 % interval")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        _finish(axes, title)
        return save_figure(figure, path)


def plot_risk_coverage(
    path: str | os.PathLike[str],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str = "Risk and coverage",
) -> Path:
    """Draw the error rate among the most confident posts by their share of all posts.

    Args:
        path: The PNG to write; an SVG is written with it.
        curves (`Mapping`): name of a system → coverages and risks of
            [`~mpt_sentiment.evaluation.abstention.risk_coverage`].
        title (`str`): Heading.
    """
    with readable_text([*curves, title]) as (*names, title):
        figure, axes = figure_with_axes(5.6, 4.4)
        for name, (coverages, risks), style in zip(names, curves.values(), itertools.cycle(STYLES), strict=False):
            colour, _, line = style
            axes.step(
                [0, *coverages],
                [risks[0], *risks],
                where="pre",
                color=colour,
                linestyle=line,
                label=name,
                clip_on=False,
            )
        axes.axvline(COVERAGE, color=GREY, linestyle="--", linewidth=1, label=f"{COVERAGE:.0%} of the posts")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("coverage: share of posts answered, most confident first")
        axes.set_ylabel("risk: error rate among them")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        _finish(axes, title)
        return save_figure(figure, path)


def _points(bins: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([each[name] for each in bins]) for name in ("confidence", "accuracy"))


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, weight="bold", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
