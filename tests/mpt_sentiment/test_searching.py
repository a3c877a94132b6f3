"""Search of hyperparameters: choice on validation, resumption, use by a comparison."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS
from mpt_sentiment import cell_training
from mpt_sentiment.commands import main
from mpt_sentiment.searching import SearchResult

POSTS = mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))
GRID = {"learning_rate": [1e-6, 1e-2]}
FIELDS: dict[str, Any] = TINY_FIELDS | {"num_train_epochs": 1}
del FIELDS["learning_rate"]  # which the grid varies


def search(folder: Path, rows: list[str], **changes: Any) -> SearchResult:
    return mpt.search(**{"posts": POSTS, "rows": rows, "output_dir": folder, "grid": GRID} | FIELDS | changes)


def compare(folder: Path, rows: list[str], **changes: Any):
    options = {"posts": POSTS, "rows": rows, "output_dir": folder, "search": folder, "seeds": [1]}
    return mpt.compare(**options | FIELDS | changes)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """Folder of a search over the systems BERT and ViT."""
    folder = tmp_path_factory.mktemp("search")
    search(folder, ["majority", "bert", "vit"])
    return folder


def test_the_best_point_on_validation_is_chosen(searched):
    rows = json.loads((searched / "search.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["bert", "vit"]
    for row in rows:
        assert [point["values"] for point in row["points"]] == [{"learning_rate": rate} for rate in (1e-6, 1e-2)]
        best = max(row["points"], key=lambda point: point["validation"]["f1_weighted"])
        assert row["chosen"] == best["values"]
    table = (searched / "search.md").read_text()
    assert "| bert | learning_rate" in table and "learning_rate 0.01: 0." in table
    assert not list(searched.rglob("checkpoint-*"))


def test_the_test_posts_are_not_scored(tmp_path):
    feature = datasets.Image(decode=False)
    broken = POSTS["test"].cast_column("image", feature)
    broken = broken.map(lambda row: {"image": {"bytes": b"no image", "path": None}}, features=broken.features)
    posts = POSTS | {"test": broken.cast_column("image", datasets.Image())}
    result = search(tmp_path, ["vit"], posts=datasets.DatasetDict(posts), grid={"learning_rate": [1e-3]})
    assert result.rows[0]["chosen"] == {"learning_rate": 1e-3} and not result.failed
    assert not list(tmp_path.rglob("predictions.parquet"))


def test_finished_points_are_not_trained_again_and_rows_of_other_systems_are_kept(searched, monkeypatch):
    def fail(*args):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(cell_training, "build_trainer", fail)
    before = json.loads((searched / "search.json").read_text())
    assert search(searched, ["vit"]).rows == before["rows"]
    with pytest.raises(ValueError, match=r"a search with other settings \(grid\)"):
        search(searched, ["vit"], grid={"learning_rate": [1e-3]})
    with pytest.raises(ValueError, match=r"a search with other settings \(num_train_epochs\)"):
        search(searched, ["vit"], num_train_epochs=2)


def test_a_system_with_a_failed_point_has_no_chosen_values_until_it_finished(tmp_path, monkeypatch):
    original = cell_training.build_trainer

    def fail_once(setup, posts, data, args):
        if args.learning_rate == 1e-2:
            raise RuntimeError("the network is broken")
        return original(setup, posts, data, args)

    monkeypatch.setattr(cell_training, "build_trainer", fail_once)
    result = search(tmp_path, ["bert"])
    assert result.failed == {"bert, seed 42, learning_rate 0.01": "RuntimeError: the network is broken"}
    assert result.rows[0]["chosen"] is None and "a run failed" in str(result)
    with pytest.raises(ValueError, match="no values for bert. Search with `rows` 'bert'"):
        compare(tmp_path, ["bert"])
    monkeypatch.setattr(cell_training, "build_trainer", original)
    assert search(tmp_path, ["bert"]).rows[0]["chosen"] is not None


def test_a_comparison_takes_the_chosen_values_and_shows_them(searched):
    chosen = {row["row"]: row["chosen"] for row in json.loads((searched / "search.json").read_text())["rows"]}
    result = compare(searched, ["majority", "bert"])
    settings = json.loads((searched / "cells" / "bert" / "seed-1" / "settings.json").read_text())
    assert settings["training"]["learning_rate"] == chosen["bert"]["learning_rate"]
    assert [row["tuned"] for row in result.rows] == ["", f"learning_rate {chosen['bert']['learning_rate']:g}"]
    assert "learning_rate: chosen on validation with the seed 42, see search.json." in result.markdown
    assert "other settings" not in result.markdown


def test_other_settings_of_the_search_are_named_and_its_result_is_copied(searched, tmp_path):
    result = compare(tmp_path, ["bert"], search=searched / "search.json", weight_decay=0.5)
    assert "The search had other settings: weight_decay." in result.markdown
    assert (tmp_path / "search.json").read_text() == (searched / "search.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [41, 42]}, "The search used the seed 42. .* fresh ones, e.g. `seeds` 43 44 45"),
        ({"learning_rate": 1e-3}, "`learning_rate` is chosen by the search"),
        ({"rows": ["bilstm"]}, "no values for bilstm"),
        ({"search": "nothing.json"}, "nothing.json does not exist. Write it with `mpt-sentiment search`"),
        ({"posts": mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS), seed=1)}, "another split"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_a_comparison_refuses_a_search_that_does_not_fit(searched, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare(tmp_path, **{"rows": ["bert"], "search": searched} | changes)
    assert not list(tmp_path.iterdir())


def test_the_command_searches_and_refuses_several_seeds(tmp_path, capsys):
    options = ["--dataset_options", json.dumps(SAMPLE_OPTIONS), "--output_dir", str(tmp_path)]
    options += [
        "--text_config",
        json.dumps(TINY_FIELDS["text_config"]),
        "--num_train_epochs",
        "1",
        "--disable_tqdm",
        "1",
    ]
    grid = ["--rows", "bert", "--grid", '{"dropout": [0.1]}']
    assert main(["search", *options, *grid, "--seed", "7"]) == 0
    assert json.loads((tmp_path / "search.json").read_text())["seed"] == 7
    assert main(["search", *options, *grid, "--seeds", "7", "8"]) == 1
    assert "A search has one seed" in capsys.readouterr().err
    assert main(["search", *options, "--rows", "bert", "--grid", '{"dropout": 0.1}']) == 1
    assert "`grid` must map arguments to lists" in capsys.readouterr().err
    assert main(["search", *options, "--rows", "tfidf"]) == 1
    assert "name a network" in capsys.readouterr().err


def test_folds_are_searched_each_on_its_own_validation_posts(tmp_path):
    posts = mpt.load_posts("sample", **SAMPLE_OPTIONS)
    folds = {"posts": posts, "split": "folds", "split_options": {"fold": [0, 4]}}
    result = search(tmp_path, ["vit"], **folds)
    assert [(row["row"], row["fold"]) for row in result.rows] == [("vit", 0), ("vit", 4)]
    assert "| vit, fold 4 |" in str(result)
    compared = compare(tmp_path, ["vit"], **folds)
    for row in result.rows:
        settings = json.loads((tmp_path / f"cells/vit/fold-{row['fold']}/seed-1/settings.json").read_text())
        assert settings["training"]["learning_rate"] == row["chosen"]["learning_rate"]
    assert not compared.failed
    with pytest.raises(ValueError, match="another split"):
        compare(tmp_path, ["vit"], **folds | {"split_options": {"fold": [0, 5]}})
