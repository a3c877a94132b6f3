"""Exported folders give the results of the pipeline, without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

import mpt_sentiment as mpt
from helpers import tiny, tiny_baselines, tiny_processor
from mpt_sentiment.commands import main

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

POSTS = [
    {"text": "what a good day", "image": tiny_processor.image(), "rationale_neutral": "a day"},
    {"text": "nothing but rain"},
    {"image": tiny_processor.image("blue", size=(90, 31))},
    {"rationales": {"positive": "the sea", "negative": "a missed train"}},
    {"text": "the bus leaves at ten " * 9, "image": tiny_processor.image(), "rationales": {"positive": "a bus"}},
]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pipe():
    one = {"num_hidden_layers": 1}
    pipe = tiny_processor.pipeline(text_config=tiny.text_config(**one), vision_config=tiny.vision_config(**one))
    pipe.model.config.calibration_temperature = 0.25
    return pipe


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "my_onnx"
    mask = os.umask(0o022)
    try:
        mpt.export(pipe, folder)
    finally:
        os.umask(mask)
    return folder


def text_pipeline():
    """Build the pipeline of a system that reads text alone, which is exported fast."""
    model = tiny_baselines.model("bert", text_config=tiny.text_config(num_hidden_layers=1))
    return mpt.MPTPipeline(model=model, processor=tiny_processor.processor(), device="cpu")


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_results_are_those_of_the_pipeline(pipe, folder, calibrated, batch_size):
    results = mpt.OnnxClassifier(folder)(POSTS, batch_size=batch_size, calibrated=calibrated)
    for result, expected in zip(results, pipe(POSTS, calibrated=calibrated), strict=True):
        assert result["label"] == expected["label"]
        for name, values in expected.items():
            if isinstance(values, dict):
                assert result[name] == pytest.approx(values, abs=1e-4)
            elif name != "label":
                assert result[name] == (None if values is None else pytest.approx(values, abs=1e-4))


def test_no_torch_is_imported(pipe, folder):
    program = (
        "import json, sys; import mpt_sentiment as mpt;"
        "result = mpt.OnnxClassifier(sys.argv[1])({'text': 'a good day'});"
        "print(json.dumps([result, [name for name in ('torch', 'transformers', 'datasets') if name in sys.modules]]))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, capture_output=True, check=True)
    result, imported = json.loads(run.stdout)
    assert imported == []
    assert result["scores"] == pytest.approx(pipe({"text": "a good day"})["scores"], abs=1e-4)


def test_the_folder_is_complete_and_readable(folder):
    names = {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"}
    assert {path.name for path in folder.iterdir()} == names | {"README.md", "metrics.json"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
    graph = (folder / "model.onnx").read_bytes()
    assert str(ROOT).encode() not in graph and b"site-packages" not in graph
    assert json.loads((folder / "metrics.json").read_text())["max_logit_difference"] <= 1e-4
    assert "auto_map" not in (folder / "config.json").read_text()


def test_saved_weights_are_readable_too(pipe, tmp_path):
    mask = os.umask(0o022)
    try:
        pipe.save_pretrained(tmp_path)
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_int8_is_scored_beside_the_trained_network(tmp_path, capsys):
    pipe = text_pipeline()
    rows = [
        {"id": str(index), "text": text, "label": "neutral"} for index, text in enumerate(tiny_processor.SENTENCES)
    ]
    pipe.save_pretrained(tmp_path / "trained")
    Dataset.from_list(rows).to_csv(tmp_path / "posts.csv")
    output = tmp_path / "int8"
    arguments = ["export", str(tmp_path / "trained"), str(tmp_path / "posts.csv"), "--output", str(output)]
    assert main([*arguments, "--quantize", "int8"]) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["posts"] == 3 and metrics["quantize"] == "int8"
    assert metrics["scores"].keys() == {"torch", "onnx", "int8"}
    assert metrics["scores"]["onnx"] == metrics["scores"]["torch"]
    assert metrics["same_label_as_torch"]["onnx"] == 1.0
    assert metrics["megabytes"]["int8"] < metrics["megabytes"]["onnx"]
    result = mpt.OnnxClassifier(output)(rows[0])
    assert result["scores"] == pytest.approx(pipe(rows[0])["scores"], abs=0.05)
    assert "ONNX, int8" in (output / "README.md").read_text()
    assert "same label in int8 as in torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "tflite"}, "`format` must be 'onnx', got 'tflite'"),
        ({"quantize": "int4"}, "`quantize` must be 'int8', got 'int4'"),
        (
            {"posts": Dataset.from_dict({"id": ["a"], "text": ["b"], "label": ["happy"]})},
            "Post 'a' has the label 'happy'",
        ),
        ({"posts": Dataset.from_dict({"text": ["b"]})}, "Post 0 has the label None"),
    ],
)
def test_unusable_arguments_are_refused_before_the_export(pipe, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        mpt.export(pipe, tmp_path / "output", **changes)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_its_extra(pipe, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"`export` needs {package}: pip install 'mpt-sentiment\[onnx\]'"):
        mpt.export(pipe, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_a_folder_with_files_is_refused(pipe, tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="has files"):
        mpt.export(pipe, tmp_path)


def test_another_image_processor_is_refused_and_nothing_is_left(tmp_path):
    pipe = tiny_processor.pipeline()
    pipe.processor.image_processor.resample = 0
    with pytest.raises(ValueError, match="images are resized with the filter 0"):
        mpt.export(pipe, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_a_folder_without_a_graph_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no model.onnx"):
        mpt.OnnxClassifier(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output is required"),
        (["--output", "a", "--split", "folds"], "--split needs --dataset"),
        (["--output", "a", "--batch_size", "3"], "--batch_size needs a TABLE of posts or --dataset"),
        (["posts.csv", "--output", "a", "--dataset", "sample"], "Give a TABLE of posts or --dataset, not both."),
    ],
)
def test_contradictory_arguments_are_one_line(arguments, message, capsys):
    assert main(["export", "folder", *arguments]) == 1
    assert message in capsys.readouterr().err
