"""Audit of all posts of a dataset, and the candidates for its sheet of examples."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from datasets.utils import tqdm

from dataset_scripts.audit.groups import (
    Leakage,
    count_duplicates,
    count_leaks,
    groups_by_any,
    groups_by_key,
    groups_by_pairs,
    protocol_sides,
)
from dataset_scripts.audit.images import (
    BLANK_DEVIATION,
    MAX_DISTANCE,
    MIN_CORRELATION,
    Fingerprint,
    fingerprint,
    near_duplicates,
)
from dataset_scripts.audit.report import AuditReport, FaultyPosts
from dataset_scripts.audit.rows import AuditRows
from dataset_scripts.audit.sheet import Candidate, SheetSection, conflicting_pairs, crossing_pairs, draw_section
from dataset_scripts.audit.texts import TEXT_FAULTS, TEXT_LEVELS, WORDS_ONLY, text_fault
from dataset_scripts.rationales.quality.gate import HARD, SOFT, check_post, is_written
from dataset_scripts.reading.report import did_you_mean
from dataset_scripts.reading.threads import map_in_threads
from dataset_scripts.splits import PROTOCOLS, split_hash

IMAGE_BYTES = "image, same bytes"
IMAGE_NEAR = "image, nearly the same"
TEXT_AND_IMAGE = "text and image, exact"
AS_GIVEN = "as given"
IMAGE_FAULTS = ("absent", "broken", "blank")
# The gate judges rationales in languages with a lexicon only.
RATIONALE_FLAGS = ("missing", *HARD, *SOFT, "not judged")

_SIDES = {"train": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}


@dataclasses.dataclass
class _TextColumns:
    """Keys by level, text fault by row, and rows by perspective and rationale flag."""

    keys: dict[str, list[bytes | None]]
    faults: list[str | None]
    rationales: dict[str, dict[str, list[int]]]


def audit_posts(
    posts: Dataset | DatasetDict,
    *,
    protocols: Sequence[str] | None = None,
    seed: int = 42,
    id_lists: str | Path | Mapping[str, str | Path] | None = None,
    num_proc: int = 1,
    sheet_rows: int = 24,
) -> AuditReport:
    """Report duplicates, leaks between splits, conflicting labels and faults of posts.

    Images are decoded one at a time per thread; memory grows by a few KiB per post.

    Args:
        posts (`Dataset` or `DatasetDict`):
            Posts with the columns of `schema.features`. Leaks between the splits of a `DatasetDict` are reported as
            `"as given"`; the protocols are applied to the posts of all splits together.
        protocols (sequence of `str`, *optional*):
            Protocols of `split_posts` whose leaks are counted. By default all that suit the posts (`"consistent"`
            needs text and image labels, `"clmlf"` needs `id_lists`); `()` for none.
        seed (`int`, defaults to 42): seed of the protocols.
        id_lists (*optional*): lists of the protocol `"clmlf"`; posts in none of them are left out and counted.
        num_proc (`int`, defaults to 1): number of threads that decode images.
        sheet_rows (`int`, defaults to 24): maximum number of entries in each section of the HTML sheet.

    Raises:
        ValueError: no posts, missing columns, class names that differ between splits, or an unknown protocol. Faults
            of single posts are reported instead.
    """
    rows = AuditRows(posts)
    protocols = _check_protocols(rows, protocols, id_lists)
    if num_proc < 1:
        raise ValueError(f"`num_proc` must be at least 1, got {num_proc}.")
    texts = _read_texts(rows)
    undecoded = tqdm(rows.images(), total=len(rows), desc="Reading images", unit=" images")
    images = list(map_in_threads(fingerprint, undecoded, num_proc))
    digests = [image.digest for image in images]
    text_and_image = zip(next(iter(texts.keys.values())), digests, strict=True)
    levels = {TEXT_AND_IMAGE: groups_by_key(None if None in pair else pair for pair in text_and_image)}
    levels |= {level: groups_by_key(keys) for level, keys in texts.keys.items()}
    levels[IMAGE_BYTES] = groups_by_key(digests)
    near = _near_posts(images, levels[IMAGE_BYTES])
    levels[IMAGE_NEAR] = groups_by_pairs(levels[IMAGE_BYTES], [pair for *pair, _ in near])

    given_hash = split_hash(posts) if isinstance(posts, DatasetDict) else ""
    leaks, impossible = _leaks(rows, levels, given_hash, protocols, seed, id_lists)
    ids = Counter(rows.columns["id"])
    given = rows.split_of if rows.splits else None

    def faulty(numbers: Iterable[int]) -> FaultyPosts:
        return FaultyPosts.from_names(rows.names[number] for number in numbers)

    return AuditReport(
        posts=len(rows),
        splits={split: int((rows.split_of == index).sum()) for index, split in enumerate(rows.splits)},
        labels=_label_counts(rows),
        repeated_ids=faulty(row for row, post in enumerate(rows.columns["id"]) if ids[post] > 1),
        duplicates={
            level: count_duplicates(groups, rows.labels, given, rows.names) for level, groups in levels.items()
        },
        leakage=leaks,
        impossible=impossible,
        texts={kind: faulty(row for row, fault in enumerate(texts.faults) if fault == kind) for kind in TEXT_FAULTS},
        images={kind: faulty(row for row, image in enumerate(images) if image.fault == kind) for kind in IMAGE_FAULTS},
        rationale_coverage=_coverage(texts.rationales, len(rows)),
        rationales={
            perspective: {flag: faulty(flagged) for flag, flagged in flags.items()}
            for perspective, flags in texts.rationales.items()
        },
        settings={
            "seed": seed,
            "maximum hash distance of near-duplicate images (of 63)": MAX_DISTANCE,
            "minimum correlation of near-duplicate images": MIN_CORRELATION,
            "maximum standard deviation of blank images (of 255)": BLANK_DEVIATION,
        },
        sheet=_sheet(rows, levels, near, images, texts, sheet_rows),
    )


def _check_protocols(rows: AuditRows, protocols: Sequence[str] | None, id_lists: object) -> list[str]:
    if protocols is None:
        suitable = {
            "consistent": any(label is not None for label in rows.columns["text_label"]),
            "clmlf": id_lists is not None,
        }
        return [protocol for protocol in PROTOCOLS if suitable.get(protocol, True)]
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(
                f"`protocols` must be among {', '.join(PROTOCOLS)}, got {protocol!r}."
                + did_you_mean(protocol, PROTOCOLS)
            )
    return list(protocols)


def _read_texts(rows: AuditRows) -> _TextColumns:
    keys: dict[str, list[bytes | None]] = {level: [] for level in TEXT_LEVELS}
    faults: list[str | None] = []
    rationales: dict[str, dict[str, list[int]]] = {
        perspective: {flag: [] for flag in RATIONALE_FLAGS} for perspective in rows.perspectives
    }
    for row, post in enumerate(tqdm(rows.texts(), total=len(rows), desc="Reading texts", unit=" posts")):
        text = post["text"] or ""
        for level, normalize in TEXT_LEVELS.items():
            normalized = normalize(text)
            digest = hashlib.blake2b(normalized.encode(), digest_size=16).digest()
            keys[level].append(digest if normalized else None)
        faults.append(text_fault(text))
        written = rows.rationales(post)
        for perspective, verdict in check_post(written, language=post["language"], text=text).items():
            if verdict is not None:
                flags = verdict.codes
            else:
                flags = ["not judged"] if is_written(written[perspective]) else ["missing"]
            for flag in flags:
                rationales[perspective][flag].append(row)
    return _TextColumns(keys, faults, rationales)


def _near_posts(images: Sequence[Fingerprint], same_bytes: np.ndarray) -> list[tuple[int, int, float]]:
    """Find pairs of posts with nearly the same image, sorted by their correlation.

    Posts with the same image bytes are represented by the first one.
    """
    _, first = np.unique(same_bytes, return_index=True)
    rows = [row for row in sorted(first.tolist()) if images[row].thumbnail is not None]
    pairs = near_duplicates(np.array([images[row].thumbnail for row in rows]))
    pairs = [(rows[left], rows[right], correlation) for left, right, correlation in pairs]
    return sorted(pairs, key=lambda pair: (pair[2], pair[:2]))


def _leaks(
    rows: AuditRows,
    levels: dict[str, np.ndarray],
    given_hash: str,
    protocols: Sequence[str],
    seed: int,
    id_lists: object,
) -> tuple[dict[str, Leakage], dict[str, str]]:
    """Count the leaks of the given splits and of each protocol, or explain what prevents it."""
    leaks: dict[str, Leakage] = {}
    impossible: dict[str, str] = {}
    if rows.splits:
        sides = np.array([_SIDES.get(split, -1) for split in rows.splits])
        if 0 in sides and (sides > 0).any():
            leaks[AS_GIVEN] = count_leaks(levels, rows.labels, [sides[rows.split_of]], [given_hash])
        else:
            impossible[AS_GIVEN] = f"The splits {', '.join(rows.splits)} are not train and validation or test."
    groups = groups_by_any([levels[WORDS_ONLY], levels[IMAGE_BYTES]])  # equals `duplicates.group_ids`
    for protocol in protocols:
        try:
            folds, hashes = protocol_sides(protocol, rows.columns, groups, rows.class_names, seed, id_lists)
        except ValueError as error:
            impossible[protocol] = str(error)
        else:
            leaks[protocol] = count_leaks(levels, rows.labels, folds, hashes)
    return leaks, impossible


def _coverage(rationales: dict[str, dict[str, list[int]]], num_posts: int) -> dict[str, int]:
    """Count posts with all, some and none of the rationales that any post has."""
    if not rationales:
        return {}
    used = [flags["missing"] for flags in rationales.values() if len(flags["missing"]) < num_posts]
    missing = np.bincount(list(itertools.chain(*used)), minlength=num_posts)
    none = int((missing == len(used)).sum())
    complete = int((missing == 0).sum()) if used else 0
    return {"all": complete, "some": num_posts - complete - none, "none": none}


def _label_counts(rows: AuditRows) -> dict[str, int]:
    unlabeled, *counts = np.bincount(rows.labels + 1, minlength=len(rows.class_names) + 1).tolist()
    return dict(zip(rows.class_names, counts, strict=True)) | ({"no label": unlabeled} if unlabeled else {})


def _sheet(
    rows: AuditRows,
    levels: dict[str, np.ndarray],
    near: list[tuple[int, int, float]],
    images: Sequence[Fingerprint],
    texts: _TextColumns,
    limit: int,
) -> list[SheetSection]:
    sections = {"Duplicates with conflicting labels": conflicting_pairs(rows, levels)}
    if rows.splits:
        sections["Duplicates in several splits"] = crossing_pairs(rows, levels)
    sections["Nearly the same image, by ascending correlation"] = [
        Candidate(f"correlation {correlation:.2f}", (left, right)) for left, right, correlation in near
    ]
    sections["Broken and blank images"] = [
        Candidate(f"{image.fault}: {image.reason}" if image.reason else image.fault, (row,))
        for row, image in enumerate(images)
        if image.fault in ("broken", "blank")
    ]
    sections["Texts without content"] = [
        Candidate(fault, (row,)) for row, fault in enumerate(texts.faults) if fault is not None
    ]
    by_flag = {
        flag: [
            Candidate(f"{perspective}: {HARD[flag]}", (row,), (perspective,))
            for perspective, flags in texts.rationales.items()
            for row in flags[flag]
        ]
        for flag in HARD
    }
    # The section begins with a few rationales of each flag, so that the most frequent flag does not fill it.
    share = max(1, limit // max(1, sum(map(bool, by_flag.values()))))
    first = [candidate for candidates in by_flag.values() for candidate in candidates[:share]]
    rest = [candidate for candidates in by_flag.values() for candidate in candidates[share:]]
    sections["Faulty rationales"] = first + rest
    return [draw_section(rows, title, candidates, limit) for title, candidates in sections.items()]
