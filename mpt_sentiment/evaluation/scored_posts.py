"""Labelled posts with the probabilities of one system, read from a table of predictions."""

import dataclasses
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute
from scipy.special import softmax

PROBABILITY = "probability_"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPosts:
    """Labelled posts of a table of predictions, one row per post.

    Attributes:
        ids (`list[str]`): ids of the posts, in the order of the table.
        label_names (`list[str]`): names of the classes.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        probabilities (`np.ndarray` of shape `(num_posts, num_classes)`): means over the seeds.
    """

    ids: list[str]
    label_names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


def scored_posts(table: pa.Table, row: str | None = None, *, calibrated: bool = True) -> ScoredPosts:
    """Read posts, labels and probabilities of one system, averaged over its seeds.

    Posts without label are left out and counted in the log.

    Args:
        table (`pa.Table`): predictions of a run, or the out-of-fold predictions of a comparison.
        row (`str`, *optional*): system of a comparison, needed if the table has several.
        calibrated (`bool`, defaults to `True`): `False` undoes the temperatures of out-of-fold predictions.

    Raises:
        ValueError: several systems or an unknown one, no probabilities, a label that is no class of the model, or no
            labelled post.
    """
    table = of_row(table, row)
    label_names = [name.removeprefix(PROBABILITY) for name in table.column_names if name.startswith(PROBABILITY)]
    if not label_names or "label" not in table.column_names or "id" not in table.column_names:
        raise ValueError(
            f"The predictions need the columns id, label and {PROBABILITY}LABEL, as `predict` and `compare` write "
            f"them; there are {', '.join(table.column_names)}."
        )
    labelled = table.filter(pa.compute.is_valid(table["label"]))
    if len(labelled) < len(table):
        logger.info("%d of %d predictions have no label and are left out.", len(table) - len(labelled), len(table))
    given = labelled["label"].to_pylist()
    unknown = sorted(set(given) - set(label_names))
    if unknown or not given:
        fault = f"The label {unknown[0]!r} is none" if unknown else "No post has a label"
        raise ValueError(f"{fault} of the classes of the predictions, {', '.join(label_names)}.")
    place_of: dict[str, int] = {}
    places = np.array([place_of.setdefault(post_id, len(place_of)) for post_id in labelled["id"].to_pylist()])
    indices, labels = np.array([label_names.index(name) for name in given]), np.zeros(len(place_of), np.int64)
    labels[places] = indices
    if (labels[places] != indices).any():
        contradicted = labelled["id"][int(np.argmax(labels[places] != indices))].as_py()
        raise ValueError(f"The post {contradicted!r} has different labels in the predictions.")
    values = np.stack([labelled[f"{PROBABILITY}{name}"].to_numpy() for name in label_names], axis=1)
    if not calibrated and "temperature" in labelled.column_names:
        temperatures = pa.compute.fill_null(labelled["temperature"], 1.0).to_numpy()[:, None]
        with np.errstate(divide="ignore"):  # the logarithm of 0 is that of an impossible class
            values = softmax(np.log(values) * temperatures, axis=1)
    sums = np.zeros((len(place_of), len(label_names)))
    np.add.at(sums, places, values)
    return ScoredPosts([*place_of], label_names, labels, sums / np.bincount(places)[:, None])


def of_row(table: pa.Table, row: str | None) -> pa.Table:
    """Select the predictions of one system of a comparison.

    Raises:
        ValueError: there are several and none is named, or the named one is not there.
    """
    rows = list(dict.fromkeys(table["row"].to_pylist())) if "row" in table.column_names else []
    if row is None and len(rows) <= 1:
        return table
    if row not in rows:
        given = "Name one" if row is None else f"There is no row {row!r}"
        raise ValueError(f"{given}: `row` must be one of the systems of the predictions, {', '.join(rows) or 'none'}.")
    return table.filter(pa.compute.equal(table["row"], row))
