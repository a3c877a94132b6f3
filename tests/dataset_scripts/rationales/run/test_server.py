"""How many requests at a time, in which order, and how a run is told to end."""

import asyncio
import functools
import signal

import pytest

from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.errors import RetryableError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.run.server import Server
from dataset_scripts.rationales.run.settings import RunSettings
from helpers.rationale_runs import (
    SPEC,
    ManualClock,
    ScriptedEngine,
    accept,
    contents,
    go,
    make_posts,
    new_store,
    statuses,
)

ask = functools.partial(go, gate=accept)


def test_no_more_requests_at_a_time_than_allowed_and_no_fewer(tmp_path):
    engine = ScriptedEngine()
    ask(make_posts(60), new_store(tmp_path), engine, concurrency=7)
    assert engine.most == 7


def test_overload_halves_the_requests_and_they_grow_back():
    seen = []

    def script(number, post, perspective, attempt):
        seen.append(engine.in_flight)
        if 200 <= number < 205:  # sent in one round: one mistake, not five
            raise RetryableError("429", overloaded=True)

    engine = ScriptedEngine(script)
    lane = Server(
        engine,
        RunSettings(concurrency=32, max_attempts=2),
        crash_counts={},
        on_crash=lambda content, crashes: None,
        clock=ManualClock(),
    )
    post = prepare_post(make_posts(1)[0], SPEC.max_pixels)

    async def all_at_once():
        return await asyncio.gather(*(lane.ask(post, "positive", 0) for _ in range(1500)))

    assert sum(requests for _, requests in asyncio.run(all_at_once())) == 1505 and lane.retried == 5
    assert max(seen[:200]) == 32 and 16 <= max(seen[240:272]) <= 20 and max(seen[1000:]) == 32


def test_while_one_waits_as_it_was_told_to_nobody_asks(tmp_path):
    clock, asked = ManualClock(), []

    def script(number, post, perspective, attempt):
        asked.append(clock.now)
        if number == 12:
            raise RetryableError("429", retry_after=30.0, overloaded=True)

    ask(make_posts(20), new_store(tmp_path), ScriptedEngine(script), clock=clock, concurrency=3)
    assert clock.slept == [31.0] and set(asked) == {1000.0, 1031.0}
    assert 12 < asked.count(1000.0) <= 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_finish_what_is_in_flight_and_asks_nothing_more(tmp_path, number):
    def script(request, post, perspective, attempt):
        if request == 30:
            signal.raise_signal(number)

    store, engine = new_store(tmp_path), ScriptedEngine(script)
    before = signal.getsignal(number)
    report = ask(make_posts(100), store, engine, concurrency=6)
    assert report.stopped and 31 <= len(engine.asked) < 150  # how soon a signal is heard depends on the machine
    assert statuses(store)["ok"] == report.ok == len(engine.asked)  # none that was asked for is lost
    assert not store.status()[0].published and signal.getsignal(number) == before
    report = ask(make_posts(100), store, ScriptedEngine(), concurrency=6)
    assert not report.stopped and statuses(store) == {"ok": 300}


def test_a_signal_ends_also_what_waits_for_a_retry(tmp_path):
    def script(request, post, perspective, attempt):
        if request == 30:
            signal.raise_signal(signal.SIGTERM)
        if request in (29, 30, 31):
            raise RetryableError("500")

    clock = ManualClock()
    clock.sleep = lambda seconds: asyncio.Event().wait()
    store = new_store(tmp_path)
    report = ask(make_posts(100), store, ScriptedEngine(script), clock=clock, concurrency=6)
    assert report.stopped and "failed" not in statuses(store)


def test_a_second_signal_drops_what_is_in_flight(tmp_path):
    class Hanging(FakeEngine):
        async def generate(self, post, perspective, attempt):
            if post.post_id == "p3":
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(0)
                signal.raise_signal(signal.SIGINT)
                await asyncio.Event().wait()
            return await super().generate(post, perspective, attempt)

    store = new_store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ask(make_posts(10), store, Hanging(), concurrency=1, preparation_threads=1)
    done = statuses(store)["ok"]
    assert 0 < done < 30
    assert ask(make_posts(10), store, FakeEngine()).ok == 30 - done and len(contents(store)) == 10
