"""A store: what was answered is never lost, never there twice, and of one specification only."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
from datasets import load_dataset

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.spec import item_key
from dataset_scripts.rationales.store.rows import row_schema
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from helpers.rationale_runs import PERSPECTIVES, PROMPT, SPEC, contents, new_store, statuses


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def post(number, **changes):
    text = sha(f"text {number}")
    return {"kind": "post", "id": f"p{number}", "image_sha256": None, "text_sha256": text, "language": "en"} | changes


def answer(number, perspective, status="ok", **changes):
    key = item_key(SPEC.spec_hash, None, sha(f"text {number}"), perspective)
    text = None if status in ("failed", "crashed") else f"{perspective} of {number}"
    error = f"permanent: {number}" if text is None else None
    record = {"kind": "answer", "key": key, "perspective": perspective, "status": status, "text": text}
    return record | {"raw": text, "flags": [], "error": error, "attempts": 1, "prompt_tokens": 9} | changes


def fill(writer, numbers):
    for number in numbers:
        writer.add(post(number))
        for perspective in PERSPECTIVES:
            writer.add(answer(number, perspective))


def expected(numbers):
    return {f"p{number}": {name: (f"{name} of {number}", "ok") for name in PERSPECTIVES} for number in numbers}


def test_the_manifest_tells_what_was_asked(tmp_path):
    store = RationaleStore.create(tmp_path / "s", SPEC, PROMPT, num_shards=3, data={"name": "sample"})
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == store.manifest and manifest["spec_hash"] == SPEC.spec_hash
    assert manifest["spec"] == SPEC.to_dict() and manifest["prompt"] == PROMPT.to_dict()
    assert (manifest["num_shards"], manifest["data"]) == (3, {"name": "sample"}) and manifest["versions"]["python"]
    assert RationaleStore.open(tmp_path / "s").spec == SPEC


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "other"), ("revision", "abc"), ("temperature", 0.5), ("max_pixels", 784), ("seed", 1)],
)
def test_another_specification_is_refused_with_the_fields_that_differ(tmp_path, field, value):
    new_store(tmp_path / "s")
    other = dataclasses.replace(SPEC, **{field: value})
    with pytest.raises(StoreError, match=rf"{field}: .* not {value!r}") as raised:
        new_store(tmp_path / "s", spec=other)
    assert "max_tokens" not in str(raised.value)
    assert new_store(tmp_path / "s").spec == SPEC


def test_another_number_of_shards_is_refused(tmp_path):
    new_store(tmp_path / "s", num_shards=2)
    with pytest.raises(StoreError, match="num_shards: 2, not 3"):
        new_store(tmp_path / "s", num_shards=3)


def test_a_prompt_that_is_not_the_specifications_is_refused(tmp_path):
    with pytest.raises(ValueError, match="hash"):
        RationaleStore.create(tmp_path / "s", dataclasses.replace(SPEC, prompt_hash="0" * 64), PROMPT)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"kind": "mpt-rationales", "version": 99}', "[]"])
def test_what_is_no_store_is_not_opened(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert not is_store(tmp_path) and not is_store(tmp_path / "nowhere")
    with pytest.raises(StoreError):
        RationaleStore.open(tmp_path)


def test_folders_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(StoreError, match="another folder"):
        new_store(tmp_path)
    assert os.listdir(tmp_path) == ["data"]


def test_of_two_that_begin_at_the_same_time_the_first_wins(tmp_path, monkeypatch):
    really = os.link

    def slower(source, target):
        monkeypatch.undo()
        new_store(tmp_path, num_shards=5)
        really(source, target)

    monkeypatch.setattr(os, "link", slower)
    with pytest.raises(StoreError, match="num_shards: 5, not 1"):
        new_store(tmp_path)
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_store_is_begun_where_files_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert is_store(new_store(tmp_path / "s").folder) and os.listdir(tmp_path / "s") == ["manifest.json"]


def test_posts_that_are_the_same_meet_in_one_shard_and_shards_fill_evenly(tmp_path):
    store = new_store(tmp_path / "s", num_shards=7)
    shards = [store.shard_of(sha(str(number)), None) for number in range(7_000)]
    assert all(800 < shards.count(shard) < 1200 for shard in range(7))
    assert store.shard_of(sha("a"), sha("image")) == store.shard_of(sha("a"), None)
    assert store.shard_of(None, sha("a")) == store.shard_of(sha("a"), None)
    assert store.shard_of(None, None) == 0
    with pytest.raises(ValueError, match="0 to 6"):
        store.writer(7)


def test_a_second_writer_is_refused_at_once_and_told_who_writes(tmp_path):
    store = new_store(tmp_path / "s", num_shards=2)
    code = (
        "import sys; from dataset_scripts.rationales.store.store import RationaleStore\n"
        "with RationaleStore.open(sys.argv[1]).writer(int(sys.argv[2])): print('wrote')"
    )
    with store.writer(0) as writer:
        fill(writer, [1])
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            store.writer(0).__enter__()
        other = subprocess.run(
            [sys.executable, "-c", code, str(store.folder), "0"], capture_output=True, text=True, cwd=os.getcwd()
        )
        assert other.returncode == 1 and f"process {os.getpid()} on " in other.stderr
        with store.writer(1):
            pass
        fill(writer, [2])
    with store.writer(0):
        pass
    assert contents(store) == expected([1, 2])


def test_the_first_good_answer_stays_and_a_failure_gives_way(tmp_path):
    store = new_store(tmp_path / "s")
    key = answer(1, "positive")["key"]
    with store.writer(0) as writer:
        writer.add(post(1))
        assert writer.status(key) is None and writer.answer(key) is None
        assert writer.add(answer(1, "positive", "failed")) and writer.status(key) == "failed"
        assert writer.add(answer(1, "positive", "crashed")) and writer.status(key) == "crashed"
        assert writer.add(answer(1, "positive")) and writer.status(key) == "ok"
        assert not writer.add(answer(1, "positive", text="a later one"))
        assert not writer.add(answer(1, "positive", "failed"))
        assert writer.answer(key)["text"] == "positive of 1"
    with store.writer(0) as writer:
        assert not writer.add(answer(1, "positive", text="in another process"))
    assert contents(store)["p1"] == {
        "positive": ("positive of 1", "ok"),
        "neutral": (None, "open"),
        "negative": (None, "open"),
    }


def test_published_shards_are_a_dataset_with_one_row_a_post(tmp_path):
    store = new_store(tmp_path / "s", num_shards=2)
    numbers = [[3, 1, 2], [5, 4]]
    for shard_id in (0, 1):
        with store.writer(shard_id) as writer:
            fill(writer, numbers[shard_id])
            writer.publish()
    files = str(store.folder / "data" / "*.parquet")
    data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert data["id"] == ["p1", "p2", "p3", "p4", "p5"]
    assert data.column_names == row_schema(PERSPECTIVES).names
    row = data[0]
    assert row["rationale_neutral"] == row["raw_neutral"] == "neutral of 1" and row["status_neutral"] == "ok"
    assert row["flags_neutral"] == [] and row["attempts_neutral"] == 1 and row["cached_tokens_neutral"] is None
    assert row["key_neutral"] == answer(1, "neutral")["key"] and row["text_sha256"] == sha("text 1")
    assert list(store.rows([0])) == list(data)[:3]
    assert not list((store.folder / "shards").glob("*/journal*"))


def test_the_same_posts_give_the_same_file_in_any_order(tmp_path):
    files = []
    for name, numbers in (("a", range(50)), ("b", reversed(range(50)))):
        store = new_store(tmp_path / name)
        with store.writer(0) as writer:
            fill(writer, numbers)
            writer.publish()
        files.append((tmp_path / name / "data" / "00000.parquet").read_bytes())
    assert files[0] == files[1]


def test_duplicate_posts_are_two_rows_of_one_answer(tmp_path):
    store = new_store(tmp_path / "s")
    with store.writer(0) as writer:
        fill(writer, [1])
        writer.add(post(1, id="twin"))
        writer.publish()
    assert contents(store)["twin"] == contents(store)["p1"] == expected([1])["p1"]


def test_a_published_shard_takes_more_posts_and_mends_failures(tmp_path):
    store = new_store(tmp_path / "s")
    with store.writer(0) as writer:
        fill(writer, [1, 2])
        writer.add(post(3))
        writer.add(answer(3, "positive", "failed"))
        writer.publish()
    before = (store.folder / "data" / "00000.parquet").stat()
    with store.writer(0) as writer:  # nothing new: nothing is written
        fill(writer, [1, 2])
        writer.publish()
    assert (store.folder / "data" / "00000.parquet").stat().st_mtime_ns == before.st_mtime_ns
    with store.writer(0) as writer:
        fill(writer, [2, 3, 4])
        assert contents(store) == expected([1, 2, 3, 4])  # also before it is published again
        writer.publish()
    assert contents(store) == expected([1, 2, 3, 4])


def test_what_was_published_comes_back_from_a_journal_as_it_was(tmp_path):
    store = new_store(tmp_path / "s")
    with store.writer(0) as writer:
        fill(writer, [1])
        writer.add(post(2))
        writer.add(answer(2, "positive", "flagged", raw=" raw ", flags=["short"], system_fingerprint="b"))
        writer.add(answer(2, "neutral", "failed"))
        writer.add(post(3, error="preparation: no file"))
        writer.publish()
    before = {row["id"]: row for row in store.rows()}
    with store.writer(0) as writer:
        fill(writer, [4])
    after = {row["id"]: row for row in store.rows()}
    assert after.pop("p4") and after == before


@pytest.mark.parametrize("reopened", [True, False])
def test_a_crash_between_rename_and_removal_of_the_journal_harms_nothing(tmp_path, monkeypatch, reopened):
    store = new_store(tmp_path / "s")
    really = pathlib.Path.unlink

    def end(path, missing_ok=False):
        if path.name == "journal.jsonl":
            raise KeyboardInterrupt
        really(path, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", end)
    with pytest.raises(KeyboardInterrupt), store.writer(0) as writer:
        fill(writer, [1, 2])
        writer.publish()
    monkeypatch.undo()
    assert contents(store) == expected([1, 2])
    if reopened:
        with store.writer(0) as writer:
            fill(writer, [2, 3])
            writer.publish()
        assert contents(store) == expected([1, 2, 3]) and store.status()[0].published


def test_a_full_disk_while_publishing_keeps_the_journal(tmp_path, monkeypatch):
    store = new_store(tmp_path / "s")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.writer(0) as writer:
        fill(writer, [1, 2])
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StoreError, match="Free disk space"):
            writer.publish()
        monkeypatch.undo()
        assert os.listdir(store.folder / "data") == [] and contents(store) == expected([1, 2])
        fill(writer, [3])
        writer.publish()
    assert contents(store) == expected([1, 2, 3])


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path):
    store = new_store(tmp_path / "s")
    (store.folder / "shards").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"), store.writer(0):
        pass


def test_rows_and_status_are_read_while_a_run_writes(tmp_path):
    store = new_store(tmp_path / "s", num_shards=3)
    with store.writer(1) as writer:
        fill(writer, [1, 2])
        writer.add(post(3))
        writer.add(answer(3, "positive", "crashed"))
        reading = store.rows()
        first = next(reading)
        writer.publish()  # under the reader's hands
        assert [row["id"] for row in [first, *reading]] == ["p1", "p2", "p3"]
        fill(writer, [4])
        one, two, three = store.status()
    assert dataclasses.astuple(two) == (1, 4, 9, 0, 0, 1, 2, False)
    assert dataclasses.astuple(one) == (0, 0, 0, 0, 0, 0, 0, False) and three.shard_id == 2
    with store.writer(1) as writer:
        writer.publish()
    assert dataclasses.astuple(store.status()[1]) == (1, 4, 9, 0, 0, 1, 2, True)


def test_a_post_that_could_not_be_read_gives_way_to_the_post_itself(tmp_path):
    store = new_store(tmp_path / "s")
    for _ in range(2):
        with store.writer(0) as writer:
            writer.add(post(1, error="preparation: no file", text_sha256=None))
            assert statuses(store) == {"failed": 3}
            writer.publish()
    with store.writer(0) as writer:
        fill(writer, [1])
        assert contents(store) == expected([1])
        writer.publish()
    assert contents(store) == expected([1])


def test_half_an_emoji_is_kept_as_a_replacement_character(tmp_path):
    store = new_store(tmp_path / "s")
    with store.writer(0) as writer:
        writer.add(post(1))
        writer.add(answer(1, "positive", text="so \ud83d", raw="so \ud83d"))
        writer.publish()
    assert contents(store)["p1"]["positive"] == ("so \ufffd", "ok")


def test_tries_and_suspects_outlive_the_process(tmp_path):
    store = new_store(tmp_path / "s")
    key = answer(1, "positive")["key"]
    with store.writer(0) as writer:
        writer.add(post(1))
        writer.add({"kind": "try", "key": key, "text": "first"})
        writer.add({"kind": "suspect", "content": "c", "crashes": 1})
        writer.add({"kind": "suspect", "content": "c", "crashes": 2})
    with store.writer(0) as writer:
        assert [one["text"] for one in writer.rejected_answers(key)] == ["first"] and writer.index.crash_counts == {"c": 2}
        writer.add(answer(1, "positive"))
        assert writer.rejected_answers(key) == []
