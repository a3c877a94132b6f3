"""Tests of the requests to one engine: concurrency, pauses, signals, and late outcomes."""

import asyncio
import functools
import re
import signal

import pytest

from dataset_scripts.rationales.engines.base import Answer, FakeEngine
from dataset_scripts.rationales.errors import OutageError, PermanentError, RetryableError, StoreError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.run.server import Server
from dataset_scripts.rationales.run.settings import RunSettings
from dataset_scripts.rationales.spec import content_key
from helpers.rationale_runs import (
    SPEC,
    ManualClock,
    ScriptedEngine,
    accept,
    contents,
    make_posts,
    run_engines,
    statuses,
)

run = functools.partial(run_engines, gate=accept)
POSTS = [prepare_post(post, SPEC.max_pixels) for post in make_posts(8)]


class ControlledEngine(FakeEngine):
    """Engine whose requests are completed by the test.

    `requests` has a future per post id. `on_health_check(number)` returns the result of each health check.
    """

    def __init__(self, on_health_check=lambda number: False):
        self.requests, self.health_checks, self.on_health_check = {}, 0, on_health_check

    async def generate(self, post, perspective, attempt):
        request = self.requests[post.post_id] = asyncio.get_running_loop().create_future()
        return await request

    async def check_health(self):
        self.health_checks += 1
        if not self.on_health_check(self.health_checks):
            raise OutageError("connection refused")


def new_server(engine, clock=None, on_crash=lambda content, crashes: None, **settings):
    return Server(engine, RunSettings(**settings), crash_counts={}, on_crash=on_crash, clock=clock or ManualClock())


async def start(server, posts=POSTS):
    """Ask for one answer per post. Returns the tasks after the first requests are in flight."""
    tasks = [asyncio.create_task(server.ask(post, "positive", 0)) for post in posts]
    await idle()
    return tasks


async def idle():
    for _ in range(20):
        await asyncio.sleep(0)


def complete(request, outcome):
    request.set_exception(outcome) if isinstance(outcome, Exception) else request.set_result(outcome)


def in_event_loop(test):
    @functools.wraps(test)
    def run_test(*arguments, **fixtures):
        asyncio.run(test(*arguments, **fixtures))

    return run_test


LATE_OUTCOMES = [
    Answer("late"),
    PermanentError("400"),
    RetryableError("429", retry_after=100.0, overloaded=True),
    OutageError("connection refused"),
]
each_late_outcome = pytest.mark.parametrize("late", LATE_OUTCOMES, ids=lambda late: type(late).__name__)


