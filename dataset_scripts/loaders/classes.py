"""Classes that the labels of a table or dataset name, and warnings about doubtful ones."""

import logging
import re
import unicodedata
from collections.abc import Mapping

from dataset_scripts.reading.option_names import option
from dataset_scripts.schema import LABELS

logger = logging.getLogger(__name__)

# Words by which programs write a missing value.
PLACEHOLDERS = frozenset({"nan", "none", "null", "nil", "na", "n/a", "#n/a", "<na>", "undefined"})
MAX_CLASSES = 100
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?")


def is_placeholder(value: str | None) -> bool:
    """Return whether a value is a word for a missing one, such as `nan`."""
    return value is not None and value.strip().lower() in PLACEHOLDERS


def class_names(counts: Mapping[str, int], source: str) -> list[str]:
    """Order the names of classes, and warn of names that look like a mistake.

    Args:
        counts (mapping): number of posts by name.
        source (`str`): table or dataset with its column, for messages.

    Returns:
        positive, neutral, negative in this order if there are no others, else sorted (integers by value).

    Raises:
        ValueError: more than `MAX_CLASSES` names.
    """
    if not counts:
        return list(LABELS)
    if len(counts) > MAX_CLASSES:
        raise ValueError(
            f"{source} has {len(counts):,} different values (e.g. {sorted(counts)[0][:40]!r}), more than "
            f"{MAX_CLASSES}. Name the column of labels with {option('label_column')}, or all classes with "
            f"{option('labels', ['…'])}."
        )
    for doubt in _doubts(counts):
        logger.warning("%s: %s", source, doubt)
    if counts.keys() <= set(LABELS):
        return sorted(counts, key=LABELS.index)
    return sorted(counts, key=int if all(re.fullmatch(r"-?\d+", name) for name in counts) else None)


def _doubts(counts: Mapping[str, int]) -> list[str]:
    """Describe class names of two spellings, for a missing value, or with decimals."""
    by_spelling: dict[str, list[str]] = {}
    for name in counts:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        by_spelling.setdefault(key, []).append(name)
    doubts = []
    for names in by_spelling.values():
        if len(names) > 1:
            listed = ", ".join(f"{name!r} ({counts[name]:,})" for name in sorted(names))
            doubts.append(
                f"the classes {listed} differ in spelling only. If they are one class, write one spelling; "
                f"{option('labels', ['…'])} with one of them refuses the others."
            )
    for name in filter(is_placeholder, counts):
        doubts.append(
            f"{name!r} is a class ({counts[name]:,} posts). If these posts have no label, leave their cells blank."
        )
    decimals = [name for name in counts if _FLOAT.fullmatch(name)]
    if decimals:
        doubts.append(
            f"numbers such as {decimals[0]!r} are taken for classes, {len(decimals):,} of them. Name the column of "
            f"classes with {option('label_column')}."
        )
    return doubts
