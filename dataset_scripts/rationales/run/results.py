"""Report of a run, and the rule that decides when a failure is recorded."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.errors import EngineError, MisconfiguredError, PermanentError, ServerCrashError
from dataset_scripts.rationales.store.shard_index import FAILED

if TYPE_CHECKING:
    from dataset_scripts.rationales.store.shard import ShardWriter

Record = dict[str, Any]


@dataclasses.dataclass
class RunReport:
    """Counts of a run.

    Attributes:
        posts: posts read. Of these, `complete` needed no request, and `duplicates` had the content of a post that
            was being asked.
        ok, flagged, failed, crashed: rationales recorded, by status (`shard_index.STATUSES`).
        re_asked: answers that the gate rejected and that were requested again.
        requests: requests sent; `retried` of them after a retryable failure.
        outages: crashes of servers.
        prompt_tokens, cached_tokens, completion_tokens: totals over all answers, including rejected ones.
        errors: failed rationales, by `EngineError.kind`.
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
    re_asked: int = 0
    requests: int = 0
    retried: int = 0
    outages: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    crashing_posts: list[str] = dataclasses.field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        return self.ok + self.flagged + self.failed + self.crashed


class ResultRecorder:
    """Records final results. Holds failures back until a success shows that the server works.

    A misconfigured server refuses every post and a faulty one crashes on every post. So permanent failures wait for
    the first answer of the run, and crashes wait for the next answer. Failures still held back when the run ends are
    recorded then, because they are too few to suspect the server.

    Attributes:
        failed: keys, and ids of posts, recorded as failed by this run.

    Args:
        report: receives the counts.
        first_failures: see `RunSettings`.
        answers: returns the number of answers from the engines so far.
    """

    def __init__(self, report: RunReport, first_failures: int, answers: Callable[[], int]) -> None:
        self.report = report
        self.failed: set[str] = set()
        self._writer: ShardWriter
        self._first_failures = first_failures
        self._answers = answers
        self._answers_when_held_back = 0
        self._posts_asked = 0
        self._failed_first_posts: set[int] = set()
        self._held_back: dict[int, dict[str, Record]] = collections.defaultdict(dict)

    def write_to(self, writer: ShardWriter) -> None:
        """Record the following results in this shard."""
        self._writer = writer

    def is_held_back(self, name: str) -> bool:
        """Tell whether a failure is held back under this name in the current shard."""
        return name in self._held_back.get(self._writer.files.shard_id, ())

    def shards_held_back(self) -> list[int]:
        """List the shards with failures that are held back."""
        return [shard_id for shard_id, records in self._held_back.items() if records]

    def next_number(self) -> int:
        """Count a post that is asked for the first time, and return its number from 1."""
        self._posts_asked += 1
        return self._posts_asked

    def add(self, name: str, record: Record, error: EngineError | None, asked_before: bool) -> None:
        """Record a final result, or hold it back.

        Args:
            name: key of the answer, or name of the post.
            record: record for the store.
            error: the reason of a failure.
            asked_before: `True` if it had failed in an earlier run.
        """
        unproven = isinstance(error, PermanentError) and not asked_before and not self._answers()
        if unproven or isinstance(error, ServerCrashError):
            self._held_back[self._writer.files.shard_id][name] = record
            self._answers_when_held_back = self._answers()
            return
        if error is None and self._answers() > self._answers_when_held_back:
            self.record_held_back()
        self._record(record)

    def record_held_back(self) -> None:
        """Record the failures that were held back in the current shard."""
        for record in self._held_back.pop(self._writer.files.shard_id, {}).values():
            self._record(record)

    def all_failed(self, number: int | None, error: EngineError) -> None:
        """Count a post without any successful perspective.

        Args:
            number: from `next_number`; `None` for a post that had failed in an earlier run.
            error: the reason of one failure.

        Raises:
            MisconfiguredError: the first `first_failures` posts of the run failed and no request has succeeded.
        """
        if number is None or number > self._first_failures or self._answers():
            return
        self._failed_first_posts.add(number)
        if len(self._failed_first_posts) == self._first_failures:
            raise MisconfiguredError(
                f"The first {self._first_failures} posts all failed, which points to the server's setup; no failure "
                f"was recorded. Last error: {error} If the posts themselves are faulty, raise `first_failures`."
            )

    def _record(self, record: Record) -> None:
        status = record.get("status", "failed")  # the record of an unusable post has no status
        count = 1 if record["kind"] == "answer" else len(self._writer.files.spec.perspectives)
        setattr(self.report, status, getattr(self.report, status) + count)
        if status in FAILED:
            self.report.errors[record["error"].partition(":")[0]] += count
            self.failed.add(record.get("key", record.get("id")))
        self._writer.add(record)
