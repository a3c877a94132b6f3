"""Rationales of a table or a store, joined to posts by id."""

import functools
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

from dataset_scripts.rationales.files import rationale_columns, rationale_inputs, sound_rationale_rows
from dataset_scripts.rationales.index import RationaleIndex
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.tables import cell_text
from dataset_scripts.schema import PERSPECTIVES, has_values, rationale_column

logger = logging.getLogger(__name__)

_PREFIX = rationale_column("")
# Columns about the rationales: their language, their origin, and the text that they explain (`content_hashes`).
_METADATA = ("language", "provenance", "text_sha256")


def join_rationales(
    posts: Dataset | DatasetDict, file: str | Path, *, on_error: str = "raise", report: BuildReport | None = None
) -> Dataset | DatasetDict:
    """Add the `rationale_*` columns of a table or a store to posts, by id.

    Any perspectives are allowed. A column that posts have already is replaced as a whole: a post without a row gets
    null. Columns of posts without any rationale are removed. Blank is null. Rows stay on disk; only the ids are in
    memory.

    Args:
        posts (`Dataset` or `DatasetDict`): posts with the columns of `schema.features`.
        file (`str` or `Path`): has the column `id` and at least one `rationale_*`; TSV and CSV with header. Or the
            folder of a `RationaleStore`, also during a run. If a post has rows for several texts, the column
            `text_sha256` selects the row of its present text; of rows with different images, the last one counts.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for malformed rows, without id, or with a repeated id.
        report (`BuildReport`, *optional*): receives the counts of posts without row, and of rows without post.

    Raises:
        ValueError: no `id` or no rationale column, no id in common, or (unless skipped) a faulty row.
    """
    if isinstance(posts, DatasetDict):  # all splits at once, so that the counts are those of the whole
        joined = join_rationales(concatenate_datasets([*posts.values()]), file, on_error=on_error, report=report)
        spans = itertools.pairwise(itertools.accumulate(map(len, posts.values()), initial=0))
        return DatasetDict({name: joined.select(range(*span)) for name, span in zip(posts, spans, strict=True)})
    file = Path(file).resolve()
    table, table_report = load_rationales(file, on_error=on_error)
    columns = [column for column in table.column_names if column.startswith(_PREFIX)]
    index = RationaleIndex(table, columns, file)
    matched = sum(post_id in index for post_id in posts["id"])
    if matched == 0:
        raise ValueError(
            f"{file}: none of its {len(index):,} ids (e.g. {index.an_id()!r}) is the id of a post "
            f"(e.g. {posts['id'][0]!r}); are these the rationales of another dataset?"
        )

    joined = posts.select_columns(["id", "text"]).map(
        lambda batch: index.look_up(batch["id"], batch["text"]),
        batched=True,
        remove_columns=["id", "text"],
        features=Features({column: Value("string") for column in columns}),
        new_fingerprint=f"{posts._fingerprint[:16]}{table._fingerprint[:16]}",  # hashing `index` would be slow
        desc="Joining rationales",
    )
    own_columns = [column for column in posts.column_names if column.startswith(_PREFIX)]
    empty = [column for column in own_columns if not has_values(posts, column)]
    remaining = posts.remove_columns([column for column in own_columns if column in columns or column in empty])
    order = _column_order(posts.column_names, [*remaining.column_names, *columns])
    result = concatenate_datasets([remaining, joined], axis=1).select_columns(order)
    notes = {
        "without a row in the rationale file": len(posts) - matched,
        "rationale rows whose id is no post (dropped or unknown)": len(index) - matched,
    }
    notes |= {f"rationale rows skipped: {reason}": count for reason, count in table_report.skipped.items()}
    for note, count in notes.items():
        if count:
            logger.warning("%s: %s: %d", file, note, count)
            if report is not None:
                report.note(note, count)
    covered = _count_covered(joined)
    level = logging.INFO if covered == len(posts) else logging.WARNING
    logger.log(level, "%s: rationales for %s of %s posts", file, f"{covered:,}", f"{len(posts):,}")
    return result


def _count_covered(rationales: Dataset) -> int:
    """Count the posts with at least one rationale."""
    written = [pc.is_valid(rationales.data.column(name)) for name in rationales.column_names]
    return pc.sum(functools.reduce(pc.or_, written)).as_py() or 0


def load_rationales(file: str | Path, *, on_error: str = "raise") -> tuple[Dataset, BuildReport]:
    """Load the rationales of a file or store without posts; blank is null.

    Args:
        file, on_error: see `join_rationales`. Rows of one id may differ in `text_sha256` or `image_sha256`.

    Returns:
        The dataset (`id`, the rationale columns, and `language`, `provenance` and `text_sha256` if the file has them)
        and the `BuildReport`.

    Raises:
        ValueError: no `id` or no rationale column, or (unless skipped) a faulty row.
    """
    file = Path(file).resolve()
    names = rationale_columns(file)
    listed = ", ".join(map(repr, names))
    if "id" not in names:
        raise ValueError(
            f"{file} has no column 'id'; its columns are {listed}. Rationales are joined by the id of the post: add "
            "or rename that column." + did_you_mean("id", names)
        )
    columns = [name for name in names if name.startswith(_PREFIX) and name != _PREFIX]
    if not columns:
        raise ValueError(
            f"{file} has no column of rationales; its columns are {listed}. Name them rationale_PERSPECTIVE, e.g. "
            f"{rationale_column(PERSPECTIVES[0])!r}."
        )
    for column in columns:
        perspective = column.removeprefix(_PREFIX)
        if perspective not in PERSPECTIVES and (hint := did_you_mean(perspective, PERSPECTIVES)):
            logger.warning("%s: %r is taken for the perspective %r.%s", file, column, perspective, hint)
    columns += [name for name in _METADATA if name in names]
    return build_dataset(
        "rationales",
        _rationale_rows,
        Features({name: Value("string") for name in ("id", *columns)}),
        inputs=inputs_digest(rationale_inputs(file)),
        options={"file": str(file), "columns": columns},
        on_error=on_error,
    )


def _column_order(column_names: list[str], available: list[str]) -> list[str]:
    """Order columns as in `column_names`, with all rationales together, the paper's first."""
    known = [column for column in map(rationale_column, PERSPECTIVES) if column in available]
    rationales = [*known, *(column for column in available if column.startswith(_PREFIX))]
    order = []
    for column in column_names:
        order += rationales if column.startswith(_PREFIX) else [column]
    return list(dict.fromkeys([*order, *rationales]))


def _rationale_rows(report: BuildReport, file: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    for row in sound_rationale_rows(Path(file), columns, report):
        yield {"id": row["id"]} | {column: cell_text(row.get(column)) for column in columns}
