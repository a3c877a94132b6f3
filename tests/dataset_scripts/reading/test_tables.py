"""Tables of all formats: every row is read or named, whatever program wrote the file."""

import gzip
import json

import openpyxl
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.reading.report import BuildReport
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import (
    LOST_NOTE,
    TableFormat,
    find_table,
    require_column,
    sound_rows,
    table_columns,
    table_rows,
)
from dataset_scripts.reading.text_files import decode_text, text_lines

ROWS = [{"id": "1", "text": "café, “quoted”"}, {"id": "2", "text": "two\nlines"}]


def write(folder, content, name="posts.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def workbook(file, sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        page = book.create_sheet(title)
        for row in rows:
            page.append(row)
    book.save(file)
    return file


def read(file, **options):
    return [dict(row) for _, row in sound_rows(file, TableFormat(**options))]


def faults(file, **options):
    rows = table_rows(file, TableFormat(**options))
    return [f"{location.rpartition(', ')[2]}: {row}" for location, row in rows if isinstance(row, str)]


@pytest.mark.parametrize(
    ("name", "encoding", "sep", "options"),
    [
        ("posts.csv", "utf-8-sig", ",", {}),
        ("POSTS.CSV", "utf-8", ",", {}),
        ("posts.csv", "utf-16", ",", {}),
        ("posts.csv", "utf-16-be", ",", {"encoding": "utf-16-be"}),
        ("posts.csv", "cp1252", ",", {"encoding": "cp1252"}),
        ("posts.csv", "utf-8", ";", {}),
        ("posts.csv", "utf-8", "\t", {}),
        ("posts.csv", "utf-8", "!", {"delimiter": "!"}),
        ("posts.tsv", "utf-8", "\t", {"delimiter": r"\t"}),
        ("posts.tsv", "utf-8", ",", {}),
        ("posts.txt", "utf-8", "|", {}),
        ("posts.csv.gz", "utf-8", ",", {}),
    ],
)
def test_tables_of_other_programs_read_as_written(tmp_path, name, encoding, sep, options):
    content = pandas.DataFrame(ROWS).to_csv(index=False, sep=sep).encode(encoding)
    file = write(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert read(file, **options) == ROWS and table_columns(file, TableFormat(**options)) == ["id", "text"]


def test_lines_end_as_in_old_macs_and_unicode_line_ends_are_text(tmp_path):
    assert read(write(tmp_path, "id,text\r1,a\r2,b\r")) == [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    text = "a\x85b\u2028c\x0bd\re"
    assert read(write(tmp_path, f"id,text\r\n1,{text}\r\n")) == [{"id": "1", "text": text}]


def test_the_line_in_which_excel_reads_the_delimiter_is_no_header(tmp_path):
    file = write(tmp_path, "sep=;\r\nid;text\r\n1;a, b\r\n")
    assert list(table_rows(file)) == [(f"{file}, line 3", {"id": "1", "text": "a, b"})]


def test_a_sheet_reads_with_numbers_dates_and_blank_cells(tmp_path):
    rows = [["id", "text", None], [1, "a", None], [None, None, None], [2.5, None, None], [3, "c", None]]
    file = workbook(tmp_path / "posts.xlsx", {"Posts": rows, "Empty": []})
    assert read(file) == [{"id": 1, "text": "a"}, {"id": 2.5, "text": None}, {"id": 3, "text": "c"}]
    assert [location.rpartition(", ")[2] for location, _ in table_rows(file)] == ["row 2", "row 4", "row 5"]
    assert find_table(tmp_path, None) == file


def test_one_of_several_sheets_must_be_named(tmp_path):
    sheets = {"Posts": [["id", "text"], [1234567890123450, "a"], [1234567890123451, "b"]], "Notes": [["note"], ["x"]]}
    file = workbook(tmp_path / "posts.xlsx", sheets)
    with pytest.raises(ValueError, match="2 sheets with rows: 'Posts', 'Notes'; name one with sheet=\"Posts\""):
        table_columns(file, TableFormat())
    # Excel keeps 15 digits, so the first id was rounded.
    assert [row["id"] for row in read(file, sheet="Posts")] == ["1.23456789012345e+15", 1234567890123451]
    with pytest.raises(ValueError, match="no sheet 'posts'.*Did you mean 'Posts'"):
        table_columns(file, TableFormat(sheet="posts"))
    extra = workbook(tmp_path / "extra.xlsx", {"Posts": [["id"], [1], [2, "beyond"]]})
    assert read(extra) == [{"id": 1}] and "row 3: a cell beyond the 1 columns" in faults(extra)[0]


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    file = workbook(tmp_path / "posts.xlsx", {"Posts": [["id"], [1]]})
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"pip install 'mpt-sentiment\[xlsx\]'"):
        read(file)


def test_hidden_files_are_no_tables_and_copies_are_read_only_by_name(tmp_path):
    for name in ("._posts.csv", "~$posts.xlsx", "posts.csv", "posts.csv.gz", "posts.xlsx", "notes.txt"):
        write(tmp_path, "", name)
    assert find_table(tmp_path, None).name == "posts.csv"
    assert find_table(tmp_path, "posts.csv.gz").name == "posts.csv.gz"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("id,text\n1,a\n2,café\n".encode("cp1252"), {}, 'line 3: the byte 0xe9 is not UTF-8.*encoding="cp1252"'),
        ("id,text\n1,微博\n2,开心\n".encode("gbk"), {}, 'line 2: the byte 0xb2 is not UTF-8.*encoding="gb18030"'),
        ("id,text\r1,a\r2,\xe9\r".encode("latin-1"), {}, "line 3: the byte 0xe9"),
        ("id,text\n1,a\n".encode("utf-16-le"), {}, 'null bytes.*encoding="utf-16-le"'),
        (b"id,text\n1,\x81\n", {"encoding": "cp1252"}, "line 2: the byte 0x81 is not CP1252"),
        ("id,text\n1,é\n".encode(), {"encoding": "ascii"}, 'line 2: .*not ASCII.*encoding="utf-8"'),
        (b"id,text\n", {"encoding": "utf8x"}, "'utf8x' is no text encoding of Python"),
        (b"id,text\n", {"encoding": "base64"}, "'base64' is no text encoding of Python"),
        (b"id,text\n", {"delimiter": "::"}, 'must be one character, e.g. delimiter=";"'),
        (b"id,text\n", {"sheet": "Posts"}, "sheet=… is for XLSX"),
        (b"text,id,text\n", {}, "2 columns have the name 'text'"),
        (b"\n\n", {}, "is empty; its first line must name the columns"),
    ],
)
def test_a_table_that_cannot_be_read_names_line_and_option(tmp_path, content, options, message):
    with pytest.raises(ValueError, match=message):
        table_columns(write(tmp_path, content), TableFormat(**options))


