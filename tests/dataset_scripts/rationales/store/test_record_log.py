"""What was appended is there after any crash, and nothing else."""

import errno
import os

import pytest

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.store.record_log import RecordLog

RECORDS = [{"number": number, "text": f"线 {number} \n \ud83d"} for number in range(4)]


def write(path, records=RECORDS):
    journal = RecordLog(path, writable=True)
    list(journal.records())
    for record in records:
        journal.append(record)
    journal.close()


def read(path, writable=False):
    journal = RecordLog(path, writable=writable)
    found = [record for _, record in journal.records()]
    journal.close()
    return found


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "journal")
    assert read(tmp_path / "journal") == RECORDS


def test_offsets_lead_back_to_the_records_also_to_long_ones(tmp_path):
    records = [*RECORDS, {"text": "long " * 40_000}, {"last": True}]
    journal = RecordLog(tmp_path / "journal", writable=True)
    list(journal.records())
    offsets = [journal.append(record) for record in records]
    assert [journal.read(offset) for offset in offsets] == records
    assert [offset for offset, _ in journal.records()] == offsets


def test_a_torn_tail_of_any_length_is_cut_off_and_writing_goes_on(tmp_path):
    path = tmp_path / "journal"
    write(path)
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rfind(b"\n") - 1
    for torn in range(1, last + 1):
        path.write_bytes(whole[:-torn])
        assert read(path) == RECORDS[:3]  # a reader changes nothing
        assert len(path.read_bytes()) == len(whole) - torn
        write(path, [{"after": torn}])
        assert read(path) == [*RECORDS[:3], {"after": torn}]


@pytest.mark.parametrize("rubbish", [b"\0" * 700, b"{}\n", b"00000000 {}\n", b"\xff\xfe\n\n\n"])
def test_rubbish_at_the_end_is_cut_off(tmp_path, rubbish):
    path = tmp_path / "journal"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole + rubbish)
    assert read(path, writable=True) == RECORDS and path.read_bytes() == whole


def test_a_faulty_line_in_the_middle_costs_that_line_only_and_is_told(tmp_path, caplog):
    path = tmp_path / "journal"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"number", b"numbed")
    path.write_bytes(b"".join(lines))
    assert read(path, writable=True) == [RECORDS[0], *RECORDS[2:]]
    assert "1 corrupt line" in caplog.text
    write(path, [{"after": 1}])
    assert read(path)[-1] == {"after": 1}


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_a_full_disk_leaves_whole_records_and_says_what_to_do(tmp_path, monkeypatch, taken):
    path = tmp_path / "journal"
    journal = RecordLog(path, writable=True)
    list(journal.records())
    journal.append(RECORDS[0])
    really, left = os.write, [taken]

    def full(file, content):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = really(file, content[: left[0]])
        left[0] = 0
        return part

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="Free disk space"):
        journal.append(RECORDS[1])
    monkeypatch.undo()
    assert read(path) == RECORDS[:1]
    journal.append(RECORDS[2])  # there is room again
    assert read(path) == [RECORDS[0], RECORDS[2]]


def test_a_disk_that_takes_a_record_in_parts_gets_all_of_it(tmp_path, monkeypatch):
    really = os.write
    monkeypatch.setattr(os, "write", lambda file, content: really(file, content[:7]))
    write(tmp_path / "journal")
    assert read(tmp_path / "journal") == RECORDS


def test_the_disk_is_made_to_keep_it_once_a_second_whatever_the_computers_clock_says(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    now = [50.0]
    journal = RecordLog(tmp_path / "journal", writable=True, monotonic=lambda: now[0])
    list(journal.records())
    for _ in range(40):
        now[0] += 0.1
        journal.append({})
    assert len(synced) in (3, 4)


def test_a_failing_disk_is_a_store_error(tmp_path, monkeypatch):
    journal = RecordLog(tmp_path / "journal", writable=True)

    def fail(file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        journal.sync()


def test_a_reader_keeps_what_it_opened_when_the_file_is_published_away(tmp_path):
    path = tmp_path / "journal"
    write(path)
    journal = RecordLog(path, writable=False)
    path.unlink()
    assert [record for _, record in journal.records()] == RECORDS


def test_a_record_that_changed_under_the_reader_is_an_error(tmp_path):
    path = tmp_path / "journal"
    write(path)
    journal = RecordLog(path, writable=False)
    (offset, _), *_ = journal.records()
    path.write_bytes(path.read_bytes().replace(b'"number":0', b'"number":9'))
    with pytest.raises(StoreError, match="changed"):
        journal.read(offset)
