"""What is wrong with a dataset: duplicates, leaks, conflicting labels, empty texts, blank images, poor rationales."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from datasets.utils import tqdm

from dataset_scripts.audit.groups import Leakage, duplicates, groups_by_key, groups_by_pairs, leakage, protocol_sides
from dataset_scripts.audit.images import BLANK_DEVIATION, MAX_DISTANCE, MIN_ALIKE, ImagePrint, image_prints, near_pairs
from dataset_scripts.audit.report import AuditReport, Finding
from dataset_scripts.audit.rows import AuditRows
from dataset_scripts.audit.sheet import Candidate, SheetSection, conflicting_pairs, crossing_pairs, draw_section
from dataset_scripts.audit.texts import (
    MAX_RATIONALE_WORDS,
    MIN_RATIONALE_WORDS,
    MIN_REPEATED_WORDS,
    RATIONALE_FAULTS,
    TEXT_FAULTS,
    TEXT_LEVELS,
    WORDS_ALONE,
    label_pattern,
    rationale_faults,
    text_fault,
)
from dataset_scripts.reading.report import did_you_mean
from dataset_scripts.splits import PROTOCOLS, split_hash

IMAGE_BYTES = "image, same bytes"
IMAGE_NEAR = "image, nearly the same"
TEXT_AND_IMAGE = "text and image, exact"
GIVEN = "as given"
IMAGE_FAULTS = ("absent", "broken", "blank")

_SIDE_OF = {"train": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2}


def audit_posts(
    posts: Dataset | DatasetDict,
    *,
    protocols: Sequence[str] | None = None,
    seed: int = 42,
    id_lists: str | Path | Mapping[str, str | Path] | None = None,
    num_proc: int = 1,
    sheet_rows: int = 24,
) -> AuditReport:
    """Looks at every post for duplicates, leaks and faults.

    Images pass one at a time; what stays in memory is a few kilobytes for each post.

    Args:
        posts (`Dataset` or `DatasetDict`):
            Posts with the columns of `schema.features`. The splits of a `DatasetDict` are judged as they are
            (`"as given"`), and all of its posts together under the protocols.
        protocols (sequence of `str`, *optional*):
            Protocols of `split_posts` whose leaks are counted; by default all that suit the posts (`"consistent"`
            needs text and image labels, `"clmlf"` needs `id_lists`). `()`: none.
        seed (`int`, defaults to 42): of the protocols.
        id_lists (*optional*): of the protocol `"clmlf"`; posts in none of the lists are left out, counted.
        num_proc (`int`, defaults to 1): images looked at in parallel, by threads.
        sheet_rows (`int`, defaults to 24): pairs or posts in each section of the sheet.

    Raises:
        ValueError: no posts, columns missing, class names that differ between splits, an unknown protocol. What is
            wrong with single posts is in the report instead.
    """
    rows = AuditRows(posts)
    protocols = _protocols(rows, protocols, id_lists)
    if num_proc < 1:
        raise ValueError(f"num_proc={num_proc}; give 1 or more.")

    keys, text_faults, rationales = _read_texts(rows)
    images = tqdm(rows.images(), total=len(rows), desc="Looking at images", unit=" images")
    prints = list(image_prints(images, num_proc))
    digests = [one.digest for one in prints]
    pairs = zip(keys[0], digests, strict=True)
    levels = {TEXT_AND_IMAGE: groups_by_key(None if None in pair else pair for pair in pairs)}
    levels |= {level: groups_by_key(column) for level, column in zip(TEXT_LEVELS, keys, strict=True)}
    levels[IMAGE_BYTES] = groups_by_key(digests)
    alike = _near_posts(prints, levels[IMAGE_BYTES])
    levels[IMAGE_NEAR] = groups_by_pairs(levels[IMAGE_BYTES], [(one, other) for one, other, _ in alike])

    given_hash = split_hash(posts) if isinstance(posts, DatasetDict) else ""
    leaks, impossible = _leaks(rows, levels, given_hash, protocols, seed, id_lists)
    names, ids = rows.names, Counter(rows.columns["id"])
    given = rows.split_of if rows.splits else None
    in_use = [column for column in _written(rows, rationales) if column.any()]
    written = np.sum(in_use, axis=0) if in_use else np.zeros(len(rows), dtype=int)
    coverage = Counter(
        "none" if not count else "all" if count == len(in_use) else "some" for count in written.tolist()
    )
    return AuditReport(
        posts=len(rows),
        splits={split: int((rows.split_of == place).sum()) for place, split in enumerate(rows.splits)},
        labels=_label_counts(rows),
        repeated_ids=Finding.of(name for name, post in zip(names, rows.columns["id"], strict=True) if ids[post] > 1),
        duplicates={level: duplicates(groups, rows.labels, given, names) for level, groups in levels.items()},
        leakage=leaks,
        impossible=impossible,
        texts=_findings(TEXT_FAULTS, text_faults, names),
        images=_findings(IMAGE_FAULTS, [one.fault for one in prints], names),
        rationale_coverage={name: coverage[name] for name in ("all", "some", "none")} if rationales else {},
        rationales={
            perspective: {fault: Finding.of(names[row] for row in found) for fault, found in faults.items()}
            for perspective, faults in rationales.items()
        },
        settings={
            "seed": seed,
            "hash distance of nearly the same images, at most (of 63)": MAX_DISTANCE,
            "correlation of nearly the same images, at least": MIN_ALIKE,
            "standard deviation of blank images, below (of 255)": BLANK_DEVIATION,
            "words of a rationale": [MIN_RATIONALE_WORDS, MAX_RATIONALE_WORDS],
            "words of a repeated post, at least": MIN_REPEATED_WORDS,
        },
        sheet=_sheet(rows, levels, alike, prints, text_faults, rationales, sheet_rows),
    )


def _protocols(rows: AuditRows, protocols: Sequence[str] | None, id_lists: object) -> list[str]:
    if protocols is None:
        suited = {
            "consistent": any(label is not None for label in rows.columns["text_label"]),
            "clmlf": id_lists is not None,
        }
        return [protocol for protocol in PROTOCOLS if suited.get(protocol, True)]
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(
                f"protocol {protocol!r}; known are {', '.join(PROTOCOLS)}." + did_you_mean(protocol, PROTOCOLS)
            )
    return list(protocols)


def _read_texts(
    rows: AuditRows,
) -> tuple[list[list[bytes | None]], list[str | None], dict[str, dict[str, list[int]]]]:
    """Keys of every text level, the fault of every text, and perspective -> fault -> rows."""
    keys: list[list[bytes | None]] = [[] for _ in TEXT_LEVELS]
    faults: list[str | None] = []
    rationales = {perspective: {fault: [] for fault in RATIONALE_FAULTS} for perspective in rows.perspectives}
    label_words = label_pattern(rows.class_names)
    for row, post in enumerate(tqdm(rows.texts(), total=len(rows), desc="Reading texts", unit=" posts")):
        text = post["text"] or ""
        for column, normal in zip(keys, TEXT_LEVELS.values(), strict=True):
            words = normal(text)
            column.append(hashlib.blake2b(words.encode(), digest_size=16).digest() if words else None)
        faults.append(text_fault(text))
        found = rationale_faults(rows.rationales(post), text, post["language"], label_words)
        for perspective, names in found.items():
            for name in names:
                rationales[perspective][name].append(row)
    return keys, faults, rationales


def _near_posts(prints: Sequence[ImagePrint], same_bytes: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of posts with nearly the same image, least alike first; of posts with the same bytes, the first alone."""
    first = {group: row for row, group in reversed(list(enumerate(same_bytes.tolist())))}
    rows = sorted(row for row in first.values() if prints[row].thumbnail is not None)
    thumbnails = np.array([prints[row].thumbnail for row in rows])
    pairs = [(rows[one], rows[other], alike) for one, other, alike in near_pairs(thumbnails)]
    return sorted(pairs, key=lambda pair: (pair[2], pair[:2]))


