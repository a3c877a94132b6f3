"""Requests to one engine: concurrency limit, retries, and recovery from server crashes."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PermanentError,
    RetryableError,
    ServerCrashError,
)
from dataset_scripts.rationales.run.stops import may_be_the_posts
from dataset_scripts.rationales.spec import content_key
from dataset_scripts.rationales.store.rows import TOKEN_COUNTS

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.base import Answer, Engine
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.run.settings import RunSettings

logger = logging.getLogger(__name__)

# A post that was in flight at so many crashes, and was alone in flight at the last one, is recorded as the cause.
MAX_CRASHES = 3
# After so many such posts in a row without an answer, the server itself is considered faulty.
MAX_CRASHING_POSTS = 5
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 86_400.0


@dataclasses.dataclass(frozen=True)
class Clock:
    """Time and randomness of a run, replaceable in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform


REAL_TIME = Clock()


class Stopped(Exception):
    """Request that was not sent because the run is ending."""


class Postponed(Stopped):
    """Request that a batch answers, before or after this run."""


@dataclasses.dataclass(eq=False)
class _Request:
    """One request, in the queue or in flight.

    Attributes:
        content: key of the post's content (`content_key`).
        admitted: resolved when the request may be sent.
        crashes: crashes of the server noticed before the request was sent.
        slowdowns: reductions of the concurrency limit before the request was sent.
    """

    content: str
    admitted: asyncio.Future[None]
    crashes: int = 0
    slowdowns: int = 0


