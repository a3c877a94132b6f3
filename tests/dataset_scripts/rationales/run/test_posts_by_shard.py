"""Tests of the posts that a run reads: each content asked once, in any order, by shard."""

import functools

import pytest
from datasets import Dataset

from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.errors import PermanentError
from dataset_scripts.rationales.run.posts_by_shard import PostsByShard
from helpers.rationale_runs import ScriptedEngine, accept, contents, make_posts, new_store, run_engines, statuses

run = functools.partial(run_engines, gate=accept)


def test_posts_with_the_same_content_are_asked_once_and_have_a_row_each(tmp_path):
    posts = [post | {"id": f"{copy}{post['id']}"} for copy in "abc" for post in make_posts(5)]
    store, engine = new_store(tmp_path, num_shards=2), ScriptedEngine()
    report = run(posts, store, engine)
    assert len(engine.asked) == 15 and report.posts == 15 and report.complete == 10
    assert len(contents(store)) == 15 and contents(store)["ap3"] == contents(store)["cp3"]


def test_posts_with_the_content_of_a_failed_post_are_not_asked(store):
    def script(number, post, perspective, attempt):
        raise PermanentError("no")

    posts = [post | {"id": f"{copy}{post['id']}"} for copy in "abc" for post in make_posts(2)]
    for retry_failed in (False, True):
        engine = ScriptedEngine(script)
        run(posts, store, engine, retry_failed=retry_failed)
        assert len(engine.asked) == 6
    assert statuses(store) == {"failed": 18}


@pytest.mark.parametrize("num_shards", [1, 4])
def test_a_run_with_other_posts_in_another_order_asks_the_missing_ones(tmp_path, num_shards):
    store, engine = new_store(tmp_path, num_shards=num_shards), ScriptedEngine()
    run(make_posts(20), store, engine)
    run(make_posts(30)[::-1], store, engine)
    assert len(engine.asked) == len(set(engine.asked)) == 90
    assert run(make_posts(30, start=5), store, engine).ok == 15
    assert len(contents(store)) == 35 and statuses(store) == {"ok": 105}


def test_a_post_with_changed_text_is_asked_again(store):
    engine = ScriptedEngine()
    (post,) = make_posts(1)
    run([post], store, engine)
    run([post | {"text": "what really happened"}], store, engine)
    assert len(engine.asked) == 6 and len({row["text_sha256"] for row in store.rows()}) == 2


@pytest.mark.parametrize("kind", ["list", "dataset", "stream", "iterable"])
def test_posts_of_any_type_are_assigned_to_the_same_shards(tmp_path, kind):
    rows = make_posts(40)
    dataset = Dataset.from_list([row | {"image": None, "label": 1} for row in rows])

    class Iterable:
        def __iter__(self):
            return iter(rows)

    posts = {"list": rows, "dataset": dataset, "stream": dataset.to_iterable_dataset(), "iterable": Iterable()}[kind]
    store = new_store(tmp_path, num_shards=3)
    posts_by_shard = PostsByShard(posts, store, [0, 1, 2])
    shards = [list(posts_by_shard.rows(shard_id)) for shard_id in range(3)]
    expected = PostsByShard(rows, store, [0, 1, 2])
    ids = [[row["id"] for row in shard] for shard in shards]
    assert ids == [[row["id"] for row in expected.rows(shard_id)] for shard_id in range(3)]
    assert sorted(sum(ids, [])) == sorted(row["id"] for row in rows) and min(map(len, ids)) > 4
    assert shards[0][0].keys() == {"id", "text", "image", "language"}  # no label
    assert posts_by_shard.total == (40 if kind in ("list", "dataset") else None)
    assert PostsByShard(rows, store, [1]).total == len(ids[1])


def test_an_iterator_can_be_read_for_one_shard_only(tmp_path):
    assert run(iter(make_posts(5)), new_store(tmp_path / "a"), FakeEngine()).ok == 15
    with pytest.raises(ValueError, match="iterator"):
        run(iter(make_posts(5)), new_store(tmp_path / "b", num_shards=2), FakeEngine())


def test_posts_are_read_when_they_are_needed(store):
    read = answered = waiting = 0

    def stream():
        nonlocal read
        for post in make_posts(500):
            read += 1
            yield post

    def script(number, post, perspective, attempt):
        nonlocal answered, waiting
        answered += 1
        waiting = max(waiting, read - answered // 3)

    run(stream(), store, ScriptedEngine(script), concurrency=6, preparation_threads=2)
    assert waiting <= 10 and answered == 1500


def test_an_unreadable_dataset_ends_the_run_after_the_posts_in_progress(store):
    def unreadable():
        yield from make_posts(30)
        raise ValueError("row 31 cannot be read")

    with pytest.raises(ValueError, match="row 31"):
        run(unreadable(), store, FakeEngine(), concurrency=3)
    assert 20 < len(contents(store)) <= 30 and set(statuses(store)) <= {"ok", "open"}
    with pytest.raises(ValueError, match="no `id`"):
        run([{"text": "a post without id"}], store, FakeEngine())
    with pytest.raises(ValueError, match="at least one engine"):
        run(make_posts(1), store)
