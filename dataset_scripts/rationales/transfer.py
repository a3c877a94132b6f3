"""Rationales from and to other files: tables, and the TSV of the paper's authors."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image
from tqdm.auto import tqdm

from dataset_scripts.loaders.authors import LAYOUTS, Layout, load_authors
from dataset_scripts.rationales.join import load_rationales
from dataset_scripts.rationales.posts import language_of
from dataset_scripts.rationales.quality.gate import check
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.tables import table_columns, table_rows
from dataset_scripts.reading.tsv import tsv_records
from dataset_scripts.schema import rationale_column

AUTHORS = "released by the authors of the paper"
_FACTS = ("language", "text_sha256", "image_sha256", "provenance")
_BATCH = 2_000
_PREFIX = rationale_column("")


def portable_schema(perspectives: Iterable[str]) -> pa.Schema:
    """Columns of an exported or imported table; `train.py --rationales` takes it."""
    fields: list[tuple[str, pa.DataType]] = [("id", pa.string())]
    for name in perspectives:
        fields.append((rationale_column(name), pa.string()))
        fields += [(f"status_{name}", pa.string()), (f"flags_{name}", pa.list_(pa.string()))]
        fields.append((f"raw_{name}", pa.string()))
    return pa.schema([*fields, *((name, pa.string()) for name in _FACTS)])


@dataclasses.dataclass
class ImportReport:
    """What was imported.

    Attributes:
        build (`BuildReport`): rows read, kept and skipped.
        status (`dict[str, Counter]`): by perspective, how many rationales are ok, flagged (the gate would have asked
            again), failed (nothing usable) or open (not in the file).
        flags (`dict[str, Counter]`): by perspective, how often each code of the gate applies.
    """

    build: BuildReport
    status: dict[str, Counter[str]]
    flags: dict[str, Counter[str]]

    def summary(self) -> str:
        lines = [self.build.summary()]
        for perspective, counts in self.status.items():
            lines.append(
                f"  {perspective}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            )
            if flags := self.flags[perspective].most_common():
                lines.append("    gate: " + ", ".join(f"{code} {count:,}" for code, count in flags))
        return "\n".join(lines)


def import_rationales(
    file: str | Path,
    output: str | Path,
    *,
    posts: Dataset | None = None,
    authors: str | None = None,
    language: str = "auto",
    provenance: str | None = None,
    on_error: str = "raise",
) -> ImportReport:
    """Read rationales that came from elsewhere, hold them against the gate, and write them as a table. No row is left
    out for what the gate says; what it normalised is kept as it was in `raw_*`.

    Args:
        file: of the authors (TSV without header), or a TSV, CSV, JSONL or Parquet file with the columns `id` and
            `rationale_*`; a column `provenance` is kept.
        output: `.parquet` or `.jsonl` file.
        posts: the posts, by `id`, from which the gate takes texts and languages.
        authors: which of the authors' files it is, a name in `authors.LAYOUTS`.
        language: of the rationales, `"en"`, `"zh"`, or `"auto"`: that of the post, and where no post is known,
            whatever the rationales are written in.
        provenance: where the rationales come from, for rows that do not say so themselves.
        on_error: `"raise"`, or `"skip"` for faulty rows.

    Raises:
        ValueError: a file that cannot be read as described; another ending of `output`.
    """
    file, output = Path(file), Path(output)
    _check_ending(output, (".parquet", ".jsonl"))
    if authors is not None:
        rows, build = load_authors(file.parent, on_error, dataset=authors, file=file.name, images=False)
        columns = [rationale_column(name) for name in LAYOUTS[authors].perspectives]
        provenance = provenance or f"{AUTHORS} ({file.name})"
    else:
        rows, build = load_rationales(file, on_error=on_error)
        columns = [name for name in rows.column_names if name.startswith(_PREFIX)]
        provenance = provenance or file.name
    perspectives = [column.removeprefix(_PREFIX) for column in columns]
    report = ImportReport(
        build, {name: Counter() for name in perspectives}, {name: Counter() for name in perspectives}
    )
    place = {} if posts is None else {post: row for row, post in enumerate(posts["id"])}

    def gated() -> Iterator[dict[str, Any]]:
        for row in tqdm(rows, desc="Gate", unit="post"):
            post = posts[place[row["id"]]] if row["id"] in place else row
            yield _gated(row, post, perspectives, language, report) | {
                "provenance": row.get("provenance") or provenance
            }

    _write(gated(), portable_schema(perspectives), output)
    return report


def _gated(
    row: Mapping[str, Any], post: Mapping[str, Any], perspectives: list[str], language: str, report: ImportReport
) -> dict[str, Any]:
    """One row of the output, counted in `report`."""
    given = {name: row[rationale_column(name)] for name in perspectives if row[rationale_column(name)]}
    text = post.get("text")
    code = language if language != "auto" else language_of(text or " ".join(given.values()), post.get("language"))
    result = {"id": row["id"], "language": code}
    for name in perspectives:
        if name not in given:
            report.status[name]["open"] += 1
            result |= {f"status_{name}": "open", f"flags_{name}": []}
            continue
        verdict = check(given[name], perspective=name, language=code, post_text=text, siblings=given)
        status = "failed" if verdict.text is None else "flagged" if verdict.hard else "ok"
        flags = [*verdict.hard, *verdict.soft]
        report.status[name][status] += 1
        report.flags[name].update(flags)
        result |= {
            rationale_column(name): verdict.text,
            f"status_{name}": status,
            f"flags_{name}": flags,
            f"raw_{name}": given[name],
        }
    return result


def load_rationale_table(source: str | Path) -> Dataset:
    """The rationales of a store or file without their posts, for `report.summarize_gate`; where the file does not tell
    their language, it is the one that they are written in."""
    table, _ = load_rationales(source)
    if "language" in table.column_names:
        return table
    columns = [name for name in table.column_names if name.startswith(_PREFIX)]
    languages = [language_of(" ".join(filter(None, map(row.get, columns)))) for row in table]
    return table.add_column("language", languages)


def export_table(source: str | Path, output: str | Path) -> int:
    """Write the rationales of a store, or of an imported file, as one table; the number of rows.

    Args:
        source: a store, or a table with `id` and `rationale_*`.
        output: `.parquet` or `.jsonl` file.

    Raises:
        ValueError: `source` has no rationales, or another ending of `output`.
    """
    source, output = Path(source), Path(output)
    _check_ending(output, (".parquet", ".jsonl"))
    perspectives = [name.removeprefix(_PREFIX) for name in table_columns(source) if name.startswith(_PREFIX)]
    if not perspectives:
        raise ValueError(f"{source} has no column {_PREFIX}…; name a store, or a file of rationales.")
    count = 0
    origin = "; ".join(f"{name} {value}" for name, value in store_provenance(source).items()) or None

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        for where, row in tqdm(table_rows(source), desc="Exporting", unit="post"):
            if row is None:
                raise ValueError(f"{where}: not as many fields as the header names; mend the row.")
            count += 1
            yield row | {"provenance": row.get("provenance") or origin}

    _write(rows(), portable_schema(perspectives), output)
    return count


def store_provenance(source: str | Path) -> dict[str, str]:
    """How the rationales of a store were made, for a dataset card; `{}` for a file."""
    if not is_store(source):
        return {}
    spec = RationaleStore.open(source).spec
    # of a model in a folder and a prompt of one's own, the name: where they lie is nobody's business
    model = Path(spec.model).name if Path(spec.model).is_absolute() else spec.model
    return {
        "model": model + (f" at {spec.revision}" if spec.revision else ""),
        "prompt": f"{Path(spec.prompt).name} ({spec.prompt_hash[:12]}), language {spec.language}",
    }


def export_authors(posts: Dataset, output: str | Path, *, data_dir: str | Path | None = None) -> Layout:
    """Write posts and their rationales as the authors do: label, image path, text, one rationale per perspective;
    `load_authors` reads it back.

    Args:
        posts: with the columns of `schema.features`, rationales joined; two classes give the form of `ch_mits`,
            three that of `mvsa_single`.
        output: `.tsv` file, UTF-8.
        data_dir: folder to which image paths are relative. Images outside of it are named by the id alone.

    Returns:
        The form that was written.

    Raises:
        ValueError: other classes, a post without label or text, or fields that could not be read back.
    """
    output = Path(output)
    _check_ending(output, (".tsv",))
    labels = posts.features["label"].names
    layout = next((form for form in LAYOUTS.values() if list(form.labels) == labels), None)
    if layout is None:
        known = " and ".join({", ".join(form.labels): None for form in LAYOUTS.values()})
        raise ValueError(f"The classes of the posts are {', '.join(labels)}; the authors' files know {known}.")
    columns = [rationale_column(name) for name in layout.perspectives]
    absent = [column for column in columns if column not in posts.column_names]
    if absent:
        raise ValueError(f"The posts have no column {', '.join(absent)}; join the rationales first.")
    codes = {name: code for code, name in layout.label_names.items()}
    with _whole(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as lines:
        for row in tqdm(posts.cast_column("image", Image(decode=False)), desc="Exporting", unit="post"):
            if row["label"] is None or not (row["text"] or "").strip():
                what = "label" if row["label"] is None else "text"
                raise ValueError(f"Post {row['id']!r} has no {what}; the authors' files have one for each post.")
            path = _image_path(row, layout, data_dir)
            lines.write(
                _record([codes[labels[row["label"]]], path, row["text"], *(row[name] or "" for name in columns)])
            )
    return layout


def _image_path(row: Mapping[str, Any], layout: Layout, data_dir: str | Path | None) -> str:
    """The path that `load_authors` reads the id from."""
    path = (row["image"] or {}).get("path")
    folder = None if data_dir is None else Path(data_dir).resolve()
    if path and folder is not None and Path(path).is_relative_to(folder):
        inside = Path(path).relative_to(folder)
        if row["id"] == (inside.parent.name if layout.id_part == "folder" else inside.stem):
            return inside.as_posix()
    return f"{row['id']}/image_0.jpg" if layout.id_part == "folder" else f"{row['id']}.jpg"


def _record(fields: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerow(fields)
    line = buffer.getvalue()
    read = [found for _, found, _ in tsv_records(io.StringIO(line, newline=""), len(fields))]
    if read != [fields]:
        raise ValueError(
            f"The post of image {fields[1]!r} cannot be written as TSV: a line of its text looks like a record of its "
            "own. Take the tabs out of it."
        )
    return line


def _check_ending(output: Path, endings: tuple[str, ...]) -> None:
    if output.suffix not in endings:
        raise ValueError(f"{output}: the ending says the form; write {' or '.join(endings)}.")


def _write(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, output: Path) -> None:
    """Whole or not at all, and in batches: rows may be more than memory holds."""
    with _whole(output) as temporary:
        if output.suffix == ".jsonl":
            with open(temporary, "w", encoding="utf-8") as lines:
                for row in rows:
                    lines.write(json.dumps({name: row.get(name) for name in schema.names}, ensure_ascii=False) + "\n")
            return
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            batch: list[Mapping[str, Any]] = []
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, schema))


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
