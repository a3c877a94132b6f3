"""Rationales from a file beside the posts, joined by id."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from .build import BuildReport, build_dataset, did_you_mean, inputs_digest
from .schema import rationale_column
from .tables import cell_name, cell_text, nested_column, table_columns, table_rows

logger = logging.getLogger(__name__)


def join_rationales(
    posts: Dataset, file: str | Path, *, on_error: str = "raise", report: BuildReport | None = None
) -> Dataset:
    """Fills the `rationale_*` columns of `posts` from a TSV, CSV, JSONL or Parquet file.

    The columns that the file has replace those of `posts` as a whole: a post that the file does not know has null
    there. Blank is null. Rows stay on disk; in memory are the ids alone.

    Args:
        posts (`Dataset`): posts with the columns of `schema.features`.
        file (`str` or `Path`): columns `id` and at least one `rationale_*` that `posts` has; TSV and CSV with header.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without id, malformed, or with a repeated id.
        report (`BuildReport`, *optional*): takes the counts (posts without rationales, rows without post).

    Raises:
        ValueError: no `id` or no known rationale column, a `rationale_*` column that `posts` does not have, no id in
            common, or (unless skipped) a faulty row.
    """
    file = Path(file).resolve()
    known = [column for column in posts.column_names if column.startswith("rationale_")]
    columns = _rationale_columns(file, known)
    table, found = build_dataset(
        "rationales",
        _rationale_rows,
        Features({name: Value("string") for name in ("id", *columns)}),
        inputs=inputs_digest([file]),
        options={"file": str(file), "columns": columns},
        on_error=on_error,
    )
    place = {post: row for row, post in enumerate(table["id"])}
    used = sum(post in place for post in posts["id"])
    if used == 0:
        raise ValueError(
            f"{file}: none of its {len(place):,} ids (e.g. {next(iter(place))!r}) is the id of a post "
            f"(e.g. {posts['id'][0]!r}); are these the rationales of another dataset?"
        )
    table = table.remove_columns(["id"])

    def look_up(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        places = [place.get(post) for post in batch["id"]]
        rows = table[[one for one in places if one is not None]] if any(one is not None for one in places) else {}
        values = {column: iter(rows.get(column, ())) for column in columns}
        return {column: [None if one is None else next(values[column]) for one in places] for column in columns}

    joined = posts.select_columns(["id"]).map(
        look_up,
        batched=True,
        remove_columns=["id"],
        features=Features({column: Value("string") for column in columns}),
        new_fingerprint=f"{posts._fingerprint[:16]}{table._fingerprint[:16]}",  # hashing `place` would be slow
        desc="Joining rationales",
    )
    remaining = posts.remove_columns(columns)
    result = concatenate_datasets([remaining, joined], axis=1).select_columns(posts.column_names)
    _account(report, file, columns, found, posts=len(posts), used=used, unknown=len(place) - used)
    return result


def _rationale_columns(file: Path, known: list[str]) -> list[str]:
    found = table_columns(file)
    if "id" not in found:
        raise ValueError(
            f"{file} has no column 'id'; its columns are {', '.join(map(repr, found))}. Rationales are joined by the "
            "id of the post: add or rename that column." + did_you_mean("id", found)
        )
    for column in found:
        if column.startswith("rationale") and column not in known:
            raise ValueError(
                f"{file} has the column {column!r}; the rationale columns of these posts are {', '.join(known)}. "
                "Rename or remove it." + did_you_mean(column, known)
            )
    columns = [column for column in known if column in found]
    if not columns:
        example = known[0] if known else rationale_column("positive")
        raise ValueError(
            f"{file} has none of the columns {', '.join(known)}; its columns are {', '.join(map(repr, found))}. "
            f"Name them so, e.g. {example!r}."
        )
    return columns


def _rationale_rows(report: BuildReport, file: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    seen: dict[str, str] = {}
    for where, row in table_rows(Path(file)):
        report.read += 1
        if row is None:
            report.fail("malformed row", f"{where}: not as many fields as the header names; mend the row.")
            continue
        nested = nested_column(row, columns)
        if nested is not None:
            report.fail("malformed row", f"{where}: {nested!r} holds a {type(row[nested]).__name__}; write a text.")
            continue
        post = cell_name(row.get("id"))
        if post is None:
            report.fail("no id", f"{where}: the id is blank; write the id of the post or remove the row.")
            continue
        if post in seen:
            report.fail("duplicate id", f"{where}: id {post!r} is also in {seen[post]}; remove one of the two.")
            continue
        seen[post] = where.rpartition(", ")[2]
        yield {"id": post} | {column: cell_text(row.get(column)) for column in columns}


def _account(
    report: BuildReport | None,
    file: Path,
    columns: list[str],
    found: BuildReport,
    *,
    posts: int,
    used: int,
    unknown: int,
) -> None:
    remarks = {
        "without a row in the rationale file": posts - used,
        "rationale rows whose id is no post (dropped or unknown)": unknown,
    }
    for reason, count in found.skipped.items():
        remarks[f"rationale rows skipped: {reason}"] = count
    for remark, count in remarks.items():
        if count:
            logger.warning("%s: %s: %d", file, remark, count)
            if report is not None:
                report.note(remark, count)
    logger.info("%s: %s joined to %d of %d posts", file, ", ".join(columns), used, posts)
