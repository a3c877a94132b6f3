"""Sources of posts to be labeled: tables, folders and globs of them, and datasets."""

import dataclasses
import glob
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, IterableDatasetDict
from datasets.utils.file_utils import xopen

from dataset_scripts.loaders.folder import columns_by_role, rationale_columns_of, schema_classes
from dataset_scripts.loaders.opening import open_stream
from dataset_scripts.reading.files import inputs_digest
from dataset_scripts.reading.report import did_you_mean
from dataset_scripts.reading.tables import (
    OTHER_SUFFIXES,
    SUFFIXES,
    Row,
    TableFormat,
    table_columns,
    table_names,
    table_rows,
)
from dataset_scripts.schema import GROUP

# Rows of a source with their location; None in place of a row whose number is not read.
Rows = Callable[[Callable[[int], bool]], Iterator[tuple[str, Row | str | None]]]


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """Names of columns, and the format of text tables; see [`~mpt_sentiment.predict`]."""

    text_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None

    @property
    def table_format(self) -> TableFormat:
        """Format of the tables."""
        return TableFormat(self.delimiter, self.encoding, self.sheet)

    def columns(self, name: str, columns: list[str]) -> dict[str, str | None]:
        """Return the column of each role; see `columns_by_role`."""
        given = {"text": self.text_column, "image": self.image_column, "label": None, "id": self.id_column}
        return columns_by_role(name, columns, given | {GROUP: None})


@dataclasses.dataclass(frozen=True)
class Source:
    """A table, or a split of a dataset.

    Attributes:
        name (`str`): file, or dataset and split, as in the locations of its rows.
        columns (`list[str]`): names of its columns.
        column_of (`dict`): column of each role, or None.
        rationales (`dict`): column of each perspective.
        classes (`list[str]`, *optional*): names of the classes where the label is their number.
        folder (`Path`): image paths are relative to it.
        types (mapping): Arrow type of each column; empty for text tables.
        identity (`str`): changes when the content does.
        rows: function that yields the rows.
    """

    name: str
    columns: list[str]
    column_of: dict[str, str | None]
    rationales: dict[str, str]
    classes: list[str] | None
    folder: Path
    types: Mapping[str, pa.DataType]
    identity: str
    rows: Rows


def open_sources(posts: Any, options: ReadingOptions) -> list[Source]:
    """Open posts in all forms that `predict` takes.

    Args:
        posts: path of a table, folder or glob, name of a dataset, a dataset, or a list of these.
        options ([`ReadingOptions`]): columns and formats.

    Raises:
        ValueError: no table or dataset, a missing column, or a table that occurs twice.
    """
    given = [posts] if isinstance(posts, str | Path | Mapping) or not isinstance(posts, Sequence) else list(posts)
    sources = list(itertools.chain.from_iterable(_opened(source, options) for source in given))
    counts = Counter(source.name for source in sources if not source.name.startswith("The dataset"))
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice; name every source once.")
    return sources


def _opened(source: Any, options: ReadingOptions) -> Iterator[Source]:
    if isinstance(source, Dataset | IterableDataset):
        yield dataset_source("The dataset", source, options)
        return
    if isinstance(source, DatasetDict | IterableDatasetDict):
        yield from (dataset_source(f"The dataset, split {name}", part, options) for name, part in source.items())
        return
    if not isinstance(source, str | Path):
        raise ValueError(f"Posts are a path, a dataset, or a list of them, got a {type(source).__name__}.")
    path = Path(source).expanduser()
    if path.is_file():
        yield _table_source(path, options)
    elif path.is_dir() and (names := _tables_of(path)):
        yield from (_table_source(path / name, options) for name in names)
    elif path.is_dir() or (str(source).count("/") == 1 and not path.suffix and not glob.has_magic(str(source))):
        splits = open_stream(str(path) if path.is_dir() else str(source))
        files = sorted(file for file in path.rglob("*") if file.suffix in (*SUFFIXES, ".arrow"))
        for name, part in splits.items():
            yield dataset_source(f"{source}, split {name}", part, options, inputs_digest(files))
    else:
        files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        files = [file for file in files if file.is_file()]
        if not files:
            siblings = table_names(path.parent, (*SUFFIXES, *OTHER_SUFFIXES)) if path.parent.is_dir() else []
            raise ValueError(f"No file or folder is named {str(source)!r}.{did_you_mean(path.name, siblings)}")
        yield from (_table_source(file, options) for file in files)


