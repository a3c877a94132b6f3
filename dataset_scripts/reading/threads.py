"""Functions applied in threads, with results in the order of the items."""

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import PIL.Image

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_AHEAD = 16  # per worker, so that all are busy while one decodes a large image


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], num_proc: int) -> Iterator[Result]:
    """Yield `function(item)` in order, reading at most `16 * num_proc` items ahead.

    Threads suffice to decode images because Pillow's decoders release the GIL.

    Raises:
        ValueError: from `items`, raised after the results of the items before it.
    """
    source = iter(items)
    pending: deque[concurrent.futures.Future[Result]] = deque()
    end: Exception | None = None
    # Pillow registers its formats at first use, which is not thread-safe.
    pool = concurrent.futures.ThreadPoolExecutor(num_proc, "map_in_threads", initializer=PIL.Image.init)
    try:
        while True:
            while end is None and len(pending) < _ITEMS_AHEAD * num_proc:
                try:
                    pending.append(pool.submit(function, next(source)))
                except (StopIteration, ValueError) as error:
                    end = error
            if not pending:
                break
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    if isinstance(end, ValueError):
        raise end
