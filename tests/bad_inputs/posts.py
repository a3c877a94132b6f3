"""Posts of one's own: columns, labels, ids, splits, and published datasets."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import PIL.Image

from bad_inputs.case import FOLDER, MODEL, BadInput
from dataset_scripts import load_posts, load_posts_with_report, split_posts
from mpt_sentiment.training_data import as_splits

LABELS = ("positive", "neutral", "negative")
TRAIN = ["train", "--output_dir", f"{FOLDER}/out", "--dataset", "folder", "--data_dir", FOLDER]
BUILD = ["build-dataset", "folder", "--data_dir", FOLDER, "--output_dir", f"{FOLDER}/built"]
PREDICT = ["predict", MODEL, "--device", "cpu", "--output", f"{FOLDER}/p.csv", f"{FOLDER}/posts.csv"]


def posts(count: int = 12, **changes: Any) -> list[dict[str, Any]]:
    """Build rows of three classes; a change is a value, or a function of the row's number."""
    rows = [{"id": str(n), "text": f"words number {n}", "label": LABELS[n % 3]} for n in range(count)]
    for row, values in enumerate(rows):
        values |= {name: change(row) if callable(change) else change for name, change in changes.items()}
    return rows


def csv(rows: list[dict[str, Any]]) -> str:
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return "\n".join(lines) + "\n"


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def without(column: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def table(rows: list[dict[str, Any]], name: str = "posts.csv") -> dict[str, str]:
    return {name: csv(rows) if name.endswith("csv") else jsonl(rows)}


def parquet(features: dict[str, Any] | None = None, name: str = "train.parquet", **columns: list) -> Callable:
    def write(folder: Path) -> None:
        schema = None if features is None else datasets.Features(features)
        datasets.Dataset.from_dict(columns, features=schema).to_parquet(folder / name)

    return write


def image_content(colour: int = 0) -> bytes:
    content = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (colour, 0, 0)).save(content, "PNG")
    return content.getvalue()


def options(**values: Any) -> list[str]:
    return ["--dataset_options", json.dumps(values)]


def folder_of(**loader_options: Any) -> Callable[[Path], Any]:
    return lambda folder: load_posts("folder", folder, **loader_options)


def published(**loader_options: Any) -> Callable[[Path], Any]:
    return lambda folder: load_posts(str(folder), **loader_options)


def save_to_disk(folder: Path) -> None:
    datasets.Dataset.from_list(posts()).save_to_disk(folder)


def split_files(*ids: str) -> dict[str, str]:
    """Files of three splits; each numbers its posts by one of the prefixes."""
    names = ("train.csv", "dev.csv", "test.csv")
    return {
        name: csv(posts(6, id=lambda n, prefix=prefix: f"{prefix}{n}", text=lambda n, name=name: f"{name} {n}"))
        for name, prefix in zip(names, ids, strict=True)
    }


def given_splits_are_used(folder: Path) -> None:
    splits, data = as_splits(load_posts("folder", folder))
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "validation": 6, "test": 6}
    assert data.protocol == "as given" and splits["test"]["text"][0] == "test.csv 0"


def ids_are_integers(folder: Path) -> None:
    loaded, report = load_posts_with_report("folder", folder)
    assert loaded["id"][:2] == ["0", "1"] and len(loaded) == 12
    assert report.notes["id written as a number with decimals, read as an integer"] == 12


def labels_of_the_hub(folder: Path) -> None:
    loaded = load_posts(str(folder))
    assert loaded["label"] == [0, 1, None] and loaded["id"] == ["0", "1", "2"]
    assert loaded["image"] == [None] * 3 and loaded["text"] == ["a", "b", "c"]


def validation_from_train(folder: Path) -> None:
    splits, data = as_splits(load_posts(str(folder)))
    assert {name: len(split) for name, split in splits.items()} == {"train": 27, "validation": 3, "test": 6}
    assert data.protocol == "as given, validation taken from train"


def rationales_of_some(folder: Path) -> None:
    _, report = load_posts_with_report(str(folder))
    assert report.notes == {"without image": 2, "without one of its rationales": 1}


def embedded_images(folder: Path) -> None:
    loaded = load_posts("folder", folder)
    assert [image.getpixel((0, 0))[0] for image in loaded["image"]] == [0, 9]
    assert loaded.features["label"].names == ["sad", "glad"] and loaded["label"] == [1, 0]


