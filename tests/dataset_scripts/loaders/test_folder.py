"""Own posts: any column names and labels, with or without images, labels and rationales."""

import json

import datasets
import pandas
import pytest

from dataset_scripts import load_posts, load_posts_with_report, split_posts
from dataset_scripts.schema import features
from helpers.faulty_rows import check_faulty_row

ROWS = [
    {"id": "a", "text": "sunny, at last", "image": "img/a.png", "label": "positive"},
    {"id": "b", "text": 'it "rains"\nagain', "image": "img/b.png", "label": "negative"},
]


def write(folder, rows, name="posts.csv"):
    file = folder / name
    if name.endswith("jsonl"):
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith("parquet"):
        pandas.DataFrame(rows).to_parquet(file)
    else:
        pandas.DataFrame(rows).to_csv(file, index=False, sep="\t" if name.endswith("tsv") else ",")
    return folder


@pytest.fixture
def folder(tmp_path, draw):
    draw(tmp_path / "img" / "a.png", 1)
    draw(tmp_path / "img" / "b.png", 2)
    return tmp_path


@pytest.mark.parametrize("name", ["posts.csv", "posts.tsv", "posts.jsonl", "posts.parquet"])
def test_every_format_gives_the_same_posts(folder, name):
    posts = load_posts("folder", write(folder, ROWS, name))
    assert posts.features == features(labels=["positive", "negative"])
    assert posts["id"] == ["a", "b"] and posts["label"] == [0, 1]
    assert posts["text"] == ["sunny, at last", 'it "rains"\nagain']
    assert posts[1]["image"].getpixel((0, 0)) == (2, 0, 90)
    assert posts["rationale_positive"] == [None, None]


def test_column_names_are_options(folder):
    rows = [{"nr": 7, "tweet": "sunny", "file": "img/a.png", "mood": "glad", "pro": "light", "contra": ""}]
    posts, report = load_posts_with_report(
        "folder",
        write(folder, rows),
        text_column="tweet",
        image_column="file",
        label_column="mood",
        id_column="nr",
        rationale_columns={"for": "pro", "against": "contra"},
        language="de",
        source="mine",
    )
    assert posts[0]["id"] == "7" and posts[0]["rationale_for"] == "light" and posts[0]["rationale_against"] is None
    assert posts.features["label"].names == ["glad"]
    assert (posts[0]["language"], posts[0]["source"]) == ("de", "mine")
    assert report.notes == {"without one of its rationales": 1}


def test_posts_need_neither_image_nor_label(tmp_path, caplog):
    posts, report = load_posts_with_report("folder", write(tmp_path, [{"text": "just words"}, {"text": "and more"}]))
    assert posts["id"] == ["0", "1"]
    assert posts[0]["image"] is None and posts[0]["label"] is None
    assert posts.features == features()
    assert report.labels == {"(none)": 2} and report.notes == {"without image": 2}
    assert "no column 'image' among ['text']" in caplog.text and "label_column=" in caplog.text


def test_cells_of_image_and_label_may_be_blank_and_columns_named_rationale_are_found(folder):
    rationales = {"rationale_negative": "n", "rationale_positive": "p"}
    rows = [ROWS[0] | rationales, {"id": "b", "text": "words", "image": None, "label": None} | rationales]
    posts, report = load_posts_with_report("folder", write(folder, rows))
    assert posts[0]["image"] is not None and posts[1]["image"] is None
    assert posts["label"] == [0, None] and report.notes == {"without image": 1}
    # In the order of the paper, for any order of the columns.
    assert [name for name in posts.column_names if "rationale" in name] == ["rationale_positive", "rationale_negative"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["negative", "positive", "neutral"], ["positive", "neutral", "negative"]),
        (["negative", "positive"], ["positive", "negative"]),
        (["sad", "angry", "glad"], ["angry", "glad", "sad"]),
        ([10, 2, -1], ["-1", "2", "10"]),
        ([1.0, None, 0.0], ["0", "1"]),
    ],
)
def test_classes_have_the_same_order_for_any_order_of_rows(tmp_path, labels, names):
    for order in (labels, labels[::-1]):
        write(tmp_path, [{"text": f"post {label}", "label": label} for label in order])
        posts = load_posts("folder", tmp_path)
        assert posts.features["label"].names == names
    posts = load_posts("folder", tmp_path, labels=names[::-1])
    assert posts.features["label"].names == names[::-1]


