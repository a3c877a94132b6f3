"""Comparison of rows: cells trained once, failures, folds, processes, and the table."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, arguments
from mpt_sentiment import comparing
from mpt_sentiment.cell_training import evaluate_cell
from mpt_sentiment.commands import compare as compare_command
from mpt_sentiment.evaluation.scores import SCORES, confusion_matrix

ROWS = ["majority", "tfidf", "tfidf +rationales", "mpt -rationales", "mpt", "vit"]
FIELDS = TINY_FIELDS | {"num_train_epochs": 1}


def run(folder: Path, *extra: str) -> int:
    """Run the command on a small sample, with tiny encoders laid over every system's own recipe."""
    argv = arguments(folder, num_train_epochs=1)
    return compare_command.main([*argv, "--rows", *ROWS, *extra])


def fail_for(title: str, seed: int, monkeypatch) -> None:
    """Let the training of one cell fail."""

    def fail_once(cell, part):
        if (cell.row.title, cell.seed) == (title, seed):
            raise RuntimeError("the network is broken")
        return evaluate_cell(cell, part)

    monkeypatch.setattr(comparing, "evaluate_cell", fail_once)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """Folder of a comparison of two seeds in which one run failed."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as monkeypatch:
        fail_for("vit", 2, monkeypatch)
        assert run(folder, "--seeds", "1", "2") == 1
    return folder


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "comparison.csv", encoding="utf-8") as file:
        return {row["title"]: row for row in csv.DictReader(file)}


def test_rows_are_in_the_given_order(compared):
    assert list(rows(compared)) == ROWS
    table = (compared / "comparison.md").read_text()
    assert all(f"| {title} |" in table for title in ROWS) and "difference to mpt" in table


def test_rows_hold_the_results_of_the_runs(compared):
    table = rows(compared)
    cells = [compared / "cells" / "mpt" / f"seed-{seed}" for seed in (1, 2)]
    runs = [json.loads((cell / "metrics.json").read_text()) for cell in cells]
    row = table["mpt"]
    assert float(row["accuracy_mean"]) == pytest.approx(sum(each["test"]["accuracy"] for each in runs) / 2)
    assert int(row["parameters"]) == runs[0]["parameters"] > int(table["vit"]["parameters"])
    assert float(row["relative_speed"]) == 1.0 and float(table["vit"]["relative_speed"]) > 0
    assert table["vit"]["remark"] == "image: vit_patches; untrained images"
    assert all(row["ranked"] == "True" for row in table.values())  # no system has pretrained images
    settings = json.loads((cells[0] / "settings.json").read_text())
    posts = json.loads((compared / "comparison.json").read_text())["splits"]["once"]["sizes"]["train"]
    batch = settings["training"]["per_device_train_batch_size"]
    assert int(row["updates"]) == runs[0]["updates"] == -(-posts // batch)
    assert int(row["trainable_parameters"]) == runs[0]["trainable_parameters"]
    assert row["optimizer"] == "adamw_torch_fused"
    names = ("parameters", "trainable_parameters", "updates", "optimizer")
    assert {table["majority"][name] for name in names} == {""}


def test_cells_keep_metrics_and_predictions_but_no_model(compared):
    kept = {path.name for path in (compared / "cells" / "mpt" / "seed-1").iterdir()}
    assert kept == {"metrics.json", "predictions.parquet", "settings.json", "log.txt"}


def test_a_failed_cell_is_reported_and_the_others_are_trained(compared):
    assert rows(compared)["vit"]["num_runs"] == "1" and rows(compared)["mpt"]["num_runs"] == "2"
    assert "vit, seed 2 failed: RuntimeError: the network is broken" in (compared / "comparison.md").read_text()
    assert "the network is broken" in (compared / "cells" / "vit" / "seed-2" / "error.txt").read_text()


def test_called_again_only_the_missing_cell_is_trained(compared):
    cells = compared / "cells"
    written = {path: path.stat().st_mtime_ns for path in cells.rglob("predictions.parquet")}
    assert run(compared, "--seeds", "1", "2") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    new = set(cells.rglob("predictions.parquet")) - set(written)
    assert [path.parent.relative_to(cells).as_posix() for path in new] == ["vit/seed-2"]
    assert rows(compared)["vit"]["num_runs"] == "2"
    assert not (cells / "vit" / "seed-2" / "error.txt").exists()
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def folds(tmp_path_factory) -> tuple[Path, mpt.TrainingResult]:
    """Folder and result of a cross-validation in three folds with two seeds, in one process."""
    folder = tmp_path_factory.mktemp("folds")
    return folder, cross_validated(folder, ["tfidf +rationales", "bert", "bert ensemble", "bert dropout=2"])


def cross_validated(folder: Path, titles: list[str], **changes):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    options = {"split": "folds", "split_options": {"fold": [0, 1, 2]}, "seeds": [1, 2], "output_dir": folder}
    return mpt.compare(posts, titles, **options | FIELDS | changes)


def test_every_post_is_predicted_once_per_row_and_seed_out_of_fold(folds):
    folder, _ = folds
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    fold_of = {}
    for fold in range(3):
        for post_id in mpt.split_posts(posts, "folds", fold=fold)["test"]["id"]:
            fold_of[post_id] = fold
    table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    runs: dict[tuple, dict[str, int]] = {}
    for row in table.to_pylist():
        own = runs.setdefault((row["row"], row["seed"]), {})
        assert row["id"] not in own
        own[row["id"]] = row["fold"]
        probabilities = [row[f"probability_{name}"] for name in ("positive", "neutral", "negative")]
        assert sum(probabilities) == pytest.approx(1)
    titles = [("tfidf +rationales", 1), ("bert", 1), ("bert", 2), ("bert ensemble", None)]
    assert {*runs} == {*titles} and all(predicted == fold_of for predicted in runs.values())


def test_scores_of_a_cross_validation_are_those_of_all_posts_at_once(folds):
    folder, result = folds
    names = ["positive", "neutral", "negative"]
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    values = []
    for seed in (1, 2):
        own = [row for row in table if (row["row"], row["seed"]) == ("bert", seed)]
        labels, predicted = (np.array([names.index(row[key]) for row in own]) for key in ("label", "prediction"))
        values.append(SCORES["f1_macro"].compute(confusion_matrix(labels, predicted, 3)))
    row = result.rows[1]
    assert row["f1_macro"]["mean"] == pytest.approx(np.mean(values))
    assert row["f1_macro"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "3 folds (seed 42), 18 posts, each predicted out of fold" in result.markdown
    ensemble = result.rows[2]
    assert ensemble["num_runs"] == 1 and ensemble["remark"].endswith("ensemble: mean probabilities of 2 seeds")


def test_a_row_that_its_configuration_refuses_does_not_cost_the_others(folds):
    _, result = folds
    assert list(result.failed) == ["bert dropout=2"] and "`dropout`" in result.failed["bert dropout=2"]
    assert [row["title"] for row in result.rows] == ["tfidf +rationales", "bert", "bert ensemble"]
    assert "bert dropout=2 failed: `dropout`" in result.markdown


def test_two_jobs_write_what_one_writes_and_finished_cells_are_kept(folds, tmp_path):
    folder, result = folds
    cell = "cells/bert/fold-0/seed-1"
    (tmp_path / cell).mkdir(parents=True)
    for path in (folder / cell).iterdir():
        (tmp_path / cell / path.name).write_bytes(path.read_bytes())
    kept = (tmp_path / cell / "predictions.parquet").stat().st_mtime_ns
    again = cross_validated(tmp_path, ["tfidf +rationales", "bert"], jobs=2)
    assert (tmp_path / cell / "predictions.parquet").stat().st_mtime_ns == kept and not again.failed
    for score in SCORES:
        assert [row[score] for row in again.rows] == [row[score] for row in result.rows[:2]]
    mine, other = (pyarrow.parquet.read_table(each / "predictions.parquet") for each in (tmp_path, folder))
    own = mine.to_pylist()
    assert own == [row for row in other.to_pylist() if row["seed"] is not None] and len(own) == 18 * 3


def test_a_seed_without_all_folds_is_left_out_and_named(folds, tmp_path, monkeypatch):
    def fail(cell, part):
        if (cell.fold, cell.seed) == (1, 2):
            raise RuntimeError("broken")
        return evaluate_cell(cell, part)

    monkeypatch.setattr(comparing, "evaluate_cell", fail)
    result = cross_validated(tmp_path, ["majority", "vit"], split_options={"fold": [1, 2]})
    assert result.rows[1]["num_runs"] == 1 and list(result.failed) == ["vit, fold 1, seed 2"]
    assert "vit: 1 of 2 seeds have predictions of all posts." in result.markdown


def test_best_weights_in_memory_are_those_of_a_run_that_saves_its_model(tmp_path):
    posts = mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))
    options = {"output_dir": tmp_path, **TINY_FIELDS, "num_train_epochs": 3, "learning_rate": 3e-2}
    folder = tmp_path / "cells" / "vit" / "seed-42"
    results = []
    for keep in (False, True):
        row = mpt.compare(posts, ["vit"], keep_models=keep, **options).rows[0]
        validation = json.loads((folder / "metrics.json").read_text())["validation"]
        results.append([row["f1_weighted"], row["accuracy"], validation["f1_weighted"], validation["epoch"]])
        assert (folder / "model.safetensors").is_file() == keep
    assert results[0] == results[1]


def test_texts_of_tfidf_are_prepared_as_those_of_the_networks(tmp_path):
    posts = mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))
    tagged = posts.map(lambda row: {"text": f"see http://t.co/class{row['label']}"}, features=posts["train"].features)
    plain = mpt.compare(tagged, ["tfidf"], output_dir=tmp_path / "none", **FIELDS)
    tweets = mpt.compare(tagged, ["tfidf"], output_dir=tmp_path / "tweet", text_preprocessing="tweet", **FIELDS)
    assert plain.rows[0]["accuracy"]["mean"] == 1.0 > tweets.rows[0]["accuracy"]["mean"]


def test_systems_that_cannot_be_trained_are_named_before_the_first_is_trained(tmp_path, capsys):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    texts = posts.map(lambda row: {"image": None}, features=posts.features)
    result = mpt.compare(texts, ["majority", "vit"], output_dir=tmp_path / "run", **FIELDS)
    assert "Not trained: vit: No train post has an image" in capsys.readouterr().err
    assert list(result.failed) == ["vit"] and [row["title"] for row in result.rows] == ["majority"]
    with pytest.raises(ValueError, match="None of 1 runs finished. vit: No train post"):
        mpt.compare(texts, ["vit"], output_dir=tmp_path / "run", **FIELDS)
    with pytest.raises(ValueError, match="`output_dir` .* cannot be written"):
        mpt.compare(texts, ["majority"], output_dir=tmp_path / "run" / "comparison.md" / "x")


def test_a_baseline_is_not_taken_from_a_run_on_other_posts(tmp_path):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    mpt.compare(mpt.split_posts(posts), ["majority"], output_dir=tmp_path, **FIELDS)
    with pytest.raises(ValueError, match="holds a run with other settings .split: other posts"):
        mpt.compare(mpt.split_posts(posts, seed=7), ["majority"], output_dir=tmp_path, **FIELDS)


def test_an_unknown_system_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="clmfl.*tfidf.*mpt"):
        compare_command.main(["--rows", "clmfl", "--output_dir", str(tmp_path)])


def test_the_help_lists_its_own_arguments_and_those_of_training(capsys):
    assert compare_command.main(["--help"]) == 0
    words = {*capsys.readouterr().out.split()}
    assert {"--rows", "--reference", "--search", "--jobs", "--keep_models", "--learning_rate"} <= words
