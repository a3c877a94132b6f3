"""A run against a server with every fault that servers have: each post is asked for once, and nothing is lost."""

import json
import random

import PIL.Image
import pytest
from datasets import Dataset, Features, Image, Value

from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.errors import MisconfiguredError, OutageError, StoreError
from helpers.faulty_server import FaultyServer, answer
from helpers.rationale_runs import (
    PERSPECTIVES,
    PROMPT,
    SPEC,
    ManualClock,
    contents,
    go,
    make_posts,
    new_store,
    statuses,
)

OVERLOAD = {"error": {"message": "too many requests"}}
TRANSIENT = {
    "429": (429, {}, OVERLOAD),
    "429 with Retry-After": (429, {"Retry-After": "7"}, OVERLOAD),
    "408": (408, {}, ""),
    "500": (500, {}, "Internal Server Error"),
    "503": (503, {"Retry-After": "3"}, "overloaded"),
    "reset": "reset",
    "hang": "hang",
    "truncated JSON": (200, {}, '{"choices": [{"index": 0, "mess'),
    "HTML": (200, {}, "<html><body>Bad gateway</body></html>"),
    "no choices": (200, {}, {"choices": []}),
    "null content": (200, {}, {"choices": [{"index": 0, "message": {"role": "assistant", "content": None}}]}),
}


def serve(posts, store, server, clock=None, timeout=30.0, **settings):
    return go(posts, store, EndpointEngine(server.url, SPEC, PROMPT, timeout=timeout), clock=clock, **settings)


def asks_about(body, day):
    return f"day {day}\n" in json.dumps(body["messages"]).replace("\\n", "\n") or f"day {day}>" in json.dumps(body)


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_passes_costs_a_retry_and_nothing_else(tmp_path, fault):
    store, clock = new_store(tmp_path), ManualClock()
    with FaultyServer(lambda number, body: TRANSIENT[fault] if number == 4 else None) as server:
        report = serve(make_posts(4), store, server, clock, timeout=1.0 if fault == "hang" else 30.0)
    assert report.ok == report.answers == 12 and statuses(store) == {"ok": 12} and report.retried >= 1
    assert report.prompt_tokens == 12 * 90 and report.cached_tokens == 12 * 60 and report.completion_tokens == 12 * 20
    if fault == "hang":  # on a busy machine more than the one hang
        return
    assert (report.requests, report.retried) == (13, 1)
    attempts = [row[f"attempts_{name}"] for row in store.rows() for name in PERSPECTIVES]
    assert sorted(attempts) == [1] * 11 + [2]
    (pause,) = clock.slept
    assert pause == {"429 with Retry-After": 8.0, "503": 4.0}.get(fault, 2.0)  # what it said and up to a second


def test_what_never_passes_fails_after_growing_pauses_and_is_asked_again_on_demand(tmp_path):
    store, clock = new_store(tmp_path), ManualClock()

    def broken(number, body):
        return (500, {}, "no") if asks_about(body, 1) and body["messages"][1]["content"][-1]["text"] == first else None

    with FaultyServer() as server:
        serve(make_posts(2)[1:], new_store(tmp_path / "probe"), server)
        first = server.requests[0]["messages"][1]["content"][-1]["text"]  # the task of one perspective
        server.script = broken
        report = serve(make_posts(3), store, server, clock, max_attempts=4)
        assert (report.ok, report.failed, dict(report.errors)) == (8, 1, {"retryable": 1})
        assert clock.slept == [2.0, 4.0, 8.0]
        (row,) = [row for row in store.rows() if row["id"] == "p1"]
        (name,) = [name for name in PERSPECTIVES if row[f"status_{name}"] == "failed"]
        assert "500" in row[f"error_{name}"] and row[f"attempts_{name}"] == 4 and row[f"rationale_{name}"] is None
        asked, server.script = len(server.requests), lambda number, body: None
        assert serve(make_posts(3), store, server).requests == 0 and len(server.requests) == asked
        assert serve(make_posts(3), store, server, retry_failed=True).ok == 1
    assert statuses(store) == {"ok": 9}


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_wrong_with_a_post_is_recorded_and_not_asked_again(tmp_path, status):
    store, clock = new_store(tmp_path), ManualClock()
    refusal = (status, {}, {"message": "too long"})
    with FaultyServer(lambda number, body: refusal if asks_about(body, 1) else None) as server:
        report = serve(make_posts(3), store, server, clock)
        assert (report.ok, report.failed, dict(report.errors)) == (6, 3, {"permanent": 3}) and clock.slept == []
        assert statuses(store) == {"ok": 6, "failed": 3} and store.status()[0].published
        assert serve(make_posts(3), store, server).requests == 0
        assert serve(make_posts(3), store, server, retry_failed=True).failed == 3
        server.script = lambda number, body: None
        assert serve(make_posts(3), store, server, retry_failed=True).ok == 3
    assert statuses(store) == {"ok": 9}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_fails_for_all_alike_stops_at_once_and_records_no_failure(tmp_path, status):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: (status, {}, "no") if number >= 6 else None) as server:
        with pytest.raises(MisconfiguredError, match=str(status)):
            serve(make_posts(20), store, server, concurrency=3)
        assert len(server.requests) < 15
        assert statuses(store)["ok"] == 6 and set(statuses(store)) == {"ok", "open"}
        server.script = lambda number, body: None
        assert serve(make_posts(20), store, server).ok == 54


