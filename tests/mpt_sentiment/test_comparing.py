"""Comparison of systems: cells trained once, reported failures, and the table."""

import csv
import json
from pathlib import Path

import pytest

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, arguments
from mpt_sentiment import comparing
from mpt_sentiment.commands import compare as compare_command

SYSTEMS = ["majority", "tfidf", "mpt", "vit"]


def run(folder: Path, *extra: str) -> int:
    """Run the command on a small sample, with tiny encoders laid over every system's own recipe."""
    argv = arguments(folder, num_train_epochs=1)
    return compare_command.main([*argv, "--models", *SYSTEMS, "--arms", "without", "with", *extra])


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """Folder of a comparison of two seeds in which one run failed."""
    folder = tmp_path_factory.mktemp("compare")
    original = comparing.train_runs

    def fail_once(setup, posts, data):
        if setup.model.model == "vit" and setup.training.seed == 2:
            raise RuntimeError("the network is broken")
        return original(setup, posts, data)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(comparing, "train_runs", fail_once)
        assert run(folder, "--seeds", "1", "2") == 1
    return folder


def rows(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(folder / "comparison.csv", encoding="utf-8") as file:
        return {(row["system"], row["arm"]): row for row in csv.DictReader(file)}


def test_systems_that_read_rationales_run_without_and_with_them(compared):
    both = {(name, arm) for name in ("tfidf", "mpt") for arm in ("without", "with")}
    assert set(rows(compared)) == both | {("majority", "without"), ("vit", "without")}
    table = (compared / "comparison.md").read_text()
    assert all(f"| {title} |" in table for title in ("mpt", "mpt + rationales", "vit"))


def test_rows_hold_the_results_of_the_runs(compared):
    table = rows(compared)
    cells = [compared / "cells" / "mpt+with" / f"seed-{seed}" / "metrics.json" for seed in (1, 2)]
    runs = [json.loads(cell.read_text()) for cell in cells]
    row = table["mpt", "with"]
    assert float(row["accuracy_mean"]) == pytest.approx(sum(each["test"]["accuracy"] for each in runs) / 2)
    assert int(row["parameters"]) == runs[0]["parameters"] > int(table["vit", "without"]["parameters"])
    assert float(row["relative_speed"]) == 1.0 and float(table["vit", "without"]["relative_speed"]) > 0
    assert table["vit", "without"]["remark"] == "image: vit_patches; untrained images"
    assert all(row["ranked"] == "True" for row in table.values())  # no system has pretrained images
    posts, batch = runs[0]["split"]["sizes"]["train"], runs[0]["settings"]["training"]["per_device_train_batch_size"]
    assert int(row["updates"]) == runs[0]["updates"] == -(-posts // batch)
    assert int(row["trainable_parameters"]) == runs[0]["trainable_parameters"]
    assert row["optimizer"] == "adamw_torch_fused"
    names = ("parameters", "trainable_parameters", "updates", "optimizer")
    assert {table["majority", "without"][name] for name in names} == {""}


def test_a_failed_cell_is_reported_and_the_others_are_trained(compared):
    assert rows(compared)["vit", "without"]["num_runs"] == "1"
    assert rows(compared)["mpt", "without"]["num_runs"] == "2"
    assert "vit, seed 2 failed: RuntimeError: the network is broken" in (compared / "comparison.md").read_text()
    assert "the network is broken" in (compared / "cells" / "vit" / "seed-2" / "error.txt").read_text()


def test_called_again_only_the_missing_cell_is_trained(compared):
    cells = compared / "cells"
    written = {path: path.stat().st_mtime_ns for path in cells.rglob("predictions.parquet")}
    assert run(compared, "--seeds", "1", "2") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    new = set(cells.rglob("predictions.parquet")) - set(written)
    assert [path.parent.relative_to(cells).as_posix() for path in new] == ["vit/seed-2"]
    assert rows(compared)["vit", "without"]["num_runs"] == "2"
    assert not (cells / "vit" / "seed-2" / "error.txt").exists()
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_python_compares_posts_and_returns_the_table(tmp_path):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    fields = TINY_FIELDS | {"num_train_epochs": 1}
    result = mpt.compare(posts, ["tfidf", "bert"], output_dir=tmp_path, **fields)
    titles = ["tfidf", "tfidf + rationales", "tfidf + shuffled rationales", "bert"]
    assert [row["title"] for row in result.rows] == titles and not result.failed
    assert result.markdown == (tmp_path / "comparison.md").read_text() and "| bert |" in result.markdown


def test_posts_without_rationales_have_no_arms_with_them(tmp_path, capsys):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    plain = posts.map(
        lambda row: {name: None for name in row if name.startswith("rationale_")}, features=posts.features
    )
    with pytest.raises(ValueError, match="`arms` has 'shuffled', but no post has a rationale"):
        mpt.compare(plain, ["tfidf"], output_dir=tmp_path, arms=["without", "shuffled"])
    with pytest.raises(ValueError, match="Unknown arm 'both'; use all, or some of without, with"):
        mpt.compare(plain, ["tfidf"], output_dir=tmp_path, arms=["both"])
    result = mpt.compare(plain, ["tfidf"], output_dir=tmp_path)
    assert [row["arm"] for row in result.rows] == ["without"]
    assert "No post has a rationale" in capsys.readouterr().err


def test_systems_that_cannot_be_trained_are_named_before_the_first_is_trained(tmp_path, capsys):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    texts = posts.map(lambda row: {"image": None}, features=posts.features)
    fields = TINY_FIELDS | {"arms": ["without"]}
    result = mpt.compare(texts, ["majority", "vit"], output_dir=tmp_path / "run", **fields)
    assert "Not trained: vit: No train post has an image" in capsys.readouterr().err
    assert list(result.failed) == ["vit, seed 42"] and [row["system"] for row in result.rows] == ["majority"]
    with pytest.raises(ValueError, match="None of 1 runs finished. vit, seed 42: No train post"):
        mpt.compare(texts, ["vit"], output_dir=tmp_path / "run", **fields)
    with pytest.raises(ValueError, match="`output_dir` .* cannot be written"):
        mpt.compare(texts, ["majority"], output_dir=tmp_path / "run" / "comparison.md" / "x")


def test_an_unknown_system_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="clmfl.*tfidf.*mpt"):
        compare_command.main(["--models", "clmfl", "--output_dir", str(tmp_path)])


def test_the_help_lists_its_own_arguments_and_those_of_training(capsys):
    assert compare_command.main(["--help"]) == 0
    assert {"--models", "--arms", "--search", "--learning_rate"} <= set(capsys.readouterr().out.split())
