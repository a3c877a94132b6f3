"""Script that does rationale runs in processes that kill themselves at a chosen system call.

It reads jobs from standard input, one JSON object per line: `folder`, `posts`, `kill_at`, `torn` and `url`. The system
calls that change the store (write, fsync, replace, unlink, truncate) are counted, and call number `kill_at` is
replaced by SIGKILL. If it is a write, its first `torn` bytes reach the file. The script answers with one JSON array
per line: exit status (-9 if killed), number of calls, number of requests. Jobs are forks, so imports are done once.
"""

import asyncio
import functools
import itertools
import json
import os
import pathlib
import signal
import sys

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.errors import PermanentError
from dataset_scripts.rationales.run.runner import Clock
from helpers.forks import in_fork
from helpers.rationale_runs import PROMPT, SPEC, ScriptedEngine, make_posts, new_store, run_engines

CALLS = ("write", "fsync", "replace", "ftruncate")


def do_job(folder, posts, kill_at, torn, url):
    store = new_store(folder, num_shards=2)
    numbers = itertools.count()
    write = os.write

    def counted(function):
        def call(*arguments, **options):
            if next(numbers) == kill_at:
                if function is write:
                    function(arguments[0], arguments[1][:torn])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    pathlib.Path.unlink = counted(pathlib.Path.unlink)
    if url is None:
        report = run_engines(make_posts(posts), store, ScriptedEngine(reject_some), concurrency=8)
    else:
        clock = Clock(sleep=lambda seconds: asyncio.sleep(seconds / 50))
        engine = EndpointEngine(url, SPEC, PROMPT)
        report = run_engines(make_posts(posts), store, engine, concurrency=8, clock=clock)
    return next(numbers), report.requests


def reject_some(number, post, perspective, attempt):
    """Refuse some questions once, twice or always, and fail on others, reproducibly."""
    day = int(post.text.split()[-1])
    if day % 7 == 0 and perspective == "neutral" and attempt < 1 + day % 3:
        return Answer("I cannot help with that.", "stop")
    if day % 11 == 5 and perspective == "positive":
        raise PermanentError("too long")
    return None


def main():
    for line in sys.stdin:
        status, counts = in_fork(functools.partial(do_job, **json.loads(line)))
        print(json.dumps([status, *(counts or [None, None])]), flush=True)


if __name__ == "__main__":
    main()