def test_the_true_line_of_a_bad_byte_far_into_a_table_is_named(tmp_path):
    lines = [b"id,text", *(b"%d,plain" % number for number in range(30_000))]
    lines[20_000] = b"x,caf\xe9"
    with pytest.raises(ValueError, match="line 20001: the byte 0xe9"):
        read(write(tmp_path, b"\n".join(lines)))


def test_a_broken_gzip_file_is_named(tmp_path):
    content = gzip.compress(b"id,text\n" + b"1,a\n" * 5000)
    for damaged in (content[:-10], b"id,text\n1,a\n"):
        with pytest.raises(ValueError, match="is not a complete gzip file"):
            read(write(tmp_path, damaged, "posts.csv.gz"))


def test_columns_without_a_name_are_left_out(tmp_path):
    assert read(write(tmp_path, ",id,text,,\n0,1,a,,\n")) == [{"id": "1", "text": "a"}]


def test_a_second_header_and_blank_rows_are_no_posts(tmp_path):
    file = write(tmp_path, "id,text\n1,a\n,\n\ufeffid,text\n2,b\n,\n")
    assert faults(file) == ["line 4: the header once more, as in tables that were joined; remove this line."]
    report = BuildReport("x", on_error="skip")
    kept = [row["id"] for location, row in table_rows(file) if RowChecks(report).has_all_fields(row, location)]
    assert kept == ["1", "2"] and report.dropped == {"blank row": 2} and report.skipped == {"malformed row": 1}


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.csv", "posts.parquet"])
def test_half_characters_and_null_characters_are_counted(tmp_path, name):
    text = "cut \ud83d" if name == "posts.jsonl" else "cut \0"
    file = tmp_path / name
    if name == "posts.parquet":
        pq.write_table(pa.table({"id": ["1", "2"], "text": [text, "whole 😀"]}), file)
    elif name == "posts.csv":
        file.write_text(f"id,text\n1,{text}\n2,whole 😀\n")
    else:
        file.write_text(json.dumps({"id": "1", "text": text}) + "\n" + json.dumps({"id": "2", "text": "whole 😀"}))
    rows = [row for _, row in table_rows(file)]
    assert [row["text"] for row in rows] == ["cut \ufffd", "whole 😀"]
    assert [row.notes for row in rows] == [(LOST_NOTE,), ()]


