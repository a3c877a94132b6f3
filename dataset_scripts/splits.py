"""Train, validation and test: one split per protocol, the same for the same posts and seed."""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, DatasetDict

from dataset_scripts.duplicates import group_ids
from dataset_scripts.reading.report import did_you_mean

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
PROTOCOLS = ("grouped", "paper", "clmlf", "folds", "consistent")
NUM_FOLDS = 10

# Table 1 of the paper, by number of posts. Elsewhere a tenth, rounded down, is validation and a tenth is test, which
# gives Table 1's figures for Memotion and CH-Mits (and, taken per class, CLMLF's fold of MVSA) as well.
_PAPER_TENTHS = {4511: 450, 17024: 1700}
_LIST_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def split_posts(
    dataset: Dataset,
    protocol: str = "grouped",
    seed: int = 42,
    *,
    fold: int = 0,
    id_lists: str | Path | Mapping[str, str | Path] | None = None,
    on_missing: str = "raise",
) -> DatasetDict:
    """Splits posts into train, validation and test.

    The split depends on the posts' ids, labels, texts and images and on `seed`, not on the order of the rows.

    Args:
        dataset (`Dataset`): posts with the columns of `schema.features`; every post needs a label.
        protocol (`str`, defaults to `"grouped"`):
            - `"grouped"`: 8:1:1, stratified by label; duplicates (`duplicates.group_ids`) stay on one side.
            - `"paper"`: random with the sizes of Table 1 of the paper; duplicates may leak.
            - `"clmlf"`: the id lists of the CLMLF project, from `id_lists`.
            - `"folds"`: ten folds, stratified, grouped; fold `fold` is test, the next one validation.
            - `"consistent"`: only posts whose text and image labels agree, then as `"grouped"`.
        seed (`int`, defaults to 42): of the shuffling; no meaning for `"clmlf"`.
        fold (`int`, defaults to 0): which of the ten folds is test; `"folds"` only.
        id_lists (`str`, `Path` or mapping, *optional*):
            `"clmlf"` only. `{"train": file, "validation": file, "test": file}`, or the folder (or `folder/prefix`)
            whose files have `train`, `dev` and `test` in their names. A file is a JSON list of objects with `id`, or
            text with one id per line.
        on_missing (`str`, defaults to `"raise"`):
            `"clmlf"` only. `"skip"` goes on, counted and logged, when lists and posts do not cover each other.

    Raises:
        ValueError: unknown protocol, posts without label, too few posts of a class, ids repeated or missing.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol={protocol!r}; known are {', '.join(PROTOCOLS)}." + did_you_mean(protocol, PROTOCOLS)
        )
    if not 0 <= fold < NUM_FOLDS:
        raise ValueError(f"fold={fold}; there are {NUM_FOLDS} folds, write 0 to {NUM_FOLDS - 1}.")
    if protocol == "consistent":
        dataset = _consistent(dataset)
    ids = list(dataset["id"])
    repeated = [post for post, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} ids occur more than once (first: {repeated[:3]}); ids must be unique.")

    if protocol == "clmlf":
        sides = _listed(ids, id_lists, on_missing)
    else:
        labels = _labels(dataset)
        if protocol == "paper":
            sides = _random(ids, seed)
        elif protocol == "folds":
            folds = _assign(ids, labels, group_ids(dataset), _fold_quotas(labels, dataset), seed)
            validation = (fold + 1) % NUM_FOLDS
            sides = [{fold: 2, validation: 1}.get(one, 0) for one in folds]
        else:
            sides = _assign(ids, labels, group_ids(dataset), _tenth_quotas(labels, dataset), seed)

    rows: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row, side in enumerate(sides):
        if side is not None:
            rows[SPLITS[side]].append(row)
    return DatasetDict({name: dataset.select(indices) for name, indices in rows.items()})


def split_hash(splits: DatasetDict) -> str:
    """16 hex digits over the sorted ids of each split: equal exactly when the same posts are on the same sides."""
    content = {name: sorted(split["id"]) for name, split in splits.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _labels(dataset: Dataset) -> list[int]:
    labels = list(dataset["label"])
    without = labels.count(None)
    if without:
        raise ValueError(
            f"{without:,} of {len(labels):,} posts have no label; a split is stratified by label. Label them, or "
            "leave them out first: dataset.filter(lambda label: label is not None, input_columns='label')."
        )
    return labels


def _class_counts(labels: list[int], dataset: Dataset, least: int) -> dict[int, int]:
    counts = dict(sorted(Counter(labels).items()))
    for label, count in counts.items():
        if count < least:
            name = dataset.features["label"].int2str(label)
            raise ValueError(
                f"label {name!r} has {count} posts; this protocol needs at least {least} of each class, so that every "
                "part gets one. Add posts, merge classes, or bring a dataset with its own train/validation/test."
            )
    return counts


def _tenth_quotas(labels: list[int], dataset: Dataset) -> list[dict[int, int]]:
    """Posts of each class in train, validation, test. A tenth is rounded down, as in CLMLF's published fold."""
    counts = _class_counts(labels, dataset, least=3)
    tenth = {label: max(1, count // 10) for label, count in counts.items()}
    return [{label: count - 2 * tenth[label] for label, count in counts.items()}, tenth, dict(tenth)]


def _fold_quotas(labels: list[int], dataset: Dataset) -> list[dict[int, int]]:
    quotas: list[dict[int, int]] = [{} for _ in range(NUM_FOLDS)]
    first = 0  # the surplus of one class starts where that of the last ended, so that fold sizes differ by one at most
    for label, count in _class_counts(labels, dataset, least=NUM_FOLDS).items():
        share, surplus = divmod(count, NUM_FOLDS)
        for step in range(NUM_FOLDS):
            quotas[(first + step) % NUM_FOLDS][label] = share + (step < surplus)
        first += surplus
    return quotas


def _assign(
    ids: list[str], labels: list[int], groups: list[int], quotas: list[dict[int, int]], seed: int
) -> list[int]:
    """The part of each post: groups whole, every class as near to its quota as the groups allow.

    Groups of several posts go first, the largest leading, each to the part that still lacks most of what it brings;
    the single posts then fill the quotas to the post.
    """
    members: dict[int, list[int]] = {}
    for row in sorted(range(len(ids)), key=lambda row: ids[row]):
        members.setdefault(groups[row], []).append(row)
    shuffled = list(members.values())
    random.Random(seed).shuffle(shuffled)
    shuffled.sort(key=len, reverse=True)

    open_places = [dict(quota) for quota in quotas]
    parts = [0] * len(ids)
    for rows in shuffled:
        brings = Counter(labels[row] for row in rows)

        def need(part: int, brings: Counter = brings) -> tuple[bool, float]:
            places = open_places[part]
            fits = all(places[label] >= count for label, count in brings.items())
            # Relative to the quota: 8:1:1 then holds among duplicates as it does among single posts.
            return fits, sum(count * places[label] / quotas[part][label] for label, count in brings.items())

        best = max(range(len(quotas)), key=need)
        for row in rows:
            parts[row] = best
            open_places[best][labels[row]] -= 1
    return parts


def _random(ids: list[str], seed: int) -> list[int]:
    tenth = _PAPER_TENTHS.get(len(ids), len(ids) // 10)
    if tenth == 0:
        raise ValueError(f"{len(ids)} posts are too few for 8:1:1; at least 10 are needed.")
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    random.Random(seed).shuffle(order)
    parts = [0] * len(ids)
    for place, row in enumerate(order[: 2 * tenth]):
        parts[row] = 1 if place < tenth else 2
    return parts


def _consistent(dataset: Dataset) -> Dataset:
    text_labels, image_labels = list(dataset["text_label"]), list(dataset["image_label"])
    pairs = zip(text_labels, image_labels, strict=True)
    agree = [row for row, (text, image) in enumerate(pairs) if text is not None and text == image]
    if not agree:
        raise ValueError(
            "protocol='consistent' keeps posts whose text_label and image_label agree, and no post has them; "
            "only MVSA carries them. Use protocol='grouped'."
        )
    logger.info("consistent: %d of %d posts kept, whose text and image labels agree", len(agree), len(dataset))
    return dataset.select(agree)


def _listed(
    ids: list[str], id_lists: str | Path | Mapping[str, str | Path] | None, on_missing: str
) -> list[int | None]:
    if on_missing not in ("raise", "skip"):
        raise ValueError(f'on_missing={on_missing!r}; write "raise" or "skip".')
    part_of: dict[str, int] = {}
    for part, file in enumerate(_list_files(id_lists)):
        for post in read_id_list(file):
            if post in part_of:
                raise ValueError(f"{file}: id {post!r} is listed twice (also in {SPLITS[part_of[post]]}); remove one.")
            part_of[post] = part
    present = set(ids)
    absent = [post for post in part_of if post not in present]
    unlisted = [post for post in ids if post not in part_of]
    for what, posts in (("listed ids have no post", absent), ("posts are in none of the lists", unlisted)):
        if not posts:
            continue
        message = f"clmlf: {len(posts):,} {what} (first: {', '.join(posts[:3])})"
        if on_missing == "raise":
            raise ValueError(
                f'{message}. Load the whole download and the lists that belong to it, or go on with on_missing="skip".'
            )
        logger.warning("%s; left out", message)
    if len(absent) == len(part_of):
        raise ValueError("clmlf: not one listed id has a post; are these the lists of another dataset?")
    return [part_of.get(post) for post in ids]


def _list_files(id_lists: str | Path | Mapping[str, str | Path] | None) -> list[Path]:
    if id_lists is None:
        raise ValueError("protocol='clmlf' needs id_lists: a folder with that project's files, or {split: file}.")
    if isinstance(id_lists, Mapping):
        missing = [name for name in SPLITS if name not in id_lists]
        if missing:
            raise ValueError(
                f"id_lists names {list(id_lists)}; it must name {', '.join(SPLITS)} (missing: {missing})."
            )
        return [Path(id_lists[name]) for name in SPLITS]
    base = Path(id_lists)
    folder, prefix = (base, "") if base.is_dir() else (base.parent, base.name)
    files = sorted(
        file for file in folder.glob("*") if file.suffix in (".json", ".txt") and file.stem.startswith(prefix)
    )
    chosen = []
    for name in SPLITS:
        matches = [file for file in files if any(word in _words(file.stem) for word in _LIST_NAMES[name])]
        if len(matches) != 1:
            raise ValueError(
                f"{base}: {len(matches)} files name the {name} list ({', '.join(m.name for m in matches) or 'none'}); "
                "exactly one is needed. Give folder/prefix, or id_lists={'train': …, 'validation': …, 'test': …}."
            )
        chosen += matches
    return chosen


def _words(stem: str) -> list[str]:
    return stem.lower().replace("-", "_").split("_")


def read_id_list(file: str | Path) -> list[str]:
    """Ids of a JSON list of objects with `id` (CLMLF's format), or of a text file with one id per line."""
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"the id list {file} does not exist.")
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return [str(entry["id"]) for entry in json.loads(text)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: expected a JSON list of objects with 'id' ({type(error).__name__}: {error})."
        ) from None
