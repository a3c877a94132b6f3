"""Runs over many posts: faults, scores, disks, other settings, and processes."""

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from mpt_sentiment import commands
from mpt_sentiment.predicting import load_pipeline, predict
from mpt_sentiment.prediction import run_folder, scoring
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions

SMALL = {"rows_per_part": 8, "batch_size": 4, "progress": False}
ARGUMENTS = ["--device", "cpu", "--rows_per_part", "8", "--batch_size", "4"]


@pytest.fixture
def posts(rows):
    Path("posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "posts.jsonl"


def ids(folder: str) -> list[str]:
    return [name for file in sorted(Path(folder).glob("data/*")) for name in pq.read_table(file)["id"].to_pylist()]


def test_faulty_rows_are_recorded_with_id_place_and_reason(model, faulty_rows, capsys):
    Path("posts.jsonl").write_text(faulty_rows, encoding="utf-8")
    assert commands.main(["predict", str(model), "posts.jsonl", "--output", "out", *ARGUMENTS]) == 0
    errors = pq.read_table("out/errors.parquet").to_pylist()
    file = str(Path("posts.jsonl").resolve())
    assert [(error["id"], error["file"], error["place"], error["reason"]) for error in errors] == [
        ("p3", file, "line 4", "missing image"),
        ("p11", file, "line 12", "unreadable image"),
        ("p12", file, "line 13", "malformed row"),
        (None, file, "line 21", "malformed row"),
        ("p30", file, "line 31", "unreadable image"),
        ("p41", file, "line 42", "nothing to read"),
    ]
    assert "an HTML page" in errors[1]["message"]
    assert ids("out") == [f"p{number}" for number in range(50) if number not in (3, 11, 12, 20, 30, 41)]
    printed = capsys.readouterr().out
    assert "50 rows read, 44 posts predicted" in printed and "faulty: malformed row 2, e.g." in printed
    assert "The 6 rows without a prediction are in out/errors.parquet" in printed
    assert commands.main(["predict", str(model), "posts.jsonl", "--output", "out", *ARGUMENTS]) == 0
    assert capsys.readouterr().out == printed  # of the finished run
    assert commands.main(["predict", str(model), "posts.jsonl", "--on_error", "raise", "--output", "p.csv"]) == 1
    assert "--on_error skip" in capsys.readouterr().err


def test_a_run_without_any_prediction_is_an_error_that_keeps_the_reasons(pipe):
    Path("posts.csv").write_text("id,image\na,gone.png\nb,gone.png\n")
    with pytest.raises(ValueError, match="No post is left to predict. 2 rows read.*missing image 2"):
        predict(pipe, "posts.csv", "out", on_error="skip", progress=False)
    assert pq.read_table("out/errors.parquet")["id"].to_pylist() == ["a", "b"]
    Path("empty.csv").write_text("id,text\n")
    with pytest.raises(ValueError, match="No post is left to predict. 0 rows read"):
        predict(pipe, "empty.csv", progress=False)


def test_labels_of_the_model_give_scores_and_others_are_passed_on(model, rows, posts, capsys):
    assert commands.main(["predict", str(model), posts, "--output", "out", *ARGUMENTS]) == 0
    table = [row for file in sorted(Path("out/data").glob("*")) for row in pq.read_table(file).to_pylist()]
    correct = [row["label"] == row["prediction"] for row in table if row["label"]]
    printed = capsys.readouterr().out
    assert f"scores on {len(correct)} labelled posts: accuracy {np.mean(correct):.4f}, f1_weighted" in printed
    rows[7]["label"] = "great"
    Path("other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert commands.main(["predict", str(model), "other.jsonl", "--output", "p.csv", *ARGUMENTS]) == 0
    assert "scores on" not in capsys.readouterr().out
    assert pyarrow.csv.read_csv("p.csv")["label"].to_pylist()[7] == "great"


def test_results_of_another_run_are_kept_and_named(model, posts, capsys):
    pipe = load_pipeline(model, "cpu")
    predict(pipe, posts, "out", **SMALL)
    for arguments, names in (
        (["--text_column", "author"], "text_column"),
        (["--keep_columns", "author"], "keep_columns"),
        (["--rows_per_part", "9"], "rows_per_part"),
    ):
        assert commands.main(["predict", str(model), posts, "--output", "out", *ARGUMENTS, *arguments]) == 1
        assert f"results of a run with other settings ({names})" in capsys.readouterr().err
    with Path(posts).open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "text": "rain"}\n')
    with pytest.raises(ValueError, match=r"with other settings \(sources\)"):
        predict(pipe, posts, "out", **SMALL)
    with torch.no_grad():
        weight = next(pipe.model.parameters())
        weight.add_(1)
    try:
        with pytest.raises(ValueError, match=r"with other settings \(model, sources\)"):
            predict(pipe, posts, "out", **SMALL)
    finally:
        with torch.no_grad():
            weight.sub_(1)
    assert len(predict(pipe, posts, "out", **SMALL, overwrite=True)) == 51
    Path("files").mkdir()
    Path("files/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="files is not the folder of a run"):
        predict(pipe, posts, "files", **SMALL)


@pytest.mark.parametrize("output", ["/proc/none", "/proc/none.csv"])
def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(output, posts, capsys):
    assert commands.main(["predict", "no_model", posts, "--output", output]) == 1
    assert f"`output` {output} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out", "p.jsonl"])
