"""Tests of whole runs against a server with every fault that servers have."""

import json
import random

import PIL.Image
import pytest
from datasets import Dataset, Features, Image, Value

from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.errors import OutageError, StoreError
from dataset_scripts.rationales.store.record_log import RecordLog
from helpers.faulty_server import FaultyServer, answer
from helpers.rationale_runs import (
    PERSPECTIVES,
    PROMPT,
    SPEC,
    ManualClock,
    ScriptedEngine,
    contents,
    make_posts,
    new_store,
    run_engines,
    statuses,
)

OVERLOAD = {"error": {"message": "too many requests"}}
RETRYABLE = {
    "429": (429, {}, OVERLOAD),
    "429 with Retry-After": (429, {"Retry-After": "7"}, OVERLOAD),
    "500": (500, {}, "Internal Server Error"),
    "503": (503, {"Retry-After": "3"}, "overloaded"),
    "reset": "reset",
    "hang": "hang",
    "truncated JSON": (200, {}, '{"choices": [{"index": 0, "mess'),
}


def run(posts, store, server, clock=None, timeout=30.0, **settings):
    engine = EndpointEngine(server.url, SPEC, PROMPT, timeout=timeout)
    return run_engines(posts, store, engine, clock=clock, **settings)


def restarting(server):
    """Create a clock that restarts the server whenever a run waits for it."""
    return ManualClock(lambda seconds: server.restart())


def asks_about(body, day):
    return f"day {day}\n" in json.dumps(body["messages"]).replace("\\n", "\n") or f"day {day}>" in json.dumps(body)


@pytest.mark.parametrize("fault", RETRYABLE)
def test_a_retryable_failure_needs_one_more_request(store, fault):
    clock = ManualClock()
    with FaultyServer(lambda number, body: RETRYABLE[fault] if number == 4 else None) as server:
        report = run(make_posts(4), store, server, clock, timeout=1.0 if fault == "hang" else 30.0)
    assert report.ok == report.answers == 12 and statuses(store) == {"ok": 12} and report.retried >= 1
    assert report.prompt_tokens == 12 * 90 and report.cached_tokens == 12 * 60 and report.completion_tokens == 12 * 20
    if fault == "hang":  # on a busy machine other requests reach the timeout, too
        return
    assert (report.requests, report.retried) == (13, 1)
    attempts = [row[f"attempts_{name}"] for row in store.rows() for name in PERSPECTIVES]
    assert sorted(attempts) == [1] * 11 + [2]
    assert clock.slept == [{"429 with Retry-After": 8.0, "503": 4.0}.get(fault, 2.0)]  # Retry-After and up to 1 s


def test_repeated_failures_are_recorded_after_growing_pauses_and_retried_on_request(store):
    clock, reading = ManualClock(), PROMPT.to_dict()["en"]["readings"]["neutral"]

    def fail(number, body):
        return (500, {}, "no") if asks_about(body, 1) and reading in json.dumps(body) else None

    with FaultyServer(fail) as server:
        report = run(make_posts(3), store, server, clock, max_attempts=4)
        assert (report.ok, report.failed, dict(report.errors.counts)) == (8, 1, {"status 500": 1})
        assert clock.slept == [2.0, 4.0, 8.0]
        (row,) = [row for row in store.rows() if row["status_neutral"] == "failed"]
        assert row["id"] == "p1" and "500" in row["error_neutral"]
        assert row["attempts_neutral"] == 4 and row["rationale_neutral"] is None
        server.script = lambda number, body: None
        assert run(make_posts(3), store, server).requests == 0
        assert run(make_posts(3), store, server, retry_failed=True).ok == 1
    assert statuses(store) == {"ok": 9}


def test_a_refused_post_is_recorded_and_retried_only_on_request(store):
    clock = ManualClock()
    refusal = (400, {}, {"message": "too long"})
    with FaultyServer(lambda number, body: refusal if asks_about(body, 1) else None) as server:
        report = run(make_posts(3), store, server, clock)
        assert (report.ok, report.failed, dict(report.errors.counts)) == (
            6,
            3,
            {"status 400": 3},
        ) and clock.slept == []
        assert statuses(store) == {"ok": 6, "failed": 3} and store.status()[0].published
        assert run(make_posts(3), store, server).requests == 0
        assert run(make_posts(3), store, server, retry_failed=True).failed == 3
        server.script = lambda number, body: None
        assert run(make_posts(3), store, server, retry_failed=True).ok == 3
    assert statuses(store) == {"ok": 9}


