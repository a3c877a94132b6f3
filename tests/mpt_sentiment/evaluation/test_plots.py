"""Figures: readable PNG files, complete or absent."""

import numpy as np
import pytest
from PIL import Image

from mpt_sentiment.evaluation import plot_confusion_matrix, plot_training_curve

HISTORY = [
    {"epoch": 0.5, "step": 5, "loss": 1.2, "loss_ce": 1.0, "loss_mlcl": 2.0, "learning_rate": 1e-5},
    {"epoch": 1.0, "step": 10, "eval_loss": 1.0, "eval_accuracy": 0.5, "eval_f1_weighted": 0.4, "eval_f1_macro": 0.3},
    {"epoch": 1.5, "step": 15, "loss": 0.8, "loss_ce": 0.7, "loss_mlcl": 1.0, "learning_rate": 5e-6},
    {"epoch": 2.0, "step": 20, "eval_loss": 0.9, "eval_accuracy": 0.6, "eval_f1_weighted": 0.5, "eval_f1_macro": 0.4},
    {"epoch": 2.0, "step": 20, "train_loss": 1.0, "train_runtime": 3.0},
]


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 400
        return np.asarray(image.convert("RGB"))


def test_figures_show_the_counts_and_the_kept_epoch(tmp_path):
    names = ["positive", "neutral", "negative"]
    counts = np.array([[9, 1, 0], [2, 5, 3], [0, 0, 0]])
    figures = [pixels(plot_confusion_matrix(tmp_path / "a.png", times * counts, names, "Test")) for times in (1, 10)]
    assert not np.array_equal(*figures)  # the shares and therefore the colours are equal
    curves = [pixels(plot_training_curve(tmp_path / "b.png", HISTORY, best_epoch=best)) for best in (None, 2.0)]
    assert not np.array_equal(*curves)
    pixels(plot_training_curve(tmp_path / "c.png", HISTORY[:1]))  # no evaluation was logged


def test_unusable_input_is_refused_and_no_file_is_left(tmp_path):
    with pytest.raises(ValueError, match="state.log_history"):
        plot_training_curve(tmp_path / "a.png", [{"epoch": 1.0, "train_runtime": 3.0}])
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        plot_confusion_matrix(tmp_path / "a.png", np.eye(3), ["positive", "negative"])
    assert not list(tmp_path.iterdir())