def test_a_wrong_model_name_is_no_fault_of_the_posts(tmp_path):
    store = new_store(tmp_path)
    unknown = (400, {}, {"detail": "The model `m` does not exist."})
    with (
        FaultyServer(lambda number, body: unknown) as server,
        pytest.raises(MisconfiguredError, match="does not exist"),
    ):
        serve(make_posts(5), store, server)
    assert "failed" not in statuses(store)


def test_if_the_first_twenty_posts_all_fail_the_fault_is_not_theirs(tmp_path):
    with FaultyServer(lambda number, body: (400, {}, "what is this")) as server:
        with pytest.raises(MisconfiguredError, match="first 20 posts all failed.*what is this"):
            serve(make_posts(40), new_store(tmp_path / "a", num_shards=6), server)
        assert "failed" not in statuses(new_store(tmp_path / "a", num_shards=6))
        assert serve(make_posts(19), new_store(tmp_path / "b", num_shards=6), server).failed == 57
        assert statuses(new_store(tmp_path / "b", num_shards=6)) == {"failed": 57}
        assert all(shard.published == (shard.posts > 0) for shard in new_store(tmp_path / "b", num_shards=6).status())
        server.script = lambda number, body: None if asks_about(body, 19) else (400, {}, "too long")
        assert serve(make_posts(40), new_store(tmp_path / "c"), server).failed == 117
        assert serve(make_posts(40), new_store(tmp_path / "c"), server, retry_failed=True).failed == 117


def test_a_cut_off_answer_is_asked_for_again_and_the_best_one_kept(tmp_path):
    store = new_store(tmp_path)

    def cut(number, body):
        short = asks_about(body, 0) or (asks_about(body, 1) and body["seed"] == 0)
        return (200, {}, answer(body, finish_reason="length")) if short else None

    with FaultyServer(cut) as server:
        report = serve(make_posts(2), store, server)
    assert (report.flagged, report.ok, report.re_asked, report.requests) == (3, 3, 9, 15)
    cut_off, mended = sorted(store.rows(), key=lambda row: row["id"])
    for name in PERSPECTIVES:
        assert cut_off[f"status_{name}"] == "flagged" and cut_off[f"flags_{name}"] == ["truncated"]
        assert cut_off[f"rationale_{name}"] and cut_off[f"attempts_{name}"] == 3
        assert cut_off[f"prompt_tokens_{name}"] == 3 * 90  # what it cost, not what was kept of it
        assert (mended[f"status_{name}"], mended[f"attempts_{name}"]) == ("ok", 2)
    assert {(body["seed"], body["temperature"]) for body in server.requests} == {(0, 0.0), (1, 0.7), (2, 0.7)}


def test_where_no_answer_is_usable_there_is_no_rationale(tmp_path):
    store = new_store(tmp_path)
    blank = {"role": "assistant", "content": " \n"}
    with FaultyServer(lambda number, body: (200, {}, answer(body, message=blank))) as server:
        assert serve(make_posts(1), store, server).failed == 3
    (row,) = store.rows()
    assert row["rationale_positive"] is None and row["raw_positive"] == " \n" and row["flags_positive"][0] == "empty"
    assert "none of 3 answers" in row["error_positive"]