def test_a_damaged_line_of_jsonl_is_named_and_the_others_are_read(tmp_path):
    lines = ['{"id": 1}', "", '{"id": 2', "[3]", '{"id": 4, "id": 5}', '{"id": NaN}', "9" * 5000, "[" * 100_000]
    file = write(tmp_path, "\n".join([*lines, '{"id": 12345678901234567890}']), "posts.jsonl")
    assert [fault.split(";")[0].split(" (")[0] for fault in faults(file)] == [
        "line 3: invalid JSON",
        "line 4: expected an object {…}, got list",
        "line 5: invalid JSON",
        "line 7: invalid JSON",
        "line 8: invalid JSON",
    ]
    assert "the key 'id' occurs twice" in faults(file)[2]
    assert [row["id"] for row in read(file)][::2] == [1, 12345678901234567890]
    with pytest.raises(ValueError, match="line 1: expected an object"):
        table_columns(write(tmp_path, '[{"id": 1}, {"id": 2}]', "list.jsonl"))


def test_a_damaged_text_of_parquet_is_named(tmp_path):
    texts = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "posts.parquet")
    assert read(tmp_path / "posts.parquet") == [{"text": "a"}, {"text": "c"}]
    assert faults(tmp_path / "posts.parquet") == ["row 2: a text is not UTF-8; write the row again."]
    pq.write_table(pa.Table.from_arrays([texts, texts], ["text", "text"]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="2 columns have the name 'text'"):
        table_columns(tmp_path / "twice.parquet")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=60),
    name=st.sampled_from(["p.csv", "p.tsv", "p.jsonl", "p.csv.gz", "p.xlsx", "p.parquet"]),
)
def test_any_bytes_are_read_or_refused_with_one_line(tmp_path_factory, content, name):
    file = write(tmp_path_factory.mktemp("any"), content, name)
    try:
        table_columns(file)
        assert all(location.startswith(str(file)) for location, _ in table_rows(file))
    except ValueError as error:
        assert str(file) in str(error) and len(str(error)) - len(str(file)) < 300


def test_a_column_name_that_holds_a_delimiter_suggests_the_option():
    with pytest.raises(ValueError, match=r"Or is ';' between the fields: delimiter=\";\"\?"):
        require_column("posts.csv", ["id;text, or so", "label"], "text", "text_column")


def test_texts_of_mvsa_in_utf_16_or_with_null_bytes(tmp_path):
    assert decode_text("so “happy”".encode("utf-16-le")) == ("so “happy”", "utf-16-le")
    assert decode_text(b"so \0 happy") == ("so \ufffd happy", "damaged")
    assert list(text_lines(write(tmp_path, "\ufeffa\nb".encode()))) == ["a\n", "b"]
