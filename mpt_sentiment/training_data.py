"""Posts of a run, loaded and split, and their description for results and card."""

import collections

from datasets import ClassLabel, Dataset, DatasetDict

from dataset_scripts import load_posts_with_report, split_hash, split_posts
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.registry import FACTS
from dataset_scripts.schema import has_values
from dataset_scripts.splits import SPLITS
from mpt_sentiment.arguments import DataArguments
from mpt_sentiment.evaluation import TrainingData

_NAMES = {"mpt_sample": "sample"}  # the column `source` of the sample: the name of its loader


def load_splits(args: DataArguments) -> tuple[DatasetDict, TrainingData]:
    """Load posts and split them, unless they come as train, validation and test.

    Returns:
        The posts, and the account of them for results and card.

    Raises:
        ValueError: faults of the data, or a dataset with other splits of its own.
    """
    posts, report = load_posts_with_report(
        args.dataset, args.data_dir, rationales=args.rationales, on_error=args.on_error, **args.dataset_options
    )
    if isinstance(posts, DatasetDict):
        return posts, describe_posts(posts, report=report)
    posts = split_posts(posts, protocol=args.split, seed=args.split_seed, **args.split_options)
    return posts, describe_posts(posts, protocol=args.split, split_seed=args.split_seed, report=report)


def as_splits(posts: Dataset | DatasetDict) -> tuple[DatasetDict, TrainingData]:
    """Split a `Dataset` by the default protocol; return a `DatasetDict` as it is."""
    if isinstance(posts, DatasetDict):
        return posts, describe_posts(posts, protocol="as given")
    if not isinstance(posts, Dataset):
        raise ValueError(
            f"`posts` must be a Dataset or DatasetDict, got a {type(posts).__name__}. `mpt.load_posts` loads them "
            "from a table, a dataset or the Hub."
        )
    defaults = DataArguments()
    splits = split_posts(posts, protocol=defaults.split, seed=defaults.split_seed)
    return splits, describe_posts(splits, protocol=defaults.split, split_seed=defaults.split_seed)


def describe_posts(
    posts: DatasetDict,
    *,
    protocol: str = "of the dataset",
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
            f"The posts have the splits {', '.join(posts)}; train, validation and test are needed. "
            "`mpt.split_posts` makes them from a Dataset."
        )
    classes = posts["train"].features.get("label")
    for name, split in posts.items():
        missing = [column for column in ("id", "text", "label", "language", "source") if column not in split.features]
        if missing:
            raise ValueError(
                f"The split {name!r} has no column {', '.join(map(repr, missing))}. Load your own tables with "
                f'`mpt.load_posts("folder", FOLDER, file="{name}.csv", labels=[…])`, which adds all columns.'
            )
        if not isinstance(classes, ClassLabel) or split.features["label"] != classes:
            raise ValueError(
                f"The split {name!r} must have the column 'label' of the type ClassLabel, with the same names as in "
                f"'train', got {split.features['label']}. `posts.cast_column` converts it."
            )
        unlabeled = split["label"][:].count(None)
        if unlabeled or not len(split):
            problem = f"{unlabeled} posts without label; leave them out" if unlabeled else "no posts"
            raise ValueError(f"The split {name!r} has {problem}.")


def dataset_name(posts: DatasetDict) -> str:
    """Name the dataset by the column `source` of its posts; several sources are joined by ` + `."""
    counts = collections.Counter(source for split in posts.values() for source in split["source"])
    return " + ".join(_NAMES.get(name, name) or "posts" for name, _ in counts.most_common())


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
