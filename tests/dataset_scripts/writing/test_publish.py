"""Saved posts: content, dataset card, and earlier builds in the same folder."""

import io
import json

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from dataset_scripts import LABELS, features, split_hash
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.splits import SPLITS
from dataset_scripts.writing import parquet
from dataset_scripts.writing.publish import save_posts


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
    """`make(train=6, test=3)` returns splits of that many posts, whose images are files."""

    def build(offset: int = 0, folder: str = "raw", **sizes: int) -> DatasetDict:
        splits, number = {}, offset
        for split, size in sizes.items():
            images = [str(draw(tmp_path / folder / f"{number + i}.png", number + i)) for i in range(size)]
            rows = [post(number + i, image) for i, image in enumerate(images)]
            splits[split] = Dataset.from_list(rows, features=features())
            number += size
        return DatasetDict(splits)

    return build


def contents(folder) -> dict:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_saved_folder_holds_the_images_and_opens_with_the_same_features_also_as_a_stream(make, tmp_path):
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
    stream = load_dataset(str(tmp_path / "out"), "mvsa_single", split="train", streaming=True)
    assert [row["image"].tobytes() for row in stream] == pixels


def test_a_second_configuration_leaves_the_first_unchanged(make, tmp_path):
    save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single")
    before = contents(tmp_path / "out" / "mvsa_single")
    save_posts(make(offset=100, train=4, test=1), tmp_path / "out", "mvsa_multiple")
    assert contents(tmp_path / "out" / "mvsa_single") == before
    assert sorted(get_dataset_config_names(str(tmp_path / "out"))) == ["mvsa_multiple", "mvsa_single"]
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["6", "7", "8"]
    assert load_dataset(str(tmp_path / "out"), "mvsa_multiple")["test"]["id"] == ["104"]


