"""Which posts a run takes up: each once, in any order, and no more at a time than it needs."""

import asyncio
import functools

import pytest
from datasets import Dataset

from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.run.posts_by_shard import PostsByShard
from helpers.rationale_runs import ManualClock, ScriptedEngine, accept, contents, go, make_posts, new_store, statuses

ask = functools.partial(go, gate=accept)


def test_posts_that_are_the_same_are_asked_once_and_each_has_its_row(tmp_path):
    twins = [post | {"id": f"{copy}{post['id']}"} for copy in "abc" for post in make_posts(5)]
    store, engine = new_store(tmp_path, num_shards=2), ScriptedEngine()
    report = ask(twins, store, engine)
    assert len(engine.asked) == 15 and report.posts == 15 and report.complete == 10
    assert len(contents(store)) == 15 and contents(store)["ap3"] == contents(store)["cp3"]


def test_twins_of_a_post_that_failed_are_not_asked_either(tmp_path):
    from dataset_scripts.rationales.errors import PermanentError

    def fail(number, post, perspective, attempt):
        raise PermanentError("no")

    twins = [post | {"id": f"{copy}{post['id']}"} for copy in "abc" for post in make_posts(2)]
    store = new_store(tmp_path)
    for retry_failed in (False, True):
        engine = ScriptedEngine(fail)
        ask(twins, store, engine, retry_failed=retry_failed)
        assert len(engine.asked) == 6
    assert statuses(store) == {"failed": 18}


@pytest.mark.parametrize("num_shards", [1, 4])
def test_another_order_and_more_posts_go_on_where_it_was(tmp_path, num_shards):
    store, engine = new_store(tmp_path, num_shards=num_shards), ScriptedEngine()
    ask(make_posts(20), store, engine)
    ask(make_posts(30)[::-1], store, engine)
    assert len(engine.asked) == len(set(engine.asked)) == 90
    assert ask(make_posts(30, start=5), store, engine).ok == 15
    assert len(contents(store)) == 35 and statuses(store) == {"ok": 105}


def test_a_changed_post_is_another_post(tmp_path):
    store, engine = new_store(tmp_path), ScriptedEngine()
    (post,) = make_posts(1)
    ask([post], store, engine)
    ask([post | {"text": "what really happened"}], store, engine)
    assert len(engine.asked) == 6 and len({row["text_sha256"] for row in store.rows()}) == 2


def test_shards_part_the_posts_among_processes(tmp_path):
    store, one, two = new_store(tmp_path, num_shards=5), ScriptedEngine(), ScriptedEngine()
    first = ask(make_posts(60), store, one, shard_ids=[0, 3])
    second = ask(make_posts(60), store, two, shard_ids=[1, 2, 4])
    assert first.posts + second.posts == 60 and first.posts > 10
    assert not {post for post, _, _ in one.asked} & {post for post, _, _ in two.asked}
    assert statuses(store) == {"ok": 180} and all(shard.published for shard in store.status())


@pytest.mark.parametrize("kind", ["list", "dataset", "stream", "iterable"])
def test_any_dataset_is_parted_in_the_same_way(tmp_path, kind):
    rows = make_posts(40)
    dataset = Dataset.from_list([row | {"image": None} for row in rows])

    class Again:
        def __iter__(self):
            return iter(rows)

    posts = {"list": rows, "dataset": dataset, "stream": dataset.to_iterable_dataset(), "iterable": Again()}[kind]
    store = new_store(tmp_path, num_shards=3)
    intake = PostsByShard(posts, store, [0, 1, 2])
    parts = [[row["id"] for row in intake.rows(shard_id)] for shard_id in range(3)]
    expected = PostsByShard(rows, store, [0, 1, 2])
    assert parts == [[row["id"] for row in expected.rows(shard_id)] for shard_id in range(3)]
    assert sorted(sum(parts, [])) == sorted(row["id"] for row in rows) and min(map(len, parts)) > 4
    assert intake.total == (40 if kind in ("list", "dataset") else None)
    assert PostsByShard(rows, store, [1]).total == len(parts[1])


def test_a_stream_that_ends_is_enough_for_one_shard_only(tmp_path):
    assert ask(iter(make_posts(5)), new_store(tmp_path / "a"), FakeEngine()).ok == 15
    with pytest.raises(ValueError, match="iterator"):
        ask(iter(make_posts(5)), new_store(tmp_path / "b", num_shards=2), FakeEngine())


def test_what_a_model_must_not_see_is_not_even_taken_up(tmp_path):
    dataset = Dataset.from_list([row | {"label": 1, "source": "x"} for row in make_posts(3)])
    for posts in (dataset, list(dataset)):
        (row, *_) = PostsByShard(posts, new_store(tmp_path), [0]).rows(0)
        assert row.keys() == {"id", "text", "image", "language"}


def test_posts_are_taken_up_as_they_are_needed(tmp_path):
    taken = answered = most = 0

    def stream():
        nonlocal taken
        for post in make_posts(500):
            taken += 1
            yield post

    def script(number, post, perspective, attempt):
        nonlocal answered, most
        answered += 1
        most = max(most, taken - answered // 3)

    ask(stream(), new_store(tmp_path), ScriptedEngine(script), concurrency=6, preparation_threads=2)
    assert most <= 10 and answered == 1500


def test_a_fault_of_the_dataset_ends_the_run_but_not_what_was_begun(tmp_path):
    def broken():
        yield from make_posts(30)
        raise ValueError("row 31 cannot be read")

    store = new_store(tmp_path)
    with pytest.raises(ValueError, match="row 31"):
        ask(broken(), store, FakeEngine(), concurrency=3)
    assert 20 < len(contents(store)) <= 30 and set(statuses(store)) <= {"ok", "open"}
    with pytest.raises(ValueError, match="no `id`"):
        ask([{"text": "nameless"}], store, FakeEngine())


def test_no_engine_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        ask(make_posts(1), new_store(tmp_path))


def test_the_report_counts_in_seconds_of_the_clock(tmp_path):
    clock = ManualClock()

    class Slow(FakeEngine):
        async def generate(self, post, perspective, attempt):
            clock.now += 2.0
            await asyncio.sleep(0)
            return await super().generate(post, perspective, attempt)

    assert ask(make_posts(1), new_store(tmp_path), Slow(), clock=clock).seconds == 6.0