def image_alone(folder: Path) -> None:
    loaded, report = load_posts_with_report("folder", folder)
    assert loaded["text"] == [None] * 2 and report.notes == {"without text": 2}


LABEL_FEATURE = datasets.ClassLabel(names=["sad", "glad"])
OWN_SPLITS = split_files("a", "b", "c")
CAPTIONS = [{"caption" if name == "text" else name: value for name, value in row.items()} for row in posts()]
MANY_VALUES = posts(120, label=lambda n: f"value {n}")
SCORES = posts(label=lambda n: n / 100)

COLUMNS = [
    BadInput("posts column of texts has another name", BUILD,
             ("neither a column 'text' nor 'image'", """{"text_column": "…", "image_column"""), table(CAPTIONS),
             advice=[*BUILD, *options(text_column="caption")]),
    BadInput("posts column of texts has another name, in Python", folder_of(), ("text_column=…",), table(CAPTIONS),
             advice=folder_of(text_column="caption")),
    BadInput("posts mistyped column", [*BUILD, *options(text_column="captoin")],
             ("no column 'captoin'", "Did you mean 'caption'", """'{"text_column": """), table(CAPTIONS)),
    BadInput("posts mistyped option of the loader", [*TRAIN, *options(txt_column="caption")],
             ("no option 'txt_column'", "Did you mean 'text_column'"), table(CAPTIONS)),
    BadInput("posts options that are no object", [*TRAIN, "--dataset_options", "[1]"], ("JSON object",)),
    BadInput("posts mistyped dataset", ["train", "--dataset", "mvsa_singel"], ("Did you mean 'mvsa_single'",)),
    BadInput("posts folder without data_dir", TRAIN[:-2], ("--dataset folder needs --data_dir",)),
    BadInput("posts hidden file and a table", folder_of(), (), table(posts()) | {"._posts.csv": b"\0\5\26\7"},
             exit_code=0),
    BadInput("posts two tables", BUILD, ("a.csv, b.csv", """--dataset_options '{"file": """),
             table(posts(), "a.csv") | table(posts(), "b.csv"), advice=[*BUILD, *options(file="b.csv")]),
    BadInput("posts table saved by datasets", folder_of(), ("saved by `datasets`", "load_posts("), save_to_disk,
             advice=published()),
    BadInput("posts column of images alone", image_alone, ("no column 'text'",),
             parquet(image=[image_content(), image_content(9)], label=["a", "b"]), exit_code=0),
    BadInput("posts images and classes of a dataset of the Hub", embedded_images, (),
             parquet({"image": datasets.Image(), "text": datasets.Value("string"), "label": LABEL_FEATURE},
                     image=[{"bytes": image_content(n), "path": None} for n in (0, 9)], text=["a", "b"], label=[1, 0]),
             exit_code=0),
    BadInput("posts without text and image", BUILD, ("posts.csv, line 3", "neither a text nor an image", "--on_error"),
             table(posts(13, text=lambda n: "" if n == 1 else f"words {n}")), advice=[*BUILD, "--on_error", "skip"]),
]  # fmt: skip
VALUES = [
    BadInput("posts one label missing", BUILD, ("1 of 13 posts have no label", "'4'", "--on_error skip"),
             table(posts(13, label=lambda n: "" if n == 4 else LABELS[n % 3])), advice=[*BUILD, "--on_error", "skip"]),
    BadInput("posts no label at all", TRAIN, ("12 of 12 posts have no label", "label_column"),
             table(without("label", posts()))),
    BadInput("posts class nan", folder_of(), ("'nan' is a class (4 posts)", "blank"),
             table(posts(label=lambda n: "nan" if n < 4 else "glad")), exit_code=0),
    BadInput("posts three spellings of a class", folder_of(), ("'GOOD' (4), 'Good' (4), 'good' (4) differ in",),
             table(posts(label=lambda n: ("good", "Good", "GOOD")[n % 3])), exit_code=0),
    BadInput("posts scores as classes", TRAIN, ("label '0.01' has 1 posts",),
             table(posts(label=lambda n: (n + 1) / 100))),
    BadInput("posts texts as classes", TRAIN, ("120 different values", "label_column"), table(MANY_VALUES)),
    BadInput("posts labels kept as texts", [*BUILD, *options(label_as_text=True)],
             ("of the type Value('string'), not ClassLabel", "`label_as_text` in --dataset_options"), table(posts()),
             advice=BUILD),
    BadInput("posts class of two posts", TRAIN, ("label 'rare' has 2 posts",),
             table(posts(label=lambda n: "rare" if n < 2 else "glad"))),
    BadInput("posts label is a list", folder_of(), ("line 1", "'label' must be a text or a number, got list"),
             table(posts(label=["sad", "glad"]), "posts.jsonl")),
    BadInput("posts ids rounded by a spreadsheet", BUILD, ("posts.csv, line 2", "'id' 1.23E+18 is a rounded number"),
             table(posts(id="1.23E+18")), advice=[*BUILD, *options(id_column="")]),
    BadInput("posts ids are large floats", folder_of(), ("row 1", "is a rounded number: its last digits are lost"),
             parquet(id=[2.0**60 + n * 4096 for n in range(3)], text=["a", "b", "c"]),
             advice=folder_of(id_column="")),
    BadInput("posts ids are small floats", ids_are_integers, (), table(posts(id=float)), exit_code=0),
    BadInput("posts repeated id", BUILD, ("line 4", "id '1' is also in line 3", "--on_error skip"),
             table(posts(13, id=lambda n: min(n, 1) if n < 3 else n)), advice=[*BUILD, "--on_error", "skip"]),
    BadInput("posts prediction where labels are scores", PREDICT, ("12 posts predicted",), table(SCORES),
             exit_code=0, kept=("p.csv",)),
    BadInput("posts prediction where labels are any values", PREDICT, ("120 posts predicted",), table(MANY_VALUES),
             exit_code=0, kept=("p.csv",)),
    BadInput("posts prediction with a mistyped column", [*PREDICT, "--text_column", "captoin"],
             ("--text_column", "Did you mean 'caption'"), table(CAPTIONS),
             advice=[*PREDICT, "--text_column", "caption"]),
    BadInput("posts prediction of unnamed texts", PREDICT, ("--text_column …",), table(CAPTIONS)),
]  # fmt: skip
SPLITS = [
    BadInput("posts mistyped option of the split", [*TRAIN, "--split", "folds", "--split_options", '{"fould": 1}'],
             ("'fould'", "its options are fold, group_column", "Did you mean 'fold'")),
    BadInput("posts option of another split", [*TRAIN, "--split_options", '{"fold": 1}'],
             ("'grouped' has no option 'fold'", "option of folds")),
    BadInput("posts fold is a text", [*TRAIN, "--split", "folds", "--split_options", '{"fold": "3"}'],
             ("`fold` in --split_options must be 0 to 9, got '3'",)),
    BadInput("posts mistyped split", [*TRAIN, "--split", "group"],
             ("--split must be one of", "Did you mean 'grouped'")),
    BadInput("posts options of a split in Python", lambda folder: split_posts(folder_of()(folder), fold=2),
             ("'grouped' has no option 'fold'",), table(posts())),
    BadInput("posts own splits", given_splits_are_used, (), OWN_SPLITS, exit_code=0),
    BadInput("posts own splits and a protocol", [*BUILD, "--split", "paper"],
             ("splits train, validation, test, which are used as given; without effect: --split",), OWN_SPLITS,
             exit_code=0),
    BadInput("posts two files of a split", BUILD, ("dev.csv, test.csv, train.csv, val.csv", "file"),
             OWN_SPLITS | {"val.csv": OWN_SPLITS["dev.csv"]}),
    BadInput("posts each split numbers its posts", BUILD, ("dev.csv, line 2: id 'a0' is also in train.csv, line 2",),
             split_files("a", "a", "a"), advice=[*BUILD, *options(id_column="")]),
    BadInput("posts no test split", TRAIN, ("splits train, validation;", "test", "file"),
             {name: OWN_SPLITS[name] for name in ("train.csv", "dev.csv")}),
    BadInput("posts group column of the split is not loaded", [*BUILD, "--split_options", '{"group_column": "who"}'],
             ("no column 'who'", """--dataset_options '{"group_column": "who"}'"""), table(posts(who=lambda n: n % 4)),
             advice=[*BUILD, *options(group_column="who")]),
    BadInput("posts one group has all posts", [*BUILD, *options(group_column="who")],
             ("No post is left for validation and test", "12 of 12 posts", "--split paper"), table(posts(who="me")),
             advice=[*BUILD, *options(group_column="who"), "--split", "paper"]),
]  # fmt: skip
PUBLISHED = [
    BadInput("posts dataset with a mistyped column", published(text_column="sentense"),
             ("no column 'sentense'", "Did you mean 'sentence'"), parquet(sentence=["a"], label=[0]),
             advice=published(text_column="sentence")),
    BadInput("posts dataset without text and image", published(), ("neither a column 'text' nor 'image'", "sentence"),
             parquet(sentence=["a"], label=[0]), advice=published(text_column="sentence")),
    BadInput("posts dataset with paths of images", published(), ("holds paths", 'load_posts("folder", '),
             table(posts(image=""), "posts.jsonl"), advice=folder_of()),
    BadInput("posts dataset that is a table and images", ["train", "--dataset", FOLDER],
             ("posts.csv is not read", "--dataset folder --data_dir"),
             table(posts(image=lambda n: f"i/{n}.png")) | {f"i/{n}.png": image_content(n) for n in range(12)},
             advice=BUILD),
    BadInput("posts dataset with several labels a post", published(), ("one class per post", "label_column"),
             parquet(text=["a", "b"], label=[["x"], ["x", "y"]])),
    BadInput("posts dataset with lists of texts", published(), ("not one text per post", "text_column"),
             parquet(text=[["a"], ["b"]], label=["x", "y"])),
    BadInput("posts dataset in no folder", ["train", "--dataset", f"{FOLDER}/nowhere"],
             ("is no folder with a dataset here",)),
    BadInput("posts dataset in an empty folder", published(), ("doesn't contain any data files",)),
    BadInput("posts table in place of its folder", [*TRAIN[:-1], f"{FOLDER}/posts.csv"],
             ("posts.csv is a file", "--dataset folder --data_dir", """--dataset_options '{"file": "posts.csv"}'"""),
             table(posts()), advice=[*BUILD, *options(file="posts.csv")]),
    BadInput("posts dataset streamed", published(streaming=True), ("without streaming",), parquet(text=["a"])),
    BadInput("posts dataset that cannot be parsed", published(),
             ("train.csv, line 3: the number of fields is 3", "load_posts("),
             {"train.csv": "text,label\na,b\n" + "c,d,e\n" * 3}),
    BadInput("posts dataset with labels of the Hub", labels_of_the_hub, (),
             parquet({"text": datasets.Value("string"), "label": LABEL_FEATURE},
                     text=["a", "b", "c"], label=[0, 1, -1]), exit_code=0),
    BadInput("posts dataset without validation", validation_from_train, ("no validation split: 3 of the train posts",),
             table(posts(30), "train.csv") | table(posts(6, id=lambda n: 30 + n), "test.csv"), exit_code=0),
    BadInput("posts dataset that numbers each split", published(), ("split test, row 1: id '0' is also in",),
             table(posts(30), "train.csv") | table(posts(6), "test.csv"), advice=published(id_column="")),
    BadInput("posts dataset with an image that is none", BUILD[:1] + ["--dataset", FOLDER, *BUILD[4:]],
             ("split train, row 2: its image cannot be decoded (it is an HTML page", "--on_error skip"),
             parquet({"image": datasets.Image(), "label": LABEL_FEATURE}, label=[0, 1] * 9,
                     image=[{"bytes": b"<html>" if n == 1 else image_content(n), "path": None} for n in range(18)]),
             advice=[*BUILD[:1], "--dataset", FOLDER, *BUILD[4:], "--on_error", "skip"]),
    BadInput("posts dataset with an option of another loader", published(sheet="Posts"), ("no option 'sheet'",),
             parquet(text=["a"])),
    BadInput("posts dataset in another encoding", published(),
             ("train.csv, line 2: the byte 0xe9 is not UTF-8; it may be cp1252; save it as UTF-8.",),
             {"train.csv": "text,label\ncafé,x\n".encode("cp1252")}, advice=published(encoding="cp1252")),
    BadInput("posts dataset with rationales for some", rationales_of_some, ("no column 'label'",),
             {"train.jsonl": '{"text": "a", "rationale_positive": "b"}\n{"text": "c", "rationale_positive": null}\n'},
             exit_code=0),
    BadInput("posts dataset with a post without text", published(), ("row 2: neither a text nor an image",),
             table(posts(text=lambda n: "" if n == 1 else f"words {n}"), "train.csv"),
             advice=published(on_error="skip")),
]  # fmt: skip
ROWS = [*COLUMNS, *VALUES, *SPLITS, *PUBLISHED]
