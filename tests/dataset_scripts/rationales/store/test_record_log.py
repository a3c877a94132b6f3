"""Tests of the record log: after a crash it has all appended records, and nothing else."""

import errno
import os

import pytest

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.record_log import RecordLog

RECORDS = [{"number": number, "text": f"线 {number} \n \ud83d"} for number in range(4)]


def write(path, records=RECORDS):
    log = RecordLog(path, writable=True)
    list(log.records())
    offsets = [log.append(record) for record in records]
    log.close()
    return offsets


def read(path, writable=False):
    log = RecordLog(path, writable=writable)
    records = [record for _, record in log.records()]
    log.close()
    return records


def test_records_can_be_read_by_offset_even_if_the_file_is_removed_meanwhile(tmp_path):
    records = [*RECORDS, {"text": "long " * 40_000}, {"last": True}]
    offsets = write(tmp_path / "log", records)
    log = RecordLog(tmp_path / "log", writable=False)
    (tmp_path / "log").unlink()
    assert list(log.records()) == list(zip(offsets, records, strict=True))
    assert [log.read(offset) for offset in offsets] == records


def test_an_unfinished_last_line_is_removed_by_the_next_writer(tmp_path):
    path = tmp_path / "log"
    write(path)
    content = path.read_bytes()
    last_line = len(content) - content[:-1].rfind(b"\n") - 1
    for missing in range(1, last_line + 1):
        path.write_bytes(content[:-missing])
        assert read(path) == RECORDS[:3]
        assert len(path.read_bytes()) == len(content) - missing  # a reader changes nothing
        write(path, [{"after": missing}])
        assert read(path) == [*RECORDS[:3], {"after": missing}]


@pytest.mark.parametrize("garbage", [b"\0" * 700, b"{}\n", b"00000000 {}\n", b"\xff\xfe\n\n\n"])
def test_garbage_at_the_end_is_removed(tmp_path, garbage):
    path = tmp_path / "log"
    write(path)
    content = path.read_bytes()
    path.write_bytes(content + garbage)
    assert read(path, writable=True) == RECORDS and path.read_bytes() == content


def test_a_corrupt_line_between_records_is_skipped_and_logged(tmp_path, caplog):
    path = tmp_path / "log"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"number", b"numbed")
    path.write_bytes(b"".join(lines))
    assert read(path, writable=True) == [RECORDS[0], *RECORDS[2:]]
    assert "1 corrupt line" in caplog.text
    write(path, [{"after": 1}])
    assert read(path)[-1] == {"after": 1}


@pytest.mark.parametrize("bytes_left", [0, 1, 30])
def test_a_full_disk_leaves_complete_records(tmp_path, monkeypatch, bytes_left):
    path, write_bytes = tmp_path / "log", os.write
    log = RecordLog(path, writable=True)
    list(log.records())
    log.append(RECORDS[0])

    def write_until_full(file, content):
        nonlocal bytes_left
        if not bytes_left:
            raise OSError(errno.ENOSPC, "No space left on device")
        part, bytes_left = content[:bytes_left], 0
        return write_bytes(file, part)

    monkeypatch.setattr(os, "write", write_until_full)
    with pytest.raises(StoreError, match="Free disk space"):
        log.append(RECORDS[1])
    monkeypatch.undo()
    assert read(path) == RECORDS[:1]
    log.append(RECORDS[2])
    assert read(path) == [RECORDS[0], RECORDS[2]]


def test_a_record_may_be_written_in_parts(tmp_path, monkeypatch):
    write_bytes = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write_bytes(file, content[:7]))
    write(tmp_path / "log")
    assert read(tmp_path / "log") == RECORDS


def test_records_are_flushed_to_the_disk_once_a_second(tmp_path, monkeypatch):
    flushed, now = [], 50.0
    monkeypatch.setattr(os, "fsync", flushed.append)
    log = RecordLog(tmp_path / "log", writable=True, monotonic=lambda: now)
    list(log.records())
    for _ in range(40):
        now += 0.1
        log.append({})
    assert len(flushed) in (3, 4)


def test_a_failing_disk_is_a_store_error(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(errno.EIO, "Input/output error")

    log = RecordLog(tmp_path / "log", writable=True)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        log.sync()


def test_a_record_that_changed_after_it_was_read_is_an_error(tmp_path):
    path = tmp_path / "log"
    write(path)
    log = RecordLog(path, writable=False)
    (offset, _), *_ = log.records()
    path.write_bytes(path.read_bytes().replace(b'"number":0', b'"number":9'))
    with pytest.raises(StoreError, match="changed"):
        log.read(offset)
