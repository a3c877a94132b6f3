"""Report: its files, resumption, omitted sections, and refused arguments."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest

import mpt_sentiment as mpt
from helpers.report_runs import FIELDS, SEEDS
from helpers.train_command import arguments
from mpt_sentiment import cell_training
from mpt_sentiment.commands import main
from mpt_sentiment.commands.report import command_of
from mpt_sentiment.reporting.run import SECTIONS, ReportOptions

ONE_FOLD = FIELDS | {"split_options": {"fold": [0]}}


@pytest.fixture(scope="module")
def trained(posts, written, tmp_path_factory):
    """Train the row of a report with the networks of another; return its folder and result."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(written.output_dir / "networks", folder / "networks")
    return folder, mpt.report(posts, ["errors", "maps"], output_dir=folder, seeds=[1], **ONE_FOLD)


def test_every_section_is_written_with_its_tables_and_figures(written):
    assert list(written.sections) == list(SECTIONS)
    assert {name: section.omitted for name, section in written.sections.items() if section.omitted} == {}
    folder = written.output_dir
    text = (folder / "report.md").read_text(encoding="utf-8")
    for section in written.sections.values():
        assert f"## {section.title}\n" in text
        for table in section.tables:
            with open(folder / "tables" / f"{table.name}.csv", encoding="utf-8") as file:
                assert len(list(csv.DictReader(file))) == len(table.records)
        for figure in section.figures:
            assert figure.path.read_bytes().startswith(b"\x89PNG") and figure.path.with_suffix(".svg").is_file()
            assert f"](figures/{figure.path.name})" in text
    assert str(folder) not in text  # no path of the machine


def test_every_score_table_names_posts_seeds_and_interval(written):
    captions = [table.caption for table in written.sections["ablation"].tables]
    assert all("posts" in each and "seeds 1, 2" in each and "95 % bootstrap" in each for each in captions)


def test_posts_without_label_are_counted_by_the_label_that_mpt_follows(written, opposite):
    table = written.sections["polarities"].tables[-1]
    count = sum(label is None for label in opposite["label"])
    assert table.name == "polarities_dropped" and count > 0
    assert sum(record["posts"] for record in table.records) == count and f"The {count} posts" in table.caption


def test_finished_runs_are_not_trained_again(posts, trained, monkeypatch):
    folder, first = trained
    cells = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    assert len(cells) == 1 + 2  # mpt, and two networks of the maps
    monkeypatch.setattr(cell_training, "build_trainer", None)
    again = mpt.report(posts, ["errors", "maps"], output_dir=folder, seeds=[1], epochs=[1, 7], **ONE_FOLD)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")} == cells
    assert first.sections["maps"].tables[0].records == again.sections["maps"].tables[0].records
    assert first.sections["maps"].notes == [] and again.sections["maps"].notes[0].startswith("No vectors of epoch 7")


def test_the_network_of_the_maps_is_the_run_of_the_comparison(posts, trained):
    """The vectors are computed during the training, and change nothing of it."""
    folder, result = trained
    cell = folder / "comparison" / "cells" / "mpt" / "fold-0" / "seed-1" / "predictions.parquet"
    network = folder / "networks" / "mpt" / "fold-0" / "seed-1"
    cell = pyarrow.parquet.read_table(cell)
    predicted = mpt.predict(network, mpt.split_posts(posts, "folds", fold=0)["test"], progress=False)
    assert predicted["id"][:] == cell["id"].to_pylist()
    for name in posts.features["label"].names:
        np.testing.assert_allclose(predicted[f"probability_{name}"], cell[f"probability_{name}"], atol=1e-5)
    epochs = [record["epoch"] for record in result.sections["maps"].tables[0].records if record["row"] == "mpt"]
    assert epochs == [1, 2] == json.loads((network / "metrics.json").read_text())["epochs"]


def test_an_omitted_section_says_why(posts, tmp_path, written):
    given = tmp_path / "given"
    table = pyarrow.parquet.read_table(written.output_dir.parent / "given" / "predictions.parquet")
    given.mkdir()
    only = table.filter(pyarrow.compute.equal(table["row"], "mpt -rationales"))
    pyarrow.parquet.write_table(only, given / "predictions.parquet")
    what = ["ablation", "lmm", "errors"]
    result = mpt.report(posts, what, output_dir=tmp_path / "out", comparison=given, seeds=SEEDS, **FIELDS)
    assert "The row `mpt` is needed" in result.sections["ablation"].omitted
    assert "--zero_shot FILE" in result.sections["lmm"].omitted
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("Omitted. ") == 3 and page.count("(omitted)") == 3


def test_the_command_writes_the_page_of_the_named_sections(tmp_path, capsys):
    argv = arguments(tmp_path, num_train_epochs=1, dataset_options={"num_posts": 60, "seed": 3})
    assert main(["report", *argv, "--what", "errors", "--seeds", "1"]) == 0
    assert f"The page is {tmp_path / 'index.html'}" in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "mpt-sentiment report --dataset_options" in page and "--what errors" in page
    assert str(tmp_path) not in page


def test_the_command_of_a_section_names_it_alone():
    argv = ["sample", "--what", "errors", "noise", "--seeds", "1", "2"]
    assert command_of(argv, "maps") == "mpt-sentiment report sample --seeds 1 2 --what maps"
    assert command_of(["--what=all", "--jobs", "2"], "all") == "mpt-sentiment report --jobs 2 --what all"


def test_figures_of_other_reports_are_next_to_its_own(posts, tmp_path, written):
    given = written.output_dir.parent / "given"
    options = {"comparison": given, "seeds": SEEDS, **FIELDS}
    result = mpt.report(posts, ["lambda"], output_dir=tmp_path / "out", other_reports=[written.output_dir], **options)
    own, other = result.sections["lambda"].figures
    assert (own.path.name, other.path.name) == ("lambda.png", "lambda-1.png")
    assert other.path.read_bytes() == (written.output_dir / "figures" / "lambda.png").read_bytes()
    assert own.caption.startswith("MPT's embedded sample") and other.caption.startswith("MPT's embedded sample")
    assert "](figures/lambda-1.png)" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="`other_reports` .*given has no figures/captions.json: name the output_dir"):
        mpt.report(posts, ["lambda"], output_dir=tmp_path / "out", other_reports=[given], **options)


def test_unknown_sections_and_missing_predictions_are_refused(posts, tmp_path):
    with pytest.raises(ValueError, match="must be all, or some of polarities.*got 'map'.*maps"):
        ReportOptions(["map"])
    with pytest.raises(ValueError, match="epochs.* must be at least 1, got 0"):
        ReportOptions(epochs=[2, 0])
    with pytest.raises(ValueError, match="comparison.* has no predictions: name a folder with predictions.parquet"):
        mpt.report(posts, "errors", output_dir=tmp_path / "out", comparison=tmp_path, **FIELDS)


def test_a_comparison_of_other_posts_is_refused(posts, tmp_path, table):
    pyarrow.parquet.write_table(table.slice(1), tmp_path / "predictions.parquet")
    with pytest.raises(ValueError, match="is a comparison of other test posts .*Give the dataset, split and folds"):
        mpt.report(posts, "errors", output_dir=tmp_path / "out", comparison=tmp_path, **ONE_FOLD)
