"""Folder of a run: identity, one Parquet file per part, and rows without a prediction."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from dataset_scripts.output import atomic_path, check_writable, write_text_atomically
from mpt_sentiment.evaluation.predictions import FORMATS, write_tables
from mpt_sentiment.evaluation.scores import overall_scores
from mpt_sentiment.prediction.posts import Fault

SETTINGS_FILE, SUMMARY_FILE, ERRORS_FILE = "settings.json", "summary.json", "errors.parquet"
_ENDING_OF_UNFINISHED = ".unfinished"
_METADATA = b"mpt_sentiment"  # of a part: number of rows read, and notes
_ERRORS = pa.schema([(name, pa.string()) for name in ("id", "file", "place", "reason", "message")])


@dataclasses.dataclass
class Summary:
    """Counts of a finished run.

    Attributes:
        output (`str`): folder or file of the predictions.
        errors (`str`, *optional*): file of the rows without a prediction, if there are any.
        rows (`int`): rows of the sources.
        predicted (`int`): rows with a prediction.
        faulty (`dict[str, int]`): rows without one, by reason.
        examples (`dict[str, str]`): the first message of each reason.
        notes (`dict[str, int]`): rows with a peculiarity, by note.
        scores (`dict[str, float]`, *optional*): scores, if all labels are classes of the model.
        labelled (`int`): rows with a label and a prediction.
    """

    output: str
    errors: str | None = None
    rows: int = 0
    predicted: int = 0
    faulty: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    scores: dict[str, float] | None = None
    labelled: int = 0

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows read, {self.predicted:,} posts predicted"]
        lines += [
            f"  faulty: {reason} {count:,}, e.g. {self.examples[reason]}" for reason, count in self.faulty.items()
        ]
        lines += [f"  note: {note} {count:,}" for note, count in self.notes.items()]
        if self.scores is not None:
            scores = ", ".join(f"{name} {value:.4f}" for name, value in self.scores.items())
            lines.append(f"  scores on {self.labelled:,} labelled posts: {scores}")
        lines.append(f"Predictions are in {self.output}")
        if self.errors:
            lines.append(f"The {sum(self.faulty.values()):,} rows without a prediction are in {self.errors}")
        return "\n".join(lines)


class RunFolder:
    """Results of a run: complete parts, and its identity.

    An output that is a folder holds `data/part-NNNNN.parquet` and, at the end, `summary.json` and `errors.parquet`. An
    output that is one file is joined from parts in a folder of its name and `.unfinished`, which is then deleted.

    Args:
        output (`str` or `Path`): folder, or a file that ends in `.parquet`, `.csv` or `.jsonl`.

    Raises:
        ValueError: another ending, or a place that cannot be written.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.is_file = self.output.suffix in FORMATS and not _is_run(self.output)
        if self.output.suffix[1:].isalpha() and not self.is_file and not self.output.is_dir():
            raise ValueError(
                f"`output` must be a folder, or a file that ends in {', '.join(FORMATS)}, got {self.output}."
            )
        check_writable(self.output, "output", is_file=self.is_file)
        self.folder = self.output
        if self.is_file:
            self.folder = self.output.with_name(self.output.name + _ENDING_OF_UNFINISHED)
            check_writable(self.folder, "output")

    def start(self, settings: dict[str, Any], *, overwrite: bool = False) -> Summary | None:
        """Record the identity of a run, or compare it with that of the earlier run that is resumed.

        Returns:
            The summary, if the same run has finished in this folder.

        Raises:
            ValueError: the folder has finished parts of a run with other settings, or other files.
        """
        record = self.folder / SETTINGS_FILE
        if overwrite and record.is_file():
            shutil.rmtree(self.folder)
        elif not record.is_file() and self.is_file:
            shutil.rmtree(self.folder, ignore_errors=True)  # remains of a finished run that was killed here
        elif not record.is_file() and self.folder.is_dir() and any(self.folder.glob("[!.]*")):
            raise ValueError(
                f"{self.folder} is not the folder of a run: it has files but no {SETTINGS_FILE}. Name a new folder."
            )
        settings = json.loads(json.dumps(settings))
        earlier = self._read(record)
        if earlier is not None and earlier != settings:
            names = sorted(
                name for name in settings.keys() | earlier.keys() if settings.get(name) != earlier.get(name)
            )
            if any(self.folder.glob("data/part-*.parquet")):
                raise ValueError(
                    f"{self.folder} has results of a run with other settings ({', '.join(names)}). Repeat that run's "
                    "command to resume it, name another output, or start again with `overwrite` (--overwrite)."
                )
        if earlier != settings:
            write_text_atomically(record, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        summary = self._read(self.folder / SUMMARY_FILE)
        return None if summary is None else Summary(**summary)

    def has_part(self, part: int) -> bool:
        """Return whether a part is complete."""
        return self._part(part).is_file()

    def write_part(
        self, part: int, table: pa.Table, faults: Sequence[Fault], num_rows: int, notes: Counter[str]
    ) -> None:
        """Write a part, which exists from the moment that all of it is on disk."""
        if faults:
            columns = {
                "id": [fault.id for fault in faults],
                "file": [fault.location.rpartition(", ")[0] for fault in faults],
                "place": [fault.location.rpartition(", ")[2] for fault in faults],
                "reason": [fault.reason for fault in faults],
                "message": [fault.message for fault in faults],
            }
            with atomic_path(self._errors(part)) as temporary:
                pq.write_table(pa.table(columns, schema=_ERRORS), temporary)
        else:
            self._errors(part).unlink(missing_ok=True)
        metadata = {_METADATA: json.dumps({"rows": num_rows, "notes": notes})}
        with atomic_path(self._part(part)) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)

    def finish(self, num_parts: int, label_names: list[str], schema: pa.Schema) -> Summary | None:
        """Count the results, join them where the output is one file, and write the errors.

        Args:
            num_parts (`int`): number of parts of the whole run.
            label_names (`list[str]`): names of the model's classes.
            schema (`pa.Schema`): columns of the predictions.

        Returns:
            The summary; None if parts are missing that other processes write, or if one of them has finished the run.
        """
        if not all(map(self.has_part, range(num_parts))):
            return None
        with FileLock(self.folder / ".lock"):
            if not (self.folder / SETTINGS_FILE).is_file():  # finished, and the folder deleted, by another process
                shutil.rmtree(self.folder)
                return None
            if (self.folder / SUMMARY_FILE).is_file():
                return None
            summary = self._summary(num_parts, label_names)
            errors = self.output.with_suffix(f".{ERRORS_FILE}") if self.is_file else self.folder / ERRORS_FILE
            errors.unlink(missing_ok=True)
            if summary.faulty:
                summary.errors = str(errors)
                files = sorted(self.folder.glob("errors/part-*.parquet"))
                write_tables(errors, _ERRORS, map(pq.read_table, files))
            if self.is_file:
                write_tables(self.output, schema.remove_metadata(), self.tables(num_parts))
                shutil.rmtree(self.folder)
            else:
                write_text_atomically(
                    self.folder / SUMMARY_FILE, json.dumps(dataclasses.asdict(summary), indent=2) + "\n"
                )
                shutil.rmtree(self.folder / "errors", ignore_errors=True)
                for unfinished in self.folder.glob("data/.part-*.tmp"):  # of processes that were killed
                    unfinished.unlink(missing_ok=True)
        (self.folder / ".lock").unlink(missing_ok=True)
        return summary

    def tables(self, num_parts: int) -> Iterator[pa.Table]:
        """Yield the predictions of each part."""
        for part in range(num_parts):
            yield pq.read_table(self._part(part)).replace_schema_metadata(None)

    def files(self) -> list[str]:
        """List the files of the parts of a finished folder."""
        return sorted(map(str, self.folder.glob("data/part-*.parquet")))

    def _summary(self, num_parts: int, label_names: list[str]) -> Summary:
        summary = Summary(str(self.output))
        notes: Counter[str] = Counter()
        class_index = {name: index for index, name in enumerate(label_names)}
        confusion = np.zeros((len(label_names), len(label_names)), np.int64)
        has_foreign = False
        for part in range(num_parts):
            with pq.ParquetFile(self._part(part)) as file:
                counts = json.loads(file.schema_arrow.metadata[_METADATA])
                table = file.read(columns=["label", "prediction"])
            summary.rows += counts["rows"]
            summary.predicted += len(table)
            notes.update(counts["notes"])
            pairs = Counter(zip(*(column.to_pylist() for column in table.itercolumns()), strict=True))
            for (label, prediction), count in pairs.items():
                if label in class_index:
                    confusion[class_index[label], class_index[prediction]] += count
                has_foreign |= label is not None and label not in class_index
            if self._errors(part).is_file():
                faults = pq.read_table(self._errors(part), columns=["reason", "message"]).to_pylist()
                for fault in faults:
                    summary.faulty[fault["reason"]] = summary.faulty.get(fault["reason"], 0) + 1
                    summary.examples.setdefault(fault["reason"], fault["message"])
        summary.notes = dict(sorted(notes.items()))
        if confusion.sum() and not has_foreign:
            summary.labelled = int(confusion.sum())
            summary.scores = {name: float(value) for name, value in overall_scores(confusion).items()}
        return summary

    def _part(self, part: int) -> Path:
        return self.folder / "data" / f"part-{part:05d}.parquet"

    def _errors(self, part: int) -> Path:
        return self.folder / "errors" / f"part-{part:05d}.parquet"

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}). Delete {self.folder} and start again.") from error


def _is_run(path: Path) -> bool:
    return (path / SETTINGS_FILE).is_file()
