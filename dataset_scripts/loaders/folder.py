"""Own posts: a table, or one per split, with paths of images or images in Parquet."""

import dataclasses
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from dataset_scripts.loaders.classes import class_names
from dataset_scripts.loaders.folder_rows import folder_rows, image_name, label_value
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.id_lists import SPLITS, split_of_name
from dataset_scripts.reading.image_paths import ImageFinder
from dataset_scripts.reading.option_names import column_options, load_call, option
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.tables import (
    OTHER_SUFFIXES,
    TableFormat,
    cell_name,
    find_table,
    require_column,
    sound_rows,
    table_columns,
    table_names,
)
from dataset_scripts.schema import GROUP, LABELS, PERSPECTIVES, features, rationale_column

logger = logging.getLogger(__name__)

# Columns that are read if the user names none; `file_name` is that of `datasets` for a folder of images.
_DEFAULT_COLUMNS = {
    "text": ("text",),
    "image": ("image", "file_name", "image_file_name"),
    "label": ("label",),
    "id": ("id",),
    GROUP: (),
}
_SPLIT = "split"  # temporary column


def load_folder(
    data_dir: str | Path,
    on_error: str = "raise",
    *,
    file: str | None = None,
    text_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    rationale_columns: Mapping[str, str] | None = None,
    labels: Sequence[str | int] | None = None,
    label_as_text: bool = False,
    delimiter: str | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    language: str = "en",
    source: str = "folder",
    num_proc: int | None = None,
) -> tuple[Dataset | DatasetDict, BuildReport]:
    """Load posts from a table and the images that it names or holds.

    A post may lack its text or its image, not both.

    Args:
        data_dir (`str` or `Path`): folder of the table; image paths are relative to it.
        on_error, num_proc: See [`load_posts`].
        file (`str`, *optional*):
            Name of the table in `data_dir`, if there are several. By default the only one, or those that are named
            train, validation (dev, val, valid) and test: the splits of the result.
        text_column (`str`, *optional*): By default the column `text` if there is one.
        image_column (`str`, *optional*):
            Relative paths, or images of a Parquet file: an `Image` feature or bytes; a blank cell is a post without
            image. By default `image` or `file_name` if present.
        label_column (`str`, *optional*):
            Names, integers or a `ClassLabel`; a blank cell is a post without label, for prediction. By default
            `label` if present.
        id_column (`str`, *optional*):
            By default `id` if present, else posts are numbered from 0 in the order of the tables; `""` numbers them
            in any case.
        group_column (`str`, *optional*):
            Values that several posts share, such as their author; they become the column `group`, and `split_posts`
            keeps the posts of a group in one split.
        rationale_columns (mapping, *optional*):
            Perspective -> column, e.g. `{"positive": "why_positive"}`; the keys become the perspectives of the
            dataset. By default the columns `rationale_*` of the table, or the three perspectives of the paper, null.
        labels (sequence, *optional*):
            All class names, in the order of the label ids. By default those that occur: positive, neutral, negative
            in this order if there are no others, else sorted (integers by value).
        label_as_text (`bool`, defaults to `False`): Keep labels as written, of any kind, for prediction.
        delimiter, encoding, sheet (`str`, *optional*): See [`~dataset_scripts.reading.tables.TableFormat`].
        language, source (`str`): values of these columns.

    Raises:
        ValueError: no or several tables, a missing column, or (unless skipped) a malformed row, blank or rounded id,
            duplicate id, empty post, unknown label, a URL for an image, missing or unreadable image.
    """
    data_dir = Path(data_dir).resolve()
    table_format = TableFormat(delimiter=delimiter, encoding=encoding, sheet=sheet)
    given = {"text": text_column, "image": image_column, "label": label_column, "id": id_column, GROUP: group_column}
    tables = []
    for split, path in _tables(data_dir, file).items():
        columns = table_columns(path, table_format)
        column_of = columns_by_role(path, columns, given)
        _warn_of_missing(path, columns, column_of)
        rationales = rationale_columns_of(path, columns, rationale_columns)
        tables.append(_Table(path, split, column_of, rationales, schema_classes(path, column_of["label"])))
    label_names = list(LABELS) if label_as_text else _label_names(tables, table_format, labels)
    perspectives = list(dict.fromkeys(itertools.chain.from_iterable(table.rationales for table in tables)))
    schema = features(label_names, _in_order(perspectives) or PERSPECTIVES)
    if label_as_text:
        schema["label"] = Value("string")
    if group_column is not None:
        schema[GROUP] = Value("string")
    is_split = len(tables) > 1
    posts, report = build_dataset(
        source,
        folder_rows,
        Features(schema | {_SPLIT: Value("string")}) if is_split else schema,
        inputs=inputs_digest(
            itertools.chain((table.path for table in tables), _image_files(tables, table_format, data_dir))
        ),
        options={
            "tables": [dataclasses.asdict(table) | {"path": str(table.path)} for table in tables],
            "table_format": dataclasses.asdict(table_format),
            "data_dir": str(data_dir),
            "label_names": None if label_as_text else label_names,
            "perspectives": [name.removeprefix(rationale_column("")) for name in schema if "rationale_" in name],
            "constants": {"language": language, "source": source},
        },
        on_error=on_error,
        num_proc=num_proc,
    )
    return (_by_split(posts) if is_split else posts), report


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table, its split, its column for each role, and the class names in its schema."""

    path: Path
    split: str | None
    column_of: dict[str, str | None]
    rationales: dict[str, str]
    classes: list[str] | None


def _tables(data_dir: Path, file: str | None) -> dict[str | None, Path]:
    """Find the table of a folder, or its tables by split."""
    names = table_names(data_dir) or table_names(data_dir, OTHER_SUFFIXES)
    saved = [name for name in ("state.json", "dataset_dict.json") if (data_dir / name).is_file()]
    if file is None and saved and not names:
        raise ValueError(f"{data_dir} is a dataset saved by `datasets`; load it with {load_call(str(data_dir))}.")
    by_split: dict[str, list[str]] = {}
    for name in names:
        by_split.setdefault(split_of_name(Path(name).stem) or "", []).append(name)
    others = by_split.pop("", [])
    are_splits = "train" in by_split and len(by_split) > 1 and all(len(found) == 1 for found in by_split.values())
    if file is not None or not are_splits:
        return {None: find_table(data_dir, file)}
    if others:
        logger.warning(
            "%s: the splits %s are read; %s not. Name one table with %s.",
            data_dir, ", ".join(by_split), ", ".join(others), option("file"),
        )  # fmt: skip
    return {split: data_dir / by_split[split][0] for split in SPLITS if split in by_split}


def columns_by_role(table: Path | str, columns: list[str], given: Mapping[str, str | None]) -> dict[str, str | None]:
    """Choose the column of each role in `given`: the one named there, or one of the usual name.

    Raises:
        ValueError: the table lacks a named column, or has neither texts nor images.
    """
    column_of = {role: _column(table, columns, role, given[role]) for role in given}
    if column_of["text"] is None and column_of["image"] is None:
        raise ValueError(
            f"{table} has neither a column 'text' nor 'image'; its columns are {', '.join(map(repr, columns))}. Name "
            f"them with {column_options('text_column', 'image_column')}."
        )
    return column_of


def _column(table: Path | str, columns: list[str], role: str, given: str | None) -> str | None:
    if given is None:
        return next((name for name in _DEFAULT_COLUMNS[role] if name in columns), None)
    if role == "id" and given == "":
        return None
    require_column(table, columns, given, f"{role}_column")
    return given


def _warn_of_missing(table: Path, columns: list[str], column_of: dict[str, str | None]) -> None:
    for role in ("text", "image", "label"):
        if column_of[role] is None:
            logger.warning(
                "%s: no column %r among %s; posts have no %s. Name another column with %s.",
                table, role, columns, role, option(f"{role}_column"),
            )  # fmt: skip


def rationale_columns_of(
    table: Path | str, columns: list[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Map each perspective to its column of the table."""
    if given is None:
        prefix = rationale_column("")
        return {column.removeprefix(prefix): column for column in columns if column.startswith(prefix)}
    for column in given.values():
        require_column(table, columns, column, "rationale_columns")
    return dict(given)


