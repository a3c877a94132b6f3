"""Worker processes that run tasks side by side, each with its share of the threads."""

import contextlib
import errno
import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from dataset_scripts.output import is_disk_full

Run = Callable[[Any, Any], str | None]


class Job:
    """One worker process, alive over many tasks."""

    def __init__(self, run: Run, shared: Any, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        self.process = context.Process(target=serve, args=(other, run, shared, threads, level))
        with _threads_of_children(threads):
            self.process.start()
        other.close()  # so that the end of the process ends the connection
        self.task: int | None = None

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_in_jobs(
    run: Run, tasks: Sequence[Any], shared: Any, num_jobs: int, done: Callable[[int, str | None], None]
) -> None:
    """Run tasks in worker processes.

    A process that is killed loses its task alone: another one takes its place. If this process is interrupted, all of
    them end.

    Args:
        run (callable): called as `run(task, shared)` in a worker; returns the error of the task, or `None`.
        tasks (sequence): picklable arguments.
        shared (Any): picklable argument of all tasks, sent once to each worker.
        num_jobs (`int`): number of processes.
        done (callable): called with the index of each task that ended, and its error.

    Raises:
        OSError: the disk is full.
    """
    threads = max(1, torch.get_num_threads() // num_jobs)
    waiting = deque(range(len(tasks)))
    jobs = [Job(run, shared, threads) for _ in range(min(num_jobs, len(tasks)))]
    try:
        while waiting or any(job.task is not None for job in jobs):
            for job in jobs:
                if job.task is None and waiting:
                    job.task = waiting.popleft()
                    with contextlib.suppress(BrokenPipeError):  # the process ended, which `wait` reports
                        job.connection.send(tasks[job.task])
            for connection in wait([job.connection for job in jobs if job.task is not None]):
                index = next(number for number, job in enumerate(jobs) if job.connection is connection)
                task, (error, disk_is_full) = jobs[index].task, answer_of(jobs[index])
                if disk_is_full:
                    raise OSError(errno.ENOSPC, error)
                if jobs[index].process.exitcode is not None:
                    jobs[index].end()
                    jobs[index] = Job(run, shared, threads)
                jobs[index].task = None
                done(task, error)
    finally:
        for job in jobs:
            job.end()


def answer_of(job: Job) -> tuple[str | None, bool]:
    """Receive the error of a task, and whether the disk is full."""
    try:
        return job.connection.recv()
    except (EOFError, OSError):
        job.process.join()
        code = job.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with the exit code {code}"
        memory = "; often the memory is full, and fewer --jobs need less" if code == -signal.SIGKILL else ""
        return f"Its process was {how}{memory}.", False


def serve(connection: Connection, run: Run, shared: Any, threads: int, level: int) -> None:
    """Run the tasks that arrive, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    logging.basicConfig(level=level, format="%(message)s")
    torch.set_num_threads(threads)
    disable_progress_bar()  # of loading weights, once per task
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = connection.recv()
            try:
                answer = (run(task, shared), False)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                answer = (str(error), True)
            connection.send(answer)


@contextlib.contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Set the threads of libraries that read them once, at import."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
