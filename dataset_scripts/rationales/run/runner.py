"""A run: every post of the chosen shards gets its rationales, each asked for once, whatever fails in between."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import EngineError, PermanentError, PreparationError
from dataset_scripts.rationales.posts import PreparedPost, content_hashes, prepare_post
from dataset_scripts.rationales.quality.gate import check
from dataset_scripts.rationales.run.attempts import Gate, Record, ask_post
from dataset_scripts.rationales.run.failures import DEFAULTS, Ledger, RunReport, RunSettings
from dataset_scripts.rationales.run.request_queue import Intake, Row
from dataset_scripts.rationales.run.server import REAL_TIME, Clock, Lane, PoisonError, Stopped
from dataset_scripts.rationales.spec import item_key
from dataset_scripts.rationales.store.shard import COUNTS, content_of

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.base import Engine
    from dataset_scripts.rationales.store.store import RationaleStore

__all__ = ["Clock", "RunReport", "RunSettings", "run"]

logger = logging.getLogger(__name__)

_LIGHT = 4096  # bytes of an image file


async def run(
    posts: Iterable[Row],
    store: RationaleStore,
    engines: Sequence[Engine],
    *,
    shard_ids: Sequence[int] | None = None,
    settings: RunSettings = DEFAULTS,
    gate: Gate = check,
    progress: bool = True,
    clock: Clock = REAL_TIME,
) -> RunReport:
    """Ask for every rationale that `store` lacks, record each, and publish each shard that is through.

    The first SIGINT or SIGTERM lets finish what is in flight, the second one drops it; nothing recorded is ever lost.

    Args:
        posts: rows with `id`, `text`, `image` and, if they have it, `language`; in any order, more than last time or
            less. Posts that are the same are asked once.
        store: of what is asked.
        engines: that answer; a post is asked of one of them, so that its perspectives share what that has computed.
        shard_ids: of this process; all of them by default.
        settings: how to ask.
        gate: judges each answer (`gate.check`).
        progress: show a bar.
        clock: time and chance.

    Raises:
        MisconfiguredError: no request can succeed; nothing was recorded of those that failed.
        OutageError: a server stayed away; the same command goes on later.
        StoreError: a shard is being written by another process, or cannot be written.
        ValueError: no engine, or posts that cannot be read.
    """
    if not engines:
        raise ValueError("engines is empty; give at least one.")
    shard_ids = list(range(store.num_shards) if shard_ids is None else shard_ids)
    intake = Intake(posts, store, shard_ids, progress)
    with (
        ThreadPoolExecutor(settings.preparing, thread_name_prefix="posts") as pool,
        tqdm(total=intake.total, desc="Rationales", unit=" posts", disable=not progress, smoothing=0) as bar,
    ):
        runner = _Runner(store, engines, settings, gate, clock, pool, bar)
        with _signals(runner.stop), _imports_out_of_collection():
            return await runner.run(intake, shard_ids)


@contextlib.contextmanager
def _imports_out_of_collection() -> Iterator[None]:
    """What was imported before a run stays, so the garbage collector need not walk through it again and again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _light(row: Row) -> bool:
    """Whether handing a post to a thread takes longer than making it ready: it has no image, or a tiny one."""
    image = row["image"]
    content = image.get("bytes") if isinstance(image, Mapping) else None
    return image is None or (content is not None and len(content) <= _LIGHT)