def test_unchanged_posts_are_not_written_again_and_a_change_replaces_the_configuration(make, tmp_path):
    out = tmp_path / "out"
    assert save_posts(make(train=6, test=3), out, "mvsa_single", max_file_size=1).files_written == 9
    before = contents(out)
    elsewhere = make(folder="moved", train=6, test=3)
    assert save_posts(elsewhere, out, "mvsa_single", max_file_size=1).files_written == 0
    assert contents(out) == before
    assert save_posts(make(offset=1, train=6, test=3), out, "mvsa_single").files_written == 2
    names = ["README.md", "build.json", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert sorted(contents(out)) == names
    save_posts(make(offset=1, train=6, test=3), tmp_path / "again", "mvsa_single")
    again = contents(tmp_path / "again")
    assert {name: content for name, (content, _) in contents(out).items()} == {name: again[name][0] for name in again}


def test_files_and_row_groups_are_bounded_in_rows_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 10)
    rows = [post(number, {"bytes": png(number), "path": None}) for number in range(70)]
    size = len(json.dumps(post(0))) + len(png(0))
    splits = DatasetDict({"train": Dataset.from_list(rows, features=features())})
    saved = save_posts(splits, tmp_path / "out", "mvsa_single", max_file_size=25 * size)
    names = sorted(path.name for path in saved.folder.glob("*.parquet"))
    assert 3 <= len(names) <= 5 and names[0] == f"train-00000-of-{len(names):05d}.parquet"
    for name in names:
        layout = pq.ParquetFile(saved.folder / name)
        groups = [layout.metadata.row_group(group).num_rows for group in range(layout.num_row_groups)]
        assert max(groups) <= 10 and sum(groups) <= 30
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 4 * size)
    (saved.folder / names[0]).unlink()  # a lost file: the configuration is built again
    assert save_posts(splits, tmp_path / "out", "mvsa_single", max_file_size=10**9).files_written == 1
    layout = pq.ParquetFile(saved.folder / "train-00000-of-00001.parquet")
    assert max(layout.metadata.row_group(group).num_rows for group in range(layout.num_row_groups)) <= 4
    assert load_dataset(str(tmp_path / "out"))["train"]["id"] == [str(number) for number in range(70)]


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_interrupted_save_keeps_the_earlier_build_and_resumes(make, tmp_path, monkeypatch):
    save_posts(make(train=6, test=3), tmp_path / "out", "mvsa_single")
    write_file, written = parquet._write_file, []

    def interrupted(posts, path, groups):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write_file(posts, path, groups)

    other = make(offset=50, train=6, test=3)
    monkeypatch.setattr(parquet, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_posts(other, tmp_path / "out", "mvsa_single", max_file_size=1)
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["6", "7", "8"]
    monkeypatch.setattr(parquet, "_write_file", write_file)
    assert save_posts(other, tmp_path / "out", "mvsa_single", max_file_size=1).files_written == 5
    assert load_dataset(str(tmp_path / "out"), "mvsa_single")["test"]["id"] == ["56", "57", "58"]
    assert not list((tmp_path / "out").glob(".*"))
    # A stop while the new build replaces the old one.
    (tmp_path / "out" / "mvsa_single").rename(tmp_path / "out" / ".mvsa_single.before")
    assert save_posts(other, tmp_path / "out", "mvsa_single", max_file_size=1).files_written == 0
    assert not list((tmp_path / "out").glob(".*"))


def test_posts_without_image_label_or_rationale_stay_so(tmp_path):
    rows = [post(1, None, label=None, rationale_positive=None), post(2, None)]
    splits = DatasetDict({"train": Dataset.from_list(rows, features=features())})
    save_posts(splits, tmp_path / "out", "mine", dataset="folder")
    assert load_dataset(str(tmp_path / "out"), "mine")["train"].to_list() == splits["train"].to_list()
    assert "| (none) | 1 | 1 |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_card_states_counts_split_origin_and_citations_without_local_paths(make, tmp_path):
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
    assert (card.data.license, card.data.language, card.data.size_categories) == ("other", ["en"], ["n<1K"])
    assert card.data.dataset_info[0]["splits"][0]["num_examples"] == 6
    for passage in (
        "| positive | 2 | 1 | 0 | 3 |",
        "| all | 6 | 1 | 2 | 9 |",
        "| *Table 1 of the paper* | *3,611* | *450* | *450* | *4,511* |",
        "Table 1 of the paper has 4,511 posts, this build 9.",
        "14 rows were read and 9 posts kept.",
        "opposite polarities (positive text, negative image) 1.",
        "missing image 4.",
        "seed 7, fold 3.",
        f"`{split_hash(splits)}`",
        "positive 9; neutral 5; negative 0.",
        "model: Qwen2.5-VL-7B; prompt: paper.",
        "**Content warning.**",
        "@inproceedings{niu2016mvsa",
        "@inproceedings{xu2017multisentinet",
        "@inproceedings{ma2025mpt",
    ):
        assert passage in card.text, passage
    everything = card.content + (saved.folder / "build.json").read_text(encoding="utf-8")
    assert "/home/someone" not in everything and str(tmp_path) not in everything


def test_the_card_names_facts_that_are_not_recorded_and_warns_of_a_synthetic_dataset(make, tmp_path):
    save_posts(make(train=3), tmp_path / "out", "mvsa_single")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for subject in ("(model, prompt, settings)", "its protocol", "rows left out of the original"):
        assert f"{subject} is not recorded" in card
    save_posts(make(train=3), tmp_path / "sample", "sample")
    sample = DatasetCard.load(tmp_path / "sample" / "README.md")
    assert "**This dataset is synthetic.**" in sample.text
    assert "synthetic" in sample.data.tags and sample.data.license == "apache-2.0"
    assert "Content warning" not in sample.text


def test_text_of_an_author_and_other_configurations_are_kept(make, tmp_path):
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
    ("change", "name", "options", "message"),
    [
        (lambda posts: posts["train"], "x", {}, "`splits` must be a DatasetDict .* split_posts"),
        (lambda posts: posts | {"test": posts["test"].select([])}, "x", {}, "'test' has no posts"),
        (lambda posts: posts | {"test": posts["train"]}, "x", {}, r"3 ids occur more than once .*\['0', '1', '2'\]"),
        (lambda posts: posts, "a/b", {}, "`config_name` must .* got 'a/b'"),
        (lambda posts: posts, "x", {"max_file_size": 0}, "`max_file_size` must be at least 1 byte, got 0"),
    ],
)
def test_unusable_posts_and_arguments_are_refused_and_leave_no_folder(make, tmp_path, change, name, options, message):
    splits = change(make(train=3, test=2))
    with pytest.raises(ValueError, match=message):
        save_posts(DatasetDict(splits) if isinstance(splits, dict) else splits, tmp_path / "out", name, **options)
    assert not (tmp_path / "out").exists()


def test_a_lost_image_and_a_damaged_record_are_named(make, tmp_path):
    splits = make(train=3, test=2)
    saved = save_posts(splits, tmp_path / "out", "x")
    (saved.folder / "build.json").write_text('{"config_name": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"build.json is damaged .* Delete .* and build it again"):
        save_posts(splits, tmp_path / "out", "x")
    (tmp_path / "raw" / "4.png").unlink()
    with pytest.raises(ValueError, match=r"image of the posts \['3', '4'\] cannot be read"):
        save_posts(splits, tmp_path / "new", "x")
    assert not (tmp_path / "new").exists()
