"""Gate applied to all rationales of a dataset: counts as JSON values and as Markdown tables."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from dataset_scripts.output import markdown_table
from dataset_scripts.rationales.quality.gate import HARD, SOFT, check_post, is_written, supported_language
from dataset_scripts.schema import rationale_column

QUANTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
BANDS = 4


def perspectives_of(posts: Dataset) -> list[str]:
    """Return the perspectives with at least one rationale, in the order of the columns.

    Raises:
        ValueError: no post has a rationale.
    """
    prefix = rationale_column("")
    columns = [name for name in posts.column_names if name.startswith(prefix)]
    perspectives = [name.removeprefix(prefix) for name in columns if any(map(is_written, posts[name]))]
    if not perspectives:
        raise ValueError(
            f"No post has a rationale (columns: {', '.join(columns) or 'none named rationale_*'}). Join them first: "
            "join_rationales(posts, file)."
        )
    return perspectives


def apply_gate(posts: Dataset, *, language: str | None = None, num_proc: int | None = None) -> Dataset:
    """Apply the gate to every rationale, as during generation.

    Args:
        posts (`Dataset`): with `text`, `language` and `rationale_*`. Labels and images are not read.
        language (`str`, *optional*): language of all rationales; by default that of each post.
        num_proc (`int`, *optional*): processes; one checks about 2,500 rationales per second.

    Returns:
        One row per post: `flags_{perspective}`, a list of codes of `gate.HARD` and `gate.SOFT`, null without a
        rationale or without a lexicon for its language; and `characters_{perspective}`.
    """
    perspectives = perspectives_of(posts)
    columns = ["text", "language", *map(rationale_column, perspectives)]
    columns = [name for name in columns if name in posts.column_names]
    features = {f"flags_{perspective}": List(Value("string")) for perspective in perspectives}
    features |= {f"characters_{perspective}": Value("int32") for perspective in perspectives}
    return posts.select_columns(columns).map(
        _post_flags,
        fn_kwargs={"perspectives": perspectives, "language": language},
        remove_columns=columns,
        features=Features(features),
        num_proc=num_proc,
        load_from_cache_file=False,  # the cache does not notice changed rules
        desc="Checking rationales",
    )


def _post_flags(post: Mapping[str, Any], perspectives: list[str], language: str | None) -> dict[str, Any]:
    rationales = {name: post[rationale_column(name)] for name in perspectives}
    verdicts = check_post(rationales, language=language or post.get("language"), text=post.get("text"))
    flags = {f"flags_{name}": verdict and verdict.codes for name, verdict in verdicts.items()}
    return flags | {
        f"characters_{name}": len(rationale.strip()) if is_written(rationale) else None
        for name, rationale in rationales.items()
    }


def summarize_gate(posts: Dataset, *, language: str | None = None, num_proc: int | None = None) -> dict[str, Any]:
    """Count coverage, gate codes and lengths of the rationales; all values are JSON values.

    If posts have labels, flags are also counted by class, for inspection only: rationales must not be masked, dropped
    or generated again by label.

    Args:
        posts, language, num_proc: see `apply_gate`.

    Returns:
        `posts`; `coverage` (posts with `all`, `some`, `none` of the perspectives); `not_judged` (posts with
        rationales in a language without a lexicon, by language); `posts_hard` (posts with a hard flag); and for each
        of `perspectives`: `rationales` and `missing`, `hard` (rationales with a hard flag), `codes` (rationales by
        code), `characters` (quantiles), `by_length` (four bands of equal size) and `by_label`, each with `rationales`
        and `hard`.
    """
    flags = apply_gate(posts, language=language, num_proc=num_proc)
    names = [column.removeprefix("flags_") for column in flags.column_names if column.startswith("flags_")]
    classes = list(getattr(posts.features.get("label"), "names", ()))
    labels = _integers(posts["label"], len(posts)) if classes else np.full(len(posts), -1)
    written_counts, any_hard = np.zeros(len(posts), dtype=int), np.zeros(len(posts), dtype=bool)
    by_perspective = {}
    for name in names:
        lengths = _integers(flags[f"characters_{name}"], len(posts))
        written, hard = lengths >= 0, np.zeros(len(posts), dtype=bool)
        counts: Counter[str] = Counter()
        for row, codes in enumerate(flags[f"flags_{name}"]):
            counts.update(codes or ())
            hard[row] = any(code in HARD for code in codes or ())
        written_counts += written
        any_hard |= hard
        quantiles = np.quantile(lengths[written], list(QUANTILES.values()))
        by_perspective[name] = {
            "rationales": int(written.sum()),
            "missing": int((~written).sum()),
            "hard": int(hard.sum()),
            "codes": {code: counts[code] for code in (*HARD, *SOFT)},
            "characters": dict(zip(QUANTILES, quantiles.astype(int).tolist(), strict=True)),
            "by_length": _bands(lengths[written], hard[written]),
            "by_label": {
                label: {"rationales": int(written[labels == number].sum()), "hard": int(hard[labels == number].sum())}
                for number, label in enumerate(classes)
            },
        }
    complete, empty = int((written_counts == len(names)).sum()), int((written_counts == 0).sum())
    return {
        "posts": len(posts),
        "coverage": {"all": complete, "some": len(posts) - complete - empty, "none": empty},
        "not_judged": _unsupported_languages(posts, written_counts, language),
        "posts_hard": int(any_hard.sum()),
        "perspectives": by_perspective,
    }


def _integers(values: Iterable[int | None], size: int) -> np.ndarray:
    """Convert to an integer array; `None` becomes -1."""
    return np.fromiter((-1 if value is None else value for value in values), dtype=np.int32, count=size)


def _bands(lengths: np.ndarray, hard: np.ndarray) -> list[dict[str, Any]]:
    """Count hard flags in bands of equal size, ordered by length."""
    bands = [band for band in np.array_split(np.argsort(lengths, kind="stable"), BANDS) if len(band)]
    ends = [lengths[band[[0, -1]]].tolist() for band in bands]
    return [
        {"characters": characters, "rationales": len(band), "hard": int(hard[band].sum())}
        for characters, band in zip(ends, bands, strict=True)
    ]


def _unsupported_languages(posts: Dataset, written_counts: np.ndarray, language: str | None) -> dict[str, int]:
    tags = posts["language"] if language is None and "language" in posts.column_names else [language] * len(posts)
    pairs = zip(tags, written_counts, strict=True)
    return dict(sorted(Counter(str(tag) for tag, count in pairs if count and not supported_language(tag)).items()))


def summary_table(summary: Mapping[str, Any]) -> str:
    """Format the result of `summarize_gate` as Markdown tables.

    The result of `leak_probe`, stored under `"leak"`, adds another table.
    """
    by_perspective: Mapping[str, Mapping[str, Any]] = summary["perspectives"]
    coverage = summary["coverage"]
    lines = [
        f"{summary['posts']:,} posts: {coverage['all']:,} with rationales of all perspectives, {coverage['some']:,} "
        f"of some, {coverage['none']:,} of none; with a hard flag: {_share(summary['posts_hard'], summary['posts'])}",
    ]
    lines += [
        f"not checked, no lexicon for language {tag!r}: {count:,} posts"
        for tag, count in summary["not_judged"].items()
    ]

    columns = by_perspective.values()
    rows = [
        ["rationales", *(f"{counts['rationales']:,}" for counts in columns)],
        ["**any hard flag**", *(_share(counts["hard"], counts["rationales"]) for counts in columns)],
    ]
    for code in (*HARD, *SOFT):
        if any(counts["codes"][code] for counts in columns):
            title = f"{'hard' if code in HARD else 'soft'}: {code}"
            rows.append([title, *(_share(counts["codes"][code], counts["rationales"]) for counts in columns)])
    quantiles = [" / ".join(f"{value:,}" for value in counts["characters"].values()) for counts in columns]
    rows.append([f"characters {' / '.join(QUANTILES)}", *quantiles])
    lines += ["", markdown_table(["", *by_perspective], rows)]
    labels = next(iter(columns))["by_label"]
    rows = [[f"class {label}", *(_group(counts["by_label"][label]) for counts in columns)] for label in labels]
    for number, groups in enumerate(itertools.zip_longest(*(counts["by_length"] for counts in columns)), 1):
        rows.append([f"length quarter {number}, characters", *map(_group, groups)])
    lines += ["", markdown_table(["hard flags in", *by_perspective], rows)]
    if "leak" in summary:
        leak = summary["leak"]
        rows = [
            [name, f"{score['accuracy']:.1%}", f"{score['f1_macro']:.1%}"] for name, score in leak["inputs"].items()
        ]
        title = f"{leak['folds']}-fold on {leak['posts']:,} posts ({leak['groups']:,} groups)"
        lines += ["", markdown_table([title, "accuracy", "macro F1"], rows)]
    return "\n".join(lines)


def _group(group: Mapping[str, Any] | None) -> str:
    if group is None:  # fewer rationales than length quarters
        return ""
    span = f"{group['characters'][0]:,} to {group['characters'][1]:,}: " if "characters" in group else ""
    return span + _share(group["hard"], group["rationales"])


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else "0"
