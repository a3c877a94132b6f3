"""Posts loaded by name, and the content of posts that were published without it."""

import subprocess
import sys
from unittest.mock import Mock

import PIL.Image
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value, load_dataset
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from dataset_scripts import content_hash, features, join_content, load_posts, load_posts_with_report, split_posts
from dataset_scripts.loaders import opening
from dataset_scripts.reading import image_checks
from dataset_scripts.writing.publish import save_posts
from helpers import odd_images
from helpers.mvsa import write_mvsa


def test_importing_the_package_imports_neither_torch_nor_datasets():
    code = "import sys, dataset_scripts; print([name for name in ('torch', 'datasets') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mvsa_singel", {}, "one of sample, mvsa_single.*Did you mean 'mvsa_single'"),
        ("sample", {"data_dir": "folder"}, 'takes no data_dir="folder"'),
        ("mvsa_single", {}, "needs `data_dir`"),
        ("mvsa_single", {"data_dir": "nowhere"}, 'data_dir="nowhere" does not exist'),
        ("folder", {"data_dir": ".", "text_colum": "t"}, "no option 'text_colum'.*Did you mean 'text_column'"),
        ("folder", {"data_dir": ".", "on_error": "ignore"}, "`on_error` must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_errors_name_the_argument_and_a_fix(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_posts(name, **options)


def test_a_folder_written_by_datasets_opens_as_posts(tmp_path):
    row = dict.fromkeys(features()) | {"id": "1", "text": "hello", "label": "negative"}
    dataset = Dataset.from_list([row], features=features())
    dataset.save_to_disk(tmp_path / "arrow")
    (tmp_path / "parquet").mkdir()
    dataset.to_parquet(tmp_path / "parquet" / "train.parquet")
    for folder in ("arrow", "parquet"):
        posts, report = load_posts_with_report(str(tmp_path / folder))
        assert posts["id"] == ["1"] and report.labels == {"negative": 1}


def published_images(folder, *contents, path=None):
    images = [{"bytes": content, "path": path} for content in contents]
    schema = Features({"text": Value("string"), "image": Image()})
    posts = Dataset.from_dict({"text": list("abc"), "image": images}, features=schema)
    pq.write_table(posts.data.table, folder / "train.parquet")  # `to_parquet` would read the paths


def test_images_of_a_published_dataset_are_decoded_before_training_and_once(tmp_path, monkeypatch):
    sound = odd_images.encoded(PIL.Image.new("RGB", (20, 30)))
    published_images(tmp_path, odd_images.with_malformed_exif((30, 20)), b"<html>", sound)
    message = "split train, row 2: its image cannot be decoded .it is an HTML page"
    with pytest.raises(ValueError, match=f'{message}.*on_error="skip"'):
        load_posts(str(tmp_path))
    monkeypatch.setattr(image_checks, "image_fault", None)  # the results are in the cache
    with pytest.raises(ValueError, match=message):
        load_posts(str(tmp_path))
    posts, report = load_posts_with_report(str(tmp_path), on_error="skip")
    assert posts["text"] == ["a", "c"] and [image.size for image in posts["image"]] == [(20, 30)] * 2
    assert report.skipped == {"unreadable image": 1}
    assert report.notes == {"image with malformed metadata (EXIF), stored upright without them": 1}


def test_a_published_image_whose_file_is_gone_is_named(tmp_path):
    published_images(tmp_path, None, None, None, path="/nowhere/1.jpg")
    with pytest.raises(ValueError, match="row 1: its image cannot be decoded .the file cannot be read: No such file"):
        load_posts(str(tmp_path))


@pytest.fixture
def hub(monkeypatch):
    """Return a function that sets the error of the Hub; `datasets` opens nothing."""
    monkeypatch.setattr(opening.constants, "HF_HUB_OFFLINE", False)
    opened = Mock(side_effect=FileNotFoundError("opened"))
    monkeypatch.setattr(opening, "load_dataset", opened)

    def answer(error):
        monkeypatch.setattr(opening.HfApi, "dataset_info", Mock(side_effect=error))
        return opened

    return answer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RepositoryNotFoundError("404", response=Mock(headers={})),
            "no dataset of the Hub, or a private one.*hf auth",
        ),
        (HTTPError("no route"), "not in the cache of `datasets`.*cannot be reached .no route"),
    ],
)
def test_a_dataset_that_the_hub_does_not_give_is_named_without_repeated_requests(hub, error, message):
    opened = hub(error)
    with pytest.raises(ValueError, match=message):
        load_posts("owner/name")
    opened.assert_not_called()


