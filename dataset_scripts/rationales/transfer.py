"""Import and export of rationales: tables, and the TSV format of the paper's authors."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image
from tqdm.auto import tqdm

from dataset_scripts.loaders.authors import LAYOUTS, Layout, load_authors
from dataset_scripts.output import atomic_path
from dataset_scripts.rationales.files import rationale_columns, sound_rationale_rows
from dataset_scripts.rationales.join import load_rationales
from dataset_scripts.rationales.posts import detect_language
from dataset_scripts.rationales.quality.gate import check
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from dataset_scripts.reading.quoting import read_records
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import rationale_column

logger = logging.getLogger(__name__)

AUTHORS = "released by the authors of the paper"
_POST_COLUMNS = ("language", "text_sha256", "image_sha256", "provenance")
_BATCH_SIZE = 2_000
_PREFIX = rationale_column("")


def portable_schema(perspectives: Iterable[str]) -> pa.Schema:
    """Return the columns of an exported or imported table, which `join_rationales` reads."""
    text, texts = pa.string(), pa.list_(pa.string())
    fields = [("id", text)]
    for name in perspectives:
        fields += [(rationale_column(name), text), (f"status_{name}", text)]
        fields += [(f"flags_{name}", texts), (f"raw_{name}", text)]
    return pa.schema([*fields, *((name, text) for name in _POST_COLUMNS)])


@dataclasses.dataclass
class ImportReport:
    """Counts of an import.

    Attributes:
        build (`BuildReport`): rows read, kept and skipped.
        status (`dict[str, Counter]`): by perspective, rationales that are ok, flagged (with a hard code of the gate),
            failed (without a letter) or open (not in the file).
        flags (`dict[str, Counter]`): by perspective, rationales by code of the gate.
    """

    build: BuildReport
    status: dict[str, Counter[str]]
    flags: dict[str, Counter[str]]

    def summary(self) -> str:
        """Format the counts as a few lines of text."""
        lines = [self.build.summary()]
        for perspective, counts in self.status.items():
            lines.append(f"  {perspective}: {_listed(sorted(counts.items()))}")
            if flags := self.flags[perspective].most_common():
                lines.append(f"    gate: {_listed(flags)}")
        return "\n".join(lines)


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


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
    """Convert a file of rationales to a table, with the codes of the gate.

    No row is dropped because of the gate. Unmodified rationales are in the columns `raw_*`.

    Args:
        file: TSV without header in the format of the authors, or a TSV, CSV, JSONL or Parquet file with the columns
            `id`, `rationale_*` and optionally `provenance`.
        output: `.parquet` or `.jsonl` file.
        posts: posts whose texts and languages the gate reads, by `id`.
        authors: key of `authors.LAYOUTS` for a file of the authors.
        language: language of the rationales, `"en"`, `"zh"` or `"auto"`: that of the post, or without a post that of
            the rationales.
        provenance: origin of the rationales, for rows without the column `provenance`.
        on_error: `"raise"`, or `"skip"` for faulty rows.

    Raises:
        ValueError: `file` cannot be read as described, or `output` has another suffix.
    """
    file, output = Path(file), Path(output)
    _check_suffix(output, (".parquet", ".jsonl"))
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
    row_of = {} if posts is None else {post_id: row for row, post_id in enumerate(posts["id"])}

    def checked_rows() -> Iterator[dict[str, Any]]:
        for row in tqdm(rows, desc="Checking rationales", unit="post"):
            post = posts[row_of[row["id"]]] if row["id"] in row_of else row
            yield _check_row(row, post, perspectives, language, report) | {
                "provenance": row.get("provenance") or provenance
            }

    _write_table(checked_rows(), portable_schema(perspectives), output)
    return report


def _check_row(
    row: Mapping[str, Any], post: Mapping[str, Any], perspectives: list[str], language: str, report: ImportReport
) -> dict[str, Any]:
    """Apply the gate to a row, and count the results in `report`."""
    written = {name: row[rationale_column(name)] for name in perspectives if row[rationale_column(name)]}
    text = post.get("text")
    if language == "auto":
        language = detect_language(text or " ".join(written.values()), post.get("language"))
    result = {"id": row["id"], "language": language}
    for name in perspectives:
        if name not in written:
            report.status[name]["open"] += 1
            result |= {f"status_{name}": "open", f"flags_{name}": []}
            continue
        verdict = check(written[name], perspective=name, language=language, post_text=text, siblings=written)
        status = "failed" if verdict.text is None else "flagged" if verdict.hard else "ok"
        report.status[name][status] += 1
        report.flags[name].update(verdict.codes)
        result |= {
            rationale_column(name): verdict.text,
            f"status_{name}": status,
            f"flags_{name}": verdict.codes,
            f"raw_{name}": written[name],
        }
    return result


def load_rationale_table(source: str | Path, *, on_error: str = "raise") -> Dataset:
    """Load the rationales of a store or file without posts, for `summarize_gate`.

    A missing column `language` is added, with the detected language of the rationales.
    """
    table, report = load_rationales(source, on_error=on_error)
    _warn_of_skipped(report)
    if "language" in table.column_names:
        return table
    columns = [name for name in table.column_names if name.startswith(_PREFIX)]
    languages = [detect_language(" ".join(filter(None, map(row.get, columns)))) for row in table]
    return table.add_column("language", languages)


def export_table(source: str | Path, output: str | Path, *, on_error: str = "raise") -> int:
    """Write the rationales of a store, or of an imported file, as one table.

    Args:
        source: store, or table with `id` and `rationale_*`.
        output: `.parquet` or `.jsonl` file.
        on_error: `"raise"`, or `"skip"` for faulty rows.

    Returns:
        The number of rows.

    Raises:
        ValueError: `source` has no rationales, `output` has another suffix, or (unless skipped) a faulty row, such as
            one with the id of an earlier row.
    """
    source, output = Path(source), Path(output)
    _check_suffix(output, (".parquet", ".jsonl"))
    perspectives = [name.removeprefix(_PREFIX) for name in rationale_columns(source) if name.startswith(_PREFIX)]
    if not perspectives:
        raise ValueError(f"{source} has no column {_PREFIX}…; pass a store, or a file of rationales.")
    report = BuildReport(str(source), on_error=on_error)
    provenance = "; ".join(f"{name} {value}" for name, value in store_provenance(source).items()) or None

    columns = [rationale_column(name) for name in perspectives]

    def rows() -> Iterator[dict[str, Any]]:
        for row in tqdm(sound_rationale_rows(source, columns, report), desc="Exporting", unit="post"):
            report.kept += 1
            yield row | {"provenance": row.get("provenance") or provenance}

    _write_table(rows(), portable_schema(perspectives), output)
    _warn_of_skipped(report)
    return report.kept


def _warn_of_skipped(report: BuildReport) -> None:
    if report.skipped:
        logger.warning("%s", report.summary())


def store_provenance(source: str | Path) -> dict[str, str]:
    """Return model and prompt of a store, for a dataset card; `{}` for a file."""
    if not is_store(source):
        return {}
    spec = RationaleStore.open(source).spec
    # Local paths are reduced to their last component before publishing.
    model = Path(spec.model).name if Path(spec.model).is_absolute() else spec.model
    return {
        "model": model + (f" at {spec.revision}" if spec.revision else ""),
        "prompt": f"{Path(spec.prompt).name} ({spec.prompt_hash[:12]}), language {spec.language}",
    }


def export_authors(posts: Dataset, output: str | Path, *, data_dir: str | Path | None = None) -> Layout:
    """Write posts with rationales in the format of the authors, which `load_authors` reads.

    A row has label, image path, text, and one rationale per perspective.

    Args:
        posts: posts with the columns of `schema.features` and rationales. Two classes are written in the layout of
            `ch_mits`, three in that of `mvsa_single`.
        output: `.tsv` file, UTF-8.
        data_dir: folder to which image paths are relative. The paths of other images consist of the id.

    Returns:
        The layout of the file.

    Raises:
        ValueError: other classes, a post without label or text, or a text that cannot be represented.
    """
    output = Path(output)
    _check_suffix(output, (".tsv",))
    labels = posts.features["label"].names
    layout = next((layout for layout in LAYOUTS.values() if list(layout.labels) == labels), None)
    if layout is None:
        supported = " or ".join({", ".join(layout.labels): None for layout in LAYOUTS.values()})
        raise ValueError(f"The classes must be {supported}, got {', '.join(labels)}.")
    columns = [rationale_column(name) for name in layout.perspectives]
    absent = [column for column in columns if column not in posts.column_names]
    if absent:
        raise ValueError(f"The posts have no column {', '.join(absent)}. Join them first: join_rationales(posts, …).")
    codes = {name: code for code, name in layout.label_names.items()}
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as lines:
        for row in tqdm(posts.cast_column("image", Image(decode=False)), desc="Exporting", unit="post"):
            if row["label"] is None or not (row["text"] or "").strip():
                missing = "label" if row["label"] is None else "text"
                raise ValueError(f"Post {row['id']!r} has no {missing}, which the format of the authors requires.")
            path = _image_path(row, layout, data_dir)
            lines.write(
                _tsv_line([codes[labels[row["label"]]], path, row["text"], *(row[name] or "" for name in columns)])
            )
    return layout


def _image_path(row: Mapping[str, Any], layout: Layout, data_dir: str | Path | None) -> str:
    """Return a path from which `load_authors` derives the id."""
    path = (row["image"] or {}).get("path")
    folder = None if data_dir is None else Path(data_dir).resolve()
    if path and folder is not None and Path(path).is_relative_to(folder):
        relative = Path(path).relative_to(folder)
        if row["id"] == (relative.parent.name if layout.id_part == "folder" else relative.stem):
            return relative.as_posix()
    return f"{row['id']}/image_0.jpg" if layout.id_part == "folder" else f"{row['id']}.jpg"


def _tsv_line(fields: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerow(fields)
    line = buffer.getvalue()
    parsed = [record.fields for record in read_records(lambda: io.StringIO(line, newline="\n"), "\t", len(fields))]
    if parsed != [fields]:
        raise ValueError(
            f"The post of image {fields[1]!r} cannot be written as TSV, because a line of its text looks like a "
            "record. Remove the tabs from it."
        )
    return line


def _check_suffix(output: Path, suffixes: tuple[str, ...]) -> None:
    if output.suffix not in suffixes:
        raise ValueError(f"{output}: the suffix must be {' or '.join(suffixes)}, got {output.suffix!r}.")


def _write_table(rows: Iterator[Mapping[str, Any]], schema: pa.Schema, output: Path) -> None:
    """Write rows in batches, since they may exceed the memory."""
    with atomic_path(output) as temporary:
        if output.suffix == ".jsonl":
            with open(temporary, "w", encoding="utf-8") as lines:
                for row in rows:
                    lines.write(json.dumps({name: row.get(name) for name in schema.names}, ensure_ascii=False) + "\n")
            return
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while batch := list(itertools.islice(rows, _BATCH_SIZE)):
                writer.write_table(pa.Table.from_pylist(batch, schema))
