"""Posts of a run, loaded and split, and their description for results and card."""

import collections
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict

from dataset_scripts import load_posts_with_report, split_hash, split_posts
from dataset_scripts.reading.option_names import load_call, option, option_name
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.registry import FACTS
from dataset_scripts.schema import has_values
from dataset_scripts.splits import (
    DEFAULT_PROTOCOL,
    SPLITS,
    check_labels,
    complete_splits,
    folds_of,
    labelled_posts,
    split_folds,
)
from mpt_sentiment.arguments import DataArguments
from mpt_sentiment.evaluation import TrainingData

logger = logging.getLogger(__name__)

AS_GIVEN = "as given"
_NAMES = {"mpt_sample": "sample"}  # the column `source` of the sample: the name of its loader


class Part(NamedTuple):
    """Posts of one split into train, validation and test.

    Attributes:
        posts (`DatasetDict`): train, validation and test.
        data ([`TrainingData`]): account of them.
    """

    posts: DatasetDict
    data: TrainingData


# The index of each fold and its posts; `None` for posts that are split once.
Parts = Mapping[int | None, Part]


def load_parts(args: DataArguments) -> Parts:
    """Load posts and split them, with the protocol `"folds"` once per fold.

    Raises:
        ValueError: faults of the data, or a dataset with other splits of its own.
    """
    posts, report = load_posts_with_report(
        args.dataset, args.data_dir, rationales=args.rationales, on_error=args.on_error, **args.dataset_options
    )
    if isinstance(posts, DatasetDict):
        posts = DatasetDict(
            {name: labelled_posts(part, args.on_error, report, split=name) for name, part in posts.items()}
        )
    else:
        posts = labelled_posts(posts, args.on_error, report)
    return split_parts(posts, args, report)


def split_parts(posts: Dataset | DatasetDict, args: DataArguments, report: BuildReport | None = None) -> Parts:
    """Split posts as the arguments say; complete the splits of a `DatasetDict`.

    Raises:
        ValueError: `posts` is neither, or cannot be trained on.
    """
    if isinstance(posts, DatasetDict):
        warn_of_unused_split(posts, args.split, args.split_options)
        return {None: Part(*given_splits(posts, args.split_seed, report))}
    if not isinstance(posts, Dataset):
        raise ValueError(
            f"`posts` must be a Dataset or DatasetDict, got a {type(posts).__name__}. `mpt.load_posts` loads them "
            "from a table, a dataset or the Hub."
        )
    protocol, seed, options = args.split or DEFAULT_PROTOCOL, args.split_seed, args.split_options
    if protocol != "folds":
        splits: dict[int | None, DatasetDict] = {None: split_posts(posts, protocol, seed, **options)}
    else:
        others = {name: value for name, value in options.items() if name != "fold"}
        splits = {**split_folds(posts, seed, folds=folds_of(options), **others)}
    return {
        fold: Part(
            split,
            describe_posts(
                split,
                protocol=protocol if fold is None else f"{protocol}, fold {fold}",
                split_seed=seed,
                report=report,
            ),
        )
        for fold, split in splits.items()
    }


def load_splits(args: DataArguments) -> tuple[DatasetDict, TrainingData]:
    """Load posts and split them once; `"folds"` without a number is its fold 0.

    Returns:
        The posts, and the account of them for results and card.

    Raises:
        ValueError: faults of the data, or a dataset with other splits of its own.
    """
    if args.split == "folds":
        args = dataclasses.replace(args, split_options={"fold": 0} | args.split_options)
    parts = load_parts(args)
    if len(parts) > 1:
        raise ValueError("This command reads one fold: name one number with `fold`.")
    return next(iter(parts.values()))


def as_splits(posts: Dataset | DatasetDict) -> tuple[DatasetDict, TrainingData]:
    """Split a `Dataset` by the default protocol; complete the splits of a `DatasetDict`."""
    return split_parts(posts, DataArguments())[None]


