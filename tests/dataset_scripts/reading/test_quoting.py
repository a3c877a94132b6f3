"""Quoting of delimited text: posts are never merged or cut apart without a word."""

import csv
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.reading.quoting import SEVERAL_ROWS_NOTE, read_records
from dataset_scripts.reading.text_files import decode_text

PROFILE = settings(max_examples=80, deadline=None, derandomize=True)
TEXTS = st.text(alphabet='ab ",;\t\n\r', max_size=8)


def read(text, delimiter="\t", width=None):
    return list(read_records(lambda: io.StringIO(text, newline="\n"), delimiter, width))


def rows_of(records):
    return [record.fields for record in records if record.fault is None]


def written(rows, delimiter, **options):
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=delimiter, **options).writerows(rows)
    return table.getvalue()


def tables(cells):
    return st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6)
    )


@PROFILE
@given(tables(TEXTS), st.sampled_from(",\t;"))
def test_a_table_with_every_field_in_quotes_reads_as_written(rows, delimiter):
    header = [f"column {number}" for number in range(len(rows[0]))]
    records = read(written([header, *rows], delimiter, quoting=csv.QUOTE_ALL), delimiter)
    assert rows_of(records) == [header, *rows]


@PROFILE
@given(tables(TEXTS), st.sampled_from(",;"))
def test_a_csv_table_with_some_fields_in_quotes_reads_as_written_or_names_the_lines(rows, delimiter):
    rows = [[f"column {number}" for number in range(len(rows[0]))], *rows]
    text = written(rows, delimiter)
    records = read(text, delimiter)
    ends = list(itertools.accumulate(written([row], delimiter).count("\n") for row in rows))
    spans = [(end - written([row], delimiter).count("\n") + 1, end) for end, row in zip(ends, rows, strict=True)]
    read_rows = {record.first: record.fields for record in records if record.fault is None}
    faulty_lines = {line for r in records if r.fault is not None for line in range(r.first, r.last + 1)}
    for (first, last), row in zip(spans, rows, strict=True):
        if any(row) and read_rows.get(first) != row:
            assert faulty_lines & set(range(first, last + 1)), (row, records)


@PROFILE
@given(tables(st.text(alphabet='ab ",', max_size=8)).filter(lambda rows: len(rows[0]) > 1))
def test_a_tsv_table_without_quoting_gives_a_row_for_every_line(rows):
    header = [f"column {number}" for number in range(len(rows[0]))]
    records = read("".join("\t".join(row) + "\n" for row in [header, *rows]))
    assert len(records) == 1 + len(rows) and all(record.fault is None for record in records)
    for record, row in zip(records[1:], rows, strict=True):
        for field, text in zip(record.fields, row, strict=True):
            # A column with every field in quotes is quoted.
            assert field in (text, text[1:-1].replace('""', '"'))


@PROFILE
@given(st.lists(st.text(alphabet='a",\t;x', min_size=1, max_size=12), min_size=1, max_size=8), st.sampled_from(",\t"))
def test_every_line_of_any_text_is_in_a_record(lines, delimiter):
    records = read("a,b\tc,d\n" + "\n".join(lines), delimiter)
    positions = [line for record in records for line in range(record.first, record.last + 1)]
    assert positions == list(range(1, len(lines) + 2))
    merged = [r for r in records if r.first != r.last and r.fault is None and SEVERAL_ROWS_NOTE not in r.notes]
    for record in merged:
        text = "\n".join(lines[record.first - 2 : record.last - 1])
        assert text.count('"') % 2 == 0  # quotes that open and close


def test_a_lone_quote_in_a_tab_separated_table_is_a_character():
    lines = ["id\tlabel\ttext", *(f"{number}\tgood\ttext {number}" for number in range(30))]
    lines[5] += ' "in the middle"'
    for first, second in ((4, 12), (4, 5), (1, 30)):
        table = list(lines)
        table[first] = f'{first - 1}\tgood\t"So happy'
        table[second] = f'{second - 1}\tbad\the said hi"'
        assert rows_of(read("\n".join(table) + "\n")) == [line.split("\t") for line in table]


