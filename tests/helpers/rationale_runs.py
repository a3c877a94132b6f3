"""Stores, posts, engines and a clock for tests of rationale runs."""

import asyncio
import collections
import itertools

from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.quality.gate import Verdict
from dataset_scripts.rationales.run.runner import Clock, RunSettings, run
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore

PROMPT = load_prompt("default", "en")
SPEC = RationaleSpec(model="m", prompt_hash=PROMPT.hash, language="en", max_pixels=28 * 28 * 16)
PERSPECTIVES = SPEC.perspectives


def new_store(folder, num_shards=1, spec=SPEC):
    return RationaleStore.create(folder, spec, PROMPT, num_shards=num_shards)


def make_posts(count, start=0):
    return [
        {"id": f"p{number}", "text": f"what happened on day {number}", "image": None}
        for number in range(start, start + count)
    ]


class ManualClock(Clock):
    """Clock on which sleeping only advances the time. `uniform` returns its upper bound.

    `on_sleep(seconds)` is called after each pause.
    """

    def __init__(self, on_sleep=lambda seconds: None):
        self.now, self.slept = 1000.0, []

        async def sleep(seconds):
            self.slept.append(seconds)
            self.now += seconds
            on_sleep(seconds)
            await asyncio.sleep(0)

        super().__init__(monotonic=lambda: self.now, sleep=sleep, uniform=lambda low, high: high)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


class ScriptedEngine(FakeEngine):
    """Engine that calls `script(number, post, perspective, attempt)` before each answer.

    The script raises an error, returns an answer, or returns `None` for the answer of `FakeEngine`.

    Attributes:
        asked: (post id, perspective, attempt) of each request.
        in_flight, max_in_flight: requests in flight now, and at most.
    """

    def __init__(self, script=lambda number, post, perspective, attempt: None, name="scripted"):
        self.script, self.name = script, name
        self.asked, self.in_flight, self.max_in_flight = [], 0, 0
        self._numbers = itertools.count()

    async def generate(self, post, perspective, attempt):
        self.asked.append((post.post_id, perspective, attempt))
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            number = next(self._numbers)
            await asyncio.sleep(0)
            answer = self.script(number, post, perspective, attempt)
            return await super().generate(post, perspective, attempt) if answer is None else answer
        finally:
            self.in_flight -= 1


def accept(answer, **_):
    """Accept every answer, for tests that count requests."""
    return Verdict(answer)


def run_engines(posts, store, *engines, clock=None, **options):
    """Do a whole run and close the engines.

    `options` are arguments of `run` or fields of `RunSettings`.
    """
    arguments = {name: options.pop(name) for name in ("shard_ids", "gate") if name in options}

    async def run_and_close():
        try:
            return await run(
                posts,
                store,
                engines,
                settings=RunSettings(**options),
                progress=False,
                clock=clock or ManualClock(),
                **arguments,
            )
        finally:
            for engine in engines:
                await engine.close()

    return asyncio.run(run_and_close())


def contents(store):
    """Return (rationale, status) by post id and perspective. Fails if an id has two rows."""
    posts = {}
    for row in store.rows():
        assert row["id"] not in posts, f"{row['id']} has two rows"
        posts[row["id"]] = {name: (row[f"rationale_{name}"], row[f"status_{name}"]) for name in PERSPECTIVES}
    return posts


def statuses(store):
    """Count the statuses of all rationales."""
    return collections.Counter(row[f"status_{name}"] for row in store.rows() for name in PERSPECTIVES)
