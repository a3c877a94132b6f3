"""Loading by name: published posts, their content and their rationales."""

import pytest
from datasets import DatasetDict, load_dataset

from dataset_scripts import LABELS, features, join_content, load_posts, split_hash, split_posts
from dataset_scripts.splits import SPLITS
from dataset_scripts.writing.publish import save_posts


def test_a_save_without_content_has_neither_texts_nor_images_and_one_call_joins_them(tmp_path, draw):
    splits = _raw_mvsa(tmp_path / "download", draw)
    save_posts(splits, tmp_path / "out", "mvsa_single", with_content=False)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file())
    assert b"nothing but text" not in everything and b"PNG" not in everything
    published = load_dataset(str(tmp_path / "out"), "mvsa_single")
    assert "text" not in published["train"].column_names and "image" not in published["train"].column_names
    joined = join_content(published, "mvsa_single", tmp_path / "download")
    assert joined["train"].features == features()
    for split in SPLITS:
        assert joined[split]["text"] == splits[split]["text"]
        assert joined[split]["label"] == splits[split]["label"]
        assert [i.tobytes() for i in joined[split]["image"]] == [i.tobytes() for i in splits[split]["image"]]
    assert split_hash(joined) == split_hash(splits)
    alone = join_content(published["test"], "mvsa_single", tmp_path / "download")
    assert alone["text"] == joined["test"]["text"]
    with pytest.raises(ValueError, match="already have"):
        join_content(joined, "mvsa_single", tmp_path / "download")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert 'join_content(load_dataset("PATH_OR_ID", "mvsa_single"), "mvsa_single", data_dir=' in card


def _raw_mvsa(folder, draw, numbers=range(1, 31)) -> DatasetDict:
    lines = ["ID\ttext,image"]
    for number in numbers:
        draw(folder / "data" / f"{number}.jpg", 4 * number)
        (folder / "data" / f"{number}.txt").write_text(f"nothing but text {number}", encoding="utf-8")
        lines.append(f"{number}\t{LABELS[number % 3]},{LABELS[number % 3]}")
    (folder / "labelResultAll.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return split_posts(load_posts("mvsa_single", folder))


def test_joining_another_download_says_which_posts_are_missing_or_differ(tmp_path, draw):
    splits = _raw_mvsa(tmp_path / "download", draw)
    save_posts(splits, tmp_path / "out", "mvsa_single", with_content=False)
    published = load_dataset(str(tmp_path / "out"), "mvsa_single", split="train")
    _raw_mvsa(tmp_path / "part", draw, range(1, 26))
    missing = [number for number in published["id"] if int(number) > 25]
    expected = (
        f"{len(missing)} of 24 posts of 'posts' are not in mvsa_single of .*first: {missing[0]}.*on_missing=\"skip\""
    )
    with pytest.raises(ValueError, match=expected):
        join_content(published, "mvsa_single", tmp_path / "part")
    rest = join_content(published, "mvsa_single", tmp_path / "part", on_missing="skip")
    assert set(published["id"]) - set(rest["id"]) == set(missing)

    labels = tmp_path / "download" / "labelResultAll.txt"
    labels.write_text(labels.read_text().replace("positive", "neutral"), encoding="utf-8")
    with pytest.raises(ValueError, match="posts have another label .* is positive here, neutral there.*was published"):
        join_content(published, "mvsa_single", tmp_path / "download")


def test_load_posts_opens_what_was_saved_and_joins_the_download_where_content_is_missing(tmp_path, draw):
    splits = _raw_mvsa(tmp_path / "download", draw)
    out = str(tmp_path / "out")
    save_posts(splits, out, "all", dataset="mvsa_single")
    save_posts(splits, out, "ids", dataset="mvsa_single", with_content=False)
    whole = load_posts(out, config_name="all")
    assert split_hash(whole) == split_hash(splits)
    with pytest.raises(ValueError, match="published without texts and images; give the original download"):
        load_posts(out, config_name="ids")
    joined = load_posts(out, tmp_path / "download", config_name="ids")
    assert joined["test"]["text"] == splits["test"]["text"] and joined["test"].features == features()
    with pytest.raises(ValueError, match="takes no data_dir"):
        load_posts(out, tmp_path / "download", config_name="all")