@pytest.mark.parametrize("form", ["feature", "bytes", "paths"])
def test_images_in_a_parquet_table_are_those_of_their_posts(folder, form):
    contents = [(folder / row["image"]).read_bytes() for row in ROWS]
    values = {
        "feature": [{"bytes": content, "path": "a.png"} for content in contents],
        "bytes": contents,
        "paths": [{"bytes": None, "path": row["image"]} for row in ROWS],
    }
    pandas.DataFrame({"id": ["a", "b"], "image": values[form], "label": [True, False]}).to_parquet(
        folder / "p.parquet"
    )
    posts, report = load_posts_with_report("folder", folder)
    assert [image.getpixel((0, 0)) for image in posts["image"]] == [(1, 0, 90), (2, 0, 90)]
    assert posts["text"] == [None, None] and report.notes == {"without text": 2}
    assert [posts.features["label"].int2str(label) for label in posts["label"]] == ["True", "False"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_files_named_train_dev_and_test_are_the_splits(folder, ending):
    names = {"train": ["a", "b"], "dev": ["c"], "posts_test": ["d"]}
    for name, ids in names.items():
        frame = pandas.DataFrame([ROWS[1] | {"id": post_id} for post_id in ids])
        if ending == "xlsx":
            frame.to_excel(folder / f"{name}.xlsx", index=False)
        else:
            write(folder, frame.to_dict("records"), f"{name}.{ending}")
    posts = load_posts("folder", folder)
    assert {split: part["id"] for split, part in posts.items()} == {
        "train": ["a", "b"],
        "validation": ["c"],
        "test": ["d"],
    }
    assert all(part.features == features(labels=["negative"]) for part in posts.values())
    assert load_posts("folder", folder, file=f"train.{ending}")["id"] == ["a", "b"]


def test_posts_of_several_tables_without_ids_are_numbered_in_sequence(tmp_path):
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        write(tmp_path, [{"text": f"{name} {number}"} for number in range(count)], f"{name}.jsonl")
    posts = load_posts("folder", tmp_path)
    assert [part["id"] for part in posts.values()] == [["0", "1", "2"], ["3", "4"], ["5"]]


def test_class_names_of_the_schema_are_kept_and_minus_one_is_no_label(tmp_path):
    label = datasets.ClassLabel(names=["zebra", "ape", "unused"])
    schema = datasets.Features({"text": datasets.Value("string"), "label": label})
    rows = {"text": ["x", "y", "z"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=schema).to_parquet(tmp_path / "train.parquet")
    posts = load_posts("folder", tmp_path)
    assert posts.features["label"].names == ["zebra", "ape", "unused"] and posts["label"] == [1, 0, None]
    texts = load_posts("folder", tmp_path, label_as_text=True)
    assert texts["label"] == ["ape", "zebra", None]


def test_metadata_of_a_folder_of_images_names_them_in_file_name(folder):
    write(folder, [{"file_name": row["image"], "text": row["text"], "label": row["label"]} for row in ROWS])
    (folder / "posts.csv").rename(folder / "metadata.csv")
    by_table, by_datasets = load_posts("folder", folder), load_posts(str(folder))
    assert by_table["label"] == by_datasets["label"] == [0, 1]
    for posts in (by_table, by_datasets):
        assert [image.getpixel((0, 0))[0] for image in posts["image"]] == [1, 2]


def test_posts_of_one_group_stay_in_one_split(tmp_path):
    labels = ("positive", "neutral", "negative")
    rows = [{"text": f"words {n}", "label": labels[n % 3], "author": f"author {n // 4}"} for n in range(60)]
    posts = load_posts("folder", write(tmp_path, rows), group_column="author")
    assert posts["group"][0] == "author 0"
    splits = split_posts(posts)
    groups = [set(part["group"]) for part in splits.values()]
    assert all(groups) and sum(map(len, groups)) == 15
    assert sum(map(len, splits.values())) == 60
    renamed = posts.rename_column("group", "author")
    assert [part["id"] for part in split_posts(renamed, group_column="author").values()] == [
        part["id"] for part in splits.values()
    ]


def test_a_label_for_prediction_is_kept_as_written(tmp_path):
    write(tmp_path, [{"text": f"text {n}", "label": f"{n}.50"} for n in range(150)])
    assert load_posts("folder", tmp_path, label_as_text=True)["label"][:2] == ["0.50", "1.50"]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ({"text": " ", "image": ""}, "empty post", "neither a text nor an image"),
        ({"label": "postive"}, "unknown label", "positive, negative, got 'postive'.*Did you mean 'positive'"),
        ({"image": "https://a.org/b.jpg"}, "image is a URL", "is a URL; download it into the folder"),
        ({"image": "img/c.png"}, "missing image", r"the image 'img/c\.png' does not exist"),
        ({"image": "posts.jsonl"}, "unreadable image", r"the image .*posts\.jsonl cannot be decoded"),
        ({"id": "a"}, "duplicate id", "id 'a' is also in line 1"),
        ({"id": ""}, "blank id", "'id' is blank"),
        ({"image": {"bytes": "…", "path": None}}, "malformed row", "must be the path of one image, got an object"),
    ],
)
def test_a_faulty_row_raises_or_is_skipped(folder, row, reason, message):
    write(folder, [*ROWS, ROWS[0] | {"id": "c"} | row], "posts.jsonl")
    message = rf"posts\.jsonl, line 3: .*{message}"
    posts, _ = check_faulty_row("folder", folder, reason, message, labels=["positive", "negative"])
    assert posts["id"] == ["a", "b"]