def test_a_truncated_answer_is_requested_again_and_the_best_one_kept(store):

    def truncate(number, body):
        truncated = asks_about(body, 0) or (asks_about(body, 1) and body["seed"] == 0)
        return (200, {}, answer(body, finish_reason="length")) if truncated else None

    with FaultyServer(truncate) as server:
        report = run(make_posts(2), store, server)
    assert (report.flagged, report.ok, report.re_asked, report.requests) == (3, 3, 9, 15)
    flagged, repaired = sorted(store.rows(), key=lambda row: row["id"])
    for name in PERSPECTIVES:
        assert flagged[f"status_{name}"] == "flagged" and flagged[f"flags_{name}"] == ["truncated"]
        assert flagged[f"rationale_{name}"] and flagged[f"attempts_{name}"] == 3
        assert flagged[f"prompt_tokens_{name}"] == 3 * 90  # of all requests
        assert (repaired[f"status_{name}"], repaired[f"attempts_{name}"]) == ("ok", 2)
    assert {(body["seed"], body["temperature"]) for body in server.requests} == {(0, 0.0), (1, 0.7), (2, 0.7)}


def test_a_crash_of_the_server_does_not_count_as_an_attempt(store):
    with FaultyServer(lambda number, body: "crash" if number == 20 else None) as server:
        clock = ManualClock(lambda seconds: server.restart() if seconds == 8.0 else None)
        report = run(make_posts(20), store, server, clock, max_attempts=1)
    assert (report.ok, report.outages, report.retried) == (60, 1, 0) and clock.slept == [1.0, 2.0, 4.0, 8.0]
    assert {row[f"attempts_{name}"] for row in store.rows() for name in PERSPECTIVES} == {1}


def test_a_server_that_does_not_recover_ends_the_run_which_can_be_resumed(store):
    with FaultyServer(lambda number, body: "crash" if number == 20 else None) as server:
        clock = ManualClock()
        with pytest.raises(OutageError, match="run the same command again"):
            run(make_posts(20), store, server, clock, concurrency=6, outage_wait=600.0)
        assert clock.slept[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0] and 600 <= sum(clock.slept) < 660
        done = statuses(store)["ok"]
        assert set(statuses(store)) == {"ok", "open"} and done >= 14
        server.restart()
        assert run(make_posts(20), store, server).ok == 60 - done
    assert statuses(store) == {"ok": 60}


@pytest.mark.parametrize("client_restarts", [0, 2])
def test_a_post_that_crashes_the_server_is_identified_and_no_other_post_fails(store, caplog, client_restarts):
    with FaultyServer(lambda number, body: "crash" if asks_about(body, 5) else None) as server:
        for _ in range(client_restarts):
            with pytest.raises(OutageError):
                run(make_posts(12), store, server, outage_wait=0.0)
            server.restart()
        report = run(make_posts(12), store, server, restarting(server))
        assert server.crashes == 3
        assert report.crashing_posts == ["p5"] and "'p5'" in caplog.text
        assert run(make_posts(12), store, server).requests == 0
    assert statuses(store) == {"ok": 33, "crashed": 3}
    (row,) = [row for row in store.rows() if row["status_neutral"] == "crashed"]
    assert row["id"] == "p5" and "crashed 3 times" in row["error_neutral"]


def test_a_server_that_crashes_on_every_post_ends_the_run_without_a_failed_post(store):
    with FaultyServer(lambda number, body: "crash") as server:
        with pytest.raises(OutageError, match="crashed on 5 posts in a row"):
            run(make_posts(8), store, server, restarting(server), outage_wait=1e9)
        assert set(statuses(store)) == {"open"}
        server.script = lambda number, body: None
        server.restart()
        assert run(make_posts(8), store, server).ok == 24


def test_an_earlier_answer_for_the_same_post_does_not_confirm_its_crash(store):
    def script(number, post, perspective, attempt):
        if post.post_id != "p0" or perspective == "positive":
            raise OutageError("gone")

    # with few posts in progress, p0 is among the first five that crash the server
    with pytest.raises(OutageError, match="5 posts in a row"):
        run_engines(make_posts(8), store, ScriptedEngine(script), concurrency=3, preparation_threads=1)
    assert statuses(store) == {"ok": 2, "open": 3 * len(contents(store)) - 2}


