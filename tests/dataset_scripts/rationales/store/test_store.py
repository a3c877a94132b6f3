"""Tests of the store: answers are never lost or duplicated, and belong to one specification."""

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
from dataset_scripts.rationales.store import old_names
from dataset_scripts.rationales.store.record_log import RecordLog
from dataset_scripts.rationales.store.rows import row_schema, write_parquet
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from helpers.rationale_runs import PERSPECTIVES, PROMPT, SPEC, contents, new_store, statuses


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def post(number, **changes):
    text = sha256(f"text {number}")
    return {"kind": "post", "id": f"p{number}", "image_sha256": None, "text_sha256": text, "language": "en"} | changes


def answer(number, perspective, status="ok", **changes):
    key = item_key(SPEC.spec_hash, None, sha256(f"text {number}"), perspective)
    text = f"{perspective} of {number}" if status in ("ok", "flagged") else None
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


def test_the_manifest_has_specification_and_prompt(tmp_path):
    store = RationaleStore.create(tmp_path / "s", SPEC, PROMPT, num_shards=3, data={"name": "sample"})
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == store.manifest and manifest["spec_hash"] == SPEC.spec_hash
    assert manifest["spec"] == SPEC.to_dict() and manifest["prompt"] == PROMPT.to_dict()
    assert (manifest["num_shards"], manifest["data"]) == (3, {"name": "sample"}) and manifest["versions"]["python"]
    assert RationaleStore.open(tmp_path / "s").spec == SPEC


@pytest.mark.parametrize(("field", "value"), [("model", "other"), ("temperature", 0.5), ("num_shards", 3)])
def test_a_store_with_other_settings_is_refused_with_the_fields_that_differ(tmp_path, field, value):
    settings = {"spec": SPEC, "num_shards": 1}
    new_store(tmp_path / "s", **settings)
    other = {"num_shards": 3} if field == "num_shards" else {"spec": dataclasses.replace(SPEC, **{field: value})}
    with pytest.raises(StoreError, match=rf"{field}: .* not {value!r}") as error_info:
        new_store(tmp_path / "s", **settings | other)
    assert "max_tokens" not in str(error_info.value)
    assert new_store(tmp_path / "s", **settings).spec == SPEC


def test_a_store_without_answers_takes_the_corrected_specification(tmp_path):
    other = dataclasses.replace(SPEC, model="other")
    with new_store(tmp_path / "s", num_shards=2).writer(1) as writer:
        writer.add(post(1))
        with pytest.raises(StoreError, match="process"):  # a run is waiting for its first answer
            new_store(tmp_path / "s", num_shards=2, spec=other)
    store = new_store(tmp_path / "s", spec=other)
    assert (store.spec, store.num_shards, list(store.rows())) == (other, 1, [])
    with store.writer(0) as writer:
        fill(writer, [1])
    with pytest.raises(StoreError, match="model: 'other', not 'm'"):
        new_store(tmp_path / "s")


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"kind": "mpt-rationales", "version": 99}', "[]"])
def test_a_folder_that_is_not_a_store_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert not is_store(tmp_path) and not is_store(tmp_path / "missing")
    with pytest.raises(StoreError):
        RationaleStore.open(tmp_path)


def test_a_folder_with_other_data_is_not_changed(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(StoreError, match="another folder"):
        new_store(tmp_path)
    assert os.listdir(tmp_path) == ["data"]


def test_the_first_of_two_processes_that_create_a_store_wins(tmp_path, monkeypatch):
    link = os.link

    def link_after_another_process(source, target):
        monkeypatch.undo()
        new_store(tmp_path, num_shards=5)
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_another_process)
    with pytest.raises(StoreError, match="num_shards: 5, not 1"):
        new_store(tmp_path)
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_store_needs_no_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert is_store(new_store(tmp_path / "s").folder) and os.listdir(tmp_path / "s") == ["manifest.json"]


