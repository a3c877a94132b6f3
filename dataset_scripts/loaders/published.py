"""Datasets opened by `datasets`, with the columns of `schema.features`."""

import inspect
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from dataset_scripts.loaders.classes import class_names
from dataset_scripts.reading.image_checks import check_images
from dataset_scripts.reading.option_names import column_options, load_call, option
from dataset_scripts.reading.post_ids import DAMAGED_ID, read_id
from dataset_scripts.reading.report import BuildReport, did_you_mean
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import cell_name, cell_text
from dataset_scripts.schema import CONTENT, GROUP, LABELS, features, null_rows

logger = logging.getLogger(__name__)

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx")


def standard_columns(
    posts: DatasetDict,
    name: str,
    report: BuildReport,
    *,
    text_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    labels: Sequence[str | int] | None = None,
    language: str = "en",
) -> DatasetDict:
    """Give posts the columns of `schema.features`; other columns are kept after them.

    Args:
        posts (`DatasetDict`): as `open_dataset` returns it.
        name (`str`): Hub id or folder, for messages and the column `source`.
        report (`BuildReport`): receives the counts of rows, and faulty rows.
        text_column, image_column, label_column, id_column, group_column, labels, language: see `load_folder`.

    Raises:
        ValueError: a column that does not exist or has a type that cannot be converted, or (unless skipped) a blank,
            rounded or repeated id, an unknown label, an image that cannot be decoded, or a post without text, image
            and rationales.
    """
    given = {
        "text": text_column,
        "image": image_column,
        "label": label_column,
        "id": id_column or None,
        GROUP: group_column,
    }
    parts = {split: _renamed(part, name, given) for split, part in posts.items()}
    if id_column == "":
        parts = {split: part.remove_columns("id") if "id" in part.features else part for split, part in parts.items()}
    for part in parts.values():
        _check_content(part, name)
    classes = _classes(parts, name, labels)
    source = Path(name).name if Path(name).is_dir() else name
    constants = {"language": language, "source": source}
    checks, converted = RowChecks(report), {}
    for split, part in parts.items():
        converted[split] = _converted(part, f"{name}, split {split}", classes, constants, checks)
        report.read += len(part)
    return DatasetDict(converted)


def _renamed(part: Dataset, name: str, given: dict[str, str | None]) -> Dataset:
    for role, column in given.items():
        if column in (None, role):
            continue
        if column not in part.column_names:
            raise ValueError(
                f"{name!r} has no column {column!r}; its columns are {', '.join(part.column_names)}. Name the right "
                f"one with {option(f'{role}_column')}." + did_you_mean(column, part.column_names)
            )
        if role in part.column_names:
            part = part.remove_columns(role)
        part = part.rename_column(column, role)
    return part


def _check_content(part: Dataset, name: str) -> None:
    """Check that there is a text or an image, and that images are not paths."""
    folder = Path(name)
    tables = [path.name for path in folder.glob("[!.]*") if path.suffix.lower() in _TABLES] if folder.is_dir() else []
    image = part.features.get("image")
    is_path = isinstance(image, Value) and image.dtype in ("string", "large_string")
    if is_path or (tables and "text" not in part.features and "label" not in part.features):
        where = name if folder.is_dir() else "FOLDER"
        found = f"its column 'image' holds {'paths' if is_path else 'images'}"
        download = "" if folder.is_dir() else f" after `hf download {name} --repo-type dataset --local-dir FOLDER`"
        table = f", and {tables[0]} is not read" if tables and not is_path else ""
        raise ValueError(
            f"{name!r}: {found}{table}. A table with its images is read by {load_call('folder', where)}{download}."
        )
    missing = [column for column in features(perspectives=()) if column not in part.features]
    if missing == list(CONTENT):
        raise ValueError(
            f"{name!r} was published without texts and images; give the original download that has them as "
            f"{option('data_dir')}."
        )
    if not any(column in part.features for column in CONTENT):
        raise ValueError(
            f"{name!r} has neither a column 'text' nor 'image'; its columns are {', '.join(part.column_names)}. Name "
            f"them with {column_options('text_column', 'image_column')}."
        )


def _classes(parts: dict[str, Dataset], name: str, labels: Sequence[str | int] | None) -> list[str] | None:
    """List the class names of labels that are not of the type `ClassLabel`, over all splits."""
    columns = [part for part in parts.values() if "label" in part.features]
    if columns and all(isinstance(part.features["label"], ClassLabel) for part in columns):
        return None
    if labels is not None:
        return [str(label) for label in labels]
    counts: Counter[str] = Counter()
    for part in columns:
        feature = part.features["label"]
        if not isinstance(feature, Value | ClassLabel):
            raise ValueError(
                f"{name!r}: the column 'label' must hold one class per post, got {type(feature).__name__}. Name "
                f"another column with {option('label_column')}."
            )
        counts.update(filter(None, map(cell_name, _label_values(part))))
    if not columns:
        others = parts[next(iter(parts))].column_names
        logger.warning(
            "%s: no column 'label' among %s; posts have no label. Name another column with %s.",
            name, others, option("label_column"),
        )  # fmt: skip
    return class_names(counts, f"{name!r}: the column 'label'") if counts else list(LABELS)