def test_all_perspectives_of_a_post_go_to_one_server_in_sequence(store):
    with FaultyServer() as first, FaultyServer() as second:
        engines = [EndpointEngine(server.url, SPEC, PROMPT) for server in (first, second)]
        run_engines(make_posts(30), store, *engines, concurrency=1)
        for server in (first, second):
            texts = [json.dumps(body["messages"][1]["content"][:-1]) for body in server.requests]
            assert len(texts) > 15 and texts[0::3] == texts[1::3] == texts[2::3]
            assert len(set(texts)) == len(texts) // 3


def test_new_posts_go_to_another_server_during_an_outage(store):
    with FaultyServer() as first, FaultyServer() as second:
        second.crash()
        engines = [EndpointEngine(server.url, SPEC, PROMPT) for server in (first, second)]
        clock = ManualClock(lambda seconds: second.restart() if len(first.requests) > 70 else None)
        report = run_engines(make_posts(40), store, *engines, clock=clock, concurrency=3, outage_wait=1e9)
        assert report.ok == 120 and report.outages == 1 and len(second.requests) < 50


def test_an_unreadable_image_fails_without_a_request(tmp_path, store):
    PIL.Image.new("RGB", (40, 40), "red").save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    names = ["good.png", "cut.png", "none.png"]
    posts = [post | {"image": str(tmp_path / name)} for post, name in zip(make_posts(3), names, strict=True)]
    with FaultyServer() as server:
        report = run(posts, store, server)
        assert (report.ok, report.failed, dict(report.errors.counts)) == (3, 6, {"preparation": 6})
        assert len(server.requests) == 3 and statuses(store) == {"ok": 3, "failed": 6}
        errors = {row["id"]: row["error_positive"] for row in store.rows()}
        assert "'p1'" in errors["p1"] and "none.png" in errors["p2"]
        assert run(posts, store, server).failed == 0
        PIL.Image.new("RGB", (40, 40), "blue").save(tmp_path / "none.png")
        assert run(posts, store, server).ok == 3
    assert statuses(store) == {"ok": 6, "failed": 3} and len(contents(store)) == 3


def test_posts_with_images_are_the_same_in_a_dataset_and_as_paths(tmp_path):
    rows = []
    for number in range(6):
        path = tmp_path / f"{number % 5}.png"
        PIL.Image.new("RGB", (40, 40), (number % 5 * 40, 0, 0)).save(path)
        rows.append({"id": str(number), "text": "" if number < 3 else f"text {number % 5}", "image": str(path)})
    features = Features({"id": Value("string"), "text": Value("string"), "image": Image(), "label": Value("int64")})
    posts = Dataset.from_list([row | {"label": 1} for row in rows], features=features)
    store = new_store(tmp_path / "s", num_shards=3)
    with FaultyServer() as server:
        reports = [run(posts, store, server, shard_ids=shard_ids) for shard_ids in ([0, 1], [2])]
        assert sum(report.posts for report in reports) == 6 and len(server.requests) == 18
        assert run(rows, store, server).requests == 0
    assert statuses(store) == {"ok": 18}


def test_a_full_disk_ends_the_run_which_can_be_resumed(store, monkeypatch):
    append, records_left = RecordLog.append, [40]

    def append_until_full(log, record):
        records_left[0] -= 1
        if records_left[0] < 0:
            raise StoreError("disk full")
        return append(log, record)

    monkeypatch.setattr(RecordLog, "append", append_until_full)
    with FaultyServer() as server:
        with pytest.raises(StoreError, match="disk full"):
            run(make_posts(40), store, server, concurrency=6)
        monkeypatch.undo()
        done = statuses(store)["ok"]
        assert 20 < done < 40 and run(make_posts(40), store, server).ok == 120 - done


def test_a_run_with_many_faults_ends_with_the_store_of_a_run_without(tmp_path):
    random_numbers = random.Random(3)
    faults = [fault for name, fault in RETRYABLE.items() if name != "hang"]

    def script(number, body):
        if number in (90, 200):
            return "crash"
        return random_numbers.choice(faults) if random_numbers.random() < 0.2 else None

    with FaultyServer() as server:
        run(make_posts(60), new_store(tmp_path / "without"), server)
        server.requests.clear()
        server.script = script
        report = run(make_posts(60), new_store(tmp_path / "with"), server, restarting(server), max_attempts=12)
        assert server.crashes == 2
    assert report.ok == 180 and report.retried > 20
    assert contents(new_store(tmp_path / "with")) == contents(new_store(tmp_path / "without"))