def test_a_server_that_dies_and_comes_back_costs_no_attempt(tmp_path):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: "die" if number == 20 else None) as server:
        clock = ManualClock(lambda seconds: server.restart() if seconds == 8.0 else None)
        report = serve(make_posts(20), store, server, clock, max_attempts=1)
    assert (report.ok, report.outages, report.retried) == (60, 1, 0) and clock.slept == [1.0, 2.0, 4.0, 8.0]
    assert {row[f"attempts_{name}"] for row in store.rows() for name in PERSPECTIVES} == {1}


def test_a_server_that_stays_away_ends_a_run_that_goes_on_later(tmp_path):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: "die" if number == 20 else None) as server:
        clock = ManualClock()
        with pytest.raises(OutageError, match="run the same command again"):
            serve(make_posts(20), store, server, clock, concurrency=6, outage_wait=600.0)
        assert clock.slept[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0] and 600 <= sum(clock.slept) < 660
        done = statuses(store)["ok"]
        assert set(statuses(store)) == {"ok", "open"} and done >= 14
        server.restart()
        assert serve(make_posts(20), store, server).ok == 60 - done
    assert statuses(store) == {"ok": 60}


def test_a_post_that_kills_the_server_is_found_and_named_and_costs_no_other(tmp_path, caplog):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: "die" if asks_about(body, 5) else None) as server:
        report = serve(make_posts(12), store, server, ManualClock(lambda seconds: server.restart()))
        assert server.deaths == 3
        assert report.crashing_posts == ["p5"] and "'p5'" in caplog.text
        assert serve(make_posts(12), store, server).requests == 0
    assert statuses(store) == {"ok": 33, "crashed": 3}
    (row,) = [row for row in store.rows() if row["status_neutral"] == "crashed"]
    assert row["id"] == "p5" and "crashed 3 times" in row["error_neutral"]


def test_suspects_are_remembered_over_a_restart_of_the_client(tmp_path):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: "die" if asks_about(body, 5) else None) as server:
        for _ in range(2):
            with pytest.raises(OutageError):
                serve(make_posts(12), store, server, outage_wait=0.0)
            server.restart()
        report = serve(make_posts(12), store, server, ManualClock(lambda seconds: server.restart()))
        assert server.deaths == 3 and report.crashing_posts == ["p5"]
    assert statuses(store) == {"ok": 33, "crashed": 3}


def test_a_server_that_dies_of_everything_makes_no_post_poison(tmp_path):
    store = new_store(tmp_path)
    with FaultyServer(lambda number, body: "die") as server:
        with pytest.raises(OutageError, match="crashed on 5 posts in a row"):
            serve(make_posts(8), store, server, ManualClock(lambda seconds: server.restart()), outage_wait=1e9)
        assert set(statuses(store)) == {"open"}
        server.script = lambda number, body: None
        server.restart()
        assert serve(make_posts(8), store, server).ok == 24


def test_perspectives_of_a_post_go_to_one_server_one_after_the_other(tmp_path):
    with FaultyServer() as one, FaultyServer() as two:
        engines = [EndpointEngine(server.url, SPEC, PROMPT) for server in (one, two)]
        go(make_posts(30), new_store(tmp_path), *engines, concurrency=1)
        for server in (one, two):
            texts = [json.dumps(body["messages"][1]["content"][:-1]) for body in server.requests]
            assert len(texts) > 15 and texts[0::3] == texts[1::3] == texts[2::3]
            assert len(set(texts)) == len(texts) // 3


def test_while_one_server_is_down_new_posts_go_to_the_other(tmp_path):
    store = new_store(tmp_path)
    with FaultyServer() as one, FaultyServer() as two:
        two.die()
        engines = [EndpointEngine(server.url, SPEC, PROMPT) for server in (one, two)]
        clock = ManualClock(lambda seconds: two.restart() if len(one.requests) > 70 else None)
        report = go(make_posts(40), store, *engines, clock=clock, concurrency=3, outage_wait=1e9)
        assert report.ok == 120 and report.outages == 1 and len(two.requests) < 50


