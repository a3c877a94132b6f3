"""A run that is killed at any instant, any number of times, ends with the store of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.faulty_server import FaultyServer
from helpers.rationale_runs import contents, new_store

TESTS = Path(__file__).parents[3]
POSTS = 60


@pytest.fixture(scope="module")
def start():
    """`start(folder, kill_at, torn, url)`: a whole run in another process; `None` if it was killed, else its calls to
    the system and its requests."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, str(TESTS / "helpers" / "killed_run.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as jobs:

        def run(folder, kill_at=-1, torn=0, url=None, posts=POSTS):
            job = {"folder": str(folder), "posts": posts, "kill_at": kill_at, "torn": torn, "url": url}
            print(json.dumps(job), file=jobs.stdin, flush=True)
            status, calls, requests = json.loads(jobs.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            return (calls, requests) if status == 0 else None

        yield run
        jobs.stdin.close()


def of(folder):
    store = new_store(folder, num_shards=2)
    return contents(store), list(store.rows())


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return *start(folder), *of(folder)


def test_the_undisturbed_run_has_every_kind_of_outcome(undisturbed):
    _, requests, found, _ = undisturbed
    kinds = [status for post in found.values() for _, status in post.values()]
    assert len(found) == POSTS and set(kinds) == {"ok", "flagged", "failed"} and requests > 3 * POSTS


def test_a_client_killed_again_and_again_ends_as_an_undisturbed_one(start, undisturbed, tmp_path):
    calls, _, found, rows = undisturbed
    dice, kills = random.Random(5), 0
    while start(tmp_path, dice.randrange(3, calls // 8), dice.choice([0, 1, 40, 9000])) is None:
        kills += 1
    assert kills >= 10 and of(tmp_path) == (found, rows)
    assert start(tmp_path)[1] == 0  # and nothing is asked again


def test_a_client_killed_at_any_one_instant_ends_as_an_undisturbed_one(start, undisturbed, tmp_path):
    calls, requests, found, rows = undisturbed
    instants = sorted(random.Random(9).sample(range(calls - 12), 8))
    for instant in [*instants, *range(calls - 12, calls)]:  # the last ones are those of publishing
        assert start(tmp_path / str(instant), instant, instant % 60) is None
        assert start(tmp_path / str(instant))[1] <= requests
        assert of(tmp_path / str(instant)) == (found, rows)


def test_a_client_killed_while_a_published_shard_takes_more_posts_loses_nothing(start, undisturbed, tmp_path):
    _, _, found, rows = undisturbed
    start(tmp_path / "half", posts=POSTS // 2)
    half = of(tmp_path / "half")[0]
    for instant in range(0, 60, 10):
        folder = tmp_path / str(instant)
        start(folder, posts=POSTS // 2)
        assert start(folder, instant) is None
        assert half.items() <= of(folder)[0].items()
        start(folder)
        assert of(folder) == (found, rows)


def test_a_killed_client_and_a_killed_server_lose_nothing(start, tmp_path):
    with FaultyServer() as server:
        calls, requests = start(tmp_path / "undisturbed", url=server.url)
        assert requests == 3 * POSTS
        die_at = {requests + 20, requests + 90}

        def script(number, body):
            if number not in die_at:
                return None
            threading.Timer(0.05, server.restart).start()
            return "die"

        server.script = script
        assert start(tmp_path / "store", calls // 2, 20, server.url) is None
        assert start(tmp_path / "store", url=server.url)
        assert server.deaths == 2
        assert of(tmp_path / "store")[0] == of(tmp_path / "undisturbed")[0]