def test_without_connection_a_dataset_comes_from_the_cache(hub, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(opening.config, "HF_DATASETS_CACHE", tmp_path)
    (tmp_path / "owner___my_posts" / "default" / "0.0.0" / "1234").mkdir(parents=True)
    opened = hub(HTTPError("no route"))
    with pytest.raises(ValueError, match="opened"):
        load_posts("owner/MyPosts")
    opened.assert_called_once()
    assert "HF_HUB_OFFLINE=1 avoids the wait" in caplog.text


def test_a_published_folder_with_other_columns_is_refused(tmp_path):
    Dataset.from_dict({"sentence": ["a"], "label": [0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        ValueError, match="neither a column 'text' nor 'image'; its columns are sentence.*text_column=…"
    ):
        load_posts(str(tmp_path))


def test_an_ordinary_dataset_gets_the_missing_columns(tmp_path, draw):
    draw(tmp_path / "a.png", 7)
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    rows = {"img": [image, image], "caption": ["x", " "], "mood": ["sad", "glad"], "likes": [3, 4]}
    schema = Features(
        {"img": Image(), "caption": Value("large_string"), "mood": Value("string"), "likes": Value("int64")}
    )
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, features=schema).to_parquet(tmp_path / "data" / "train.parquet")
    names = {"text_column": "caption", "image_column": "img", "label_column": "mood"}
    posts, report = load_posts_with_report(str(tmp_path / "data"), **names, language="de")
    assert posts.select_columns(list(features(perspectives=()))).features == features(["glad", "sad"], ())
    assert posts["id"] == ["0", "1"] and posts["text"] == ["x", None] and posts["label"] == [1, 0]
    assert posts[1]["image"].getpixel((0, 0)) == (7, 0, 90) and posts["likes"] == [3, 4]
    assert set(posts["language"]) == {"de"} and set(posts["source"]) == {"data"}
    assert report.notes == {"without text": 1} and report.labels == {"sad": 1, "glad": 1}
    posts = load_posts(str(tmp_path / "data"), **names, labels=["sad", "glad", "calm"], group_column="likes")
    assert posts.features["label"].names == ["sad", "glad", "calm"] and posts["group"] == [3, 4]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "id": [2.0**60]}, "the id .*e.18 is a rounded number: .*id_column="),
        ({"text": ["a"], "id": [None]}, "row 1: the id is blank; write an id, or number the posts"),
        ({"text": [["a"]]}, "the column 'text' is List.*, not one text per post"),
        ({"text": ["a"], "image": [3]}, "the column 'image' is Value.*, not one image per post"),
        ({"text": ["a"], "label": [["x"]]}, "'label' must hold one class per post"),
    ],
)
def test_columns_of_a_dataset_that_cannot_be_converted_are_named(tmp_path, columns, message):
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=message):
        load_posts(str(tmp_path))


def test_faulty_rows_of_a_dataset_are_named_or_left_out_and_counted(tmp_path):
    train = {"id": [1, 2, 2], "text": ["a", "", "c"], "label": ["sad", "sad", "glad"]}
    test = {"id": [1, 5], "text": ["d", "e"], "label": ["mad", "glad"]}
    for split, rows in (("train", train), ("test", test)):
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="split train, row 3: id '2' is also in row 2; .*on_error=\"skip\""):
        load_posts(str(tmp_path))
    posts, report = load_posts_with_report(str(tmp_path), on_error="skip", labels=["sad", "glad"])
    assert [part["id"] for part in posts.values()] == [["1"], ["5"]]
    assert report.skipped == {"duplicate id": 2, "empty post": 1, "unknown label": 1}
    assert (report.read, report.kept) == (5, 2)
    numbered = load_posts(str(tmp_path), on_error="skip", id_column="")
    assert [part["id"] for part in numbered.values()] == [["0", "2"], ["3", "4"]]


