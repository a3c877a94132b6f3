"""Stores, posts and a clock for the tests of rationales; needs neither torch nor a server."""

import asyncio
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
    """Sleeping takes no time and moves the clock; `on_sleep` is called with each pause. The dice show their most."""

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
    """The stand-in engine, with `script(number, post, perspective, attempt)` before each answer: it may raise, or
    return the answer itself. Keeps what it was asked, and how many requests it had at a time."""

    def __init__(self, script=lambda number, post, perspective, attempt: None, name="scripted"):
        self.script, self.name = script, name
        self.asked, self.in_flight, self.most = [], 0, 0
        self._numbers = itertools.count()

    async def generate(self, post, perspective, attempt):
        self.asked.append((post.post_id, perspective, attempt))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            number = next(self._numbers)
            await asyncio.sleep(0)
            found = self.script(number, post, perspective, attempt)
            return await super().generate(post, perspective, attempt) if found is None else found
        finally:
            self.in_flight -= 1


def accept(answer, **_):
    """A gate that finds no fault, for tests that count requests."""
    return Verdict(answer)


def go(posts, store, *engines, clock=None, shard_ids=None, gate=None, **settings):
    """A whole run; `engines` are closed after it."""

    async def whole():
        try:
            options = {} if gate is None else {"gate": gate}
            return await run(
                posts,
                store,
                engines,
                shard_ids=shard_ids,
                settings=RunSettings(**settings),
                progress=False,
                clock=clock or ManualClock(),
                **options,
            )
        finally:
            for engine in engines:
                await engine.close()

    return asyncio.run(whole())


def contents(store):
    """What a store says, by id: rationale and status of each perspective. Fails if an id is there twice."""
    found = {}
    for row in store.rows():
        assert row["id"] not in found, f"{row['id']} is there twice"
        found[row["id"]] = {name: (row[f"rationale_{name}"], row[f"status_{name}"]) for name in PERSPECTIVES}
    return found


def statuses(store):
    """Every status in the store, with how often it is there."""
    counts = {}
    for row in store.rows():
        for name in PERSPECTIVES:
            status = row[f"status_{name}"]
            counts[status] = counts.get(status, 0) + 1
    return counts