def _label_values(part: Dataset) -> list[Any]:
    label = part.features["label"]
    if isinstance(label, ClassLabel):
        return [None if value in (None, -1) else label.int2str(value) for value in part["label"]]
    return list(part["label"])


def _converted(
    part: Dataset, where: str, classes: list[str] | None, constants: dict[str, str], checks: RowChecks
) -> Dataset:
    """Convert the columns of one split, add those that it lacks, and leave out faulty rows."""
    size, report, faulty = len(part), checks.report, set()
    if classes is None:  # -1 is an unknown label, by convention of the Hub
        classes = part.features["label"].names if "label" in part.features else list(LABELS)
    schema = features(classes, perspectives=())
    if "id" not in part.features:
        part = part.add_column("id", [str(number) for number in range(report.read, report.read + size)])
    else:
        ids = [_checked_id(value, f"{where}, row {row}", checks) for row, value in enumerate(part["id"], start=1)]
        faulty |= {row for row, post_id in enumerate(ids) if post_id is None}
        if part.features["id"] != Value("string") or faulty:
            part = _replaced(part, "id", ids, schema)
    for column in CONTENT:
        if column not in part.features:
            part = _replaced(part, column, [None] * size, schema)
    if not isinstance(part.features["image"], Image):
        part = _cast(part, "image", Image(), where)
    part, undecodable = check_images(part, where, report)
    faulty |= undecodable
    part = _cast(part, "text", Value("string"), where)
    texts = list(part["text"])
    if any(text is not None and not text.strip() for text in texts):
        part = _replaced(part, "text", list(map(cell_text, texts)), schema)
    if "label" not in part.features:
        part = _replaced(part, "label", [None] * size, schema)
    elif part.features["label"] != schema["label"] or -1 in part["label"]:
        names = [cell_name(value) for value in _label_values(part)]
        fix = f"Add the class to {option('labels', ['…'])}."
        for row, label in enumerate(names):
            if label is not None and not checks.is_known_label(label, classes, f"{where}, row {row + 1}", fix):
                faulty.add(row)
        number_of = {label: number for number, label in enumerate(classes)}
        part = _replaced(part, "label", [number_of.get(label) for label in names], schema)
    for column in ("text_label", "image_label", "language", "source"):
        if column not in part.features:
            part = _replaced(part, column, [constants.get(column)] * size, schema)
    rationales = [column for column in part.column_names if column.startswith("rationale_")]
    for row in null_rows(part, [*CONTENT, *rationales]) - faulty:
        message = f"{where}, row {row + 1}: neither a text nor an image; write one or remove the row."
        report.fail("empty post", message)
        faulty.add(row)
    if faulty:
        part = part.select([row for row in range(size) if row not in faulty])
    order = [column for column in schema if column != "text"]
    order[order.index("image") + 1 : order.index("image") + 1] = ["text", *rationales]
    return part.select_columns([*order, *(column for column in part.column_names if column not in order)])


def _replaced(part: Dataset, column: str, values: list[Any], schema: Features) -> Dataset:
    if column in part.column_names:
        part = part.remove_columns(column)
    return part.add_column(column, values, feature=schema[column])


def _cast(part: Dataset, column: str, feature: Image | Value, where: str) -> Dataset:
    present = part.features[column]
    if present == feature:
        return part
    is_bytes = not isinstance(present, Value) or "binary" in present.dtype
    fits = isinstance(present, Value) and not is_bytes if column == "text" else is_bytes
    try:
        if not fits:
            raise TypeError
        return part.cast_column(column, feature)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: the column {column!r} is {str(present)[:80]}, not one {column} per post. Name another column "
            f"with {option(f'{column}_column')}."
        ) from None


def _checked_id(value: Any, location: str, checks: RowChecks) -> str | None:
    """Return the id of a row, None if it is faulty."""
    post_id, doubt = read_id(value)
    numbers = f"number the posts with {option('id_column', '')}"
    if post_id is None:
        checks.report.fail("blank id", f"{location}: the id is blank; write an id, or {numbers}.")
    elif doubt == DAMAGED_ID:
        checks.report.fail("rounded id", f"{location}: the id {post_id} {DAMAGED_ID}, or {numbers}.")
    elif checks.is_new_id(post_id, location):
        if doubt is not None:
            checks.report.note(doubt)
        return post_id
    return None


# Options of `load_posts` for a dataset that `datasets` opens, besides those of `load_dataset`.
OPTIONS = tuple(
    name for name, each in inspect.signature(standard_columns).parameters.items() if each.kind is each.KEYWORD_ONLY
)
