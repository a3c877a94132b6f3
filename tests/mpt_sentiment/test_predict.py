"""predict.py: one post or a table of them, answers a person or a program reads, errors that say what to write."""

import json
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.csv
import pyarrow.parquet
import pytest

import mpt_sentiment.predicting as predict
from helpers import tiny_processor

COLUMNS = [
    "id",
    "prediction",
    *(f"probability_{label}" for label in ("positive", "neutral", "negative")),
    *(f"weight_{modality}" for modality in ("text", "image", "rationales")),
    *(f"weight_rationale_{perspective}" for perspective in ("positive", "neutral", "negative")),
]
ROWS = [
    {
        "id": "a",
        "text": "what a good day",
        "image": "red.png",
        "rationale_positive": "good",
        "rationale_negative": None,
    },
    {"id": "b", "text": "rain", "image": None, "rationale_positive": None, "rationale_negative": None},
    {"id": "c", "text": "the bus", "image": "red.png", "rationale_positive": "ten", "rationale_negative": "rain"},
]


@pytest.fixture(scope="module")
def pipe():
    return tiny_processor.pipeline()


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "trained"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with an image in it; what is built of files stays in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tiny_processor.image("red").save("red.png")
    return tmp_path


def table(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(model, *arguments):
    predict.main([str(model), "--device", "cpu", *map(str, arguments)])


# --- one post --------------------------------------------------------------------------------------------------------


def test_one_post_is_answered_with_label_probabilities_and_weights(model, pipe, here, capsys):
    run(model, "--text", "what a good day", "--image", "red.png", "--rationale_negative", "rain")
    expected = pipe({"text": "what a good day", "image": "red.png", "rationales": {"negative": "rain"}})
    label, probabilities, weights, rationales = capsys.readouterr().out.splitlines()
    assert label == f"{expected['label']} ({expected['score']:.1%})"
    for line, values in (
        (probabilities, expected["scores"]),
        (weights, expected["modality_weights"]),
        (rationales, expected["perspective_weights"]),
    ):
        assert line.endswith("  ".join(f"{name} {value:.3f}" for name, value in values.items()))


def test_weights_of_rationales_are_left_out_where_there_are_none(model, here, capsys):
    run(model, "--text", "rain")
    assert "of rationales" not in capsys.readouterr().out


# --- a file ----------------------------------------------------------------------------------------------------------


def test_a_file_is_answered_row_by_row_as_each_post_alone(model, pipe, here, capsys):
    run(model, "--file", table(here / "posts.jsonl"), "--batch_size", 2)
    predictions = pyarrow.parquet.read_table("predictions.parquet").to_pylist()
    assert [list(row) for row in predictions] == [COLUMNS] * 3 and [row["id"] for row in predictions] == [
        "a",
        "b",
        "c",
    ]
    for row, post in zip(predictions, ROWS, strict=True):
        expected = pipe(post)
        assert row["prediction"] == expected["label"]
        assert row["probability_neutral"] == pytest.approx(expected["scores"]["neutral"], abs=1e-5)
        assert row["weight_image"] == pytest.approx(expected["modality_weights"]["image"], abs=1e-5)
    assert predictions[1]["weight_rationale_positive"] is None
    printed = capsys.readouterr().out
    assert "3 rows read, 3 posts kept" in printed
    assert "predicted without image 1" in printed and "predicted without rationales 1" in printed


def test_the_output_s_ending_says_its_format(model, here):
    file = table(here / "posts.jsonl")
    for name in ("p.parquet", "p.csv", "folder/p.jsonl"):
        run(model, "--file", file, "--output", name)
    rows = pyarrow.parquet.read_table("p.parquet").to_pylist()
    assert pyarrow.csv.read_csv("p.csv").column_names == COLUMNS
    from_csv = pyarrow.csv.read_csv("p.csv").to_pylist()
    from_jsonl = [json.loads(line) for line in Path("folder/p.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, *others in zip(rows, from_csv, from_jsonl, strict=True):
        assert all(other == pytest.approx(row, abs=1e-6) for other in others)
    assert sorted(path.name for path in here.glob(".*")) == []  # no leftovers


def test_columns_by_any_name_labels_and_rationales_of_another_file(model, here):
    (here / "deep").mkdir()
    tiny_processor.image("blue").save("deep/blue.png")
    (here / "deep" / "posts.csv").write_text("nr,words,photo,label\n7,rain,blue.png,negative\n8,a good day,,\n")
    table(
        here / "rationales.jsonl", [{"id": "7", "rationale_neutral": "ten"}, {"id": "8", "rationale_positive": "good"}]
    )
    names = ["--id_column", "nr", "--text_column", "words", "--image_column", "photo"]
    run(model, "--file", "deep/posts.csv", *names, "--rationales", "rationales.jsonl", "--output", "p.parquet")
    first, second = pyarrow.parquet.read_table("p.parquet").to_pylist()
    assert (first["id"], first["label"], second["label"]) == ("7", "negative", None)
    assert first["weight_image"] > 0 and first["weight_rationale_neutral"] == 1
    assert second["weight_image"] == 0 and second["weight_rationale_positive"] == 1


def test_faulty_rows_are_named_or_on_request_left_out_and_counted(model, here, capsys):
    rows = [ROWS[0], {"id": "x", "text": "gone", "image": "no such.png"}, {"id": "y", "text": " "}]
    file = table(here / "posts.jsonl", rows)
    with pytest.raises(ValueError, match=r"posts.jsonl, line 2: .*no such.png does not exist"):
        run(model, "--file", file)
    assert not Path("predictions.parquet").exists()
    run(model, "--file", file, "--on_error", "skip")
    assert pyarrow.parquet.read_table("predictions.parquet")["id"].to_pylist() == ["a"]
    printed = capsys.readouterr().out
    assert "skipped: missing image 1" in printed and "skipped: empty text 1" in printed


def test_posts_without_what_the_model_reads_are_faulty_rows(here, capsys):
    tiny_processor.pipeline(modalities=["image"], contrastive_view="fused").save_pretrained("images")
    file = table(here / "posts.jsonl")
    with pytest.raises(ValueError, match="post 'b' has none of what the model reads, image"):
        run("images", "--file", file)
    run("images", "--file", file, "--on_error", "skip")
    assert "skipped: nothing to read 1" in capsys.readouterr().out
    assert pyarrow.parquet.read_table("predictions.parquet")["id"].to_pylist() == ["a", "c"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to predict: give --text, --image or a rationale, or --file"),
        (["--txt", "rain"], r"unknown argument '--txt'. Did you mean '--text'\?"),
        (["--text", "rain", "--rationale_positiv", "a"], r"'positiv'; the perspectives .*Did you mean 'positive'\?"),
        (["--text", "rain", "--file", "posts.jsonl"], "give one post or --file, not both"),
        (["--text", "rain", "--output", "p.csv"], "--output goes with --file"),
        (["--file", "posts.jsonl", "--output", "p.xlsx"], "--output p.xlsx: the ending says the format; write one of"),
        (["--file", "posts.jsonl", "--batch_size", "0"], "--batch_size 0: write 1 or more"),
        (["--file", "post.jsonl"], r"post.jsonl: there is no such file. Did you mean 'posts.jsonl'\?"),
        (["--file", "no/posts.jsonl"], "no/posts.jsonl: there is no such file"),
        (["--file", "posts.jsonl", "--text_column", "texts"], r"no column 'texts'.*Did you mean 'text'\?"),
        (["--file", "posts.jsonl", "--image_column", "photo"], "no column 'photo'; its columns are"),
        (["--file", "irony.jsonl"], "irony.jsonl has a rationale for 'irony'; the perspectives of this model"),
        (["--image", "no such.png"], "the image 'no such.png', but there is no such file"),
        (["--text", "rain", "--device", "cdua"], "--device cdua cannot be used here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_says_what_to_write(model, here, arguments, message):
    table(here / "posts.jsonl")
    table(here / "irony.jsonl", [{"id": "a", "text": "rain", "rationale_irony": "good"}])
    with pytest.raises(ValueError, match=message):
        predict.main([str(model), *arguments])


def test_a_folder_without_a_model_is_refused_with_a_hint(model, here):
    with pytest.raises(ValueError, match=r"There is no folder .*traind'. Did you mean 'trained'\?"):
        run(model.with_name("traind"), "--text", "rain")
    with pytest.raises(ValueError, match=r"outputs0 holds no model \(no config.json\). There is one in .*trained"):
        run(model.parent, "--text", "rain")
    Path("config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds a 'bert' model, which has no pipeline for multimodal-sentiment"):
        run(here, "--text", "rain")


def test_the_script_prints_the_answer_and_nothing_else(model, here):
    script = Path(predict.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(model), "--device", "cpu", "--text", "rain"],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(script.parents[1]), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 and "probabilities" in done.stdout
    assert "Loading weights" not in done.stderr


def test_the_script_reports_an_error_in_one_line(here, monkeypatch):
    quietened = logging.getLogger("dataset_scripts")
    monkeypatch.setattr(quietened, "level", quietened.level)  # put back afterwards
    monkeypatch.setattr(sys, "argv", ["predict.py", "no such folder", "--text", "rain"])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(predict.__file__, run_name="__main__")
    assert str(error.value).startswith("error: There is no folder 'no such folder'.")