def given_splits(
    posts: DatasetDict, seed: int = DataArguments.split_seed, report: BuildReport | None = None
) -> tuple[DatasetDict, TrainingData]:
    """Complete and describe splits that posts have already; see [`complete_splits`]."""
    splits = complete_splits(posts, seed)
    if len(splits) == len(posts):
        return splits, describe_posts(splits, protocol=AS_GIVEN, report=report)
    protocol = f"{AS_GIVEN}, validation taken from train"
    return splits, describe_posts(splits, protocol=protocol, split_seed=seed, report=report)


def warn_of_unused_split(posts: DatasetDict, protocol: str | None, options: Mapping[str, Any]) -> None:
    """Warn that a protocol or its options have no effect on posts with splits of their own."""
    if protocol is not None or options:
        given = {"protocol": protocol, "split_options": options}
        unused = " and ".join(option_name(name) for name, value in given.items() if value)
        names = ", ".join(posts)
        logger.warning("The posts have the splits %s, which are used as given; without effect: %s.", names, unused)


def describe_posts(
    posts: DatasetDict,
    *,
    protocol: str,
    split_seed: int | None = None,
    report: BuildReport | None = None,
) -> TrainingData:
    """Describe split posts for results and card.

    Raises:
        ValueError: see [`check_splits`].
    """
    check_splits(posts)
    source = dataset_name(posts)
    return TrainingData(
        name=FACTS[source].title if source in FACTS else source,
        sizes={name: len(split) for name, split in posts.items()},
        protocol=protocol,
        split_seed=split_seed,
        split_hash=split_hash(posts),
        dropped=None if report is None else report.dropped | report.skipped,
        notes=[] if report is None else [f"{remark}: {count:,}" for remark, count in report.notes.items()],
        synthetic=source == "sample",
    )


def check_splits(posts: DatasetDict) -> None:
    """Check that posts can be trained on.

    Raises:
        ValueError: splits other than train, validation and test; an empty split; a missing column; a post without
            label; or labels that differ between splits.
    """
    if set(posts) != set(SPLITS):
        raise ValueError(
            f"The posts have the splits {', '.join(posts)}; train, validation and test are needed. Add what is "
            f"missing, or load one set of posts, which is split: {option('split', '+'.join(posts))} for a published "
            f"dataset, {option('file')} for a table of a folder."
        )
    classes = posts["train"].features.get("label")
    for name, split in posts.items():
        missing = [column for column in ("id", "text", "label", "language", "source") if column not in split.features]
        if missing:
            raise ValueError(
                f"The split {name!r} has no column {', '.join(map(repr, missing))}. {load_call('folder', 'FOLDER')} "
                f"for your own tables, or {load_call('OWNER/NAME')} for a published dataset, adds all columns."
            )
        if not isinstance(classes, ClassLabel) or split.features["label"] != classes:
            raise ValueError(
                f"The split {name!r} must have the column 'label' of the type ClassLabel, with the same names as in "
                f"'train', got {split.features['label']}. `posts.cast_column` converts it."
            )
        if not len(split):
            raise ValueError(f"The split {name!r} has no posts.")
        check_labels(split, name)


def dataset_name(posts: Dataset | DatasetDict) -> str:
    """Name the dataset by the column `source` of its posts; several sources are joined by ` + `."""
    splits = posts.values() if isinstance(posts, Mapping) else [posts]
    with_source = [split for split in splits if "source" in getattr(split, "column_names", ())]  # checked later
    counts = collections.Counter(source for split in with_source for source in split["source"])
    return " + ".join(_NAMES.get(name, name) or "posts" for name, _ in counts.most_common()) or "posts"


def modalities_of(posts: DatasetDict) -> list[str]:
    """List the modalities that any post has: text, image, rationales."""
    columns = {
        "text": ["text"],
        "image": ["image"],
        "rationales": [name for name in posts["train"].column_names if name.startswith("rationale_")],
    }
    return [
        modality
        for modality, names in columns.items()
        if any(has_values(split, name) for split in posts.values() for name in names)
    ]
