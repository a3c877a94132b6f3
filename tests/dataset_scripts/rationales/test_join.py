"""Rationales of a file, joined to posts by id."""

import json

import pandas
import pytest

from dataset_scripts import features, load_posts, load_posts_with_report

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
def test_every_format_joins_by_id_in_any_order(folder, name):
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


def test_of_rows_with_different_images_the_last_one_is_joined(folder):
    rows = [{"id": "a", "rationale_positive": name, "image_sha256": name} for name in ("old", "new")]
    assert load_posts("folder", folder, rationales=write(folder, rows))["rationale_positive"][0] == "new"


def test_columns_keep_their_order_and_images_stay_stored_as_paths(folder, draw):
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


def test_any_perspectives_replace_the_empty_ones(tmp_path, draw):
    draw(tmp_path / "data" / "1.jpg")
    (tmp_path / "data" / "1.txt").write_text("great, just great")
    (tmp_path / "labelResultAll.txt").write_text("1\tpositive,neutral\n")
    file = tmp_path / "rationales.csv"
    file.write_text("id,rationale_sincere,rationale_sarcasm\n1,a,b\n")
    posts = load_posts("mvsa_single", tmp_path, rationales=file)
    assert posts.features == features(perspectives=["sincere", "sarcasm"])
    assert (posts[0]["rationale_sincere"], posts[0]["rationale_sarcasm"]) == ("a", "b")


def test_rationales_of_the_posts_stay_unless_the_file_has_their_perspective(folder):
    table = pandas.read_csv(folder / "p.csv").assign(rationale_neutral="own", rationale_negative="own")
    table.to_csv(folder / "p.csv", index=False)
    rows = [{"id": "a", "rationale_sarcasm": "s", "rationale_positive": "p", "rationale_negative": "n"}]
    posts = load_posts("folder", folder, rationales=write(folder, rows))
    columns = ["rationale_positive", "rationale_neutral", "rationale_negative", "rationale_sarcasm"]
    assert [column for column in posts.column_names if "rationale" in column] == columns
    assert [posts[0][column] for column in columns] == ["p", "own", "n", "s"]
    assert [posts[1][column] for column in columns] == [None, "own", None, None]


def test_a_mistyped_perspective_is_joined_with_a_suggestion_in_the_log(folder, caplog):
    posts = load_posts("folder", folder, rationales=write(folder, [{"id": "a", "rationale_postive": "p"}]))
    assert posts["rationale_postive"] == ["p", None, None]
    assert "'rationale_postive' is taken for the perspective 'postive'. Did you mean 'positive'?" in caplog.text


@pytest.mark.parametrize(
    ("rows", "reason", "message"),
    [
        ([RATIONALES[1], RATIONALES[1]], "duplicate id", "line 3: id 'a' is also in line 2"),
        ([RATIONALES[1], RATIONALES[0] | {"id": ""}], "no id", "line 3: the id is blank"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(folder, rows, reason, message):
    file = write(folder, rows)
    with pytest.raises(ValueError, match=message):
        load_posts("folder", folder, rationales=file)
    posts, report = load_posts_with_report("folder", folder, rationales=file, on_error="skip")
    assert report.notes[f"rationale rows skipped: {reason}"] == 1
    assert posts["rationale_positive"] == ["p a", None, None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "ID,rationale_positive\na,p\n", "no column 'id'; its columns are 'ID', .*Did you mean 'ID'"),
        ("r.csv", "id,why\na,p\n", "no column of rationales; its columns are 'id', 'why'"),
        ("r.csv", "id,rationale_positive\n99,p\n", "none of its 1 ids .*is the id of a post .*another dataset"),
        ("r.csv", None, "does not exist"),
        ("r.doc", "", "one of .csv, .tsv.*got '.doc'"),
        ("r.xlsx", "", "is not an XLSX file"),
        (".", None, "generate-rationales"),  # a folder without a store
    ],
)
def test_a_file_that_cannot_be_joined_is_refused(folder, name, content, message):
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_posts("sample", num_posts=2, rationales=folder / name)


def test_the_coverage_is_said_on_the_screen(folder, caplog):
    rows = [{"id": "a", "rationale_positive": "p"}, {"id": "b", "rationale_positive": " "}]
    load_posts("folder", folder, rationales=write(folder, rows))
    assert "rationales for 1 of 3 posts" in [
        record.message.split(": ", 1)[1] for record in caplog.records if record.levelname == "WARNING"
    ]