def test_posts_with_the_same_text_are_in_one_shard_and_shards_have_equal_sizes(tmp_path):
    store = new_store(tmp_path / "s", num_shards=7)
    shards = [store.shard_of(sha256(str(number)), None) for number in range(7_000)]
    assert all(800 < shards.count(shard_id) < 1200 for shard_id in range(7))
    assert store.shard_of(sha256("a"), sha256("image")) == store.shard_of(sha256("a"), None)
    assert store.shard_of(None, sha256("a")) == store.shard_of(sha256("a"), None)
    assert store.shard_of(None, None) == 0
    with pytest.raises(ValueError, match="0 to 6"):
        store.writer(7)


def test_a_second_writer_is_refused_with_the_process_that_writes(tmp_path):
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


def test_the_first_good_answer_is_kept_and_a_failure_is_replaced(store):
    key = answer(1, "positive")["key"]
    with store.writer(0) as writer:
        writer.add(post(1))
        assert writer.index.status(key) is None and writer.answer(key) is None
        assert writer.add(answer(1, "positive", "failed")) and writer.index.status(key) == "failed"
        assert writer.add(answer(1, "positive", "crashed")) and writer.index.status(key) == "crashed"
        assert writer.add(answer(1, "positive")) and writer.index.status(key) == "ok"
        assert not writer.add(answer(1, "positive", text="a later one"))
        assert not writer.add(answer(1, "positive", "failed"))
        assert writer.answer(key)["text"] == "positive of 1"
    with store.writer(0) as writer:
        assert not writer.add(answer(1, "positive", text="in another process"))
    open_ones = dict.fromkeys(("neutral", "negative"), (None, "open"))
    assert contents(store)["p1"] == {"positive": ("positive of 1", "ok")} | open_ones


def test_published_shards_are_a_dataset_with_one_row_per_post(tmp_path):
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
    assert row["key_neutral"] == answer(1, "neutral")["key"] and row["text_sha256"] == sha256("text 1")
    assert list(store.rows([0])) == list(data)[:3]
    assert not list((store.folder / "shards").glob("*/journal*"))


def test_the_published_file_does_not_depend_on_the_order_of_the_answers(tmp_path):
    files = []
    for name, numbers in (("a", range(50)), ("b", reversed(range(50)))):
        with new_store(tmp_path / name).writer(0) as writer:
            fill(writer, numbers)
            writer.publish()
        files.append((tmp_path / name / "data" / "00000.parquet").read_bytes())
    assert files[0] == files[1]


def test_a_published_shard_can_be_extended_and_its_failures_replaced(store):
    with store.writer(0) as writer:
        fill(writer, [1, 2])
        writer.add(post(3))
        writer.add(answer(3, "positive", "failed"))
        writer.publish()
    published = (store.folder / "data" / "00000.parquet").stat()
    with store.writer(0) as writer:  # without new records, the file is not written again
        fill(writer, [1, 2])
        writer.publish()
    assert (store.folder / "data" / "00000.parquet").stat().st_mtime_ns == published.st_mtime_ns
    with store.writer(0) as writer:
        fill(writer, [2, 3, 4])
        writer.add(post(1, id="duplicate"))
        assert contents(store) == expected([1, 2, 3, 4]) | {"duplicate": expected([1])["p1"]}
        writer.publish()
    assert contents(store) == expected([1, 2, 3, 4]) | {"duplicate": expected([1])["p1"]}


def test_extending_a_published_shard_keeps_all_columns_of_its_rows(store):
    with store.writer(0) as writer:
        fill(writer, [1])
        writer.add(post(2))
        half_a_pair = {"text": "so \ud83d", "raw": " so \ud83d"}
        writer.add(answer(2, "positive", "flagged", flags=["short"], system_fingerprint="b", **half_a_pair))
        writer.add(answer(2, "neutral", "failed"))
        writer.add(post(3, error="preparation: no file"))
        writer.publish()
    published = {row["id"]: row for row in store.rows()}
    assert published["p2"]["rationale_positive"] == "so \ufffd"
    with store.writer(0) as writer:
        fill(writer, [4])
    extended = {row["id"]: row for row in store.rows()}
    assert extended.pop("p4") and extended == published


