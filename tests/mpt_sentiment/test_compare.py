"""`examples/compare.py`: a grid that survives stops and broken cells, and the table it ends in."""

import csv
import json
import sys
from pathlib import Path

import pytest

import mpt_sentiment.comparing as compare
from helpers import train_command

MODELS = ["majority", "tfidf", "mpt", "vit", "late_fusion"]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *extra: str) -> int:
    """The command on a small sample, with tiny encoders laid over every system's own recipe."""
    argv = train_command.arguments(folder, num_train_epochs=1, loss_weight_mlcl=None)
    monkeypatch.setattr(sys, "argv", ["compare.py", *argv, "--models", *MODELS, *extra])
    return compare.main()


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """Two seeds of every system, of which one broke."""
    folder = tmp_path_factory.mktemp("compare")
    original = compare.run

    def breaks_once(*arguments):
        if "vit" in arguments[2].output_dir and arguments[2].seed == 2:
            raise RuntimeError("the disk is full")
        return original(*arguments)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(compare, "run", breaks_once)
        assert run(monkeypatch, folder, "--seeds", "1", "2") == 1
    return folder


def rows(folder: Path) -> dict[tuple[str, bool], dict[str, str]]:
    with open(folder / "comparison.csv", encoding="utf-8") as file:
        return {(row["system"], row["rationales"] == "True"): row for row in csv.DictReader(file)}


def test_what_can_read_rationales_runs_without_and_with_them(compared):
    assert set(rows(compared)) == {
        ("majority", False),
        ("tfidf", False),
        ("tfidf", True),
        ("mpt", False),
        ("mpt", True),
        ("vit", False),
        ("late_fusion", False),
        ("late_fusion", True),
    }


def test_rows_hold_what_the_runs_measured(compared):
    found = rows(compared)
    cells = [compared / "cells" / "mpt+rationales" / f"seed-{seed}" / "metrics.json" for seed in (1, 2)]
    runs = [json.loads(cell.read_text()) for cell in cells]
    mean = sum(each["test"]["accuracy"] for each in runs) / 2
    row = found["mpt", True]
    assert float(row["accuracy_mean"]) == pytest.approx(mean)
    assert int(row["parameters"]) == runs[0]["parameters"] > int(found["vit", False]["parameters"])
    assert float(row["relative_speed"]) == 1.0 and float(found["vit", False]["relative_speed"]) > 0
    assert found["vit", False]["remark"] == "image: vit_patches"
    assert found["late_fusion", True]["remark"] == "not in the paper; text: encoder; image: vit_patches"
    assert found["majority", False]["parameters"] == ""


def test_a_broken_cell_is_reported_and_the_rest_goes_on(compared):
    assert rows(compared)["vit", False]["num_runs"] == "1" and rows(compared)["mpt", False]["num_runs"] == "2"
    assert "vit, seed 2 failed: RuntimeError: the disk is full" in (compared / "comparison.md").read_text()
    assert "the disk is full" in (compared / "cells" / "vit" / "seed-2" / "error.txt").read_text()


def test_again_only_the_missing_cell_runs(compared, monkeypatch, tmp_path):
    ran = []
    original = compare.run
    monkeypatch.setattr(compare, "run", lambda *arguments: ran.append(arguments[2].output_dir) or original(*arguments))
    written = {path: path.stat().st_mtime_ns for path in (compared / "cells").rglob("predictions.parquet")}
    assert run(monkeypatch, compared, "--seeds", "1", "2") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    new = set((compared / "cells").rglob("predictions.parquet")) - set(written)
    assert [path.parent.relative_to(compared / "cells").as_posix() for path in new] == ["vit/seed-2"]
    assert rows(compared)["vit", False]["num_runs"] == "2"
    assert not (compared / "cells" / "vit" / "seed-2" / "error.txt").exists()
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_system_is_named_with_those_that_are_known(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--models", "clmfl", "--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="clmfl.*tfidf.*mpt"):
        compare.main()