def _leaks(
    rows: AuditRows,
    levels: dict[str, np.ndarray],
    given_hash: str,
    protocols: Sequence[str],
    seed: int,
    id_lists: object,
) -> tuple[dict[str, Leakage], dict[str, str]]:
    leaks: dict[str, Leakage] = {}
    impossible: dict[str, str] = {}
    if rows.splits:
        sides = [_SIDE_OF.get(split, -1) for split in rows.splits]
        if 0 in sides and (1 in sides or 2 in sides):
            leaks[GIVEN] = leakage(levels, rows.labels, [np.array(sides)[rows.split_of]], [given_hash])
        else:
            impossible[GIVEN] = f"the splits are named {', '.join(rows.splits)}; a leak is from test into train."
    # What `duplicates.group_ids` would say, from what was read already.
    groups = np.arange(len(rows))
    for level in (WORDS_ALONE, IMAGE_BYTES):
        groups = groups_by_pairs(groups, _neighbours(levels[level]))
    for protocol in protocols:
        try:
            folds, hashes = protocol_sides(protocol, rows.columns, groups.tolist(), rows.class_names, seed, id_lists)
        except ValueError as error:
            impossible[protocol] = str(error)
            continue
        leaks[protocol] = leakage(levels, rows.labels, folds, hashes)
    return leaks, impossible


