"""Command `build-dataset`: one command from each raw download to a folder for load_dataset."""

import csv
import json
from pathlib import Path

import pytest
from datasets import get_dataset_config_names, load_dataset

from dataset_scripts import LABELS, features
from helpers.mvsa import write_mvsa
from mpt_sentiment.building import build_dataset
from mpt_sentiment.commands.build_dataset import main


@pytest.fixture
def mvsa(tmp_path, draw):
    return write_mvsa(tmp_path / "single", draw)


def write_memotion(folder: Path, draw) -> None:
    (folder / "images").mkdir(parents=True)
    degrees = ("very_negative", "negative", "neutral", "positive", "very_positive")
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        columns = "text_ocr text_corrected humour sarcasm offensive motivational overall_sentiment"
        writer.writerow(["", "image_name", *columns.split()])
        for number in range(30):
            draw(folder / "images" / f"image_{number}.jpg", 5 * number)
            rest = ["funny", "general", "slight", "motivational", degrees[number % 5]]
            writer.writerow([number, f"image_{number}.jpg", f"MEME {number}", f"meme {number}", *rest])


def write_ch_mits(folder: Path, draw) -> None:
    lines = ["labels,sentences"]
    for number in range(30):
        side = "pn"[number % 2]
        note = folder / side / f"{side}{number}"
        draw(note / "cover.jpg", 5 * number)
        (note / "detail.txt").write_text(f"笔记标题: 第{number}天\n笔记描述: 去爬山{number}\n", encoding="utf-8")
        lines.append(f"{1 - number % 2},D:\\ei\\x-master\\{side}/{side}{number}/cover.jpg")
    (folder / "cv_address.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_each_benchmark_takes_one_command_and_all_four_have_the_same_columns(tmp_path, capsys, mvsa, draw):
    with open(mvsa / "labelResultAll.txt", "a") as table:
        table.write("31\tpositive,negative\n")
    write_mvsa(tmp_path / "multiple", draw, annotators=3)
    write_memotion(tmp_path / "memes", draw)
    write_ch_mits(tmp_path / "notes", draw)
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
    printed = capsys.readouterr().out
    assert "opposite polarities (positive text, negative image) 1" in printed
    assert "Table 1 of the paper has 2,024 posts, this build 30." in printed
    assert f"load_dataset({out!r}, 'ch_mits')" in printed


def test_the_command_prints_the_report_and_the_split_and_a_repetition_writes_nothing(tmp_path, capsys):
    arguments = ["sample", "--output_dir", str(tmp_path / "out"), "--dataset_options", '{"num_posts": 100}']
    arguments += ["--split", "paper", "--split_seed", "7"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "sample: 100 rows read, 100 posts kept" in printed
    assert "Split: paper, hash " in printed
    assert "  validation     10 posts: positive" in printed
    assert "3 Parquet files written" in printed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    main(arguments)
    assert "unchanged, nothing written" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_rationales_are_joined_and_the_card_states_their_origin(tmp_path, mvsa):
    rows = [{"id": str(number), "rationale_positive": f"why {number}"} for number in range(1, 11)]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = tmp_path / "posts"
    main(
        ["mvsa_single", "--data_dir", str(mvsa), "--output_dir", str(out), "--without_content"]
        + ["--rationales", str(tmp_path / "r.jsonl"), "--rationales_info", '{"model": "Qwen2.5-VL-7B"}']
    )
    posts = load_dataset(str(out), "mvsa_single")
    assert "text" not in posts["train"].column_names
    assert sum(text is not None for split in posts.values() for text in split["rationale_positive"]) == 10
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "model: Qwen2.5-VL-7B; prompt: not recorded; file: r.jsonl" in card
    assert str(tmp_path) not in card


def test_a_published_dataset_is_built_again_with_its_own_splits(tmp_path):
    first = build_dataset("sample", tmp_path / "a", dataset_options={"num_posts": 60})
    again = build_dataset(str(tmp_path / "a"), tmp_path / "b", config_name="again")
    assert again.saved.record.split["hash"] == first.saved.record.split["hash"]
    assert "Split: as published" in again.summary()


def test_the_audit_is_printed_and_its_files_are_outside_of_what_is_published(tmp_path, capsys, mvsa):
    out = tmp_path / "posts"
    main(["mvsa_single", "--data_dir", str(mvsa), "--output_dir", str(out), "--audit"])
    assert "Duplicates of train posts" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "posts-audit" / "mvsa_single").iterdir()} == {"audit.json", "audit.html"}
    assert {path.name for path in out.iterdir()} == {"README.md", "mvsa_single"}


def test_faulty_posts_stop_the_build_or_are_counted(tmp_path, capsys, mvsa):
    (mvsa / "data" / "7.jpg").unlink()
    arguments = ["mvsa_single", "--data_dir", str(mvsa), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=r"7\.jpg"):
        main(arguments)
    assert not (tmp_path / "out").exists()
    main([*arguments, "--on_error", "skip"])
    assert "missing image 1" in capsys.readouterr().out
    assert "missing image 1." in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_unusable_arguments_are_refused_by_name(tmp_path):
    output = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="--dataset"):
        main(output)
    with pytest.raises(ValueError, match="dataset_options.*'{num_posts: 5}' is not JSON"):
        main(["sample", *output, "--dataset_options", "{num_posts: 5}"])
    with pytest.raises(ValueError, match=r"`dataset_options` must be a JSON object .* got \[1\]"):
        main(["sample", *output, "--dataset_options", "[1]"])
    with pytest.raises(ValueError, match="Did you mean 'mvsa_single'"):
        main(["mvsa-single", *output])


def test_groups_decide_the_split_and_are_not_published(tmp_path, capsys):
    rows = [f"words {n},{LABELS[n % 3]},author {n // 4}" for n in range(60)] + ["words 60,,author 0"]
    (tmp_path / "posts.csv").write_text("\n".join(["text,label,author", *rows]) + "\n", encoding="utf-8")
    options = ["--data_dir", str(tmp_path), "--dataset_options", json.dumps({"group_column": "author"})]
    main(["folder", *options, "--output_dir", str(tmp_path / "out"), "--on_error", "skip"])
    assert "skipped: no label 1" in capsys.readouterr().out
    posts = load_dataset(str(tmp_path / "out"), "folder")
    assert all(set(part.column_names) == set(features()) for part in posts.values())
    authors = [{int(post_id) // 4 for post_id in part["id"]} for part in posts.values()]
    assert sum(map(len, authors)) == 15 and all(authors)