def test_a_full_disk_stops_the_run_and_loses_no_finished_part(model, posts, output, capsys, monkeypatch):
    write, written = pq.write_table, []

    def write_table(table, path):
        if len(written) == 3:
            path.write_bytes(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(table, path)

    command = ["predict", str(model), posts, "--output", output, *ARGUMENTS]
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.pq, "write_table", write_table)
        assert commands.main(command) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: The disk is full (") and "repeat the same command, which resumes" in message
    folder = Path(output if output == "out" else "p.jsonl.unfinished")
    assert len(list(folder.glob("data/*"))) == 3
    predicted = []
    monkeypatch.setattr(RunFolder, "write_part", _recording(RunFolder.write_part, predicted))
    assert commands.main(command) == 0
    assert predicted == [3, 4, 5, 6]
    assert (len(ids("out")) if output == "out" else len(Path(output).read_text().splitlines())) == 50


def _recording(function, parts):
    def write_part(self, part, *arguments):
        parts.append(part)
        function(self, part, *arguments)

    return write_part


def test_posts_for_which_the_model_gives_no_number_are_faulty(pipe, posts, monkeypatch):
    call = scoring.Scorer.__call__

    def with_nan(self, inputs):
        outputs = call(self, inputs)
        outputs[0, 1] = np.nan
        return outputs

    monkeypatch.setattr(scoring.Scorer, "__call__", with_nan)
    with pytest.raises(ValueError, match=r"posts.jsonl, line \d+: the model gives no finite probability for post 'p"):
        predict(pipe, posts, **SMALL)
    predict(pipe, posts, "out", on_error="skip", **SMALL)
    assert set(pq.read_table("out/errors.parquet")["reason"].to_pylist()) == {"no finite probability"}


@pytest.mark.parametrize("output", ["out", "p.parquet"])
def test_processes_share_the_parts_and_the_last_one_finishes(model, pipe, posts, output, capsys, monkeypatch):
    whole = predict(pipe, posts, "whole.parquet", **SMALL).to_list()
    printed = []
    for rank in (1, 0, 2):
        monkeypatch.setenv("RANK", str(rank % 2))
        monkeypatch.setenv("WORLD_SIZE", "2")
        shard = ["--shard_id", f"{rank // 2}/2"]
        assert commands.main(["predict", str(model), posts, "--output", output, *ARGUMENTS, *shard]) == 0
        printed.append(capsys.readouterr().out)
    monkeypatch.setenv("RANK", "1")
    assert commands.main(["predict", str(model), posts, "--output", output, *ARGUMENTS, *shard]) == 0
    assert printed == ["", "", ""] and "50 rows read, 50 posts predicted" in capsys.readouterr().out
    files = sorted(Path("out/data").glob("*")) if output == "out" else [output]
    assert [row for file in files for row in pq.read_table(file).to_pylist()] == whole
    with pytest.raises(ValueError, match="--shard_id must be a part such as 3/64.*got '4/4'"):
        commands.predict.main([str(model), posts, "--shard_id", "4/4"])


def test_two_processes_of_accelerate(model, pipe, posts):
    whole = predict(pipe, posts, "whole.parquet", **SMALL).to_list()
    root = Path(__file__).parents[3]
    words = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(root / "examples/predict.py")]
    finished = subprocess.run(
        [sys.executable, *words, str(model), posts, "--output", "out", *ARGUMENTS],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("50 rows read, 50 posts predicted") == 1
    rows = [row for file in sorted(Path("out/data").glob("*")) for row in pq.read_table(file).to_pylist()]
    for row, expected in zip(rows, whole, strict=True):  # processes with other numbers of threads round differently
        assert row == {
            name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            for name, value in expected.items()
        }


def test_memory_does_not_grow_with_the_number_of_posts(pipe, monkeypatch):
    """The model is replaced by zeros, which leaves all that could keep something of each row."""
    monkeypatch.setattr(scoring.Scorer, "__call__", lambda self, inputs: np.full((len(inputs["input_ids"]), 9), 1 / 3))
    peaks = {}
    for count in (500, 10_000):
        Path(f"{count}.csv").write_text("id,text\n" + "".join(f"{number},rain\n" for number in range(count)))
        options = RunOptions(rows_per_part=250, batch_size=50, progress=False, dataloader_num_workers=0)
        folder = RunFolder(f"out{count}")
        tracemalloc.start()
        summary, _ = score(pipe, f"{count}.csv", folder, ReadingOptions(), options)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert summary.predicted == count
    assert peaks[10_000] < 1.5 * peaks[500]  # of 20 times as many
