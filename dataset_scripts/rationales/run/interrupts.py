"""Handling of SIGINT and SIGTERM during a run."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT or SIGTERM and cancel the current task at the second.

    Raises:
        KeyboardInterrupt: after the second signal.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    signals = 0

    def handle() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            logger.warning("Finishing the requests in flight; interrupt again to drop them.")
            stop()
        else:
            task.cancel()

    previous_handlers = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, handle)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
            continue
        previous_handlers[number] = handler
    try:
        yield
    except asyncio.CancelledError:
        if signals > 1:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in previous_handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
