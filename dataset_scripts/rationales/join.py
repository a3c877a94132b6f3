"""Rationales from a file beside the posts, or from a store, joined by id."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets

from dataset_scripts.rationales.posts import content_hashes
from dataset_scripts.reading.build import build_dataset, inputs_digest
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.tables import cell_name, cell_text, nested_column, table_columns, table_files, table_rows
from dataset_scripts.schema import rationale_column

logger = logging.getLogger(__name__)

# Beside the rationales: their language, where they come from, the text they are about (`posts.content_hashes`).
_FACTS = ("language", "provenance", "text_sha256")


def join_rationales(
    posts: Dataset, file: str | Path, *, on_error: str = "raise", report: BuildReport | None = None
) -> Dataset:
    """Fills the `rationale_*` columns of `posts` from a TSV, CSV, JSONL or Parquet file, or from a store.

    The columns that the file has replace those of `posts` as a whole: a post that the file does not know has null
    there. Blank is null. Rows stay on disk; in memory are the ids alone.

    Args:
        posts (`Dataset`): posts with the columns of `schema.features`.
        file (`str` or `Path`): columns `id` and at least one `rationale_*` that `posts` has; TSV and CSV with header.
            Or the folder of a `RationaleStore`, also while a run writes it. Where a post was asked about with several
            texts, the column `text_sha256` tells which row is about its present one.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without id, malformed, or with a repeated id.
        report (`BuildReport`, *optional*): takes the counts (posts without rationales, rows without post).

    Raises:
        ValueError: no `id` or no known rationale column, a `rationale_*` column that `posts` does not have, no id in
            common, or (unless skipped) a faulty row.
    """
    file = Path(file).resolve()
    known = [column for column in posts.column_names if column.startswith("rationale_")]
    table, found = load_rationales(file, known, on_error=on_error)
    columns = [column for column in table.column_names if column in known]
    place: dict[str, int] = {}
    versions: dict[tuple[str, str | None], int] = {}  # of posts with several rows
    texts = table["text_sha256"] if "text_sha256" in table.column_names else None
    for row, post in enumerate(table["id"]):
        if post in place:
            versions.setdefault((post, texts[place[post]]), place[post])
            versions[post, texts[row]] = row
        place[post] = row
    used = sum(post in place for post in posts["id"])
    if used == 0:
        raise ValueError(
            f"{file}: none of its {len(place):,} ids (e.g. {next(iter(place))!r}) is the id of a post "
            f"(e.g. {posts['id'][0]!r}); are these the rationales of another dataset?"
        )
    repeated = {post for post, _ in versions}
    table = table.select_columns(columns)

    def place_of(post: str, text: str | None) -> int | None:
        if post not in repeated:
            return place.get(post)
        return versions.get((post, content_hashes({"id": post, "text": text})[1]))

    def look_up(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        places = [place_of(post, text) for post, text in zip(batch["id"], batch["text"], strict=True)]
        rows = table[[one for one in places if one is not None]] if any(one is not None for one in places) else {}
        values = {column: iter(rows.get(column, ())) for column in columns}
        return {column: [None if one is None else next(values[column]) for one in places] for column in columns}

    joined = posts.select_columns(["id", "text"]).map(
        look_up,
        batched=True,
        remove_columns=["id", "text"],
        features=Features({column: Value("string") for column in columns}),
        new_fingerprint=f"{posts._fingerprint[:16]}{table._fingerprint[:16]}",  # hashing `place` would be slow
        desc="Joining rationales",
    )
    remaining = posts.remove_columns(columns)
    result = concatenate_datasets([remaining, joined], axis=1).select_columns(posts.column_names)
    _account(report, file, columns, found, posts=len(posts), used=used, unknown=len(place) - used)
    return result


def load_rationales(
    file: str | Path, known: list[str] | None = None, *, on_error: str = "raise"
) -> tuple[Dataset, BuildReport]:
    """The rationales of a file as they are, blank as null.

    Args:
        file (`str` or `Path`): as of `join_rationales`.
        known (list of `str`, *optional*): the `rationale_*` columns that there may be; by default any.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for rows without id, malformed, or with a repeated id
            (rows
            of one id may differ in `text_sha256` or `image_sha256`; of two images, the last counts).

    Returns:
        The dataset (`id`, the rationale columns, and where the file has them `language`, `provenance` and
        `text_sha256`) and the `BuildReport`.

    Raises:
        ValueError: no `id`, no or an unknown rationale column, or (unless skipped) a faulty row.
    """
    file = Path(file).resolve()
    columns = _rationale_columns(file, known)
    return build_dataset(
        "rationales",
        _rationale_rows,
        Features({name: Value("string") for name in ("id", *columns)}),
        inputs=inputs_digest(table_files(file)),
        options={"file": str(file), "columns": columns},
        on_error=on_error,
    )


def _rationale_columns(file: Path, known: list[str] | None) -> list[str]:
    found = table_columns(file)
    if known is None:
        known = [column for column in found if column.startswith("rationale_")]
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
            f"{file} has none of the columns {', '.join(known) or example}; its columns are "
            f"{', '.join(map(repr, found))}. Name them so, e.g. {example!r}."
        )
    return [*columns, *(name for name in _FACTS if name in found)]


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
        # a store keeps what it was told about a post whose text or image was changed later
        hashes = [cell_text(row.get(name)) for name in ("text_sha256", "image_sha256")]
        version = "\0".join(filter(None, (post, *hashes)))
        if version in seen:
            report.fail("duplicate id", f"{where}: id {post!r} is also in {seen[version]}; remove one of the two.")
            continue
        seen[version] = where.rpartition(", ")[2]
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
