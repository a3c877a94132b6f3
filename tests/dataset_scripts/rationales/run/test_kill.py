"""Tests of runs that are killed: a later run completes the store as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers import killed_run
from helpers.faulty_server import FaultyServer
from helpers.rationale_runs import contents, new_store

SCRIPT = Path(killed_run.__file__)
POSTS = 60


@pytest.fixture(scope="module")
def run():
    """Return `run(folder, kill_at, torn, url)`, which does a run in another process.

    It returns the number of system calls and of requests, or `None` if the process was killed.
    """
    tests = SCRIPT.parents[1]
    environment = os.environ | {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as jobs:

        def run_job(folder, kill_at=-1, torn=0, url=None, posts=POSTS):
            job = {"folder": str(folder), "posts": posts, "kill_at": kill_at, "torn": torn, "url": url}
            print(json.dumps(job), file=jobs.stdin, flush=True)
            status, calls, requests = json.loads(jobs.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            return (calls, requests) if status == 0 else None

        yield run_job
        jobs.stdin.close()


def stored(folder):
    store = new_store(folder, num_shards=2)
    return contents(store), list(store.rows())


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    calls, requests = run(folder)
    posts, rows = stored(folder)
    kinds = {status for post in posts.values() for _, status in post.values()}
    assert len(posts) == POSTS and kinds == {"ok", "flagged", "failed"} and requests > 3 * POSTS
    return calls, requests, (posts, rows)


def test_a_client_that_is_killed_repeatedly_completes_the_store(run, undisturbed, tmp_path):
    calls, _, expected = undisturbed
    random_numbers, kills = random.Random(5), 0
    while run(tmp_path, random_numbers.randrange(3, calls // 8), random_numbers.choice([0, 1, 40, 9000])) is None:
        kills += 1
    assert kills >= 10 and stored(tmp_path) == expected
    assert run(tmp_path)[1] == 0  # no more requests


def test_a_client_can_be_killed_at_any_instant(run, undisturbed, tmp_path):
    calls, requests, expected = undisturbed
    instants = sorted(random.Random(9).sample(range(calls - 12), 5))
    for instant in [*instants, *range(calls - 12, calls)]:  # the last ones are those of publishing
        assert run(tmp_path / str(instant), instant, instant % 60) is None
        assert run(tmp_path / str(instant))[1] <= requests
        assert stored(tmp_path / str(instant)) == expected


def test_a_client_can_be_killed_while_it_adds_posts_to_published_shards(run, undisturbed, tmp_path):
    expected = undisturbed[2]
    run(tmp_path / "half", posts=POSTS // 2)
    half = stored(tmp_path / "half")[0]
    for instant in range(0, 60, 10):
        folder = tmp_path / str(instant)
        run(folder, posts=POSTS // 2)
        assert run(folder, instant) is None
        assert half.items() <= stored(folder)[0].items()
        run(folder)
        assert stored(folder) == expected


def test_a_killed_client_and_a_killed_server_lose_nothing(run, tmp_path):
    with FaultyServer() as server:
        calls, requests = run(tmp_path / "undisturbed", url=server.url)
        assert requests == 3 * POSTS
        crash_at = {requests + 20, requests + 90}

        def script(number, body):
            if number not in crash_at:
                return None
            threading.Timer(0.05, server.restart).start()
            return "crash"

        server.script = script
        assert run(tmp_path / "store", calls // 2, 20, server.url) is None
        assert run(tmp_path / "store", url=server.url)
        assert server.crashes == 2
        assert stored(tmp_path / "store")[0] == stored(tmp_path / "undisturbed")[0]