def _neighbours(groups: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that connect every post of a group with the group's first one."""
    first: dict[int, int] = {}
    return [
        (first[group], row)
        for row, group in enumerate(groups.tolist())
        if group >= 0 and first.setdefault(group, row) != row
    ]


def _written(rows: AuditRows, rationales: dict[str, dict[str, list[int]]]) -> list[np.ndarray]:
    """For each perspective, which posts have its rationale. (N,) bool each."""
    columns = []
    for faults in rationales.values():
        written = np.ones(len(rows), dtype=bool)
        written[faults["missing"] + faults["blank"]] = False
        columns.append(written)
    return columns


def _label_counts(rows: AuditRows) -> dict[str, int]:
    counts = {name: int((rows.labels == label).sum()) for label, name in enumerate(rows.class_names)}
    unlabelled = int((rows.labels < 0).sum())
    return counts | ({"no label": unlabelled} if unlabelled else {})


def _findings(kinds: Iterable[str], faults: Sequence[str | None], names: Sequence[str]) -> dict[str, Finding]:
    return {
        kind: Finding.of(name for name, fault in zip(names, faults, strict=True) if fault == kind) for kind in kinds
    }


def _sheet(
    rows: AuditRows,
    levels: dict[str, np.ndarray],
    alike: list[tuple[int, int, float]],
    prints: Sequence[ImagePrint],
    text_faults: Sequence[str | None],
    rationales: dict[str, dict[str, list[int]]],
    limit: int,
) -> list[SheetSection]:
    sections = {"Duplicates with conflicting labels": conflicting_pairs(rows, levels)}
    if rows.splits:
        sections["Duplicates in several splits"] = crossing_pairs(rows, levels)
    sections["Nearly the same image, least alike first"] = [
        Candidate(f"correlation {correlation:.2f}", (one, other)) for one, other, correlation in alike
    ]
    sections["Broken and blank images"] = [
        Candidate(f"{one.fault}: {one.reason}" if one.reason else str(one.fault), (row,))
        for row, one in enumerate(prints)
        if one.fault in ("broken", "blank")
    ]
    sections["Texts that say nothing"] = [
        Candidate(fault, (row,)) for row, fault in enumerate(text_faults) if fault is not None
    ]
    faulty = {
        fault: [
            Candidate(f"{perspective}: {fault}", (row,), (perspective,))
            for perspective, faults in rationales.items()
            for row in faults[fault]
        ]
        for fault in RATIONALE_FAULTS
        if fault not in ("missing", "blank")
    }
    # A few of each fault come first, so that the most frequent one does not fill the section.
    share = max(1, limit // max(1, sum(map(bool, faulty.values()))))
    sections["Faulty rationales"] = [one for found in faulty.values() for one in found[:share]] + [
        one for found in faulty.values() for one in found[share:]
    ]
    return [draw_section(rows, title, candidates, limit) for title, candidates in sections.items()]
