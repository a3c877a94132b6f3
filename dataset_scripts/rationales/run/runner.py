"""A run: request the missing rationales of all posts in the chosen shards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.posts import PreparedPost, content_hashes, prepare_post
from dataset_scripts.rationales.quality.gate import check
from dataset_scripts.rationales.run.attempts import Gate, Record, ask_post
from dataset_scripts.rationales.run.interrupts import stop_on_signal
from dataset_scripts.rationales.run.posts_by_shard import PostsByShard, Row
from dataset_scripts.rationales.run.results import Result, ResultRecorder, RunReport
from dataset_scripts.rationales.run.server import REAL_TIME, Clock, Postponed, Server, Stopped
from dataset_scripts.rationales.run.settings import DEFAULTS, RunSettings
from dataset_scripts.rationales.run.stops import Failure
from dataset_scripts.rationales.spec import content_key, item_key
from dataset_scripts.rationales.store.rows import TOKEN_COUNTS
from dataset_scripts.rationales.store.shard_index import FAILED

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.base import Engine
    from dataset_scripts.rationales.store.store import RationaleStore

__all__ = ["Clock", "RunReport", "RunSettings", "run"]

logger = logging.getLogger(__name__)

_SMALL_IMAGE = 4096  # bytes


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
    """Request every rationale that `store` lacks, record it, and publish each completed shard.

    The first SIGINT or SIGTERM finishes the requests in flight, the second one drops them. Recorded answers are
    never lost, and never requested again.

    Args:
        posts: rows with `id`, `text`, `image` and optionally `language`, in any order; later runs may have more or
            fewer of them. Posts with the same content are asked once.
        store: receives the rationales.
        engines: all posts with the same image go to the same engine, which can reuse what it computed.
        shard_ids: shards written by this process; by default all.
        settings: concurrency, retries and time limits.
        gate: judges each answer (`gate.check`).
        progress: show a progress bar.
        clock: time and randomness.

    Raises:
        MisconfiguredError: no request can succeed, or `failed_in_a_row` posts failed; the failures are not recorded.
        OutageError: a server crashed and did not come back, or too many posts failed in a way that may pass; the same
            call continues later.
        StoreError: another process writes a shard, or a shard cannot be written.
        ValueError: `engines` is empty, or `posts` cannot be read.
    """
    if not engines:
        raise ValueError("`engines` must have at least one engine, got none.")
    shard_ids = list(range(store.num_shards) if shard_ids is None else shard_ids)
    posts_by_shard = PostsByShard(posts, store, shard_ids, progress)
    with (
        ThreadPoolExecutor(settings.preparation_threads, thread_name_prefix="posts") as pool,
        tqdm(total=posts_by_shard.total, desc="Rationales", unit=" posts", disable=not progress, smoothing=0) as bar,
    ):
        runner = _Runner(store, engines, settings, gate, clock, pool, bar)
        with stop_on_signal(runner.stop), _existing_objects_frozen():
            return await runner.run(posts_by_shard, shard_ids)


@contextlib.contextmanager
def _existing_objects_frozen() -> Iterator[None]:
    """Exclude all existing objects from garbage collection, which makes collections faster."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _is_fast_to_prepare(row: Row) -> bool:
    """Tell whether a post has no image or a small one, so that no thread is needed."""
    image = row["image"]
    content = image.get("bytes") if isinstance(image, Mapping) else None
    return image is None or (content is not None and len(content) <= _SMALL_IMAGE)


