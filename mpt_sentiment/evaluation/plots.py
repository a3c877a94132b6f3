"""Figures of a run: the confusion matrix and the training curve.

Figures are built without pyplot, so they need no display and leave a notebook's state unchanged. The colours are
those of Okabe and Ito, which can be distinguished with any colour vision; lines also differ in their markers.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dataset_scripts.output import atomic_path
from mpt_sentiment.evaluation.fonts import readable_text
from mpt_sentiment.evaluation.scores import SCORES

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#5F6368"
DPI = 150

# Key in the Trainer's log → legend, colour, marker, line style.
LOSSES = {
    "loss": ("train loss", BLUE, "o", "-"),
    "loss_ce": ("train, cross-entropy part", GREEN, "s", ":"),
    "loss_mlcl": ("train, contrastive part", PURPLE, "^", "-."),
    "eval_loss": ("validation loss", ORANGE, "D", "-"),
}
STYLES = ((BLUE, "o", "-"), (ORANGE, "D", "-"), (GREEN, "s", ":"), (PURPLE, "^", "-."))
EVAL_SCORES = {
    f"eval_{name}": (score.heading, *style)
    for (name, score), style in zip(SCORES.items(), itertools.cycle(STYLES), strict=False)
}


def plot_confusion_matrix(
    path: str | os.PathLike[str],
    confusion: Sequence[Sequence[int]] | np.ndarray,
    label_names: Sequence[str],
    title: str = "Confusion matrix",
) -> Path:
    """Draw the confusion matrix with counts and shares of the true label in each cell.

    Args:
        path: The PNG to write.
        confusion (`np.ndarray` of shape `(num_classes, num_classes)`): Counts; rows are true labels.
        label_names (`Sequence[str]`): Name of each class.
        title (`str`): Heading.
    """
    return plot_confusion_matrices(path, {title: confusion}, label_names)


def plot_confusion_matrices(
    path: str | os.PathLike[str],
    confusions: Mapping[str, Sequence[Sequence[int]] | np.ndarray],
    label_names: Sequence[str],
) -> Path:
    """Draw confusion matrices by heading, see [`plot_confusion_matrix`].

    Raises:
        ValueError: a matrix of another shape than the labels ask for.
    """
    size = len(label_names)
    matrices = [np.asarray(confusion) for confusion in confusions.values()]
    for matrix in matrices:
        if matrix.shape != (size, size):
            raise ValueError(
                f"`confusion` must have the shape ({size}, {size}) for the labels {list(label_names)}, got "
                f"{matrix.shape}."
            )
    with readable_text([*label_names, *confusions]) as texts:
        side = 2.4 + 0.95 * size
        figure, panels = figure_with_axes(side * len(matrices) + 0.9, side, len(matrices))
        panels = np.atleast_1d(panels)
        for axes, matrix, title in zip(panels, matrices, texts[size:], strict=True):
            image = _draw_confusion(axes, matrix, texts[:size])
            axes.set_title(title, weight="bold", pad=12)
        panels[0].set_ylabel("true label (posts)")
        bar = figure.colorbar(image, ax=panels[-1], fraction=0.046, pad=0.04, format=PercentFormatter(1))
        bar.outline.set_visible(False)
        bar.set_label("share of the true label")
        return save_figure(figure, path)


def _draw_confusion(axes: Axes, confusion: np.ndarray, names: Sequence[str]) -> Any:
    """Draw one matrix, and return its image for the colour bar."""
    size, support = len(names), confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.zeros(confusion.shape), where=support > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        ink = "white" if shares[row, column] > 0.55 else "black"
        bold = "bold" if row == column else "normal"
        axes.text(column, row - 0.02, f"{confusion[row, column]:,}", ha="center", color=ink, size=12, weight=bold)
        axes.text(column, row + 0.17, f"{shares[row, column]:.0%}", ha="center", color=ink, size=9)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), [f"{name}\n({support[row, 0]:,})" for row, name in enumerate(names)])
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted label")
    return image


def plot_training_curve(
    path: str | os.PathLike[str], log_history: Sequence[Mapping[str, Any]], best_epoch: float | None = None
) -> Path:
    """Draw the losses (left) and the validation scores (right) by epoch.

    Args:
        path: The PNG to write.
        log_history (`Sequence[Mapping]`):
            The Trainer's `state.log_history`. The figure shows the entries named in `LOSSES` and `EVAL_SCORES` that
            were logged.
        best_epoch (`float`, *optional*): The epoch that was kept, marked in both panels.

    Raises:
        ValueError: `log_history` has no loss and no score.
    """
    if not any(key in entry for entry in log_history for key in (*LOSSES, *EVAL_SCORES)):
        raise ValueError(
            f"`log_history` must hold one of {[*LOSSES, *EVAL_SCORES]}, got {len(log_history)} entries without any; "
            "pass the `state.log_history` of a Trainer that has trained."
        )
    figure, (losses, scores) = figure_with_axes(10, 4.1, columns=2)
    _draw_lines(losses, log_history, LOSSES)
    losses.set_title("Loss", weight="bold", loc="left")
    _draw_lines(scores, log_history, EVAL_SCORES)
    scores.set_title("Validation scores", weight="bold", loc="left")
    scores.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if best_epoch is not None:
            axes.axvline(
                best_epoch, color=GREY, linestyle="--", linewidth=1.2, zorder=1, label=f"kept: epoch {best_epoch:g}"
            )
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
        else:
            axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=GREY)
    return save_figure(figure, path)


def _draw_lines(axes: Axes, log_history: Sequence[Mapping[str, Any]], lines: Mapping[str, tuple[str, ...]]) -> None:
    for key, (name, colour, marker, style) in lines.items():
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry and "epoch" in entry]
        if points:
            epochs, values = zip(*points, strict=True)
            # Markers of more than a few dozen points would overlap.
            marker = marker if len(points) <= 40 else None
            axes.plot(epochs, values, label=name, color=colour, linestyle=style, marker=marker, markersize=4.5)


def figure_with_axes(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """Create a figure of the given size in inches, with one row of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure as PNG and, with the same name, as SVG; a failure leaves earlier files.

    Letters become paths in the SVG, which shows the same everywhere, and equal figures give equal files.
    """
    path = Path(path)
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        for target in (path, path.with_suffix(".svg")):
            with atomic_path(target) as temporary:
                figure.savefig(
                    temporary,
                    format="svg" if target.suffix == ".svg" else "png",
                    dpi=DPI,
                    bbox_inches="tight",
                    pad_inches=0.15,
                    metadata={"Date": None} if target.suffix == ".svg" else None,
                )
    return path
