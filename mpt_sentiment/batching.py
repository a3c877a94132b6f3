"""Rationales through files of OpenAI's Batch API or vLLM's `run-batch`."""

import dataclasses
from pathlib import Path

from datasets import Dataset, DatasetDict

from dataset_scripts.rationales.batches import (
    MAX_MEGABYTES,
    MAX_REQUESTS,
    BatchAnswers,
    BatchRequests,
    new_folder,
)
from dataset_scripts.rationales.engines.profiles import PROFILES, profile_named
from dataset_scripts.rationales.run.results import RunReport
from dataset_scripts.rationales.run.settings import DEFAULTS, RunSettings
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.reading.report import BuildReport
from mpt_sentiment.arguments import argument
from mpt_sentiment.generating import one_dataset, planned_store, report_lines, request_answers
from mpt_sentiment.generation_arguments import REQUIRED, SpecArguments


@dataclasses.dataclass
class ExportBatchArguments:
    """Store, and the files of requests.

    Raises:
        ValueError: an unknown profile, or a limit below 1.
    """

    output_dir: str = argument("Folder of the store, as for `run`; created if missing.", REQUIRED)
    batch_dir: str = argument("New folder for the files requests-00000.jsonl and so on.", REQUIRED)
    profile: str = argument(f"Fields that the server accepts: {', '.join(PROFILES)}.", "openai")
    num_shards: int | None = argument("Shards of the store; default: 1 per 20,000 posts.")
    max_requests: int = argument("Maximum number of requests in a file.", MAX_REQUESTS)
    max_megabytes: float = argument("Maximum size of a file in MB.", MAX_MEGABYTES)
    max_re_asks: int = argument("Maximum new requests after the gate rejects an answer.", DEFAULTS.max_re_asks)
    retry_failed: bool = argument("Also request again what failed permanently.", False)

    def __post_init__(self) -> None:
        profile_named(self.profile)
        for name in ("max_requests", "max_megabytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name} must be positive, got {getattr(self, name)}.")


@dataclasses.dataclass
class ImportBatchArguments:
    """Store, and the files of answers."""

    output_dir: str = argument("Folder of the store that the requests were exported from.", REQUIRED)
    files: list[str] = argument("Output and error files of the batches, in any order.", REQUIRED)
    max_re_asks: int = argument("Maximum new requests after the gate rejects an answer.", DEFAULTS.max_re_asks)


@dataclasses.dataclass(frozen=True)
class ExportedBatch:
    """Result of an export.

    Attributes:
        files: files written.
        requests: number of requests in them.
        report: counts of the posts.
    """

    files: list[Path]
    requests: int
    report: RunReport

    def __str__(self) -> str:
        lines = [f"{self.report.posts:,} posts, {self.report.complete:,} of them already complete"]
        lines += self.report.errors.lines("failed")
        if not self.files:
            return "\n".join([*lines, "The store lacks no answer; no file was written."])
        plural = "s" * (len(self.files) > 1)
        last = f" to {self.files[-1].name}" if plural else ""
        return "\n".join(
            [
                *lines,
                f"{self.requests:,} requests in {len(self.files)} file{plural}: {self.files[0]}{last}",
                "Run each file as a batch, then read its answers: import-batch --files OUTPUT_FILES. Export again "
                "only after that.",
            ]
        )


@dataclasses.dataclass(frozen=True)
class ImportedBatch:
    """Result of an import.

    Attributes:
        store: the store with the answers.
        report: counts of the run.
        lines: counts of the lines in the files.
        answers: the files, with the reasons of requests without an answer.
        open: rationales without an answer that the gate accepts.
        failed: rationales whose request failed for a reason of the post.
    """

    store: RationaleStore
    report: RunReport
    lines: BuildReport
    answers: BatchAnswers
    open: int
    failed: int

    def __str__(self) -> str:
        lines = self.lines
        texts = [f"{lines.read:,} lines: {lines.kept:,} requests, {len(self.answers.used):,} of them new to the store"]
        texts += [f"skipped: {why} {count:,}, e.g. {lines.examples[why][0]}" for why, count in lines.skipped.items()]
        texts += [f"note: {note} {count:,}" for note, count in lines.notes.items()]
        texts += [*self.answers.unanswered.lines("not answered"), *report_lines(self.report)]
        if self.open:
            texts.append(
                f"{self.open:,} rationales are missing or were rejected: export them again with export-batch."
            )
        if self.failed:
            texts.append(
                f"{self.failed:,} rationales of the store failed: export-batch --retry_failed exports them too."
            )
        return "\n".join(texts)


def export_batch(
    posts: Dataset | DatasetDict, spec_args: SpecArguments, args: ExportBatchArguments, *, progress: bool = True
) -> ExportedBatch:
    """Write the requests that a store lacks to files; `generate_rationales` would send the same.

    Either all files are written or none: an interrupted export leaves no folder.

    Raises:
        ValueError: the folder of the files is not empty, or an unusable argument.
        StoreError: the store has another specification, or cannot be written.
    """
    rows = one_dataset(posts)
    planned = planned_store(rows, spec_args, None, args.output_dir, args.num_shards)
    with new_folder(Path(args.batch_dir)) as folder:
        limits = args.max_requests, int(args.max_megabytes * 1e6)
        engine = BatchRequests(folder, planned.spec, planned.prompt, profile_named(args.profile), *limits)
        settings = RunSettings(max_re_asks=args.max_re_asks, retry_failed=args.retry_failed)
        _, report = request_answers(
            rows, planned.create, lambda: [engine], wait_seconds=0.0, settings=settings, progress=progress
        )
    files = [Path(args.batch_dir) / file.name for file in engine.files]
    return ExportedBatch(files, engine.requests, report)


def import_batch(
    posts: Dataset | DatasetDict,
    spec_args: SpecArguments,
    args: ImportBatchArguments,
    *,
    on_error: str = "raise",
    progress: bool = True,
) -> ImportedBatch:
    """Read the answers of batches into a store, as a run that receives them from a server.

    Answers that the store has already are ignored, so files may be read again.

    Args:
        posts: the posts of the export.
        spec_args: by default that of the store.
        args: store and files.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for damaged lines.
        progress (`bool`, defaults to `True`): show a progress bar.

    Raises:
        ValueError: a file is not the output of a batch, or has no answer to a request of this store.
        StoreError: there is no store, or it has another specification.
        MisconfiguredError: every request failed, or another model answered.
    """
    rows = one_dataset(posts)
    RationaleStore.open(args.output_dir)  # an import does not create one
    planned = planned_store(rows, spec_args, None, args.output_dir, None)
    lines = BuildReport("batch", on_error=on_error)
    answers = BatchAnswers([Path(file) for file in args.files], planned.spec, lines)
    settings = RunSettings(max_re_asks=args.max_re_asks, retry_failed=True)
    store, report = request_answers(
        rows, planned.create, lambda: [answers], wait_seconds=0.0, settings=settings, progress=progress
    )
    unknown = answers.unknown(store)
    if unknown:
        if len(unknown) == len(answers):
            raise ValueError(
                f"None of the {len(unknown):,} answers (e.g. custom_id {min(unknown)!r}) belongs to a request of "
                f"{args.output_dir}. Import with the posts and the store of the export."
            )
        lines.note(f"custom_id of no request of this store, e.g. {min(unknown)!r}", len(unknown))
    shards = store.status()
    still_open, failed = sum(shard.open for shard in shards), sum(shard.failed for shard in shards)
    return ImportedBatch(store, report, lines, answers, still_open, failed)