class Server:
    """Queue of requests to one engine, with its concurrency limit and its health.

    Attributes:
        requests: requests sent, including those lost in an outage.
        retried: requests repeated after a retryable failure.
        outages: crashes of the server.
        answers: answers received.
        tokens: token counts of all answers, by the field names of `Answer`.
        up: `False` from a crash until the health check succeeds again.

    Args:
        engine: the engine that answers.
        settings: `concurrency`, `max_attempts` and `outage_wait` are used. Overload halves the concurrency limit at
            once; each round of answers raises it by one.
        crash_counts: number of crashes with a post in flight, by content; shared by all servers of a run.
        on_crash: called with each content in flight at a crash, and with its new count.
        clock: time and randomness.
    """

    def __init__(
        self,
        engine: Engine,
        settings: RunSettings,
        *,
        crash_counts: dict[str, int],
        on_crash: Callable[[str, int], object],
        clock: Clock,
    ) -> None:
        self.engine = engine
        self.requests = self.retried = self.outages = self.answers = 0
        self.tokens: collections.Counter[str] = collections.Counter()
        self.up = True
        self._settings = settings
        self._limit = float(settings.concurrency)
        self._slowdowns = 0
        self._crash_counts = crash_counts
        self._on_crash = on_crash
        self._clock = clock
        self._queue: collections.deque[_Request] = collections.deque()
        self._in_flight: dict[_Request, None] = {}  # a set in order of admission
        self._suspect_in_flight = False
        self._retry_after_pauses = 0
        self._down_since: float | None = None  # time of the first crash without an answer after it
        self._crashing: dict[str, int] = {}  # crashes of each post recorded as their cause
        self._crashing_in_a_row = 0
        self._given_up: str | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def ask(self, post: PreparedPost, perspective: str, attempt: int) -> tuple[Answer | EngineError, int]:
        """Request an answer until it arrives or repeating the request is useless.

        Returns:
            The answer, or the error of this item (`PermanentError`, `ServerCrashError`, the last `RetryableError`, or
            a `MisconfiguredError` that may concern this post only); and the number of requests, without those lost in
            an outage.

        Raises:
            OutageError: the server crashed and did not come back, or asks to wait for more than a day.
            MisconfiguredError: no request can succeed.
            Stopped: `stop` was called before the request was sent.
            Postponed: raised by an engine of batches.
        """
        content = content_key(post.image_sha256, post.text_sha256)
        failures = 0
        while True:
            request = await self._enter(content)
            try:
                if content in self._crashing:
                    message = f"{self.engine.name} crashed {self._crashing[content]} times on this post."
                    return ServerCrashError(message), failures
                self.requests += 1
                answer = await self.engine.generate(post, perspective, attempt)
            except Postponed:
                self.requests -= 1
                raise
            except OutageError as error:
                if self._is_current(request):
                    self._crashed(error)
                continue
            except RetryableError as error:
                if not self._is_current(request):  # lost in a crash, so it does not count as an attempt
                    continue
                failures += 1
                last_error = error
                if error.overloaded:
                    self._slow_down(request)
            except (PermanentError, MisconfiguredError) as error:
                if isinstance(error, MisconfiguredError) and not may_be_the_posts(error, self.answers):
                    raise
                self._answered(request)
                return error, failures + 1
            else:
                self._answered(request)
                self.answers += 1
                self.tokens.update({count: getattr(answer, count) or 0 for count in TOKEN_COUNTS})
                return answer, failures + 1
            finally:
                self._leave(request)
            if failures == self._settings.max_attempts:
                return last_error, failures
            self.retried += 1
            await self._back_off(last_error, failures)

    def stop(self) -> None:
        """Refuse waiting requests. Requests in flight are finished."""
        self._stopping.set()
        self._refuse(Stopped)

    async def close(self) -> None:
        """Cancel the recovery from a crash."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _enter(self, content: str) -> _Request:
        if self._stopping.is_set():
            raise Stopped
        if self._given_up is not None:
            raise OutageError(self._given_up)
        request = _Request(content, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._admit()
        await request.admitted
        return request

    def _admit(self) -> None:
        """Admit requests in order of arrival.

        A post that was in flight at a crash is admitted alone.
        """
        while self._queue and self.up and not self._retry_after_pauses and not self._suspect_in_flight:
            request = self._queue[0]
            if request.admitted.done():  # cancelled or refused
                self._queue.popleft()
                continue
            suspect = self._crash_counts.get(request.content, 0) > 0
            if self._in_flight and (suspect or len(self._in_flight) >= int(self._limit)):
                return
            self._queue.popleft()
            self._in_flight[request] = None
            self._suspect_in_flight = suspect
            request.crashes, request.slowdowns = self.outages, self._slowdowns
            request.admitted.set_result(None)

    def _leave(self, request: _Request) -> None:
        del self._in_flight[request]
        self._suspect_in_flight = self._suspect_in_flight and bool(self._in_flight)
        asyncio.get_running_loop().call_soon(self._admit)  # after `_back_off` has begun a `Retry-After` pause

    def _is_current(self, request: _Request) -> bool:
        """Tell whether a request was sent after the last crash.

        The outcome of an older request does not show the present state of the server.
        """
        return request.crashes == self.outages

    def _answered(self, request: _Request) -> None:
        if not self._is_current(request):
            return
        self._down_since = None
        self._crashing_in_a_row = 0
        if request.slowdowns == self._slowdowns:
            self._limit = min(self._settings.concurrency, self._limit + 1 / self._limit)
        if self._suspect_in_flight:
            self._crash_counts.pop(request.content, None)

    def _slow_down(self, request: _Request) -> None:
        """Halve the concurrency limit, once for all requests sent under the same limit."""
        if request.slowdowns == self._slowdowns:
            self._slowdowns += 1
            self._limit = max(1.0, self._limit / 2)

    def _crashed(self, error: OutageError) -> None:
        """Increment the crash count of every post in flight and start the recovery.

        A post that was alone in flight is recorded as the cause after `MAX_CRASHES` crashes.
        """
        # older requests were counted at an earlier crash
        contents = dict.fromkeys(request.content for request in self._in_flight if self._is_current(request))
        self.outages += 1
        self.up = False
        if self._down_since is None:
            self._down_since = self._clock.monotonic()
        self._retry_after_pauses = 0  # a restarted server has no backlog
        self._recovery = asyncio.ensure_future(self._recover())  # first, because `on_crash` may raise
        for content in contents:
            self._crash_counts[content] = self._crash_counts.get(content, 0) + 1
            self._on_crash(content, self._crash_counts[content])
        (content, *others) = {request.content for request in self._in_flight}
        if not others and self._crash_counts[content] >= MAX_CRASHES:
            self._crashing[content] = self._crash_counts[content]
            self._crashing_in_a_row += 1
        logger.warning("%s %d requests were in flight; waiting for the server.", error, len(self._in_flight))

    async def _recover(self) -> None:
        """Poll the health check until it succeeds or the outage has lasted `outage_wait` seconds."""
        pause = 1.0
        try:
            deadline = self._down_since + self._settings.outage_wait
            while self._crashing_in_a_row < MAX_CRASHING_POSTS and self._clock.monotonic() < deadline:
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await self.engine.check_health()
                except EngineError:
                    continue
                logger.warning(
                    "%s is healthy again; posts in flight at the crash are asked one at a time.", self.engine.name
                )
                self.up = True
                self._admit()
                return
        except Exception as error:
            reason = f"cannot be checked ({type(error).__name__}: {error})"
        else:
            reason = f"has not answered for {self._settings.outage_wait:g} s"
        if self._crashing_in_a_row >= MAX_CRASHING_POSTS:
            reason = f"crashed on {MAX_CRASHING_POSTS} posts in a row without an answer between; see the server's log"
        self._given_up = (
            f"{self.engine.name} {reason}. All answers so far are stored: restart the server, then run the same "
            "command again to continue."
        )
        self._refuse(lambda: OutageError(self._given_up))

    def _refuse(self, error: Callable[[], Exception]) -> None:
        while self._queue:
            request = self._queue.popleft()
            if not request.admitted.done():
                request.admitted.set_exception(error())

    async def _back_off(self, error: RetryableError, failures: int) -> None:
        """Wait before the next attempt, with full jitter.

        `Retry-After` replaces the exponential pause and pauses all requests to this server.
        """
        if error.retry_after is None:
            await self._pause(self._clock.uniform(0.0, min(LONGEST_PAUSE, 2.0**failures)))
            return
        if error.retry_after > LONGEST_RETRY_AFTER:
            raise OutageError(
                f"{error} The server asks to wait for {error.retry_after / 3600:,.0f} hours; run the same "
                "command again then."
            )
        crashes = self.outages
        if not self._retry_after_pauses and error.retry_after >= LONGEST_PAUSE:
            end = datetime.datetime.now() + datetime.timedelta(seconds=error.retry_after)
            logger.warning(
                "%s asks to wait for %s s (Retry-After); the run continues at %s.",
                self.engine.name,
                f"{error.retry_after:,.0f}",
                f"{end:%H:%M:%S}" if end.date() == datetime.date.today() else f"{end:%Y-%m-%d %H:%M}",
            )
        self._retry_after_pauses += 1
        await self._pause(error.retry_after + self._clock.uniform(0.0, 1.0))
        if crashes == self.outages:
            self._retry_after_pauses -= 1
            self._admit()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until `stop` is called."""
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
