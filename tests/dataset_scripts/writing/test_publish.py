"""Saved posts: what load_dataset finds, what the card says, and what becomes of what the folder held before."""

import io
import json

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from dataset_scripts import features, split_hash
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.splits import SPLITS
from dataset_scripts.writing import parquet as shards
from dataset_scripts.writing.publish import save_posts

LABELS = ("positive", "neutral", "negative")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """load_dataset keeps what it read in a cache of this test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def post(number: int, image=None, **changes) -> dict:
    return {
        "id": str(number),
        "image": image,
        "text": f"text {number}",
        "rationale_positive": f"why {number} is positive",
        "rationale_neutral": None if number % 2 else f"why {number} is neutral",
        "rationale_negative": None,
        "label": LABELS[number % 3],
        "text_label": None,
        "image_label": LABELS[number % 3],
        "language": "en",
        "source": "mvsa_single",
    } | changes


@pytest.fixture
def make(draw, tmp_path):
    """`make(train=6, test=3)`: splits of that many posts, whose images are files."""

    def build(offset: int = 0, **sizes: int) -> DatasetDict:
        splits, number = {}, offset
        for split, size in sizes.items():
            images = [str(draw(tmp_path / "raw" / f"{number + i}.png", number + i)) for i in range(size)]
            rows = [post(number + i, image) for i, image in enumerate(images)]
            splits[split] = Dataset.from_list(rows, features=features())
            number += size
        return DatasetDict(splits)

    return build


def contents(folder) -> dict:
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files(folder)}


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_saved_folder_holds_the_images_themselves_and_opens_with_the_same_features(make, tmp_path):
    splits = make(train=6, validation=2, test=2)
    pixels = [image.tobytes() for image in splits["train"]["image"]]
    save_posts(splits, tmp_path / "out", "mvsa_single")
    for raw in (tmp_path / "raw").iterdir():
        raw.unlink()
    loaded = load_dataset(str(tmp_path / "out"), "mvsa_single")
    assert list(loaded) == list(SPLITS)
    assert loaded["train"].features == features()
    assert [image.tobytes() for image in loaded["train"]["image"]] == pixels
    for split in SPLITS:
        assert loaded[split].remove_columns("image").to_list() == splits[split].remove_columns("image").to_list()


def test_streaming_gives_the_same_posts(make, tmp_path):
    splits = make(train=5, test=2)
    save_posts(splits, tmp_path / "out", "mvsa_single")
    stream = load_dataset(str(tmp_path / "out"), "mvsa_single", split="train", streaming=True)
    assert [(row["id"], row["image"].getpixel((0, 0))) for row in stream] == [
        (row["id"], row["image"].getpixel((0, 0))) for row in splits["train"]
    ]


def test_a_second_configuration_leaves_the_first_as_it_was(make, tmp_path):
    save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single")
    before = contents(tmp_path / "out" / "mvsa_single")
    save_posts(make(offset=100, train=4, test=1), tmp_path / "out", "mvsa_multiple")
    assert contents(tmp_path / "out" / "mvsa_single") == before
    assert sorted(get_dataset_config_names(str(tmp_path / "out"))) == ["mvsa_multiple", "mvsa_single"]
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["6", "7", "8"]
    assert load_dataset(str(tmp_path / "out"), "mvsa_multiple")["test"]["id"] == ["104"]


def test_saving_unchanged_posts_again_writes_nothing_and_a_change_replaces_the_configuration(make, tmp_path):
    first = save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single", max_shard_size=1)
    assert first.shards_written == 9
    before = contents(tmp_path / "out")
    assert save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single", max_shard_size=1).shards_written == 0
    assert contents(tmp_path / "out") == before
    changed = save_posts(make(offset=1, train=6, test=3), tmp_path / "out", "mvsa_single")
    assert changed.shards_written == 2
    assert [path.name for path in files(tmp_path / "out")] == [
        "README.md",
        "build.json",
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]


def test_the_same_posts_from_another_folder_give_the_same_bytes(make, tmp_path):
    splits = make(train=6, test=3)
    save_posts(splits, tmp_path / "out", "mvsa_single")
    (tmp_path / "raw").rename(tmp_path / "moved")
    rows = [row | {"image": row["image"]["path"].replace("raw", "moved")} for row in _undecoded(splits["train"])]
    others = DatasetDict(
        {"train": Dataset.from_list(rows, features=features()), "test": make(train=6, test=3)["test"]}
    )
    assert save_posts(others, tmp_path / "out", "mvsa_single").shards_written == 0


def _undecoded(posts: Dataset) -> list:
    from datasets import Image

    return posts.cast_column("image", Image(decode=False)).to_list()


def test_shards_and_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 10)
    rows = [post(number, {"bytes": _png(number), "path": None}) for number in range(70)]
    size = len(json.dumps(post(0))) + len(_png(0))
    splits = DatasetDict({"train": Dataset.from_list(rows, features=features())})
    saved = save_posts(splits, tmp_path / "out", "mvsa_single", max_shard_size=25 * size)
    names = sorted(path.name for path in saved.folder.glob("*.parquet"))
    assert 3 <= len(names) <= 5 and names[0] == f"train-00000-of-{len(names):05d}.parquet"
    for name in names:
        layout = pq.ParquetFile(saved.folder / name)
        groups = [layout.metadata.row_group(group).num_rows for group in range(layout.num_row_groups)]
        assert max(groups) <= 10 and sum(groups) <= 30
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 4 * size)
    (saved.folder / names[0]).unlink()  # a lost file: the configuration is built again
    assert save_posts(splits, tmp_path / "out", "mvsa_single", max_shard_size=10**9).shards_written == 1
    layout = pq.ParquetFile(saved.folder / "train-00000-of-00001.parquet")
    assert max(layout.metadata.row_group(group).num_rows for group in range(layout.num_row_groups)) <= 4
    assert load_dataset(str(tmp_path / "out"))["train"]["id"] == [str(number) for number in range(70)]


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_interrupted_save_leaves_the_earlier_build_and_goes_on_where_it_stopped(make, tmp_path, monkeypatch):
    save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single")
    write, done = shards._write_shard, []

    def stopping(posts, path, groups):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(path)
        write(posts, path, groups)

    other = make(offset=50, train=6, test=3)
    monkeypatch.setattr(shards, "_write_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        save_posts(other, tmp_path / "out", "mvsa_single", max_shard_size=1)
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["6", "7", "8"]
    monkeypatch.setattr(shards, "_write_shard", write)
    assert save_posts(other, tmp_path / "out", "mvsa_single", max_shard_size=1).shards_written == 5
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["56", "57", "58"]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_stop_between_taking_away_the_old_build_and_putting_the_new_one_loses_neither(make, tmp_path):
    splits = make(train=6, test=3)
    saved = save_posts(splits, tmp_path / "out", "mvsa_single")
    saved.folder.rename(tmp_path / "out" / ".mvsa_single.before")
    assert save_posts(splits, tmp_path / "out", "mvsa_single").shards_written == 0
    assert not (tmp_path / "out" / ".mvsa_single.before").exists()


def test_posts_without_image_label_or_rationale_come_back_as_they_were(tmp_path):
    rows = [post(1, None, label=None, rationale_positive=None), post(2, None)]
    splits = DatasetDict({"train": Dataset.from_list(rows, features=features())})
    save_posts(splits, tmp_path / "out", "mine", dataset="folder")
    assert load_dataset(str(tmp_path / "out"), "mine")["train"].to_list() == splits["train"].to_list()
    assert "| (none) | 1 | 1 |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_was_kept_dropped_and_split_and_who_to_cite(make, tmp_path):
    report = BuildReport("mvsa_single", read=14, kept=9, on_error="skip")
    report.drop("opposite polarities (positive text, negative image)")
    report.skipped = {"missing image": 4}
    report.examples = {"missing image": ["/home/someone/data/7.jpg does not exist"]}
    splits = make(train=6, validation=1, test=2)
    saved = save_posts(
        splits,
        tmp_path / "out",
        "mvsa_single",
        report=report,
        protocol="folds",
        seed=7,
        split_options={"fold": 3},
        provenance={"model": "Qwen2.5-VL-7B", "prompt": "paper"},
    )
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "other"
    assert card.data.language == ["en"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.configs[0]["data_files"][1] == {
        "split": "validation",
        "path": "mvsa_single/validation-*.parquet",
    }
    assert card.data.dataset_info[0]["splits"][0]["num_examples"] == 6
    for sentence in (
        "| positive | 2 | 1 | 0 | 3 |",
        "| all | 6 | 1 | 2 | 9 |",
        "| *Table 1 of the paper* | *3,611* | *450* | *450* | *4,511* |",
        "Table 1 of the paper has 4,511 posts, this build 9.",
        "14 rows were read and 9 posts kept.",
        "1 were dropped by rule: opposite polarities (positive text, negative image) 1.",
        "4 were skipped as faulty: missing image 4.",
        "`folds` (ten folds",
        f"seed 7, fold 3. Hash of its ids: `{split_hash(splits)}`",
        "of 9 posts have one: positive 9, neutral 5, negative 0.",
        "How they were made: model: Qwen2.5-VL-7B; prompt: paper.",
        "**Content warning.**",
        "@inproceedings{niu2016mvsa",
        "@inproceedings{xu2017multisentinet",
        "@inproceedings{ma2025mpt",
    ):
        assert sentence in card.text, sentence
    everything = card.content + (saved.folder / "build.json").read_text(encoding="utf-8")
    assert "/home/someone" not in everything and str(tmp_path) not in everything


def test_what_is_not_known_of_rationales_and_split_is_said_so(make, tmp_path):
    save_posts(make(train=3), tmp_path / "out", "mvsa_single")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "How they were made (model, prompt, settings) is not recorded." in card
    assert "its protocol is not recorded" in card
    assert "How many rows of the original were left out is not recorded." in card


def test_the_samples_card_says_that_it_is_drawn_by_code(make, tmp_path):
    save_posts(make(train=3), tmp_path / "out", "sample")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert "**This dataset is synthetic.**" in card.text
    assert "synthetic" in card.data.tags and card.data.license == "apache-2.0"
    assert "Content warning" not in card.text


def test_what_an_author_wrote_around_the_marks_and_configurations_of_others_stay(make, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text(
        "---\nviewer: false\nconfigs:\n- config_name: extra\n  data_files: extra.parquet\n---\n\n# Ours\n",
        encoding="utf-8",
    )
    pq.write_table(pa.table({"a": [1], "b": [2]}), out / "extra.parquet")
    save_posts(make(train=3), out, "mvsa_single")
    readme = out / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + "\nWritten by hand.\n", encoding="utf-8")
    save_posts(make(offset=9, train=3), out, "mvsa_multiple")
    card = DatasetCard.load(readme)
    assert card.text.strip().startswith("# Ours") and card.text.strip().endswith("Written by hand.")
    assert card.text.count("## `mvsa_single`") == 1 and "## `mvsa_multiple`" in card.text
    assert card.data.viewer is False
    assert sorted(get_dataset_config_names(str(out))) == ["extra", "mvsa_multiple", "mvsa_single"]
    assert load_dataset(str(out), "extra")["train"].to_list() == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config_name": "a/b"}, "config_name='a/b'; use letters"),
        ({"max_shard_size": 0}, "max_shard_size=0"),
    ],
)
def test_a_bad_argument_says_what_to_write(make, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        save_posts(make(train=3), tmp_path / "out", **({"config_name": "x"} | change))


def test_posts_that_cannot_be_told_apart_or_read_are_refused_and_nothing_is_left(make, tmp_path):
    splits = make(train=3, test=2)
    with pytest.raises(ValueError, match="give a DatasetDict .* split_posts"):
        save_posts(splits["train"], tmp_path / "out", "x")
    with pytest.raises(ValueError, match="the split 'test' has no post"):
        save_posts(DatasetDict({"train": splits["train"], "test": splits["test"].select([])}), tmp_path / "out", "x")
    twice = DatasetDict({"train": splits["train"], "test": splits["train"]})
    with pytest.raises(ValueError, match=r"3 ids occur more than once .*\['0', '1', '2'\]"):
        save_posts(twice, tmp_path / "out", "x")
    (tmp_path / "raw" / "4.png").unlink()
    with pytest.raises(ValueError, match=r"an image of the posts \['3', '4'\] cannot be read"):
        save_posts(splits, tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_is_named(make, tmp_path):
    saved = save_posts(make(train=3), tmp_path / "out", "x")
    (saved.folder / "build.json").write_text('{"config_name": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"build.json is damaged .* delete .* and build it again"):
        save_posts(make(train=3), tmp_path / "out", "x")