def test_ids_and_classes_are_common_to_all_splits_of_a_dataset(tmp_path):
    for split, labels in (("train", [2, 0, 2]), ("validation", [0]), ("test", [1])):
        rows = {"text": [f"{split} {n}" for n in range(len(labels))], "label": labels}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    posts = load_posts(str(tmp_path))
    assert [part["id"] for part in posts.values()] == [["0", "1", "2"], ["3"], ["4"]]
    assert [part["label"] for part in posts.values()] == [[2, 0, 2], [0], [1]]
    assert {tuple(part.features["label"].names) for part in posts.values()} == {("0", "1", "2")}
    assert len(load_posts(str(tmp_path), split="train+test")) == 4


def test_a_file_is_no_folder_and_its_call_is_written(tmp_path):
    file = tmp_path / "posts.csv"
    file.write_text("text\na\n", encoding="utf-8")
    for arguments in ((str(file),), ("folder", file)):
        with pytest.raises(ValueError, match=r'load_posts\("folder", .*file="posts.csv"'):
            load_posts(*arguments)


@pytest.fixture
def download(tmp_path, draw):
    return write_mvsa(tmp_path / "download", draw)


def test_posts_saved_without_content_get_it_from_the_download(download, tmp_path):
    splits = split_posts(load_posts("mvsa_single", download))
    out = tmp_path / "out"
    save_posts(splits, out, "mvsa_single", with_content=False)
    saved = b"".join(path.read_bytes() for path in out.rglob("*.*") if path.is_file())
    assert b"tweet" not in saved and b"PNG" not in saved
    published = load_dataset(str(out), "mvsa_single")
    joined = join_content(published, "mvsa_single", download)
    assert joined["train"].features == features()
    assert content_hash(joined) == content_hash(splits)
    assert join_content(published["test"], "mvsa_single", download)["text"] == joined["test"]["text"]
    with pytest.raises(ValueError, match="already have image or text"):
        join_content(joined, "mvsa_single", download)

    with pytest.raises(ValueError, match="published without texts and images; give the original download"):
        load_posts(str(out), config_name="mvsa_single")
    loaded = load_posts(str(out), download, config_name="mvsa_single")
    assert content_hash(loaded) == content_hash(splits)


def test_posts_saved_with_content_open_by_their_folder(download, tmp_path):
    splits = split_posts(load_posts("mvsa_single", download))
    save_posts(splits, tmp_path / "out", "mvsa_single")
    assert content_hash(load_posts(str(tmp_path / "out"))) == content_hash(splits)
    with pytest.raises(ValueError, match="takes no data_dir"):
        load_posts(str(tmp_path / "out"), download)


def test_missing_and_differing_posts_of_another_download_are_named(download, tmp_path, draw):
    published = split_posts(load_posts("mvsa_single", download))["train"].remove_columns(["image", "text"])
    part = write_mvsa(tmp_path / "part", draw, count=25)
    missing = [number for number in published["id"] if int(number) > 25]
    message = f"{len(missing)} of 24 posts of 'posts' are not in mvsa_single of .*first: {missing[0]}.*on_missing"
    with pytest.raises(ValueError, match=message):
        join_content(published, "mvsa_single", part)
    rest = join_content(published, "mvsa_single", part, on_missing="skip")
    assert set(published["id"]) - set(rest["id"]) == set(missing)

    labels = download / "labelResultAll.txt"
    labels.write_text(labels.read_text().replace("positive", "neutral"), encoding="utf-8")
    with pytest.raises(ValueError, match="another label .*: positive as published, neutral in the download"):
        join_content(published, "mvsa_single", download)


def test_rationales_are_joined_to_all_splits_of_a_published_dataset(download, tmp_path):
    save_posts(split_posts(load_posts("mvsa_single", download)), tmp_path / "out", "mvsa_single")
    file = tmp_path / "rationales.jsonl"
    file.write_text("".join(f'{{"id": "{number}", "rationale_sarcasm": "s {number}"}}\n' for number in range(1, 31)))
    for split in load_posts(str(tmp_path / "out"), rationales=file).values():
        assert split["rationale_sarcasm"] == [f"s {post_id}" for post_id in split["id"]]
