"""Checks of a run before its first batch: output, encoders, classes, modalities, steps."""

import collections
import logging
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from dataset_scripts.output import check_writable
from dataset_scripts.reading.option_names import field as written
from modeling_mpt import SYSTEMS
from mpt_sentiment.adapters import check_adapters
from mpt_sentiment.backbones import check_encoders, planned_config, weight_power
from mpt_sentiment.recipe import TrainingSetup

logger = logging.getLogger(__name__)


def check_setup(setup: TrainingSetup) -> None:
    """Check what needs no posts: the output folder can be written, and the encoders be loaded.

    Raises:
        ValueError: one of them cannot.
    """
    if setup.training.should_save:
        check_writable(setup.training.output_dir)
    check_adapters(setup.model, setup.lora)
    check_encoders(setup.model)


def check_posts(setup: TrainingSetup, posts: DatasetDict) -> None:
    """Check that a system can be trained on posts.

    Raises:
        ValueError: fewer than two classes, a class or modality without train posts that the run needs, posts without
            anything that the system reads, or a contrastive loss over single posts.
    """
    config = planned_config(setup.model)
    check_classes(posts, setup.model.class_weights)
    check_modalities(setup, posts, config.modalities)
    _check_steps(setup, len(posts["train"]), config)


def check_classes(posts: Mapping[str, Dataset], class_weights: Any = None) -> None:
    """Check that the train posts have two classes or more; warn of classes that a split lacks.

    Raises:
        ValueError: they have not, or `class_weights` is no such setting or needs train posts of every class.
    """
    names = posts["train"].features["label"].names
    counts = {split: collections.Counter(rows["label"][:]) for split, rows in posts.items()}
    learned = [name for index, name in enumerate(names) if counts["train"][index]]
    if len(learned) < 2:
        raise ValueError(
            f"All train posts have the label {learned[0]!r}. A classifier needs two classes or more: its accuracy of "
            "1.0 on one class would say nothing. Add posts of another class."
        )
    absent = [name for name in names if name not in learned]
    if absent and weight_power(class_weights) is not None:
        raise ValueError(
            f"`class_weights` cannot be {class_weights!r}: no train post has the label {absent[0]!r}. Add such posts, "
            "or leave `class_weights` out."
        )
    for name in absent:
        logger.warning(
            "No train post has the label %r, so that no post of it can be recognized (%d in validation, %d in test).",
            name,
            *(counts[split][names.index(name)] for split in ("validation", "test")),
        )
    for split in ("validation", "test"):
        missing = [name for name in learned if not counts[split][names.index(name)]]
        if missing:
            logger.warning("No %s post has the label %s: its scores omit it.", split, ", ".join(map(repr, missing)))


def check_modalities(setup: TrainingSetup, posts: Mapping[str, Dataset], read: list[str]) -> None:
    """Check that train posts have every modality that is read, and each post one of them.

    Raises:
        ValueError: they have not.
    """
    columns = [name for name in posts["train"].column_names if name.startswith("rationale_")]
    columns_of = {"text": ["text"], "image": ["image"], "rationales": columns}
    lacking = {
        split: {modality: _lacks(rows, columns_of[modality]) for modality in read} for split, rows in posts.items()
    }
    for modality in read:
        if all(lacking["train"][modality]):
            raise ValueError(
                f"No train post has {_noun(modality)}, which this run reads. {_remedy(setup, modality, read)}"
            )
        for split in ("validation", "test"):
            if all(lacking[split][modality]):
                logger.warning("No %s post has %s, which this run reads.", split, _noun(modality))
    for split, missing in lacking.items():
        empty = [row for row, flags in enumerate(zip(*missing.values(), strict=True)) if all(flags)]
        if empty:
            more = (
                "more `modalities`" if setup.model.model == "mpt" else f"{written('model', 'mpt')}, which reads more"
            )
            raise ValueError(
                f"{len(empty)} of {len(posts[split])} {split} posts have no {' and no '.join(read)}, all that "
                f"this run reads; the first has the id {posts[split]['id'][empty[0]]!r}. Leave these posts out, or "
                f"use {more}."
            )


def _lacks(rows: Dataset, columns: list[str]) -> list[bool]:
    """Return for each post whether all the columns are null or blank. Images are not decoded."""
    if not columns:
        return [True] * len(rows)
    lacks: list[bool] = []
    for table in rows.select_columns(columns).with_format("arrow").iter(1000):
        flags = [_is_blank(column) for column in table.columns]
        lacks += [all(row) for row in zip(*(flag.to_pylist() for flag in flags), strict=True)]
    return lacks


def _is_blank(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.equal(pc.utf8_trim_whitespace(pc.fill_null(values, "")), "")
    return values.is_null()


def _noun(modality: str) -> str:
    return {"text": "a text", "image": "an image", "rationales": "a rationale"}[modality]


def _remedy(setup: TrainingSetup, modality: str, read: list[str]) -> str:
    """Name the argument that leaves out a modality, or adds it."""
    others = [name for name in read if name != modality]
    if setup.model.model == "mpt":
        view = f" with {written('contrastive_view', 'fused')}" * (modality != "rationales")
        without = f"Leave it out: {written('modalities', others)}{view}." if others else "Name others in `modalities`."
    elif modality == "rationales":
        without = f"Leave it out: {written('use_rationales', False)}."
    else:
        systems = [name for name, (config, _) in SYSTEMS.items() if modality not in getattr(config, "reads", modality)]
        without = f"Use a system that reads none: {', '.join(systems)}, or mpt."
    return without + (f" Or join rationales by id: {written('rationales')}." if modality == "rationales" else "")


def _check_steps(setup: TrainingSetup, num_posts: int, config: Any) -> None:
    args = setup.training
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    losses = [name for name in config.numbers if name.startswith("loss_weight_") and name != "loss_weight_ce"]
    used = [name for name in losses if getattr(config, name)]
    if min(batch, num_posts) < 2 and used:
        raise ValueError(
            f"The contrastive loss compares the posts of an optimizer step, but a step has {min(batch, num_posts)}. "
            f"Use {written('gradient_accumulation_steps', 16)}, a larger batch, or {written(used[0], 0)}."
        )
    if batch > num_posts:
        logger.warning(
            "A step of %d posts (batch size times accumulation times processes) is larger than the %d train posts: "
            "each epoch is one step.",
            batch,
            num_posts,
        )
    steps = args.max_steps if args.max_steps > 0 else math.ceil(math.ceil(num_posts / batch) * args.num_train_epochs)
    if args.get_warmup_steps(steps) >= steps:
        logger.warning(
            "`warmup_steps` is %g, but the run has %d steps: the learning rate never reaches its full value.",
            args.warmup_steps,
            steps,
        )