def test_neither_label_nor_path_is_sent(tmp_path):
    PIL.Image.new("RGB", (40, 40), "red").save(tmp_path / "a_negative_one.png")
    row = make_posts(1)[0] | {"image": str(tmp_path / "a_negative_one.png"), "label": 2, "text_label": "sad"}
    with FaultyServer() as server:
        serve([row], new_store(tmp_path / "s"), server)
    said = json.dumps(server.requests)
    assert "base64" in said and "a_negative_one" not in said and "label" not in said and "sad" not in said.split()


def test_an_image_that_cannot_be_read_fails_before_any_request_and_ends_nothing(tmp_path):
    PIL.Image.new("RGB", (40, 40), "red").save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    names = ["good.png", "cut.png", "none.png"]
    posts = [post | {"image": str(tmp_path / name)} for post, name in zip(make_posts(3), names, strict=True)]
    store = new_store(tmp_path / "s")
    with FaultyServer() as server:
        report = serve(posts, store, server)
        assert (report.ok, report.failed, dict(report.errors)) == (3, 6, {"preparation": 6})
        assert len(server.requests) == 3 and statuses(store) == {"ok": 3, "failed": 6}
        errors = {row["id"]: row["error_positive"] for row in store.rows()}
        assert "'p1'" in errors["p1"] and "none.png" in errors["p2"]
        assert serve(posts, store, server).failed == 0
        PIL.Image.new("RGB", (40, 40), "blue").save(tmp_path / "none.png")
        assert serve(posts, store, server).ok == 3
    assert statuses(store) == {"ok": 6, "failed": 3} and len(contents(store)) == 3


def test_a_dataset_with_images_is_read_file_by_file_and_asked_once(tmp_path):
    rows = []
    for number in range(6):
        path = tmp_path / f"{number % 5}.png"
        PIL.Image.new("RGB", (40, 40), (number % 5 * 40, 0, 0)).save(path)
        rows.append({"id": str(number), "text": "" if number < 3 else f"text {number % 5}", "image": str(path)})
    features = Features({"id": Value("string"), "text": Value("string"), "image": Image(), "label": Value("int64")})
    posts = Dataset.from_list([row | {"label": 1} for row in rows], features=features)
    store = new_store(tmp_path / "s", num_shards=3)
    with FaultyServer() as server:
        report = serve(posts, store, server, shard_ids=[0, 1])
        report_2 = serve(posts, store, server, shard_ids=[2])
        assert report.posts + report_2.posts == 6 and len(server.requests) == 18
        assert serve(rows, store, server).requests == 0  # by their paths they are the same posts
    assert statuses(store) == {"ok": 18}


def test_a_full_disk_ends_the_run_and_it_goes_on_later(tmp_path, monkeypatch):
    from dataset_scripts.rationales.store.record_log import RecordLog

    store, really, left = new_store(tmp_path), RecordLog.append, [40]

    def append(journal, record):
        left[0] -= 1
        if left[0] < 0:
            raise StoreError("make room")
        return really(journal, record)

    monkeypatch.setattr(RecordLog, "append", append)
    with FaultyServer() as server:
        with pytest.raises(StoreError, match="make room"):
            serve(make_posts(40), store, server, concurrency=6)
        monkeypatch.undo()
        done = statuses(store)["ok"]
        assert 20 < done < 40 and serve(make_posts(40), store, server).ok == 120 - done


def test_a_storm_of_all_faults_leaves_the_store_of_a_quiet_run(tmp_path):
    dice = random.Random(3)
    faults = [fault for name, fault in TRANSIENT.items() if name != "hang"]

    def storm(number, body):
        if number in (90, 200):
            return "die"
        return dice.choice(faults) if dice.random() < 0.2 else None

    with FaultyServer() as server:
        serve(make_posts(60), new_store(tmp_path / "quiet"), server)
        server.requests.clear()
        server.script = storm
        clock = ManualClock(lambda seconds: server.restart())
        report = serve(make_posts(60), new_store(tmp_path / "storm"), server, clock, max_attempts=12)
        assert server.deaths == 2
    assert report.ok == 180 and report.retried > 20
    assert contents(new_store(tmp_path / "storm")) == contents(new_store(tmp_path / "quiet"))
