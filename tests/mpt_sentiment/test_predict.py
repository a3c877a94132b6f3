"""Prediction with a trained model for one post, a table and a dataset."""

import json
import logging
from pathlib import Path

import datasets
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from dataset_scripts import BuildReport
from helpers import tiny_processor
from helpers.odd_images import TURN, encoded, exif, with_malformed_exif
from mpt_sentiment import commands
from mpt_sentiment.commands.predict import main
from mpt_sentiment.predicting import load_pipeline, predict

COLUMNS = [
    "id",
    "label",
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


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Working directory of the test, with an image in it."""
    logger = logging.getLogger("dataset_scripts")
    monkeypatch.setattr(logger, "level", logger.level)  # the command sets it for its process
    monkeypatch.chdir(tmp_path)
    tiny_processor.image("red").save("red.png")
    return tmp_path


def table(name: str, rows=ROWS) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def run(model, *arguments):
    main([str(model), "--device", "cpu", *map(str, arguments)])


def test_the_command_prints_label_probabilities_and_weights_of_one_post(model, pipe, capsys):
    words = ["--text", "what a good day", "--image", "red.png", "--rationale_negative", "rain"]
    assert commands.main(["predict", str(model), "--device", "cpu", *words]) == 0
    expected = pipe({"text": "what a good day", "image": "red.png", "rationales": {"negative": "rain"}})
    printed = capsys.readouterr()
    label, probabilities, weights, rationales = printed.out.splitlines()
    assert label == f"{expected['label']} ({expected['score']:.1%})"
    for line, values in (
        (probabilities, expected["scores"]),
        (weights, expected["modality_weights"]),
        (rationales, expected["perspective_weights"]),
    ):
        assert line.endswith("  ".join(f"{name} {value:.3f}" for name, value in values.items()))
    assert "Loading weights" not in printed.err
    run(model, "--text", "rain")
    assert "of rationales" not in capsys.readouterr().out


def test_a_table_gets_the_results_of_its_posts_alone(model, pipe, capsys):
    run(model, table("posts.jsonl"), "--batch_size", 2)
    predictions = pyarrow.parquet.read_table("predictions.parquet").to_pylist()
    assert [list(row) for row in predictions] == [COLUMNS] * 3
    assert [row["id"] for row in predictions] == ["a", "b", "c"]
    for row, post in zip(predictions, ROWS, strict=True):
        expected = pipe(post)
        assert row["prediction"] == expected["label"]
        assert row["probability_neutral"] == pytest.approx(expected["scores"]["neutral"], abs=1e-5)
        assert row["weight_image"] == pytest.approx(expected["modality_weights"]["image"], abs=1e-5)
    assert predictions[1]["weight_rationale_positive"] is None
    printed = capsys.readouterr().out
    assert "3 rows read, 3 posts predicted" in printed
    assert "predicted without image 1" in printed and "predicted without rationales 1" in printed


def test_probabilities_are_calibrated_as_those_of_the_pipeline(pipe, monkeypatch):
    before = predict(pipe, table("posts.jsonl"), progress=False)
    monkeypatch.setattr(pipe.model.config, "calibration_temperature", 2.5)
    after = predict(pipe, "posts.jsonl", progress=False)
    assert after["probability_neutral"] != before["probability_neutral"]
    for row, post in zip(after, ROWS, strict=True):
        assert row["probability_neutral"] == pytest.approx(pipe(post)["scores"]["neutral"], abs=1e-6)


def test_python_returns_the_predictions_that_it_writes(model, pipe):
    predictions = predict(model, table("posts.jsonl"), "p.parquet", device="cpu", progress=False)
    assert predictions.column_names == COLUMNS
    predict(pipe, "posts.jsonl", "p.csv", progress=False)
    predict(pipe, "posts.jsonl", "folder/p.jsonl", progress=False)
    written = [
        pyarrow.parquet.read_table("p.parquet").to_pylist(),
        pyarrow.csv.read_csv("p.csv").to_pylist(),
        [json.loads(line) for line in Path("folder/p.jsonl").read_text(encoding="utf-8").splitlines()],
    ]
    for row, *others in zip(predictions, *written, strict=True):
        probabilities = [row[name] for name in COLUMNS if name.startswith("probability_")]
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        for other in others:
            assert other["id"] == row["id"] and other["prediction"] == row["prediction"]
            assert [other[name] for name in COLUMNS if name.startswith("probability_")] == probabilities  # all digits


def test_a_dataset_with_columns_of_any_name(pipe):
    posts = datasets.Dataset.from_dict(
        {
            "caption": [row["text"] for row in ROWS],
            "rationale_positive": ["good", None, "ten"],
            "label": ["x", None, "y"],
        }
    )
    predictions = predict(pipe, posts, text_column="caption", progress=False)
    assert predictions["id"] == ["0", "1", "2"] and predictions["label"] == ["x", None, "y"]
    expected = pipe({"text": "the bus", "rationales": {"positive": "ten"}})
    assert predictions[2]["probability_positive"] == pytest.approx(expected["scores"]["positive"], abs=1e-5)
    with pytest.raises(ValueError, match="no column 'captions'.*Did you mean 'caption'"):
        predict(pipe, posts, text_column="captions", progress=False)


def test_images_of_a_dataset_are_decoded_as_those_of_a_table(pipe):
    Path("turned.jpg").write_bytes(with_malformed_exif())
    images = [{"bytes": with_malformed_exif(), "path": None}, {"bytes": b"<html>", "path": None}]
    posts = datasets.Dataset.from_dict({"image": images}).cast_column("image", datasets.Image())
    with pytest.raises(ValueError, match="image of post '1' cannot be decoded .it is an HTML page"):
        predict(pipe, posts, progress=False)
    report = BuildReport("dataset")
    (prediction,) = predict(pipe, posts, progress=False, on_error="skip", report=report)
    assert report.skipped == {"unreadable image": 1}
    expected = pipe({"image": "turned.jpg"})["scores"]
    assert prediction["probability_positive"] == pytest.approx(expected["positive"], abs=1e-6)


def test_a_photograph_on_its_side_is_turned_once(pipe):
    wide = tiny_processor.image("red")
    wide.paste("blue", (0, 0, 10, 30))
    Path("turned.png").write_bytes(encoded(wide, exif=exif(TURN)))
    expected = pipe({"image": wide.transpose(Image.Transpose.ROTATE_270)})["scores"]
    assert pipe({"image": wide})["scores"]["positive"] != pytest.approx(expected["positive"], abs=1e-5)
    (prediction,) = predict(pipe, table("turned.jsonl", [{"id": "a", "image": "turned.png"}]), progress=False)
    assert prediction["probability_positive"] == pytest.approx(expected["positive"], abs=1e-6)
    assert pipe({"image": "turned.png"})["scores"] == pytest.approx(expected, abs=1e-6)


def test_columns_by_any_name_labels_and_rationales_of_another_file(model):
    Path("deep").mkdir()
    tiny_processor.image("blue").save("deep/blue.png")
    Path("deep/posts.csv").write_text("nr,words,photo,label\n7,rain,blue.png,negative\n8,a good day,,\n")
    table("rationales.jsonl", [{"id": "7", "rationale_neutral": "ten"}, {"id": "8", "rationale_positive": "good"}])
    names = ["--id_column", "nr", "--text_column", "words", "--image_column", "photo"]
    run(model, "deep/posts.csv", *names, "--rationales", "rationales.jsonl", "--output", "p.parquet")
    first, second = pyarrow.parquet.read_table("p.parquet").to_pylist()
    assert (first["id"], first["label"], second["label"]) == ("7", "negative", None)
    assert first["weight_image"] > 0 and first["weight_rationale_neutral"] == 1
    assert second["weight_image"] == 0 and second["weight_rationale_positive"] == 1


def test_faulty_rows_are_named_or_left_out_and_counted(model, capsys):
    file = table(
        "posts.jsonl", [ROWS[0], {"id": "x", "text": "gone", "image": "missing.png"}, {"id": "y", "text": " "}]
    )
    with pytest.raises(ValueError, match=r"posts.jsonl, line 2: .*missing.png.*Or skip such rows with on_error="):
        run(model, file, "--on_error", "raise")
    assert not Path("predictions.parquet").exists()
    run(model, file)
    assert pyarrow.parquet.read_table("predictions.parquet")["id"].to_pylist() == ["a"]
    printed = capsys.readouterr().out
    assert "faulty: missing image 1" in printed and "faulty: nothing to read 1" in printed


@pytest.mark.parametrize("labels", [["0.50", "0.25", None], ["great", "", "awful"], ["positive", "neutral", None]])
def test_labels_of_the_table_are_passed_on_as_written(model, labels, capsys):
    rows = [row | {"label": label} for row, label in zip(ROWS, labels, strict=True)]
    run(model, table("posts.jsonl", rows))
    written = pyarrow.parquet.read_table("predictions.parquet").to_pylist()
    assert [row["label"] for row in written] == [label or None for label in labels]
    assert {row["prediction"] for row in written} <= {"positive", "neutral", "negative"}
    printed = capsys.readouterr().out
    assert "3 rows read, 3 posts predicted\n" in printed and ("scores on 2" in printed) == (labels[0] == "positive")


def test_a_table_of_another_delimiter_and_encoding_and_images_in_parquet(model):
    Path("posts.csv").write_text("id;text\na;caf\xe9\nb;the bus\n", encoding="cp1252")
    run(model, "posts.csv", "--delimiter", ";", "--encoding", "cp1252", "--output", "p.csv")
    assert pyarrow.csv.read_csv("p.csv")["id"].to_pylist() == ["a", "b"]
    datasets.Dataset.from_dict({"image": [Path("red.png").read_bytes()]}).to_parquet("posts.parquet")
    embedded = predict(model, "posts.parquet", device="cpu", progress=False)
    by_path = predict(model, table("posts.jsonl", [{"image": "red.png"}]), device="cpu", progress=False)
    assert embedded[0] == by_path[0] | {"id": "0"}


def test_posts_without_anything_that_the_model_reads_are_faulty_rows(capsys):
    tiny_processor.pipeline(modalities=["image"], contrastive_view="fused").save_pretrained("images")
    file = table("posts.jsonl")
    with pytest.raises(ValueError, match="post 'b' has nothing that the model reads .image"):
        run("images", file, "--on_error", "raise")
    run("images", file)
    assert "faulty: nothing to read 1" in capsys.readouterr().out
    assert pyarrow.parquet.read_table("predictions.parquet")["id"].to_pylist() == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nothing to predict"),
        (["--txt", "rain"], "--txt.*Did you mean '--text'"),
        (["--text", "rain", "--rationale_positiv", "a"], "'positiv'; the perspectives .*Did you mean 'positive'"),
        (["--text", "rain", "posts.jsonl"], "one post or sources of posts"),
        (["--text", "rain", "posts.jsonl"], "one post or sources of posts"),
        (["--text", "rain", "--output", "p.csv"], "--output needs a SOURCE"),
        (["posts.jsonl", "--output", "p.xlsx"], "a folder, or a file that ends in .parquet.*p.xlsx"),
        (["posts.jsonl", "--batch_size", "0"], "`batch_size` must be at least 1, got 0"),
        (["post.jsonl"], "is named 'post.jsonl'.*Did you mean 'posts.jsonl'"),
        (["posts.jsonl", "--text_column", "texts"], "no column 'texts'.*Did you mean 'text'"),
        (["irony.jsonl"], "irony.jsonl has a rationale for 'irony'; the perspectives of this model"),
        (["--image", "missing.png"], "missing.png"),
        (["--text", "rain", "--device", "cdua"], "'cdua' cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_names_the_argument_and_a_fix(model, arguments, message):
    table("posts.jsonl")
    table("irony.jsonl", [{"id": "a", "text": "rain", "rationale_irony": "good"}])
    with pytest.raises(ValueError, match=message):
        main([str(model), *arguments])


def test_a_folder_without_a_model_is_refused_with_a_hint(model, folder):
    with pytest.raises(ValueError, match=r"traind' does not exist. Did you mean 'trained'\?"):
        load_pipeline(model.with_name("traind"))
    with pytest.raises(ValueError, match=r"outputs\d holds no model: it has no config.json. .*trained"):
        load_pipeline(model.parent)
    Path("config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds a 'bert' model without a pipeline for multimodal-sentiment"):
        load_pipeline(folder)