def _in_order(perspectives: list[str]) -> list[str]:
    """Put those of the paper first, for the same schema in any order of columns."""
    return [name for name in dict.fromkeys([*PERSPECTIVES, *perspectives]) if name in perspectives]


def schema_classes(table: Path, column: str | None) -> list[str] | None:
    """Return the names of a `ClassLabel` in a Parquet file that `datasets` wrote."""
    if column is None or table.suffix.lower() != ".parquet":
        return None
    label = Features.from_arrow_schema(pq.read_schema(table)).get(column)
    return label.names if isinstance(label, ClassLabel) else None


def _label_names(tables: list[_Table], table_format: TableFormat, labels: Sequence[str | int] | None) -> list[str]:
    """List the class names given, of the schema of the tables, or those that occur in them."""
    labelled = [table for table in tables if table.column_of["label"] is not None]
    if labels is not None or not labelled:
        return [str(label) for label in labels or LABELS]
    if labelled[0].classes and all(table.classes == labelled[0].classes for table in labelled):
        return labelled[0].classes
    counts: Counter[str] = Counter()
    for table in labelled:
        column = str(table.column_of["label"])
        rows = sound_rows(table.path, table_format, [column])
        counts.update(filter(None, (cell_name(label_value(row.get(column), table.classes)) for _, row in rows)))
    return class_names(counts, f"{labelled[0].path}: column {labelled[0].column_of['label']!r}")


def _image_files(tables: list[_Table], table_format: TableFormat, data_dir: Path) -> Iterator[Path]:
    finder = ImageFinder(data_dir)
    for table in tables:
        column = table.column_of["image"]
        if column is not None and not _is_embedded(table.path, column):
            for _, row in sound_rows(table.path, table_format, [column]):
                name = image_name(row.get(column))
                if name is not None and (path := finder.find(name).path) is not None:
                    yield path


def _is_embedded(table: Path, column: str) -> bool:
    """Return whether a column of a Parquet file holds images instead of their paths."""
    return table.suffix.lower() == ".parquet" and not pa.types.is_string(pq.read_schema(table).field(column).type)


def _by_split(posts: Dataset) -> DatasetDict:
    """Divide posts by the temporary column; the posts of a split are consecutive."""
    counts = Counter(posts[_SPLIT])
    posts = posts.remove_columns(_SPLIT)
    spans = itertools.pairwise(itertools.accumulate(counts.values(), initial=0))
    return DatasetDict({split: posts.select(range(*span)) for split, span in zip(counts, spans, strict=True)})