def test_a_text_in_quotes_keeps_them_in_a_tab_separated_table_without_quoting():
    assert rows_of(read('id\ttext\n1\t"All of it"\n2\tplain\n'))[1] == ["1", '"All of it"']
    assert rows_of(read('id\ttext\n1\t"All of it"\n2\t"and this"\n'))[1] == ["1", "All of it"]


def test_a_csv_quote_that_closes_in_a_later_line_is_damaged_by_itself_and_a_note_in_a_quoted_file():
    stray = 'id,text\n1,"So happy\n2,plain\n3,he said hi"\n4,fine\n'
    damaged = [record for record in read(stray, ",") if record.fault]
    assert [record.position for record in damaged] == ["lines 2-4"] and "csv.QUOTE_ALL" in damaged[0].fault
    quoted = 'id,text\n0,"with, comma"\n1,"So happy\n2,plain\n3,he said hi"\n4,fine\n'
    assert [record.notes for record in read(quoted, ",")] == [(), (), (SEVERAL_ROWS_NOTE,), ()]
    plain = 'id,text\n0,says "hi"\n1,"So happy\n2,plain\n3,he said hi"\n4,fine\n'
    assert rows_of(read(plain, ","))[2:5] == [["1", '"So happy'], ["2", "plain"], ["3", 'he said hi"']]


def test_a_csv_quote_that_never_closes_or_that_text_follows_is_a_character():
    records = read('id,text\n1,"So happy\n2,"Oh" he said\n3,fine\n4,"a, b\n', ",")
    assert rows_of(records)[1:] == [["1", '"So happy'], ["2", '"Oh" he said'], ["3", "fine"]]
    assert [(record.position, record.fault) for record in records if record.fault] == [
        (
            "line 5",
            "the number of fields is 3, it must be 2; look for a quote that does not close, or correct the row.",
        )
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_long_quoted_text_with_delimiters_blank_lines_and_quotes_is_one_field(ending):
    text = ending.join(["Dear, all", "", *['he said "hi"'] * 500, "bye"])
    table = written([["text", "label"], [text, "good"], ["next", "bad"]], ",", lineterminator=ending)
    assert rows_of(read(table, ",")) == [["text", "label"], [text, "good"], ["next", "bad"]]


@pytest.mark.parametrize(
    ("lines", "records"),
    [
        (['1\t"a\tb\n', "2\tc\td\n"], [(1, ["1", '"a', "b"]), (2, ["2", "c", "d"])]),
        (['3\t"e"\tf\n', "\n", '4\t"two\n', 'lines"\tg\n'], [(1, ["3", "e", "f"]), (3, ["4", "two\nlines", "g"])]),
        (['1\t"a\tb"\tc\n'], [(1, ["1", "a\tb", "c"])]),
        (['1\ta\t"b\n', '2\tc\td"\n'], [(1, ["1", "a", '"b']), (2, ["2", "c", 'd"'])]),
        (["1\ta\n", '2\t"b\tc\td\n'], [(1, ["1", "a"]), (2, ["2", '"b', "c", "d"])]),
    ],
)
def test_only_closed_quotes_join_lines_and_tabs(lines, records):
    assert [(record.first, record.fields) for record in read("".join(lines), width=3)] == records


def test_the_texts_of_mvsa_read_as_written_with_and_without_quoting(real_data):
    files = sorted((real_data / "mvsa_single" / "data").glob("*.txt"))
    texts = [" ".join(decode_text(file.read_bytes())[0].split()) for file in files]
    assert sum(text.startswith('"') for text in texts) > 20
    rows = [["id", "text", "label"], *([str(number), text, "good"] for number, text in enumerate(texts))]
    for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1)):
        ordered = [[row[column] for column in order] for row in rows]
        assert rows_of(read("".join("\t".join(row) + "\n" for row in ordered))) == ordered
        for delimiter, quoting in itertools.product("\t,;", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)):
            assert rows_of(read(written(ordered, delimiter, quoting=quoting), delimiter)) == ordered