@each_late_outcome
@in_event_loop
async def test_a_late_outcome_does_not_postpone_the_end_of_a_run_without_a_server(late):
    def on_health_check(number):
        if number == 2:  # the crash was noticed before the outcome of an older request arrives
            complete(engine.requests["p1"], late)
        return number > 500  # reached only if the run never gives up

    engine, clock = ControlledEngine(on_health_check), ManualClock()
    tasks = await start(new_server(engine, clock, concurrency=2, outage_wait=600.0))
    complete(engine.requests["p0"], OutageError("gone"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert engine.health_checks == 15 and 600 <= sum(clock.slept) < 660
    if isinstance(late, Answer | PermanentError):
        assert results.pop(1) == (late, 1)
    assert all(isinstance(result, OutageError) and "600 s" in str(result) for result in results)


@each_late_outcome
@in_event_loop
async def test_a_late_outcome_neither_pauses_nor_slows_down_the_server_after_a_crash(late):
    engine, clock = ControlledEngine(lambda number: True), ManualClock()
    server = new_server(engine, clock, concurrency=4, max_attempts=1)
    await start(server)
    complete(engine.requests["p0"], OutageError("gone"))
    await idle()
    complete(engine.requests["p1"], late)
    await idle()
    # p4 and p5 replace p0 and p1, so that four requests are in flight as before; p0 waits to run alone
    assert list(engine.requests) == ["p0", "p1", "p2", "p3", "p4", "p5"]
    assert clock.slept == [1.0] and (server.outages, server.retried) == (1, 0)


@in_event_loop
async def test_a_crash_counts_only_for_requests_sent_after_the_previous_crash():
    crashes, engine = [], ControlledEngine(lambda number: True)
    await start(new_server(engine, on_crash=lambda *crash: crashes.append(crash), concurrency=2), POSTS[:3])
    complete(engine.requests["p0"], OutageError("gone"))
    await idle()
    complete(engine.requests["p2"], OutageError("gone again"))  # p1 is still in flight
    await idle()
    assert crashes == [(content_key(None, post.text_sha256), 1) for post in POSTS[:3]]


@in_event_loop
async def test_a_crash_ends_a_retry_after_pause():
    engine, clock = ControlledEngine(lambda number: True), ManualClock()
    sleep, never = clock.sleep, asyncio.Event()
    clock.sleep = lambda seconds: never.wait() if seconds > 99 else sleep(seconds)
    await start(new_server(engine, clock, concurrency=2), POSTS[:3])
    complete(engine.requests["p0"], RetryableError("429", retry_after=100.0))
    await idle()
    assert "p2" not in engine.requests
    complete(engine.requests["p1"], OutageError("gone"))
    await idle()
    assert "p2" in engine.requests


@in_event_loop
async def test_a_crash_that_cannot_be_recorded_does_not_block_other_requests():
    def on_crash(content, count):
        raise StoreError("disk full")

    engine = ControlledEngine(lambda number: True)
    tasks = await start(new_server(engine, on_crash=on_crash, concurrency=1), POSTS[:2])
    complete(engine.requests["p0"], OutageError("gone"))
    await idle()
    complete(engine.requests["p1"], Answer("after the crash"))
    failure, (result, _) = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(failure, StoreError) and result == Answer("after the crash")


@in_event_loop
async def test_answers_to_requests_sent_before_a_slowdown_do_not_raise_the_limit():
    engine = ControlledEngine()
    await start(new_server(engine, concurrency=4))
    first = [engine.requests.pop(f"p{number}") for number in range(4)]
    complete(first[0], RetryableError("429", overloaded=True))
    for request in first[1:]:
        complete(request, Answer("sent before"))
    await idle()
    assert len(engine.requests) == 2


@in_event_loop
async def test_a_health_check_that_raises_ends_the_run():
    engine = ControlledEngine(lambda number: 1 / 0)
    tasks = await start(new_server(engine, concurrency=1), POSTS[:2])
    complete(engine.requests["p0"], OutageError("gone"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, OutageError) and "ZeroDivision" in str(result) for result in results)


def test_concurrency_is_the_number_of_requests_in_flight(store):
    engine = ScriptedEngine()
    run(make_posts(60), store, engine, concurrency=7)
    assert engine.max_in_flight == 7


@in_event_loop
async def test_overload_halves_the_concurrency_which_grows_again():
    in_flight = []

    def script(number, post, perspective, attempt):
        in_flight.append(engine.in_flight)
        if 200 <= number < 205:  # all sent under the same limit, so it is halved once
            raise RetryableError("429", overloaded=True)

    engine = ScriptedEngine(script)
    server = new_server(engine, concurrency=32, max_attempts=2)
    results = await asyncio.gather(*(server.ask(POSTS[0], "positive", 0) for _ in range(1500)))
    assert sum(requests for _, requests in results) == 1505 and server.retried == 5
    assert max(in_flight[:200]) == 32 and 16 <= max(in_flight[240:272]) <= 20 and max(in_flight[1000:]) == 32


def test_retry_after_pauses_all_requests_to_the_server(store):
    clock, sent_at = ManualClock(), []

    def script(number, post, perspective, attempt):
        sent_at.append(clock.now)
        if number == 12:
            raise RetryableError("429", retry_after=30.0, overloaded=True)

    run(make_posts(20), store, ScriptedEngine(script), clock=clock, concurrency=3)
    assert clock.slept == [31.0] and set(sent_at) == {1000.0, 1031.0}
    assert 12 < sent_at.count(1000.0) <= 15  # number 12 and two more in flight


def test_a_long_pause_is_announced_once_with_its_end(store, caplog):
    def script(number, post, perspective, attempt):
        if 11 < number < 15:
            raise RetryableError("429", retry_after=3600.0, overloaded=True)

    clock = ManualClock()
    run(make_posts(20), store, ScriptedEngine(script), clock=clock, concurrency=3, outage_wait=600.0)
    assert set(clock.slept) == {3601.0}
    (message,) = caplog.messages
    assert re.fullmatch(r"scripted asks to wait for 3,600 s .*; the run continues at (\S+ )?\d\d:\d\d\S*", message)


def test_a_pause_of_days_ends_the_run(store):
    def script(number, post, perspective, attempt):
        raise RetryableError("429: weekly limit.", retry_after=2 * 86_400.0, overloaded=True)

    with pytest.raises(OutageError, match="weekly limit. The server asks to wait for 48 hours"):
        run(make_posts(2), store, ScriptedEngine(script))
    assert set(statuses(store)) == {"open"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_requests_in_flight_and_sends_no_more(store, number):
    def script(request, post, perspective, attempt):
        if request == 30:
            signal.raise_signal(number)

    engine = ScriptedEngine(script)
    handler = signal.getsignal(number)
    report = run(make_posts(100), store, engine, concurrency=6)
    assert report.stopped and 31 <= len(engine.asked) < 150  # the delay of a signal depends on the machine
    assert statuses(store)["ok"] == report.ok == len(engine.asked)
    assert not store.status()[0].published and signal.getsignal(number) == handler
    report = run(make_posts(100), store, ScriptedEngine(), concurrency=6)
    assert not report.stopped and statuses(store) == {"ok": 300}


def test_a_signal_ends_the_back_off_of_a_retry(store):
    def script(request, post, perspective, attempt):
        if request == 30:
            signal.raise_signal(signal.SIGTERM)
        if request in (29, 30, 31):
            raise RetryableError("500")

    clock = ManualClock()
    clock.sleep = lambda seconds: asyncio.Event().wait()
    report = run(make_posts(100), store, ScriptedEngine(script), clock=clock, concurrency=6)
    assert report.stopped and "failed" not in statuses(store)


def test_a_second_signal_drops_the_requests_in_flight(store):
    class HangingEngine(FakeEngine):
        async def generate(self, post, perspective, attempt):
            if post.post_id == "p3":
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(0)
                signal.raise_signal(signal.SIGINT)
                await asyncio.Event().wait()
            return await super().generate(post, perspective, attempt)

    with pytest.raises(KeyboardInterrupt):
        run(make_posts(10), store, HangingEngine(), concurrency=1, preparation_threads=1)
    done = statuses(store)["ok"]
    assert 0 < done < 30
    assert run(make_posts(10), store, FakeEngine()).ok == 30 - done and len(contents(store)) == 10
