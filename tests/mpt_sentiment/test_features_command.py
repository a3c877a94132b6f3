"""Tests of the command that lists and prunes the feature store."""

import os
import time

import pytest

from helpers.feature_runs import build
from mpt_sentiment.commands import main


def test_stored_encoders_are_listed_with_entries_size_and_last_use(tmp_path, capsys):
    build(tmp_path)
    assert main(["features", "--feature_store", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "text BertModel float32" in output and "vision ViTModel float32" in output
    assert f"4 encoders, 0.0 MB in {tmp_path}" in output
    assert time.strftime("%Y-%m-%d") in output


def test_pruning_deletes_encoders_that_were_not_used_for_so_many_days(tmp_path, capsys):
    build(tmp_path)
    old = sorted(tmp_path.glob("*/encoder.json"))[0]
    os.utime(old, (time.time() - 40 * 24 * 3600,) * 2)
    assert main(["features", "--feature_store", str(tmp_path), "--prune", "30"]) == 0
    assert "1 encoders" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 3 and not old.exists()
    assert main(["features", "--feature_store", str(tmp_path), "--prune", "all"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["-1", "old", "nan"])
def test_a_prune_that_is_no_number_of_days_is_refused(value, tmp_path, capsys):
    assert main(["features", "--feature_store", str(tmp_path), f"--prune={value}"]) == 1
    assert f"--prune must be a number of days or all, got '{value}'" in capsys.readouterr().err
