"""Report of a run, and the rule that decides when a failure is recorded."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.errors import ServerCrashError
from dataset_scripts.rationales.run.stops import Failure, stop_error
from dataset_scripts.rationales.store.shard_index import FAILED

if TYPE_CHECKING:
    from dataset_scripts.rationales.store.shard import ShardWriter

Record = dict[str, Any]

_LISTED_REASONS = 5


@dataclasses.dataclass
class Reasons:
    """Counts of rationales by reason, each with an example.

    Attributes:
        counts: rationales by reason.
        examples: id of the first post of each reason, with the words of the server if there are some.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self.counts[reason] += count
        self.examples.setdefault(reason, example)

    def lines(self, title: str) -> list[str]:
        """Format the most frequent reasons, one line each."""
        listed = self.counts.most_common(_LISTED_REASONS)
        lines = [f"{title}: {reason} {count:,}, e.g. {self.examples[reason]}" for reason, count in listed]
        if others := len(self.counts) - len(listed):
            lines.append(f"{title}: {others} other reasons {sum(self.counts.values()) - sum(dict(listed).values()):,}")
        return lines


@dataclasses.dataclass
class RunReport:
    """Counts of a run.

    Attributes:
        posts: posts read. Of these, `complete` needed no request, and `duplicates` had the content of a post that
            was being asked.
        ok, flagged, failed, crashed: rationales recorded, by status (`shard_index.STATUSES`).
        failed_before: rationales that failed in earlier runs and were not requested again.
        re_asked: answers that the gate rejected and that were requested again.
        requests: requests sent; `retried` of them after a retryable failure.
        outages: crashes of servers.
        prompt_tokens, cached_tokens, completion_tokens: totals over all answers, including rejected ones.
        errors: failed rationales by reason.
        flags: flagged rationales by hard code of the gate.
        crashing_posts: ids of the posts that crash a server.
        stopped: `True` if the run was interrupted.
        seconds: duration.
    """

    posts: int = 0
    complete: int = 0
    duplicates: int = 0
    ok: int = 0
    flagged: int = 0
    failed: int = 0
    crashed: int = 0
    failed_before: int = 0
    re_asked: int = 0
    requests: int = 0
    retried: int = 0
    outages: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    errors: Reasons = dataclasses.field(default_factory=Reasons)
    flags: Reasons = dataclasses.field(default_factory=Reasons)
    crashing_posts: list[str] = dataclasses.field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        return self.ok + self.flagged + self.failed + self.crashed

    @property
    def absent(self) -> int:
        """Rationales that the posts of this run lack at its end."""
        return self.failed + self.crashed + self.failed_before


@dataclasses.dataclass(frozen=True)
class Result:
    """Final result for one perspective, or for a post that could not be prepared.

    Attributes:
        name: key of the answer, or name of the post.
        record: record for the store.
        failure: the reason, unless the rationale is ok.
        asked_before: `True` if it had failed in an earlier run.
    """

    name: str
    record: Record
    failure: Failure | None
    asked_before: bool


