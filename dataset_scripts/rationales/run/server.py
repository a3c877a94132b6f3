"""How fast one engine is asked, and what happens while it fails: retries, outages, and posts that kill it."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dataset_scripts.rationales.errors import EngineError, OutageError, PermanentError, RetryableError
from dataset_scripts.rationales.store.shard import COUNTS, content_of

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.base import Answer, Engine
    from dataset_scripts.rationales.posts import PreparedPost

logger = logging.getLogger(__name__)

# A post is to blame for the server's death if it was the only one in flight, and this is its third time.
DEATHS = 3
# As many posts in a row cannot all be to blame: then the server dies of whatever it is asked.
UNCONFIRMED = 5
LONGEST_PAUSE = 60.0


@dataclasses.dataclass(frozen=True)
class Clock:
    """Time and chance, so that tests have their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform


REAL_TIME = Clock()


class Stopped(Exception):
    """Not asked any more, because the run is to end."""


class PoisonError(PermanentError):
    """The server dies whenever it is asked about this post."""


class Lane:
    """One engine: its queue, in order of arrival, and its health.

    Attributes:
        requests: sent; those that an outage took included.
        retried: sent again after a failure that may pass.
        outages: confirmed deaths of the server.
        answers: that came.
        tokens: what they cost, by the names of `Answer`.

    Args:
        engine: that is asked.
        concurrency: most requests at a time. Less after the engine was overloaded: half at once, then one more per
            round of answers.
        max_attempts: requests for one answer, not counting those that an outage took.
        outage_wait: seconds without any answer after which a server that is gone is given up.
        deaths: how often the server died with a post in flight, by content; shared by the lanes.
        on_death: told of each change to `deaths`.
        clock: time and chance.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        concurrency: int,
        max_attempts: int,
        outage_wait: float,
        deaths: dict[str, int],
        on_death: Callable[[str, int], object],
        clock: Clock,
    ) -> None:
        self.engine = engine
        self.requests = self.retried = self.outages = self.answers = 0
        self.tokens: collections.Counter[str] = collections.Counter()
        self.up = True
        self._most = concurrency
        self._limit = float(concurrency)
        self._max_attempts = max_attempts
        self._outage_wait = outage_wait
        self._deaths = deaths
        self._on_death = on_death
        self._clock = clock
        self._queue: collections.deque[tuple[str, asyncio.Future[int]]] = collections.deque()
        self._in_flight: collections.Counter[str] = collections.Counter()
        self._alone = False
        self._held = 0  # requests that wait as long as the server told them to: all wait with them
        self._life = self._round = 0
        self._down_since: float | None = None
        self._unconfirmed = 0
        self._poison: set[str] = set()
        self._gone: str | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def ask(self, post: PreparedPost, perspective: str, attempt: int) -> tuple[Answer | EngineError, int]:
        """Ask until there is an answer or no more use in asking.

        Returns:
            The answer, or what the item failed with: `PermanentError`, its subclass `PoisonError`, or the last
            `RetryableError`; and how many requests it took, those not counted that an outage took.

        Raises:
            OutageError: the server is gone for good.
            MisconfiguredError: as the engine says.
            Stopped: `stop` was called before the request was sent.
        """
        content = content_of(post.image_sha256, post.text_sha256)
        failures = 0
        while True:
            life = await self._enter(content)
            if content in self._poison:
                self._leave(content)
                died = f"{self.engine.name} died {self._deaths[content]} times while it answered this post."
                return PoisonError(died), failures
            round_ = self._round
            self.requests += 1
            try:
                answer = await self.engine.generate(post, perspective, attempt)
            except OutageError as error:
                if life == self._life:  # late news of an earlier death is no other death
                    self._died(error)
                continue
            except RetryableError as error:
                if life != self._life:  # it was in flight when the server died, and heard of it after its return
                    continue
                failures += 1
                lost = error
                if error.overloaded and round_ == self._round:  # all that were sent too fast are one mistake
                    self._round += 1
                    self._limit = max(1.0, self._limit / 2)
            except PermanentError as error:
                self._answered(content)
                return error, failures + 1
            else:
                self._answered(content)
                self.answers += 1
                self.tokens.update({count: getattr(answer, count) or 0 for count in COUNTS})
                return answer, failures + 1
            finally:
                self._leave(content)
            if failures == self._max_attempts:
                return lost, failures
            self.retried += 1
            await self._back_off(lost, failures)

    def stop(self) -> None:
        """What is in flight goes on, what waits does not."""
        self._stopping.set()
        self._refuse(Stopped)

    async def close(self) -> None:
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _enter(self, content: str) -> int:
        """Wait for a turn; in which life of the server it came."""
        if self._stopping.is_set():
            raise Stopped
        if self._gone is not None:
            raise OutageError(self._gone)
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append((content, turn))
        self._admit()
        return await turn

    def _admit(self) -> None:
        """Let in whoever is next. A suspect goes in alone: whoever is behind it waits until it is through."""
        while self._queue and self.up and not self._held and not self._alone:
            content, turn = self._queue[0]
            if turn.done():  # cancelled, or refused
                self._queue.popleft()
                continue
            busy = self._in_flight.total()
            suspect = self._deaths.get(content, 0) > 0
            if busy and (suspect or busy >= int(self._limit)):
                return
            self._queue.popleft()
            self._in_flight[content] += 1
            self._alone = suspect
            turn.set_result(self._life)

    def _leave(self, content: str) -> None:
        self._in_flight[content] -= 1
        if not self._in_flight[content]:
            del self._in_flight[content]
        self._alone = self._alone and bool(self._in_flight)
        self._admit()

    def _answered(self, content: str) -> None:
        self._down_since = None
        self._unconfirmed = 0
        if self._limit < self._most:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        if self._alone:
            self._deaths.pop(content, None)

    def _died(self, error: OutageError) -> None:
        """All in flight are suspects, one of them killed it; if it is only one, its guilt grows."""
        self.outages += 1
        self._life += 1
        self.up = False
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
        for content in self._in_flight:
            self._deaths[content] = self._deaths.get(content, 0) + 1
            self._on_death(content, self._deaths[content])
        (only, *others) = self._in_flight
        if not others and self._deaths[only] >= DEATHS:
            self._poison.add(only)
            self._unconfirmed += 1
        logger.warning("%s %d posts were in flight; waiting for it to come back.", error, len(self._in_flight))
        self._recovery = asyncio.ensure_future(self._recover())

    async def _recover(self) -> None:
        pause = 1.0
        while self._unconfirmed < UNCONFIRMED and not self._waited():
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if await self.engine.healthy():
                logger.warning("%s is back; what was in flight when it died runs alone first.", self.engine.name)
                self.up = True
                self._admit()
                return
        said = (
            f"died of {UNCONFIRMED} posts in a row without an answer between; its own log may say why"
            if self._unconfirmed >= UNCONFIRMED
            else f"has not answered for {self._outage_wait:g} s"
        )
        self._gone = (
            f"{self.engine.name} {said}. Everything answered so far is kept: bring the server back and run the same "
            "command again; it goes on from there."
        )
        self._refuse(lambda: OutageError(self._gone))

    def _waited(self) -> bool:
        """Since the last answer, not since the last death: a server that comes back only to die is no server."""
        return self._down_since is not None and self._clock.monotonic() - self._down_since >= self._outage_wait

    def _refuse(self, error: Callable[[], Exception]) -> None:
        while self._queue:
            _, turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(error())

    async def _back_off(self, error: RetryableError, failures: int) -> None:
        """Full jitter; a server that says how long to wait is taken at its word, and by all who would ask it."""
        jitter = self._clock.uniform(0.0, min(LONGEST_PAUSE, 2.0**failures))
        if error.retry_after is None:
            await self._pause(jitter)
            return
        self._held += 1
        try:
            await self._pause(min(error.retry_after, self._outage_wait) + self._clock.uniform(0.0, 1.0))
        finally:
            self._held -= 1
            self._admit()

    async def _pause(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