class _Runner:
    """State of one run."""

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
        self.crash_counts: dict[str, int] = {}
        self.servers = [
            Server(engine, settings, crash_counts=self.crash_counts, on_crash=self._record_crash, clock=clock)
            for engine in engines
        ]
        # Twice what can be in flight: the next posts are ready, and the queue of one server cannot block another one.
        posts_in_flight = -(-settings.concurrency // len(self.spec.perspectives))
        self.post_slots = asyncio.Semaphore(2 * posts_in_flight * len(engines) + settings.preparation_threads)
        self.content_in_progress: dict[str, asyncio.Event] = {}
        self.stopping = False
        self.postponed_shards: set[int] = set()
        self.error: Exception | None = None
        self.results = ResultRecorder(
            self.report, settings.failed_in_a_row, lambda: sum(server.answers for server in self.servers)
        )
        self.bar_updated = clock.monotonic()

    def stop(self) -> None:
        self.stopping = True
        for server in self.servers:
            server.stop()

    async def run(self, posts_by_shard: PostsByShard, shard_ids: Sequence[int]) -> RunReport:
        start = self.clock.monotonic()
        try:
            for shard_id in shard_ids:
                await self._run_shard(shard_id, posts_by_shard.rows(shard_id))
                self._record_held_back(self.results.shards_refuted())
            if not self.stopping:
                self.results.check_end()
                self._record_held_back(self.results.shards_held_back())
        finally:
            for server in self.servers:
                await server.close()
        if self.error is not None:
            raise self.error
        for count in TOKEN_COUNTS:
            setattr(self.report, count, sum(server.tokens[count] for server in self.servers))
        for count in ("requests", "retried", "outages"):
            setattr(self.report, count, sum(getattr(server, count) for server in self.servers))
        self.report.stopped = self.stopping
        self.report.seconds = self.clock.monotonic() - start
        return self.report

    def _record_held_back(self, shard_ids: Sequence[int]) -> None:
        for shard_id in shard_ids:
            with self.store.writer(shard_id) as self.writer:
                self.results.write_to(self.writer)
                self.results.record_held_back()
                if shard_id not in self.postponed_shards:
                    self.writer.publish()

    async def _run_shard(self, shard_id: int, rows: Iterator[Row]) -> None:
        if self.stopping:
            return
        tasks: set[asyncio.Task[None]] = set()
        with self.store.writer(shard_id) as self.writer:
            self.results.write_to(self.writer)
            self.crash_counts.clear()
            self.crash_counts.update(self.writer.index.crash_counts)
            try:
                await self._start_posts(rows, tasks)
                if tasks:
                    await asyncio.wait(tasks)
            finally:  # tasks are left only if this task is cancelled
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not self.stopping and shard_id not in [*self.results.shards_held_back(), *self.postponed_shards]:
                self.writer.publish()

    async def _start_posts(self, rows: Iterator[Row], tasks: set[asyncio.Task[None]]) -> None:
        try:
            for row in rows:
                await self.post_slots.acquire()
                if self.stopping:
                    return
                task = asyncio.create_task(self._run_post(row))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except Exception as error:  # the dataset cannot be read; posts in progress are finished
            self._stop_with(error)

    async def _run_post(self, row: Row) -> None:
        try:
            await self._complete_post(row)
        except Postponed:
            self._update_bar(asked=True)
        except Stopped:
            pass
        except Exception as error:
            self._stop_with(error)
        finally:
            self.post_slots.release()

    def _stop_with(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self.stop()

    async def _complete_post(self, row: Row) -> None:
        if _is_fast_to_prepare(row):
            post, record, error = self._prepare(row)
        else:
            post, record, error = await asyncio.get_running_loop().run_in_executor(self.pool, self._prepare, row)
        self.report.posts += 1
        if error is not None:
            self._record_unusable(record, error)
            return
        content = content_key(record["image_sha256"], record["text_sha256"])
        if content in self.content_in_progress:
            self.report.duplicates += 1
        while content in self.content_in_progress:
            await self.content_in_progress[content].wait()
        self.writer.add(record)
        keys, missing = self._keys(record)
        if not missing:
            self.report.complete += 1
            self.report.failed_before += sum(
                self.writer.index.status(key) in FAILED and key not in self.results.failed for key in keys.values()
            )
            self._update_bar(asked=False)
            return
        done = self.content_in_progress[content] = asyncio.Event()
        try:
            await self._ask(post, keys, missing)
        except Postponed:
            if any(self.writer.index.status(keys[perspective]) is None for perspective in missing):
                self.postponed_shards.add(self.writer.files.shard_id)  # rejected answers are in its log only
            raise
        finally:
            del self.content_in_progress[content]
            done.set()
        self._update_bar(asked=True)

    def _prepare(self, row: Row) -> tuple[PreparedPost | None, Record, PreparationError | None]:
        """Prepare a post for its requests.

        Returns:
            The post, or `None` if it is complete or unusable; its record; and the reason if it is unusable.
        """
        record: Record = {"kind": "post", "id": str(row["id"]), "image_sha256": None, "text_sha256": None}
        record |= {"language": row["language"], "provenance": None}
        try:
            record["image_sha256"], record["text_sha256"] = content_hashes(row)
            if self.writer.index.has_post(record) and not self._keys(record)[1]:
                return None, record, None
            post = prepare_post(row, self.spec.max_pixels, self.spec.language)
        except Exception as error:  # image decoders raise any class, and one file must not end the run
            if not isinstance(error, PreparationError):
                error = PreparationError(f"post {record['id']!r}: {type(error).__name__}: {error}")
            return None, record | {"error": f"{error.kind}: {error}"}, error
        return post, record | {"language": post.language}, None

    def _keys(self, record: Record) -> tuple[dict[str, str], list[str]]:
        """Compute the keys of all perspectives of a post, and list the perspectives to be asked."""
        keys = {
            perspective: item_key(self.spec.spec_hash, record["image_sha256"], record["text_sha256"], perspective)
            for perspective in self.spec.perspectives
        }
        return keys, [perspective for perspective, key in keys.items() if self._is_missing(key)]

    def _is_missing(self, key: str) -> bool:
        status = self.writer.index.status(key)
        if status is None:
            return not self.results.is_held_back(key)
        return status in FAILED and self.settings.retry_failed and key not in self.results.failed

    async def _ask(self, post: PreparedPost, keys: dict[str, str], perspectives: list[str]) -> None:
        asked_before = any(self.writer.index.status(keys[perspective]) for perspective in perspectives)
        size, has_image = len(post.image or b""), post.image is not None
        failures: list[Failure] = []

        def on_result(record: Record, failure: Failure | None) -> None:
            if failure is not None:
                failures.append(failure)
            self.results.add(Result(record["key"], record, failure, asked_before), size, has_image)
            if record["status"] == "crashed" and post.post_id not in self.report.crashing_posts:
                logger.error("post %r: %s It is skipped.", post.post_id, failure.error)
                self.report.crashing_posts.append(post.post_id)

        re_asked = await ask_post(
            post,
            keys,
            perspectives,
            server=self._server(post),
            writer=self.writer,
            gate=self.gate,
            max_re_asks=self.settings.max_re_asks,
            on_result=on_result,
        )
        self.report.re_asked += re_asked
        if len(failures) == len(perspectives) and not asked_before:
            self.results.post_failed(failures[0])

    def _record_unusable(self, record: Record, error: PreparationError) -> None:
        asked_before = not self.writer.index.adds(record)
        self._update_bar(asked=False)
        if asked_before and not self.settings.retry_failed:
            self.report.complete += 1
            self.report.failed_before += len(self.spec.perspectives)
            return
        failure = Failure(record["id"], error, words=str(error))
        self.results.add(Result(f"post {record['id']}", record, failure, asked_before))
        if not asked_before:
            self.results.post_failed(failure)

    def _server(self, post: PreparedPost) -> Server:
        """Choose a server by the post's image, which the server may have cached.

        While that server is down, the next one is chosen.
        """
        first = int((post.image_sha256 or post.text_sha256)[-8:], 16) % len(self.servers)
        order = self.servers[first:] + self.servers[:first]
        return next((server for server in order if server.up), order[0])

    def _record_crash(self, content: str, crashes: int) -> None:
        self.writer.add({"kind": "suspect", "content": content, "crashes": crashes})

    def _update_bar(self, asked: bool) -> None:
        if self.bar.disable:
            return
        if not asked:  # rate and remaining time are those of posts that were asked
            self.bar.initial += 1
        now = self.clock.monotonic()
        if now - self.bar_updated >= 1.0:
            self.bar_updated = now
            tokens = sum(server.tokens["completion_tokens"] for server in self.servers)
            speed = tokens / max(self.bar.format_dict["elapsed"], 1e-9)
            failed = self.report.failed + self.report.crashed
            self.bar.set_postfix_str(f"{speed:,.0f} tokens/s, {failed:,} failed", refresh=False)
        self.bar.update()
