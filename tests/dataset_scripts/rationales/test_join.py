"""Rationales from a file beside the posts, joined by id."""

import json

import pandas
import pytest

from dataset_scripts import load_posts, load_posts_with_report

RATIONALES = [
    {"id": "c", "rationale_positive": "p c", "rationale_neutral": "  ", "rationale_negative": 'n "c"\nmore'},
    {"id": "a", "rationale_positive": "p a", "rationale_neutral": "u a", "rationale_negative": "n a"},
    {"id": "gone", "rationale_positive": "p", "rationale_neutral": "u", "rationale_negative": "n"},
]


@pytest.fixture
def folder(tmp_path):
    posts = tmp_path / "posts"
    posts.mkdir()
    pandas.DataFrame({"id": list("abc"), "text": ["A", "B", "C"], "label": [0, 1, 0]}).to_csv(posts / "p.csv")
    return posts


def write(folder, rows, name="rationales.tsv"):
    file = folder.parent / name
    if name.endswith("jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("parquet"):
        pandas.DataFrame(rows).to_parquet(file)
    else:
        pandas.DataFrame(rows).to_csv(file, index=False, sep="\t")
    return file


@pytest.mark.parametrize("name", ["r.tsv", "r.jsonl", "r.parquet"])
def test_every_format_joins_by_id_whatever_the_order(folder, name):
    posts, report = load_posts_with_report("folder", folder, rationales=write(folder, RATIONALES, name))
    assert posts["id"] == ["a", "b", "c"] and posts["text"] == ["A", "B", "C"]
    assert posts["rationale_positive"] == ["p a", None, "p c"]
    assert posts["rationale_neutral"] == ["u a", None, None]
    assert posts["rationale_negative"] == ["n a", None, 'n "c"\nmore']
    assert report.notes == {
        "without image": 3,
        "without a row in the rationale file": 1,
        "rationale rows whose id is no post (dropped or unknown)": 1,
    }


def test_columns_keep_their_order_and_images_are_not_touched(folder, draw):
    draw(folder / "a.png")
    pandas.DataFrame({"id": ["a"], "text": ["A"], "image": ["a.png"]}).to_csv(folder / "p.csv")
    plain = load_posts("folder", folder)
    joined = load_posts("folder", folder, rationales=write(folder, RATIONALES))
    assert joined.features == plain.features
    assert joined.data.column("image").to_pylist() == [{"bytes": None, "path": str(folder / "a.png")}]


def test_a_changed_rationale_file_is_noticed(folder):
    file = write(folder, RATIONALES)
    assert load_posts("folder", folder, rationales=file)["rationale_positive"][0] == "p a"
    write(folder, [RATIONALES[1] | {"rationale_positive": "another one"}])
    assert load_posts("folder", folder, rationales=file)["rationale_positive"][0] == "another one"


def test_a_perspective_that_the_file_lacks_stays_null(folder):
    rows = [{"id": "a", "rationale_positive": "p"}]
    posts = load_posts("folder", folder, rationales=write(folder, rows))
    assert posts["rationale_positive"][0] == "p" and posts["rationale_neutral"] == [None] * 3


@pytest.mark.parametrize(
    ("rows", "reason", "message"),
    [
        ([RATIONALES[1], RATIONALES[1]], "duplicate id", "line 3: id 'a' is also in line 2"),
        ([RATIONALES[1], RATIONALES[0] | {"id": ""}], "no id", "line 3: the id is blank"),
    ],
)
def test_a_faulty_row_stops_or_is_a_counted_skip(folder, rows, reason, message):
    file = write(folder, rows)
    with pytest.raises(ValueError, match=message):
        load_posts("folder", folder, rationales=file)
    posts, report = load_posts_with_report("folder", folder, rationales=file, on_error="skip")
    assert report.notes[f"rationale rows skipped: {reason}"] == 1
    assert posts["rationale_positive"] == ["p a", None, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"ID": "a", "rationale_positive": "p"}], "no column 'id'; its columns are 'ID', .*Did you mean 'ID'"),
        ([{"id": "a", "why": "p"}], "none of the columns rationale_positive, rationale_neutral, rationale_negative"),
        ([{"id": "a", "rationale_postive": "p"}], "'rationale_postive'.*Did you mean 'rationale_positive'"),
        ([{"id": "99", "rationale_positive": "p"}], "none of its 1 ids .*is the id of a post .*another dataset"),
    ],
)
def test_a_file_that_cannot_be_joined_says_why(folder, rows, message):
    with pytest.raises(ValueError, match=message):
        load_posts("folder", folder, rationales=write(folder, rows))


def test_a_missing_file_or_another_format_is_refused(folder):
    with pytest.raises(ValueError, match="does not exist"):
        load_posts("folder", folder, rationales=folder / "nowhere.tsv")
    (folder.parent / "r.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'.xlsx' is not one of .csv, .tsv"):
        load_posts("folder", folder, rationales=folder.parent / "r.xlsx")