def test_a_crash_between_writing_the_parquet_file_and_removing_the_log_loses_nothing(store, monkeypatch):
    unlink = pathlib.Path.unlink

    def crash(path, missing_ok=False):
        if path.name == "journal.jsonl":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", crash)
    with pytest.raises(KeyboardInterrupt), store.writer(0) as writer:
        fill(writer, [1, 2])
        writer.publish()
    monkeypatch.undo()
    assert contents(store) == expected([1, 2])
    with store.writer(0) as writer:
        fill(writer, [2, 3])
        writer.publish()
    assert contents(store) == expected([1, 2, 3]) and store.status()[0].published


def test_a_full_disk_during_publishing_keeps_the_log(store, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.writer(0) as writer:
        fill(writer, [1, 2])
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(StoreError, match="Free disk space"):
            writer.publish()
        monkeypatch.undo()
        assert os.listdir(store.folder / "data") == [] and contents(store) == expected([1, 2])
        (store.folder / "data" / ".00000.parquet.1.tmp").touch()  # from a killed process
        fill(writer, [3])
        writer.publish()
    assert os.listdir(store.folder / "data") == ["00000.parquet"] and contents(store) == expected([1, 2, 3])


def test_a_folder_that_cannot_be_written_is_a_store_error(store):
    (store.folder / "shards").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"), store.writer(0):
        pass


def test_rows_and_status_can_be_read_while_a_run_writes(tmp_path):
    store = new_store(tmp_path / "s", num_shards=3)
    with store.writer(1) as writer:
        fill(writer, [1, 2])
        writer.add(post(3))
        writer.add(answer(3, "positive", "crashed"))
        rows = store.rows()
        first = next(rows)
        writer.publish()
        assert [row["id"] for row in [first, *rows]] == ["p1", "p2", "p3"]
        fill(writer, [4])
        shards = store.status()
    assert dataclasses.astuple(shards[1]) == (1, 4, 9, 0, 0, 1, 2, False)
    assert dataclasses.astuple(shards[0]) == (0, 0, 0, 0, 0, 0, 0, False) and shards[2].shard_id == 2
    with store.writer(1) as writer:
        writer.publish()
    assert dataclasses.astuple(store.status()[1]) == (1, 4, 9, 0, 0, 1, 2, True)


def test_an_unusable_post_is_replaced_by_the_repaired_one(store):
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


def test_rejected_answers_and_crash_counts_are_kept_across_a_restart(store):
    key = answer(1, "positive")["key"]
    with store.writer(0) as writer:
        writer.add(post(1))
        writer.add({"kind": "try", "key": key, "text": "first"})
        writer.add({"kind": "suspect", "content": "c", "crashes": 1})
        writer.add({"kind": "suspect", "content": "c", "crashes": 2})
    with store.writer(0) as writer:
        assert [rejected["text"] for rejected in writer.rejected_answers(key)] == ["first"]
        assert writer.index.crash_counts == {"c": 2}
        writer.add(answer(1, "positive"))
        assert writer.rejected_answers(key) == []


@pytest.mark.parametrize("published", [False, True])
def test_stores_of_earlier_versions_are_read(store, published):
    files = store.writer(0).files
    files.log.parent.mkdir(parents=True)
    log = RecordLog(files.log, writable=True)
    old_answer = answer(1, "positive", old_names.CRASHED)
    for record in (post(1), {"kind": "suspect", "content": "c", old_names.CRASHES: 2}, old_answer):
        log.append(record)
    log.close()
    if published:
        rows = list(store.rows())
        files.log.unlink()
        rows[0]["status_positive"] = old_names.CRASHED
        write_parquet(files.parquet, row_schema(PERSPECTIVES), iter(rows))
    assert contents(store)["p1"]["positive"] == (None, "crashed") and store.status()[0].crashed == 1
    with store.writer(0) as writer:
        assert writer.index.status(old_answer["key"]) == "crashed"
        assert published or writer.index.crash_counts == {"c": 2}
        assert writer.add(answer(1, "positive"))
    assert contents(store)["p1"]["positive"] == ("positive of 1", "ok")
