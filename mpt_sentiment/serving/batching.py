"""Batches of the posts that wait while the model runs."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mpt_sentiment.serving.errors import RequestError

logger = logging.getLogger(__name__)


class Slots:
    """Places for posts in work. Without a free one, a request is refused.

    Args:
        number (`int`): of places.
    """

    def __init__(self, number: int) -> None:
        self.number, self.used = number, 0

    @contextlib.contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold places.

        Raises:
            RequestError: 429 with Retry-After, if fewer are free.
        """
        if self.used + count > self.number:
            message = f"{self.used} posts are in work, the server takes {self.number}. Repeat the request later."
            raise RequestError(429, "queue", message, {"Retry-After": "1"})
        self.used += count
        try:
            yield
        finally:
            self.used -= count


class Batcher:
    """Collector of items into batches.

    While one batch is computed, the next one is what arrives. An item waits for no other: the first is
    computed alone, and batches grow with the load.

    Args:
        compute: results of a list of items; runs in a thread of its own, one call at a time.
        max_size (`int`): items of a batch.
        observe: receives the size of each batch.
    """

    def __init__(
        self, compute: Callable[[Sequence[Any]], Sequence[Any]], max_size: int, observe: Callable[[int], None]
    ) -> None:
        self.compute, self.max_size, self.observe = compute, max_size, observe
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future]] = asyncio.Queue()

    async def submit(self, item: Any) -> Any:
        """Return the result of an item, or raise the exception of its computation."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    async def run(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < self.max_size and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                batch = [(item, future) for item, future in batch if not future.done()]  # not those given up
                if not batch:
                    continue
                self.observe(len(batch))
                results = await loop.run_in_executor(thread, self._results, [item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)

    def _results(self, items: Sequence[Any]) -> list[Any]:
        """Return results, or exceptions. If a batch fails, each item is computed alone."""
        try:
            return list(self.compute(items))
        except Exception as error:
            if len(items) == 1:
                logger.exception("A post failed in the model.")
                return [error]
        return [result for item in items for result in self._results([item])]
