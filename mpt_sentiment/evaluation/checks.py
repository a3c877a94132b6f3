"""Checks of labels and probabilities that are passed to reports and tests."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax


def class_probabilities(values: np.ndarray, label_names: list[str]) -> np.ndarray:
    """Return probabilities as float64; logits go through a softmax.

    Raises:
        ValueError: The shape is not `(num_posts, num_classes)`, or a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(label_names):
        raise ValueError(
            f"`probabilities` must have the shape (num_posts, {len(label_names)}), one column for each of the labels "
            f"{label_names}, got {values.shape}."
        )
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if broken.size:
        raise ValueError(
            f"`probabilities` must be finite; {broken.size} of {len(values)} rows are not, the first is row "
            f"{broken[0]}. The usual cause is a training loss that became NaN."
        )
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        return values
    return softmax(values, axis=1)


def class_indices(values: Sequence[int] | np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Return class indices as int64.

    Raises:
        ValueError: There is none, one is not an integer, or one is out of range.
    """
    fix = f"pass integers from 0 to {num_classes - 1} and leave out posts without a label"
    try:
        indices = np.asarray(values, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be class indices ({error}); {fix}.") from error
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"`{name}` must be a list of at least one class index, got the shape {indices.shape}.")
    outside = np.flatnonzero((indices < 0) | (indices >= num_classes))
    if outside.size:
        raise ValueError(
            f"`{name}` must be class indices, got {indices[outside[0]]} in {name}[{outside[0]}] ({outside.size} of "
            f"{indices.size} are out of range); {fix}."
        )
    return indices


def check_same_length(**arrays: np.ndarray) -> None:
    """Raise a `ValueError` if the arrays have different lengths."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"All arrays must have one row per post, in the same order, got {listed}.")
