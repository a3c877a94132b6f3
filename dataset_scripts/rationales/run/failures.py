"""What a run may ask, what it did, and which failures it believes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.errors import EngineError, MisconfiguredError, PermanentError
from dataset_scripts.rationales.run.server import PoisonError

if TYPE_CHECKING:
    from dataset_scripts.rationales.store.shard import ShardWriter

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How to ask; nothing of it changes what is asked.

    Attributes:
        concurrency: most requests at a time per engine; fewer while an engine is overloaded.
        max_attempts: requests for one answer while what fails may pass.
        max_re_asks: how often the gate may send an answer back.
        outage_wait: seconds without an answer after which a server that is gone is given up.
        retry_failed: ask again for what failed in earlier runs.
        first_failures: if so many posts, the first of the run, all fail for good, the fault is not theirs.
        preparing: posts made ready at a time (images decoded, scaled, encoded).
    """

    concurrency: int = 64
    max_attempts: int = 5
    max_re_asks: int = 2
    outage_wait: float = 1800.0
    retry_failed: bool = False
    first_failures: int = 20
    preparing: int = 4

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "first_failures", "preparing"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}; at least 1 is needed.")
        for name in ("max_re_asks", "outage_wait"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must not be negative.")


DEFAULTS = RunSettings()


@dataclasses.dataclass
class RunReport:
    """What a run did.

    Attributes:
        posts: seen; of these `complete` needed nothing, and `duplicates` waited for the same post before them.
        ok, flagged, failed, poison: rationales recorded by this run.
        re_asked: answers that the gate sent back.
        requests: sent; `retried` of them again after a failure that may pass.
        outages: deaths of servers.
        prompt_tokens, cached_tokens, completion_tokens: of all answers, also of those sent back.
        errors: rationales that failed, by the class of the error.
        poison_posts: ids of the posts that kill a server.
        stopped: it was told to end before its time.
    """

    posts: int = 0
    complete: int = 0
    duplicates: int = 0
    ok: int = 0
    flagged: int = 0
    failed: int = 0
    poison: int = 0
    re_asked: int = 0
    requests: int = 0
    retried: int = 0
    outages: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    poison_posts: list[str] = dataclasses.field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0

    @property
    def answers(self) -> int:
        return self.ok + self.flagged + self.failed + self.poison


class Ledger:
    """Records what is final, and holds back what some success must first show to be a post's own fault.

    A server that is set up wrongly refuses every post, and one that is broken dies of every post. So failures for
    good wait for the first answer of the run, and poison for the next one; without any, they are recorded at the end
    of a run that was too short to suspect the server.

    Attributes:
        failed: keys, and ids of posts, that this run recorded as failed.

    Args:
        report: takes the counts.
        first_failures: see `RunSettings`.
        trusted: whether the engines have given any answer in this run.
    """

    def __init__(self, report: RunReport, first_failures: int, trusted: Callable[[], bool]) -> None:
        self.report = report
        self._writer: ShardWriter
        self.failed: set[str] = set()
        self._first_failures = first_failures
        self._trusted = trusted
        self._begun = 0
        self._first: set[int] = set()
        self._doubtful: dict[int, dict[str, Record]] = collections.defaultdict(dict)

    def open(self, writer: ShardWriter) -> None:
        """From now on, this shard is the one that is written."""
        self._writer = writer

    def doubts(self, name: str) -> bool:
        """Whether a failure is held back for this key."""
        return name in self._doubtful.get(self._writer.files.shard_id, ())

    def shards_in_doubt(self) -> list[int]:
        return [shard_id for shard_id, records in self._doubtful.items() if records]

    def number(self) -> int:
        """Of a post that is asked for the first time, in order."""
        self._begun += 1
        return self._begun

    def settle(self, name: str, record: Record, error: EngineError | None, again: bool) -> None:
        """Record what is final.

        Args:
            name: of what it is final for: the key of an answer, or the post.
            record: final.
            error: if it is a failure.
            again: whether it had failed in an earlier run.
        """
        untried = isinstance(error, PermanentError) and not again and not self._trusted()
        if untried or isinstance(error, PoisonError):
            self._doubtful[self._writer.files.shard_id][name] = record
            return
        if error is None:
            self.believe()
        self._record(record)

    def believe(self) -> None:
        """Record what was held back of this shard."""
        for record in self._doubtful.pop(self._writer.files.shard_id, {}).values():
            self._record(record)

    def all_failed(self, number: int | None, error: EngineError) -> None:
        """A post failed for good, in all that was asked of it.

        Raises:
            MisconfiguredError: as did the first posts of the run, all of them, and nothing has succeeded.
        """
        if number is None or number > self._first_failures or self._trusted():
            return
        self._first.add(number)
        if len(self._first) == self._first_failures:
            raise MisconfiguredError(
                f"The first {len(self._first)} posts all failed, so the fault is hardly theirs; nothing was recorded. "
                f"The last error: {error} If these posts really are all faulty, raise first_failures."
            )

    def _record(self, record: Record) -> None:
        status = record.get("status", "failed")  # a post that cannot be made ready has none
        count = 1 if record["kind"] == "answer" else len(self._writer.files.spec.perspectives)
        setattr(self.report, status, getattr(self.report, status) + count)
        if status in ("failed", "poison"):
            self.report.errors[record["error"].partition(":")[0]] += count
            self.failed.add(record.get("key", record.get("id")))
        self._writer.add(record)