class ResultRecorder:
    """Records final results. Holds failures back until a success shows that the server works.

    A misconfigured server refuses every post, a faulty one crashes on every post, and an unsuitable model gets every
    answer rejected. So each failure, and each answer with hard flags, waits for the next accepted answer that refutes
    a common cause (`Failure.is_refuted_by`). If `failed_in_a_row` posts fail before, the run stops and records none
    of them. Fewer that are still held back when the run ends are recorded then, unless every post failed.

    Attributes:
        failed: keys, and ids of posts, recorded as failed by this run.

    Args:
        report: receives the counts.
        failed_in_a_row: see `RunSettings`.
        answers: returns the number of answers from the engines so far.
    """

    def __init__(self, report: RunReport, failed_in_a_row: int, answers: Callable[[], int]) -> None:
        self.report = report
        self.failed: set[str] = set()
        self._writer: ShardWriter
        self._failed_in_a_row = failed_in_a_row
        self._answers = answers
        self._answers_when_held_back = 0
        self._failures_in_a_row: list[Failure] = []  # one per post
        self._held_back: dict[int, dict[str, Result]] = collections.defaultdict(dict)
        self._refuted: dict[int, set[str]] = collections.defaultdict(set)  # in earlier shards, to be recorded

    def write_to(self, writer: ShardWriter) -> None:
        """Record the following results in this shard."""
        self._writer = writer

    def is_held_back(self, name: str) -> bool:
        """Tell whether a result is held back under this name in the current shard."""
        return name in self._held_back.get(self._writer.files.shard_id, ())

    def shards_held_back(self) -> list[int]:
        """List the shards with results that are held back."""
        return [shard_id for shard_id, results in self._held_back.items() if results]

    def shards_refuted(self) -> list[int]:
        """List the shards whose results need not be held back any longer."""
        return [
            shard_id
            for shard_id in self.shards_held_back()
            if self._held_back[shard_id].keys() <= self._refuted[shard_id]
        ]

    def add(self, result: Result, size: int = 0, has_image: bool = False) -> None:
        """Record a final result, or hold it back.

        Args:
            result: the result.
            size, has_image: those of the post (`Failure`).
        """
        failure = result.failure
        if failure is None:
            if self._answers() > self._answers_when_held_back:
                self._record_refuted(size, has_image)
        elif not result.asked_before or isinstance(failure.error, ServerCrashError):
            self._held_back[self._writer.files.shard_id][result.name] = result
            self._answers_when_held_back = self._answers()
            return
        self._record(result)

    def record_held_back(self) -> None:
        """Record the results that were held back in the current shard."""
        for result in self._held_back.pop(self._writer.files.shard_id, {}).values():
            self._record(result)

    def post_failed(self, failure: Failure) -> None:
        """Count a post without any accepted answer, asked for the first time.

        Raises:
            MisconfiguredError, OutageError: `failed_in_a_row` posts failed, and no accepted answer refutes a common
                cause.
        """
        self._failures_in_a_row.append(failure)
        if len(self._failures_in_a_row) >= self._failed_in_a_row:
            raise stop_error(self._failures_in_a_row, in_a_row=True)

    def check_end(self) -> None:
        """Check the end of a run that is too short for `failed_in_a_row`.

        Raises:
            MisconfiguredError, OutageError: every post failed, and the store has no result of an earlier run. No
                failure is recorded.
        """
        report = self.report
        held_back = [result for results in self._held_back.values() for result in results.values()]
        statuses = {result.record.get("status", "failed") for result in held_back}
        if held_back and not report.answers and not report.complete and statuses <= set(FAILED):
            raise stop_error([result.failure for result in held_back], in_a_row=False)

    def _record_refuted(self, size: int, has_image: bool) -> None:
        """Record what was held back and has no common cause, as an accepted answer shows."""
        self._failures_in_a_row = [
            failure for failure in self._failures_in_a_row if not failure.is_refuted_by(size, has_image)
        ]
        for shard_id, held_back in self._held_back.items():
            refuted = [name for name, result in held_back.items() if result.failure.is_refuted_by(size, has_image)]
            if shard_id == self._writer.files.shard_id:
                for name in refuted:
                    self._record(held_back.pop(name))
            else:
                self._refuted[shard_id].update(refuted)

    def _record(self, result: Result) -> None:
        record, report = result.record, self.report
        status = record.get("status", "failed")  # the record of an unusable post has no status
        count = 1 if record["kind"] == "answer" else len(self._writer.files.spec.perspectives)
        setattr(report, status, getattr(report, status) + count)
        if result.failure is not None:
            if status in FAILED:
                report.errors.add(result.failure.reason, result.failure.example, count)
                self.failed.add(record.get("key", record.get("id")))
            else:
                for code in result.failure.codes:
                    report.flags.add(code, result.failure.example)
        self._writer.add(record)