def test_a_record_with_too_many_fields_names_its_line(tmp_path):
    (tmp_path / "posts.csv").write_text('text,label\n"two\nlines",positive\na,b,c\n')
    with pytest.raises(ValueError, match=r"posts\.csv, line 4: the number of fields"):
        load_posts("folder", tmp_path)
    assert load_posts("folder", tmp_path, on_error="skip")["text"] == ["two\nlines"]


def test_a_missing_column_is_named_with_a_suggestion(folder):
    write(folder, ROWS)
    with pytest.raises(ValueError, match=r"no column 'texts'; its columns are 'id', 'text'.*Did you mean 'text'"):
        load_posts("folder", folder, text_column="texts")
    with pytest.raises(ValueError, match=r"no column 'images'.*image_column=….*Did you mean 'image'"):
        load_posts("folder", folder, image_column="images")
    with pytest.raises(ValueError, match="no column 'why'.*rationale_columns"):
        load_posts("folder", folder, rationale_columns={"positive": "why"})


def test_a_column_of_texts_is_refused_as_label_column(tmp_path):
    write(tmp_path, [{"text": f"text {n}", "label": f"value {n}"} for n in range(101)])
    with pytest.raises(ValueError, match="column 'label' has 101 different values.*label_column=…"):
        load_posts("folder", tmp_path)


def test_one_of_several_tables_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="0 tables .*none"):
        load_posts("folder", tmp_path)
    write(tmp_path, [{"text": "x"}], "a.csv")
    write(tmp_path, [{"text": "y"}], "b.csv")
    with pytest.raises(ValueError, match="2 tables .*a.csv, b.csv; name one"):
        load_posts("folder", tmp_path)
    assert load_posts("folder", tmp_path, file="b.csv")["text"] == ["y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("posts.csv", b"text\ncaf\xe9\n", 'line 2: .*not UTF-8; name .*encoding="cp1252".*save it as UTF-8'),
        ("posts.csv", b"", "is empty; its first line must name the columns"),
        ("posts.jsonl", b'{"text": "x"}\n{"text": \n', "line 2: invalid JSON"),
        ("posts.jsonl", b'["x"]\n', "line 1: .*got list"),
        ("posts.parquet", b"text", "is not a Parquet file"),
    ],
)
def test_a_table_that_does_not_match_its_suffix_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_posts("folder", tmp_path)
