"""examples/build_dataset.py: one command from each raw download to a folder that load_dataset opens."""

import csv
import json
import os
from pathlib import Path

import datasets
import PIL.Image
import pytest
from datasets import get_dataset_config_names, load_dataset

from dataset_scripts import features
from mpt_sentiment.building import main

LABELS = ("positive", "neutral", "negative")


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 8), (shade, 90, 0)).save(path)


def mvsa(folder: Path, annotators: int) -> None:
    lines = ["ID\t" + "\t".join(["text,image"] * annotators)]
    for number in range(1, 31):
        picture(folder / "data" / f"{number}.jpg", 5 * number)
        (folder / "data" / f"{number}.txt").write_text(f"tweet {number}", encoding="utf-8")
        label = LABELS[number % 3]
        lines.append(f"{number}\t" + "\t".join([f"{label},{label}"] * annotators))
    lines.append("31\t" + "\t".join(["positive,negative"] * annotators))
    (folder / "labelResultAll.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def memotion(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    degrees = ("very_negative", "negative", "neutral", "positive", "very_positive")
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        columns = "text_ocr text_corrected humour sarcasm offensive motivational overall_sentiment"
        writer.writerow(["", "image_name", *columns.split()])
        for number in range(30):
            picture(folder / "images" / f"image_{number}.jpg", 5 * number)
            rest = ["funny", "general", "slight", "motivational", degrees[number % 5]]
            writer.writerow([number, f"image_{number}.jpg", f"MEME {number}", f"meme {number}", *rest])


def ch_mits(folder: Path) -> None:
    lines = ["labels,sentences"]
    for number in range(30):
        side = "pn"[number % 2]
        note = folder / side / f"{side}{number}"
        picture(note / "cover.jpg", 5 * number)
        (note / "detail.txt").write_text(f"笔记标题: 第{number}天\n笔记描述: 去爬山{number}\n", encoding="utf-8")
        lines.append(f"{1 - number % 2},D:\\ei\\x-master\\{side}/{side}{number}/cover.jpg")
    (folder / "cv_address.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_each_benchmark_takes_one_command_and_all_four_have_the_same_columns(tmp_path, capsys):
    mvsa(tmp_path / "single", 1)
    mvsa(tmp_path / "multiple", 3)
    memotion(tmp_path / "memes")
    ch_mits(tmp_path / "notes")
    out = str(tmp_path / "posts")
    downloads = {"mvsa_single": "single", "mvsa_multiple": "multiple", "memotion": "memes", "ch_mits": "notes"}
    for name, folder in downloads.items():
        main([name, "--data_dir", str(tmp_path / folder), "--output_dir", out, "--num_proc", "2"])
    assert sorted(get_dataset_config_names(out)) == sorted(downloads)
    for name in downloads:
        posts = load_dataset(out, name)
        labels = ("positive", "negative") if name == "ch_mits" else LABELS
        assert {split: posts[split].features for split in posts} == dict.fromkeys(
            ("train", "validation", "test"), features(labels)
        )
        assert sum(map(len, posts.values())) == 30
        first = next(iter(load_dataset(out, name, split="test", streaming=True)))
        assert first["id"] == posts["test"][0]["id"] and first["image"].size == (8, 8)
    printed = capsys.readouterr().out
    assert "dropped by rule: opposite polarities (positive text, negative image) 1" in printed
    assert "Table 1 adds up to 2,024, which counts a header line: the dataset has 2,023 posts." in printed
    assert f"load_dataset({out!r}, 'ch_mits')" in printed


def test_the_command_prints_report_and_split_and_writes_nothing_when_nothing_changed(tmp_path, capsys):
    arguments = ["sample", "--output_dir", str(tmp_path / "out"), "--dataset_options", '{"num_posts": 100}']
    main([*arguments, "--split", "paper", "--split_seed", "7"])
    printed = capsys.readouterr().out
    assert "sample: 100 rows read, 100 posts kept" in printed
    assert "Split: paper, hash " in printed
    assert "  validation     10 posts: positive" in printed
    assert "3 Parquet files written" in printed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    main([*arguments, "--split", "paper", "--split_seed", "7"])
    assert "unchanged, nothing was written" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_rationales_are_joined_and_the_card_tells_their_origin(tmp_path):
    mvsa(tmp_path / "single", 1)
    rows = [{"id": str(number), "rationale_positive": f"why {number}"} for number in range(1, 11)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = tmp_path / "posts"
    main(
        ["mvsa_single", "--data_dir", str(tmp_path / "single"), "--output_dir", str(out), "--without_content"]
        + ["--rationales", str(tmp_path / "r.jsonl"), "--rationales_info", '{"model": "Qwen2.5-VL-7B"}']
    )
    posts = load_dataset(str(out), "mvsa_single")
    assert "text" not in posts["train"].column_names
    assert sum(text is not None for split in posts.values() for text in split["rationale_positive"]) == 10
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "model: Qwen2.5-VL-7B; prompt: not recorded; file: r.jsonl" in card
    assert str(tmp_path) not in card


def test_what_was_published_can_be_built_anew_with_its_own_splits(tmp_path, capsys):
    main(["sample", "--output_dir", str(tmp_path / "a"), "--dataset_options", '{"num_posts": 60}'])
    first = capsys.readouterr().out
    main([str(tmp_path / "a"), "--output_dir", str(tmp_path / "b"), "--config_name", "again"])
    second = capsys.readouterr().out
    first_hash, second_hash = (printed.partition("hash ")[2][:16] for printed in (first, second))
    assert first_hash == second_hash
    assert "Split: as the posts came" in second


def test_the_audit_is_printed_and_its_files_lie_outside_of_what_is_published(tmp_path, capsys):
    mvsa(tmp_path / "single", 1)
    out = tmp_path / "posts"
    main(["mvsa_single", "--data_dir", str(tmp_path / "single"), "--output_dir", str(out), "--audit"])
    assert "Leaks into train" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "posts-audit" / "mvsa_single").iterdir()} == {"audit.json", "audit.html"}
    assert {path.name for path in out.iterdir()} == {"README.md", "mvsa_single"}
    assert sum(map(len, load_dataset(str(out), "mvsa_single").values())) == 30


def test_the_real_posts_are_built_with_their_rationales(tmp_path, capsys):
    real_data = os.environ.get("MPT_REAL_DATA")
    if not real_data:
        pytest.skip("MPT_REAL_DATA is unset: it names the folder with the real posts")
    raw = Path(real_data) / "mvsa_single"
    rationales = ["--rationales", str(raw / "rationales.jsonl")]
    main(["mvsa_single", "--data_dir", str(raw), "--output_dir", str(tmp_path / "out"), *rationales])
    assert "1,580 rows read, 1,500 posts kept" in capsys.readouterr().out
    posts = load_dataset(str(tmp_path / "out"), "mvsa_single")
    assert sum(map(len, posts.values())) == 1500
    assert posts["train"].features == features()
    assert sum(text is not None for split in posts.values() for text in split["rationale_neutral"]) == 1243


def test_faulty_posts_stop_the_build_or_are_counted(tmp_path, capsys):
    mvsa(tmp_path / "single", 1)
    (tmp_path / "single" / "data" / "7.jpg").unlink()
    arguments = ["mvsa_single", "--data_dir", str(tmp_path / "single"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="7.jpg does not exist"):
        main(arguments)
    assert not (tmp_path / "out").exists()
    main([*arguments, "--on_error", "skip"])
    assert "skipped: missing image 1" in capsys.readouterr().out
    assert "1 were skipped as faulty: missing image 1." in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_bad_arguments_say_what_to_write(tmp_path):
    with pytest.raises(ValueError, match="name the dataset first"):
        main(["--output_dir", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="--dataset_options '{num_posts: 5}' is not JSON"):
        main(["sample", "--output_dir", str(tmp_path / "out"), "--dataset_options", "{num_posts: 5}"])
    with pytest.raises(ValueError, match="Did you mean 'mvsa_single'"):
        main(["mvsa-single", "--output_dir", str(tmp_path / "out")])
