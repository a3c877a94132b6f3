"""Runs in processes of their own, which kill themselves with SIGKILL in the middle of a system call on their store.

Reads jobs from standard input, a JSON object a line: `folder`, `posts`, `kill_at`, `torn` and `url`. The calls that
change the store (write, fsync, replace, unlink, truncate) are counted; the one numbered `kill_at` is the last. If it
is a write, its first `torn` bytes still reach the file. Answers with a JSON array a line: the exit status (-9 where
killed), how many calls there were, and how many requests. Every job is a fork, so the imports are paid for once.
"""

import asyncio
import itertools
import json
import os
import pathlib
import signal
import sys
import traceback

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.errors import PermanentError
from dataset_scripts.rationales.run.runner import Clock
from helpers.rationale_runs import PROMPT, SPEC, ScriptedEngine, go, make_posts, new_store

CALLS = ("write", "fsync", "replace", "ftruncate")


def work(folder, posts, kill_at, torn, url):
    store = new_store(folder, num_shards=2)
    numbers = itertools.count()
    write = os.write

    def counted(really):
        def call(*arguments, **options):
            if next(numbers) == kill_at:
                if really is write:
                    really(arguments[0], arguments[1][:torn])
                os.kill(os.getpid(), signal.SIGKILL)
            return really(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    pathlib.Path.unlink = counted(pathlib.Path.unlink)
    if url is None:
        report = go(make_posts(posts), store, ScriptedEngine(_sometimes_bad), concurrency=8)
    else:
        clock = Clock(sleep=lambda seconds: asyncio.sleep(seconds / 50))
        report = go(make_posts(posts), store, EndpointEngine(url, SPEC, PROMPT), concurrency=8, clock=clock)
    return next(numbers), report.requests


def _sometimes_bad(number, post, perspective, attempt):
    """By what is asked alone, so that every run sees the same: refusals that are mended, and some that are not."""
    day = int(post.text.split()[-1])
    if day % 7 == 0 and perspective == "neutral" and attempt < 1 + day % 3:
        return Answer("I cannot help with that.", "stop")
    if day % 11 == 5 and perspective == "positive":
        raise PermanentError("too long")
    return None


def main():
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            write = os.write
            try:
                write(writer, json.dumps(work(**json.loads(line))).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as said:
            counts = json.loads(said.read() or "[null, null]")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, *counts]), flush=True)


if __name__ == "__main__":
    main()