def _tables_of(folder: Path) -> list[str]:
    """List the tables of a folder that are read; none for a dataset saved by `datasets`."""
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return []
    return table_names(folder) or table_names(folder, OTHER_SUFFIXES)


def _table_source(file: Path, options: ReadingOptions) -> Source:
    file = Path(file).resolve()
    is_parquet = file.suffix.lower() == ".parquet"
    table_format = options.table_format
    columns = table_columns(file, table_format)
    column_of = options.columns(str(file), columns)
    return Source(
        name=str(file),
        columns=columns,
        column_of=column_of,
        rationales=rationale_columns_of(file, columns),
        classes=schema_classes(file, column_of["label"]),
        folder=file.parent,
        types={field.name: field.type for field in pq.read_schema(file)} if is_parquet else {},
        identity=inputs_digest([file]),
        rows=lambda is_read: table_rows(file, table_format, is_read=is_read),
    )


def arrow_source(table: pa.Table, options: ReadingOptions, folder: Path) -> Source:
    """Return a batch of a table as a source; image paths are relative to `folder`.

    Raises:
        ValueError: a missing column.
    """

    def rows(is_read: Callable[[int], bool]) -> Iterator[tuple[str, Row]]:
        for number, row in enumerate(table.to_pylist()):
            yield f"The batch, row {number + 1}", Row(row)

    column_of = options.columns("The batch", table.column_names)
    return Source(
        name="The batch",
        columns=table.column_names,
        column_of=column_of,
        rationales=rationale_columns_of("The batch", table.column_names),
        classes=_classes(Features.from_arrow_schema(table.schema), column_of["label"]),
        folder=folder,
        types={field.name: field.type for field in table.schema},
        identity="",
        rows=rows,
    )


def dataset_source(
    name: str, posts: Dataset | IterableDataset, options: ReadingOptions, identity: str | None = None
) -> Source:
    """Return a dataset, or one of its splits, as a source. Images stay undecoded.

    Raises:
        ValueError: a missing column.
    """
    if isinstance(posts, IterableDataset) and posts.features is None:
        posts = posts._resolve_features()
    if isinstance(posts, Dataset) and posts.format["type"] is not None:
        posts = posts.with_format(None)
    features = posts.features
    columns = list(features)
    column_of = options.columns(name, columns)
    for column, feature in features.items():
        if isinstance(feature, Image) and feature.decode:  # `datasets` fails on malformed metadata
            posts = posts.cast_column(column, Image(decode=False))
    image = column_of["image"]

    def rows(is_read: Callable[[int], bool]) -> Iterator[tuple[str, Row | None]]:
        read = _read_dataset if isinstance(posts, Dataset) else _read_stream
        for number, row in enumerate(read(posts, is_read)):
            if row is not None and image is not None:
                row[image] = _with_remote_bytes(row[image])
            yield f"{name}, row {number + 1}", row

    return Source(
        name=name,
        columns=columns,
        column_of=column_of,
        rationales=rationale_columns_of(name, columns),
        classes=_classes(features, column_of["label"]),
        folder=Path.cwd(),
        types={field.name: field.type for field in posts.features.arrow_schema},
        identity=identity or getattr(posts, "_fingerprint", str(features)),
        rows=rows,
    )


def _classes(features: Features, column: str | None) -> list[str] | None:
    label = features.get(column)
    return label.names if isinstance(label, ClassLabel) else None


def _read_dataset(posts: Dataset, is_read: Callable[[int], bool]) -> Iterator[Row | None]:
    for start in range(0, len(posts), 64):
        numbers = range(start, min(start + 64, len(posts)))
        columns = posts[start : numbers.stop] if any(map(is_read, numbers)) else {}
        for index, number in enumerate(numbers):
            yield Row((name, values[index]) for name, values in columns.items()) if is_read(number) else None


def _read_stream(posts: IterableDataset, is_read: Callable[[int], bool]) -> Iterator[Row | None]:
    for number, row in enumerate(posts):
        yield Row(row) if is_read(number) else None


def _with_remote_bytes(image: Any) -> Any:
    """Read an image that a streamed dataset names by its address on the Hub or in an archive."""
    if not isinstance(image, Mapping) or image.get("bytes") is not None or "://" not in (image.get("path") or ""):
        return image
    try:
        with xopen(image["path"], "rb") as file:
            return {"bytes": file.read(), "path": None}
    except FileNotFoundError:  # a faulty row; without a network, the run stops instead
        return image
