"""Tables that cannot be parsed as their ending says, or that hold damaged rows."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from bad_inputs.case import FOLDER, BadInput
from dataset_scripts import load_posts, load_posts_with_report, split_posts
from dataset_scripts.loaders.mvsa import label_rows
from dataset_scripts.rationales.transfer import export_table
from dataset_scripts.reading.report import BuildReport

BUILD = ["build-dataset", "folder", "--data_dir", FOLDER, "--output_dir", f"{FOLDER}/built"]
LABELS = ("positive", "neutral", "negative")
SKIP = [*BUILD, "--on_error", "skip"]
EXPORT = ["generate-rationales", "export", "--rationales", f"{FOLDER}/r.csv", "--output_file"]
TWICE = "id,rationale_positive\n1,The sun shines on the beach.\n1,The sun shines on the sea.\n"


def rows(count: int = 12, texts: dict[int, str] | None = None) -> list[list[str]]:
    """Header and rows of posts, some of them with another text."""
    body = [[str(n), LABELS[n % 3], (texts or {}).get(n, f"words number {n}")] for n in range(count)]
    return [["id", "label", "text"], *body]


def plain(table: list[list[str]], delimiter: str = ",") -> str:
    """Write without any quoting, as by joining strings."""
    return "".join(delimiter.join(row) + "\n" for row in table)


def quoted(table: list[list[str]], delimiter: str = ",", **options: Any) -> str:
    lines = io.StringIO(newline="")
    csv.writer(lines, delimiter=delimiter, **options).writerows(table)
    return lines.getvalue()


def jsonl(table: list[list[str]]) -> str:
    return "".join(json.dumps(dict(zip(table[0], row, strict=True))) + "\n" for row in table[1:])


def texts_are(expected: dict[int, str], count: int = 12, **options: Any) -> Callable[[Path], None]:
    """Load the posts, and compare their number and some of their texts by id."""

    def check(folder: Path) -> None:
        posts, report = load_posts_with_report("folder", folder, **options)
        texts = dict(zip(posts["id"], posts["text"], strict=True))
        assert len(texts) == count == report.kept
        assert {n: texts[str(n)] for n in expected} == expected
        assert report.read == report.kept + sum(report.skipped.values()) + sum(report.dropped.values())
        logging.getLogger(__name__).warning("%s", report.summary())

    return check


def folder_of(**options: Any) -> Callable[[Path], Any]:
    return lambda folder: load_posts("folder", folder, **options)


def options(**values: Any) -> list[str]:
    return ["--dataset_options", json.dumps(values)]


def workbook(**sheets: list[list[Any]]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, table in sheets.items():
            page = book.create_sheet(title)
            for row in table:
                page.append(row)
        book.save(folder / "posts.xlsx")
        return folder / "posts.xlsx"

    return write


def parquet_of(columns: list[str], *arrays: pa.Array) -> Callable[[Path], None]:
    return lambda folder: pq.write_table(pa.Table.from_arrays(list(arrays), columns), folder / "posts.parquet")


def joined(name: str, **options: Any) -> Callable[[Path], Any]:
    return lambda folder: load_posts("sample", num_posts=3, rationales=folder / name, **options)


def rationales(first: str, last: str, delimiter: str) -> str:
    ids = load_posts("sample", num_posts=6)["id"]
    texts = [first, *(f"why {n}" for n in range(4)), last]
    return plain([["id", "rationale_positive"], *map(list, zip(ids, texts, strict=True))], delimiter)


def rationale_rows_are(folder: Path) -> None:
    joined_posts = load_posts("sample", num_posts=6, rationales=folder / "r.tsv")
    assert joined_posts["rationale_positive"] == ['"so happy', "why 0", "why 1", "why 2", "why 3", 'he said"']


def authors(**options: Any) -> Callable[[Path], Any]:
    return lambda folder: load_posts("authors", folder, images=False, **options)


def authors_rows_are(folder: Path) -> None:
    assert authors()(folder)["text"] == ['"so happy', "words", 'he said"']


def mvsa(folder: Path) -> None:
    report = BuildReport("mvsa_single", on_error="skip")
    ids = [row[1] for row in label_rows(report, folder / "labelResultAll.txt")]
    assert ids == ["1", "3"] and report.read == 3 and report.skipped == {"unknown label": 1}


def mvsa_raises(folder: Path) -> None:
    list(label_rows(BuildReport("mvsa_single"), folder / "labelResultAll.txt"))


def split_by_lists(folder: Path) -> None:
    split_posts(load_posts("sample", num_posts=6), "clmlf", id_lists=folder)


STRAY = rows(20, {3: '"So happy today', 8: 'he said hi"'})
STRAY_TEXTS = {3: '"So happy today', 4: "words number 4", 8: 'he said hi"'}
NEVER_CLOSED = rows(12, {3: '"So happy today'})
FOLLOWED = rows(12, {3: '"Oh" she said', 5: 'a "word" inside', 7: '"so" it "goes"'})
SEVERAL_LINES = rows(12, {3: 'Dear all,\n\nshe said "hi"\r\n1,positive', 5: "with, comma"})
ACCENTS = rows(12, {3: "café “quoted”"})
CHINESE = rows(12, {3: "今天很开心"})
CONTENT = plain(rows())
ODD_HEADER = plain(rows(), ";").replace("text", "text, or so", 1)
SECOND_PART = "".join(f"{int(n) + 12},{label},again {n}\n" for n, label, _ in rows()[1:])

QUOTES = [
    BadInput("tables stray quotes in TSV", texts_are(STRAY_TEXTS, 20), (), {"p.tsv": plain(STRAY, "\t")}, exit_code=0),
    BadInput("tables stray quotes in TSV of neighbours", texts_are({3: '"So', 4: 'hi"'}), (),
             {"p.tsv": plain(rows(12, {3: '"So', 4: 'hi"'}), "\t")}, exit_code=0),
    BadInput("tables stray quotes in CSV", BUILD, ("posts.csv, lines 5-10", "could be rows", "csv.QUOTE_ALL", "skip"),
             {"posts.csv": plain(STRAY)}, advice=SKIP),
    BadInput("tables stray quotes in CSV, each field quoted instead", texts_are(STRAY_TEXTS, 20), (),
             {"posts.csv": quoted(STRAY, quoting=csv.QUOTE_ALL)}, exit_code=0),
    BadInput("tables stray quotes in a quoted CSV are noted", texts_are({10: "with, comma"}, 15),
             ("note: quoted text of several lines, each of which could be a row 1",),
             {"p.csv": plain(STRAY).replace("words number 10", '"with, comma"')}, exit_code=0),
    BadInput("tables quote that never closes in CSV", texts_are({3: '"So happy today'}), (),
             {"p.csv": plain(NEVER_CLOSED)}, exit_code=0),
    BadInput("tables quotes with text after them", texts_are({3: '"Oh" she said', 7: '"so" it "goes"'}), (),
             {"p.csv": plain(FOLLOWED)}, exit_code=0),
    BadInput("tables texts of several lines in CSV", texts_are({3: SEVERAL_LINES[4][2]}), (),
             {"p.csv": quoted(SEVERAL_LINES)}, exit_code=0),
    BadInput("tables texts of several lines in TSV", texts_are({3: SEVERAL_LINES[4][2]}), (),
             {"p.tsv": quoted(SEVERAL_LINES, "\t")}, exit_code=0),
    BadInput("tables comma in a text without quotes", BUILD, ("posts.csv, line 5", "look for ',' in a text without"),
             {"posts.csv": plain(rows(12, {3: "well, no"}))}, advice=SKIP),
    BadInput("tables published CSV with stray quotes", lambda folder: load_posts(str(folder)),
             ("posts.csv, lines 5-10", 'load_posts("folder"', 'on_error="skip"'), {"posts.csv": plain(STRAY)},
             advice=folder_of(on_error="skip")),
    BadInput("tables published TSV with stray quotes", lambda folder: load_posts(str(folder)),
             ("has 20 rows, `datasets` reads 15",), {"train.tsv": plain(STRAY, "\t")}, advice=folder_of()),
    BadInput("tables rationales with stray quotes", rationale_rows_are, (),
             lambda folder: (folder / "r.tsv").write_text(rationales('"so happy', 'he said"', "\t")), exit_code=0),
    BadInput("tables rationales in CSV with stray quotes", joined("r.csv"), ("r.csv, lines 2-7", "could be rows"),
             lambda folder: (folder / "r.csv").write_text(rationales('"so happy', 'he said"', ","))),
    BadInput("tables authors' file with stray quotes", authors_rows_are, (),
             {"a.tsv": '1\tp/p0/a.jpg\t"so happy\tx\ty\n1\tp/p1/a.jpg\twords\tx\ty\n0\tn/n0/a.jpg\the said"\tx\ty\n'},
             exit_code=0),
]  # fmt: skip
FORMATS = [
    BadInput("tables ending in capitals", BUILD, ("12 posts kept",), {"POSTS.CSV": CONTENT}, exit_code=0),
    BadInput("tables lock file of Excel", BUILD, (), {"p.csv": CONTENT, "~$p.xlsx": b"\0"},
             exit_code=0),
    BadInput("tables semicolons", texts_are({3: "a, b"}), (), {"p.csv": plain(rows(12, {3: "a, b"}), ";")},
             exit_code=0),
    BadInput("tables delimiter that is not recognized", [*BUILD, *options(text_column="text, or so")],
             ("no column 'text, or so'", """'{"delimiter": ";"}'"""), {"posts.csv": ODD_HEADER},
             advice=[*BUILD, *options(text_column="text, or so", delimiter=";")]),
    BadInput("tables delimiter of two characters", [*BUILD, *options(delimiter="||")], ("must be one character",),
             {"posts.csv": CONTENT}, advice=BUILD),
    BadInput("tables Latin encoding", BUILD, ("posts.csv, line 5: the byte 0xe9", """'{"encoding": "cp1252"}'"""),
             {"posts.csv": plain(ACCENTS).encode("cp1252")}, advice=[*BUILD, *options(encoding="cp1252")]),
    BadInput("tables Chinese encoding", folder_of(), ("posts.csv, line 5", 'encoding="gb18030"'),
             {"posts.csv": plain(CHINESE).encode("gbk")}, advice=texts_are({3: "今天很开心"}, encoding="gb18030")),
    BadInput("tables UTF-16", texts_are({3: "café “quoted”"}), (), {"p.csv": plain(ACCENTS).encode("utf-16")},
             exit_code=0),
    BadInput("tables UTF-16 without a mark", folder_of(), ("null bytes", 'encoding="utf-16-le"'),
             {"posts.csv": CONTENT.encode("utf-16-le")}, advice=folder_of(encoding="utf-16-le")),
    BadInput("tables mistyped encoding", [*BUILD, *options(encoding="uft8")], ("'uft8' is no text encoding",),
             {"posts.csv": CONTENT}, advice=[*BUILD, *options(encoding="utf8")]),
    BadInput("tables compressed", texts_are({}), (), {"p.csv.gz": gzip.compress(CONTENT.encode())}, exit_code=0),
    BadInput("tables compressed and cut", BUILD, ("p.csv.gz is not a complete gzip file",),
             {"p.csv.gz": gzip.compress(CONTENT.encode())[:-12]}),
    BadInput("tables XLSX of two sheets", BUILD, ("2 sheets with rows", """'{"sheet": "Posts"}'"""),
             workbook(Posts=rows(), Notes=[["note"]]), advice=[*BUILD, *options(sheet="Posts")]),
    BadInput("tables XLSX that is something else", BUILD, ("is not an XLSX file",), {"p.xlsx": "id,text\n"}),
    BadInput("tables spreadsheet that was renamed", BUILD, ("posts.csv is an XLSX file or a ZIP archive", "rename it"),
             lambda folder: workbook(Posts=rows())(folder).rename(folder / "posts.csv")),
    BadInput("tables pointer of Git LFS", BUILD, ("posts.csv is a Git LFS pointer", "git lfs pull"),
             {"posts.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"}),
    BadInput("tables page of a failed download", BUILD, ("posts.jsonl is an HTML page", "download it again"),
             {"posts.jsonl": "<!DOCTYPE html><title>Sign in</title>"}),
    BadInput("tables JSON list in JSONL", BUILD, ("line 1", "got list", "one object per line"),
             {"p.jsonl": '[{"id": 1, "text": "a"}]'}),
    BadInput("tables text file", folder_of(), ("0 tables", 'name one with file="p.txt"'),
             {"p.txt": plain(rows(), "\t")}, advice=folder_of(file="p.txt")),
    BadInput("tables JSON file", folder_of(file="p.json"), (".jsonl", "one object per line"), {"p.json": "[]"}),
]  # fmt: skip
ROWS_OF_TABLES = [
    BadInput("tables column name twice", BUILD, ("2 columns have the name 'text'", "rename all but one"),
             {"posts.csv": CONTENT.replace("label", "text", 1)}),
    BadInput("tables columns without a name", texts_are({}), (),
             {"p.csv": "".join(f",{line},,\n" for line in CONTENT.splitlines())}, exit_code=0),
    BadInput("tables joined with their headers", BUILD, ("line 14", "the header once more"),
             {"p.csv": CONTENT + "\ufeffid,label,text\n" + SECOND_PART}, advice=SKIP),
    BadInput("tables blank rows of a spreadsheet", texts_are({}), ("dropped by rule: blank row 3",),
             {"p.csv": CONTENT + ",,\n" * 3}, exit_code=0),
    BadInput("tables half of an emoji", texts_are({3: "cut \ufffd"}), ("replaced by U+FFFD 1",),
             {"p.jsonl": jsonl(rows(12, {3: "cut \ud83d"}))}, exit_code=0),
    BadInput("tables null character", texts_are({3: "a\ufffdb"}), ("replaced by U+FFFD 1",),
             {"p.csv": plain(rows(12, {3: "a\0b"}))}, exit_code=0),
    BadInput("tables last line of JSONL cut", BUILD, ("posts.jsonl, line 12: invalid JSON", "--on_error skip"),
             {"posts.jsonl": jsonl(rows())[:-9]}, advice=SKIP),
    BadInput("tables key of JSONL twice", folder_of(), ("line 1: invalid JSON", "the key 'text' occurs twice"),
             {"p.jsonl": '{"text": "a", "text": "b"}\n{"text": "c"}\n'}, advice=folder_of(on_error="skip")),
    BadInput("tables endless number in JSONL", folder_of(), ("line 2: invalid JSON",),
             {"p.jsonl": '{"text": "a"}\n{"text": ' + "9" * 5000 + "}\n"}, advice=folder_of(on_error="skip")),
    BadInput("tables text of Parquet that is not UTF-8", folder_of(), ("row 2: a text is not UTF-8",),
             parquet_of(["text"], pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())),
             advice=folder_of(on_error="skip")),
    BadInput("tables Parquet that is cut", folder_of(), ("is not a Parquet file",), {"p.parquet": b"PAR1cut"}),
    BadInput("tables ids of rationales rounded", joined("r.csv"), ("r.csv, line 2: the id 1.23E+18 is a rounded",),
             {"r.csv": "id,rationale_positive\n1.23E+18,why\n"}),
    BadInput("tables export of damaged rationales", lambda folder: export_table(folder / "r.csv", folder / "o.jsonl"),
             ("r.csv, line 2: the number of fields is 3",), {"r.csv": "id,rationale_positive\n1,why, oh\n"}),
    BadInput("tables labels of MVSA with a bad byte", mvsa, (),
             {"labelResultAll.txt": b"1\tneutral,neutral\n2\tn\xffutral,neutral\n3\tneutral,neutral\n"}, exit_code=0),
    BadInput("tables labels of MVSA with a long line", mvsa_raises, ("line 1", "must read ID<TAB>text,image"),
             {"labelResultAll.txt": "1\t" + "x" * 5000}),
    BadInput("tables ids of a split rounded", split_by_lists, ("mine_dev.json, entry 1: the id 1.5e+18 is a rounded",),
             {"mine_train.txt": "1\n", "mine_dev.json": '[{"id": 1.5e18}]', "mine_test.txt": "2\n"}),
    BadInput("tables ids of a split in another encoding", split_by_lists, ("mine_train.txt, line 2: the byte 0xe9",),
             {"mine_train.txt": b"1\n\xe9\n", "mine_dev.txt": "3\n", "mine_test.txt": "2\n"}),
    BadInput("tables rationales in another encoding", joined("r.csv"),
             ("line 2: the byte 0xe9 is not UTF-8; it may be cp1252; save it as UTF-8.",),
             {"r.csv": "id,rationale_positive\n1,café\n".encode("cp1252")}),
    BadInput("tables rationales on two sheets", joined("r.xlsx"), ("2 sheets with rows", "save one of them as CSV"),
             lambda folder: workbook(A=[["id"], ["1"]], B=[["id"], ["2"]])(folder).rename(folder / "r.xlsx")),
    BadInput("tables labels of Memotion in another encoding", lambda folder: load_posts("memotion", folder),
             ("labels.csv, line 2: the byte 0xe9 is not UTF-8; it may be cp1252; save it as UTF-8.",),
             {"labels.csv": "image_name,text_corrected,text_ocr,overall_sentiment\n1.jpg,café,,neutral\n"
              .encode("cp1252")}),
    BadInput("tables export of an id twice", [*EXPORT, f"{FOLDER}/o.jsonl"],
             ("r.csv, line 3: id '1' is also in line 2", "--on_error skip"), {"r.csv": TWICE},
             advice=[*EXPORT, f"{FOLDER}/o.jsonl", "--on_error", "skip"]),
    BadInput("tables rationales of an id twice in a check", [*EXPORT[:1], "validate", *EXPORT[2:4]],
             ("r.csv, line 3: id '1' is also in line 2", "--on_error skip"), {"r.csv": TWICE},
             advice=[*EXPORT[:1], "validate", *EXPORT[2:4], "--threshold", "1", "--on_error", "skip"]),
]  # fmt: skip
ROWS: list[BadInput] = [*QUOTES, *FORMATS, *ROWS_OF_TABLES]