class _Runner:
    def __init__(
        self,
        store: RationaleStore,
        engines: Sequence[Engine],
        settings: RunSettings,
        gate: Gate,
        clock: Clock,
        pool: ThreadPoolExecutor,
        bar: tqdm,
    ) -> None:
        self.spec = store.spec
        self.store = store
        self.settings = settings
        self.gate = gate
        self.clock = clock
        self.pool = pool
        self.bar = bar
        self.report = RunReport()
        self.deaths: dict[str, int] = {}
        self.lanes = [
            Lane(
                engine,
                concurrency=settings.concurrency,
                max_attempts=settings.max_attempts,
                outage_wait=settings.outage_wait,
                deaths=self.deaths,
                on_death=self._suspect,
                clock=clock,
            )
            for engine in engines
        ]
        # Twice what can be in flight, so that the next posts are ready and one engine's queue does not starve another.
        per_engine = -(-settings.concurrency // len(self.spec.perspectives))
        self.room = asyncio.Semaphore(2 * per_engine * len(engines) + settings.preparing)
        self.asking: dict[str, asyncio.Event] = {}
        self.stopping = False
        self.fault: Exception | None = None
        self.ledger = Ledger(self.report, settings.first_failures, lambda: any(lane.answers for lane in self.lanes))
        self.told = clock.monotonic()

    def stop(self) -> None:
        self.stopping = True
        for lane in self.lanes:
            lane.stop()

    async def run(self, intake: Intake, shard_ids: Sequence[int]) -> RunReport:
        began = self.told
        try:
            for shard_id in shard_ids:
                await self._shard(shard_id, intake.rows(shard_id))
            # Too few failures, and too early an end, to suspect a server: they were the posts' own.
            for shard_id in [] if self.stopping else self.ledger.shards_in_doubt():
                with self.store.writer(shard_id) as self.writer:
                    self.ledger.open(self.writer)
                    self.ledger.believe()
                    self.writer.publish()
        finally:
            for lane in self.lanes:
                await lane.close()
        if self.fault is not None:
            raise self.fault
        return self._account(began)

    async def _shard(self, shard_id: int, rows: Iterator[Row]) -> None:
        if self.stopping:
            return
        tasks: set[asyncio.Task[None]] = set()
        with self.store.writer(shard_id) as self.writer:
            self.ledger.open(self.writer)
            self.deaths.clear()
            self.deaths.update(self.writer.index.deaths)
            try:
                await self._begin(rows, tasks)
                if tasks:
                    await asyncio.wait(tasks)
            finally:  # only if this task is cancelled is there anything left
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not self.stopping and shard_id not in self.ledger.shards_in_doubt():
                self.writer.publish()

    async def _begin(self, rows: Iterator[Row], tasks: set[asyncio.Task[None]]) -> None:
        try:
            for row in rows:
                await self.room.acquire()
                if self.stopping:
                    return
                task = asyncio.create_task(self._guarded(row))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except Exception as error:  # the dataset cannot be read; what was begun is finished all the same
            self._end_by(error)

    async def _guarded(self, row: Row) -> None:
        try:
            await self._post(row)
        except Stopped:
            pass
        except Exception as error:
            self._end_by(error)
        finally:
            self.room.release()

    def _end_by(self, error: Exception) -> None:
        if self.fault is None:
            self.fault = error
        self.stop()

    async def _post(self, row: Row) -> None:
        if _light(row):
            post, record, error = self._take_up(row)
        else:
            post, record, error = await asyncio.get_running_loop().run_in_executor(self.pool, self._take_up, row)
        self.report.posts += 1
        if error is not None:
            self._unusable(record, error)
            return
        content = content_of(record["image_sha256"], record["text_sha256"])
        if content in self.asking:
            self.report.duplicates += 1
        while content in self.asking:
            await self.asking[content].wait()
        self.writer.add(record)
        keys, wanted = self._wanted(record)
        if not wanted:
            self.report.complete += 1
            self._show(asked=False)
            return
        done = self.asking[content] = asyncio.Event()
        try:
            await self._rationales(post, keys, wanted)
        finally:
            del self.asking[content]
            done.set()
        self._show(asked=True)

    def _take_up(self, row: Row) -> tuple[PreparedPost | None, Record, PreparationError | None]:
        """The post made ready, if anything is wanted of it; its record; why it cannot be made ready."""
        record: Record = {"kind": "post", "id": str(row["id"]), "image_sha256": None, "text_sha256": None}
        record |= {"language": row["language"], "provenance": None}
        try:
            record["image_sha256"], record["text_sha256"] = content_hashes(row)
            if self.writer.index.knows(record) and not self._wanted(record)[1]:
                return None, record, None
            post = prepare_post(row, self.spec.max_pixels, self.spec.language)
        except PreparationError as error:
            return None, record | {"error": f"preparation: {error}"}, error
        except Exception as error:  # a decoder may raise anything; one file must not end a run of days
            fault = PreparationError(f"post {record['id']!r}: {type(error).__name__}: {error}")
            return None, record | {"error": f"preparation: {fault}"}, fault
        return post, record | {"language": post.language}, None

    def _wanted(self, record: Record) -> tuple[dict[str, str], list[str]]:
        """Keys of all perspectives of a post, and the perspectives to ask for."""
        keys = {
            perspective: item_key(self.spec.spec_hash, record["image_sha256"], record["text_sha256"], perspective)
            for perspective in self.spec.perspectives
        }
        return keys, [perspective for perspective, key in keys.items() if self._is_open(key)]

    def _is_open(self, key: str) -> bool:
        status = self.writer.status(key)
        if status is None:
            return not self.ledger.doubts(key)
        return status in ("failed", "poison") and self.settings.retry_failed and key not in self.ledger.failed

    async def _rationales(self, post: PreparedPost, keys: dict[str, str], wanted: list[str]) -> None:
        again = any(self.writer.status(keys[perspective]) for perspective in wanted)
        number = None if again else self.ledger.number()
        failures: list[EngineError] = []

        def settle(record: Record, error: EngineError | None) -> None:
            if isinstance(error, PermanentError):
                failures.append(error)
            self.ledger.settle(record["key"], record, error, again)
            if isinstance(error, PoisonError) and post.post_id not in self.report.poison_posts:
                logger.error("post %r: %s It is left out.", post.post_id, error)
                self.report.poison_posts.append(post.post_id)

        sent_back = await ask_post(
            post,
            keys,
            wanted,
            lane=self._lane(post),
            writer=self.writer,
            gate=self.gate,
            max_re_asks=self.settings.max_re_asks,
            settle=settle,
        )
        self.report.re_asked += sent_back
        if len(failures) == len(wanted):
            self.ledger.all_failed(number, failures[0])

    def _unusable(self, record: Record, error: PreparationError) -> None:
        again = not self.writer.index.adds(record)
        self._show(asked=False)
        if again and not self.settings.retry_failed:
            self.report.complete += 1
            return
        number = None if again else self.ledger.number()
        self.ledger.settle(f"post {record['id']}", record, error, again)
        self.ledger.all_failed(number, error)

    def _lane(self, post: PreparedPost) -> Lane:
        """The same for the same image, so that its engine need not compute it again; the next one while it is down."""
        first = int((post.image_sha256 or post.text_sha256)[-8:], 16) % len(self.lanes)
        order = self.lanes[first:] + self.lanes[:first]
        return next((lane for lane in order if lane.up), order[0])

    def _suspect(self, content: str, deaths: int) -> None:
        self.writer.add({"kind": "suspect", "content": content, "deaths": deaths})

    def _show(self, asked: bool) -> None:
        if self.bar.disable:
            return
        if not asked:  # the rate, and with it the time that is left, is that of asking
            self.bar.initial += 1
        now = self.clock.monotonic()
        if now - self.told >= 1.0:
            self.told = now
            tokens = sum(lane.tokens["completion_tokens"] for lane in self.lanes)
            speed = tokens / max(self.bar.format_dict["elapsed"], 1e-9)
            failed = self.report.failed + self.report.poison
            self.bar.set_postfix_str(f"{speed:,.0f} tokens/s, {failed:,} failed", refresh=False)
        self.bar.update()

    def _account(self, began: float) -> RunReport:
        for count in COUNTS:
            setattr(self.report, count, sum(lane.tokens[count] for lane in self.lanes))
        for count in ("requests", "retried", "outages"):
            setattr(self.report, count, sum(getattr(lane, count) for lane in self.lanes))
        self.report.stopped = self.stopping
        self.report.seconds = self.clock.monotonic() - began
        return self.report


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop`, the second cancels the task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told = 0

    def handle() -> None:
        nonlocal told
        told += 1
        if told == 1:
            logger.warning("Finishing what is in flight; once more to drop it.")
            stop()
        else:
            task.cancel()

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, handle)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
            continue
        before[number] = handler
    try:
        yield
    except asyncio.CancelledError:
        if told > 1:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
