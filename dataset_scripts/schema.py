"""One post, one row: the columns that every dataset of this package has."""

from collections.abc import Sequence

from datasets import ClassLabel, Features, Image, Value

# The order is the label id of the three-class datasets (positive 0, neutral 1, negative 2) and the order in which a
# model sees its perspectives; changing it would relabel every published dataset.
LABELS = ("positive", "neutral", "negative")
PERSPECTIVES = LABELS
CONTENT = ("image", "text")  # the columns that may belong to others: posts can be published without them


def rationale_column(perspective: str) -> str:
    """Name of the column that holds the rationale written from `perspective`."""
    return f"rationale_{perspective}"


def features(labels: Sequence[str] = LABELS, perspectives: Sequence[str] = PERSPECTIVES) -> Features:
    """The `datasets.Features` of every dataset.

    Args:
        labels (sequence of `str`, defaults to positive, neutral, negative):
            Class names; the position is the label id.
        perspectives (sequence of `str`, defaults to positive, neutral, negative):
            One rationale column per perspective.

    Returns:
        `id`, `text`, `language`, `source` are strings; `image`, every `rationale_*`, `label`, `text_label` and
        `image_label` may be null: a post without image, without rationale, or without label (for prediction).

    Raises:
        ValueError: `labels` or `perspectives` has a repeated or blank name, or `labels` is empty.
    """
    labels = _names("labels", labels)
    if not labels:
        raise ValueError("`labels` is empty; give at least one class name, e.g. labels=('positive', 'negative').")
    perspectives = _names("perspectives", perspectives)
    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "text": Value("string"),
            **{rationale_column(perspective): Value("string") for perspective in perspectives},
            "label": ClassLabel(names=labels),
            "text_label": ClassLabel(names=labels),
            "image_label": ClassLabel(names=labels),
            "language": Value("string"),
            "source": Value("string"),
        }
    )


def _names(argument: str, names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"`{argument}` is the string {names!r}; give a sequence of names, e.g. ({names!r},).")
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"`{argument}` contains {name!r}; every name must be a string that is not blank.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"`{argument}` names {', '.join(map(repr, repeated))} more than once; write each name once.")
    return names
