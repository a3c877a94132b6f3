"""Threshold of abstention for a target precision, from the predictions that a training left."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoConfig

from dataset_scripts.reading.option_names import option, option_name
from mpt_sentiment.evaluation.abstention import choose_threshold, risk_coverage, scores_of_answered
from mpt_sentiment.evaluation.calibration import MIN_POSTS, scaled
from mpt_sentiment.evaluation.scored_posts import ScoredPosts, scored_posts
from mpt_sentiment.results import PREDICTIONS_FILES


def chosen_threshold(
    folder: str | Path, abstain_below: float | None, target_precision: float | None, calibrated: bool = True
) -> tuple[float | None, str | None]:
    """Return the threshold that was given, or the one for a target precision and its report.

    Raises:
        ValueError: both were given, or see [`threshold_of_run`].
    """
    if target_precision is None:
        return abstain_below, None
    if abstain_below is not None:
        names = f"{option_name('abstain_below')} and {option_name('target_precision')}"
        raise ValueError(f"{names} both choose the threshold of abstention; leave one out.")
    return threshold_of_run(folder, target_precision, calibrated)


def threshold_of_run(folder: str | Path, target_precision: float, calibrated: bool = True) -> tuple[float, str]:
    """Choose the threshold of abstention on the validation predictions of a training.

    Args:
        folder (`str` or `Path`): output folder of `train`.
        target_precision (`float`): accuracy wanted among the answered posts, above 0 and at most 1.
        calibrated (`bool`, defaults to `True`): `False` for probabilities without the temperature of the model.

    Returns:
        The threshold, and the line that reports coverage and accuracy on validation and test.

    Raises:
        ValueError: no validation predictions in the folder, no precision, or one that no threshold reaches.
    """
    folder = Path(folder)
    path = folder / PREDICTIONS_FILES["validation"]
    if not path.is_file():
        raise ValueError(
            f"{option_name('target_precision')} chooses a threshold on {path.name}, which `train` writes, but "
            f"{folder} has none. Choose one by hand: {option('abstain_below', 0.7)}."
        )
    temperature = 1.0
    if not calibrated:
        temperature = AutoConfig.from_pretrained(folder).calibration_temperature
    posts, probabilities = _read(path, temperature)
    threshold = choose_threshold(probabilities, posts.labels, target_precision)
    if threshold is None:
        highest = 1 - risk_coverage(probabilities, posts.labels)[2].min()
        raise ValueError(
            f"No threshold reaches {option('target_precision', target_precision)} on the {len(posts.ids):,} "
            f"validation posts of {folder}; the highest precision is {highest:.3f}."
        )
    parts = []
    for name, file in PREDICTIONS_FILES.items():
        if (folder / file).is_file():
            posts, probabilities = _read(folder / file, temperature)
            scores = scores_of_answered(probabilities, posts.labels, threshold)
            accuracy = "" if scores["accuracy"] is None else f", {scores['accuracy']:.1%} of them right"
            few = " (too few to rely on)" if scores["posts"] < MIN_POSTS else ""
            parts.append(f"{name} {scores['coverage']:.1%} of {len(posts.ids):,} posts answered{accuracy}{few}")
    return threshold, f"Threshold {threshold:.4f}, chosen on validation: {'; '.join(parts)}"


def _read(path: Path, temperature: float) -> tuple[ScoredPosts, np.ndarray]:
    posts = scored_posts(pq.read_table(path))
    with np.errstate(divide="ignore"):  # the logarithm of 0 is that of an impossible class
        return posts, scaled(np.log(posts.probabilities), 1 / temperature)
