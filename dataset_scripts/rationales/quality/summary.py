"""What the gate finds in a whole dataset, written by this package or imported: counts as JSON, and as a table.

judged = judge(posts)                  # one column of codes for each perspective
report = summarize_gate(posts)            # {"posts": 2023, "perspectives": {"positive": {"hard": 35, ...
report["leak"] = leak_probe(posts)
print(summary_table(report))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from dataset_scripts.rationales.quality.gate import HARD, SOFT, check
from dataset_scripts.rationales.quality.lexicon import LEXICONS
from dataset_scripts.schema import rationale_column

QUANTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
BANDS = 4


def perspectives_of(posts: Dataset) -> list[str]:
    """The perspectives of which at least one post has a rationale, in the order of the columns.

    Raises:
        ValueError: there is none.
    """
    prefix = rationale_column("")
    columns = [name for name in posts.column_names if name.startswith(prefix)]
    found = [name.removeprefix(prefix) for name in columns if any(map(_written, posts[name]))]
    if not found:
        raise ValueError(
            f"No post has a rationale ({', '.join(columns) or 'there is no rationale_* column'}); join them first, "
            "e.g. with join_rationales(posts, file)."
        )
    return found


def judge(posts: Dataset, *, language: str | None = None, num_proc: int | None = None) -> Dataset:
    """The gate's verdict on every rationale of every post, as if each answer had just come in.

    Args:
        posts (`Dataset`): with `text`, `language` and `rationale_*`. Labels and images are not looked at.
        language (`str`, *optional*): that all rationales are written in; by default each post's own.
        num_proc (`int`, *optional*): processes; one judges about 2,500 rationales a second.

    Returns:
        A dataset with a row for each post: `flags_{perspective}`, a list of codes of `gate.HARD` and `gate.SOFT`, null
        where there is no rationale, or none that the gate has a lexicon for; and `characters_{perspective}`.
    """
    perspectives = perspectives_of(posts)
    columns = ["text", "language", *map(rationale_column, perspectives)]
    features = {f"flags_{perspective}": List(Value("string")) for perspective in perspectives}
    features |= {f"characters_{perspective}": Value("int32") for perspective in perspectives}
    return posts.select_columns([name for name in columns if name in posts.column_names]).map(
        _judge,
        batched=True,
        batch_size=500,
        fn_kwargs={"perspectives": perspectives, "language": language},
        remove_columns=[name for name in columns if name in posts.column_names],
        features=Features(features),
        num_proc=num_proc,
        load_from_cache_file=False,  # the cache would outlive a change of the rules
        desc="Judging rationales",
    )


def _judge(batch: Mapping[str, list[Any]], perspectives: list[str], language: str | None) -> dict[str, list[Any]]:
    size = len(batch[rationale_column(perspectives[0])])
    nothing = [None] * size
    found: dict[str, list[Any]] = {f"{kind}_{name}": [] for kind in ("flags", "characters") for name in perspectives}
    for row in range(size):
        written = {name: batch[rationale_column(name)][row] for name in perspectives}
        tongue = _language(language or batch.get("language", nothing)[row])
        for name, rationale in written.items():
            flags = None
            if tongue is not None and _written(rationale):
                text = batch.get("text", nothing)[row]
                verdict = check(rationale, perspective=name, language=tongue, post_text=text, siblings=written)
                flags = [*verdict.hard, *verdict.soft]
            found[f"flags_{name}"].append(flags)
            found[f"characters_{name}"].append(len(rationale.strip()) if _written(rationale) else None)
    return found


def _written(rationale: str | None) -> bool:
    return bool(rationale and rationale.strip())


def _language(tag: str | None) -> str | None:
    """The lexicon that a language tag has, if it has one."""
    base = (tag or "").lower().replace("_", "-").partition("-")[0]
    return base if base in LEXICONS else None


def summarize_gate(posts: Dataset, *, language: str | None = None, num_proc: int | None = None) -> dict[str, Any]:
    """Coverage, flags and lengths of a dataset's rationales; plain JSON values.

    Where posts have labels, flags are also counted by class. That is for people to see: a perspective that fails far
    more often on one class must not be masked, dropped or re-asked by label.

    Args:
        posts, language, num_proc: as for `judge`.

    Returns:
        `posts`; `coverage` (posts with `all`, `some`, `none` of the perspectives); `not_judged` (posts with
        rationales in a language without a lexicon, by language); `posts_hard` (posts with a hard flag); and for each
        of `perspectives`: `rationales` and `missing`, `hard` (rationales with a hard flag), `codes` (rationales by
        code), `characters` (quantiles), `by_length` (four bands of equal size) and `by_label`, each with `rationales`
        and `hard`.
    """
    judged = judge(posts, language=language, num_proc=num_proc)
    names = [column.removeprefix("flags_") for column in judged.column_names if column.startswith("flags_")]
    classes = list(getattr(posts.features.get("label"), "names", ()))
    labels = _integers(posts["label"], len(posts)) if classes else np.full(len(posts), -1)
    present, failed = np.zeros(len(posts), dtype=int), np.zeros(len(posts), dtype=bool)
    parts = {}
    for name in names:
        lengths = _integers(judged[f"characters_{name}"], len(posts))
        written, hard = lengths >= 0, np.zeros(len(posts), dtype=bool)
        counts: Counter[str] = Counter()
        for row, codes in enumerate(judged[f"flags_{name}"]):
            counts.update(codes or ())
            hard[row] = any(code in HARD for code in codes or ())
        present += written
        failed |= hard
        quantiles = np.quantile(lengths[written], list(QUANTILES.values()))
        parts[name] = {
            "rationales": int(written.sum()),
            "missing": int((~written).sum()),
            "hard": int(hard.sum()),
            "codes": {code: counts[code] for code in (*HARD, *SOFT)},
            "characters": dict(zip(QUANTILES, quantiles.astype(int).tolist(), strict=True)),
            "by_length": _bands(lengths[written], hard[written]),
            "by_label": {
                label: {"rationales": int((written & here).sum()), "hard": int((hard & here).sum())}
                for label, here in ((label, labels == number) for number, label in enumerate(classes))
            },
        }
    every, none = int((present == len(names)).sum()), int((present == 0).sum())
    return {
        "posts": len(posts),
        "coverage": {"all": every, "some": len(posts) - every - none, "none": none},
        "not_judged": _not_judged(posts, present, language),
        "posts_hard": int(failed.sum()),
        "perspectives": parts,
    }


def _integers(values: Iterable[int | None], size: int) -> np.ndarray:
    """As an array, -1 for None."""
    return np.fromiter((-1 if value is None else value for value in values), dtype=np.int32, count=size)


def _bands(lengths: np.ndarray, hard: np.ndarray) -> list[dict[str, Any]]:
    """Rationales in order of length, cut into bands of equal size."""
    order = np.argsort(lengths, kind="stable")
    return [
        {
            "characters": [int(lengths[part[0]]), int(lengths[part[-1]])],
            "rationales": len(part),
            "hard": int(hard[part].sum()),
        }
        for part in np.array_split(order, BANDS)
        if len(part)
    ]


def _not_judged(posts: Dataset, present: np.ndarray, language: str | None) -> dict[str, int]:
    tags = posts["language"] if language is None and "language" in posts.column_names else [language] * len(posts)
    counts = Counter(str(tag) for tag, count in zip(tags, present, strict=True) if count and _language(tag) is None)
    return dict(sorted(counts.items()))


def summary_table(report: Mapping[str, Any]) -> str:
    """A report of `summarize_gate`, with what `leak_probe` found under `"leak"` if it is there, as Markdown tables."""
    parts = report["perspectives"]
    cover = report["coverage"]
    lines = [
        f"{report['posts']:,} posts; rationales of all perspectives {cover['all']:,}, of some {cover['some']:,}, of "
        f"none {cover['none']:,}; posts with a hard flag {_share(report['posts_hard'], report['posts'])}",
    ]
    lines += [f"not judged, language {tag!r}: {count:,} posts" for tag, count in report["not_judged"].items()]
    rows = [
        ["rationales", *(f"{part['rationales']:,}" for part in parts.values())],
        ["**any hard flag**", *(_share(part["hard"], part["rationales"]) for part in parts.values())],
    ]
    for code in (*HARD, *SOFT):
        if any(part["codes"][code] for part in parts.values()):
            kind = "hard" if code in HARD else "soft"
            rows.append([f"{kind}: {code}", *(_share(p["codes"][code], p["rationales"]) for p in parts.values())])
    rows.append(
        [
            f"characters {' / '.join(QUANTILES)}",
            *(" / ".join(f"{value:,}" for value in part["characters"].values()) for part in parts.values()),
        ]
    )
    lines += ["", *_markdown(["", *parts], rows)]
    groups = [(f"class {label}", "by_label", label) for label in next(iter(parts.values()))["by_label"]]
    groups += [(f"length quarter {band + 1}, characters", "by_length", band) for band in range(BANDS)]
    rows = [[title, *(_group(part[kind], key) for part in parts.values())] for title, kind, key in groups]
    lines += ["", *_markdown(["hard flags in", *parts], rows)]
    if "leak" in report:
        leak = report["leak"]
        rows = [
            [name, f"{score['accuracy']:.1%}", f"{score['f1_macro']:.1%}"] for name, score in leak["inputs"].items()
        ]
        title = f"{leak['folds']}-fold on {leak['posts']:,} posts ({leak['groups']:,} groups)"
        lines += ["", *_markdown([title, "accuracy", "macro F1"], rows)]
    return "\n".join(lines)


def _group(counts: Any, key: Any) -> str:
    if isinstance(counts, list) and key >= len(counts):
        return ""
    group = counts[key]
    span = f"{group['characters'][0]:,} to {group['characters'][1]:,}: " if "characters" in group else ""
    return span + _share(group["hard"], group["rationales"])


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else "0"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
