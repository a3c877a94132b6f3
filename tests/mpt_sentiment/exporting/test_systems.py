"""Each system exports to ONNX, with the logits of its network at any lengths."""

import os

import numpy as np
import pytest
import torch

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS
from mpt_sentiment.exporting.graph import quantize, traced, write_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

# One export takes 5 to 15 s on one core: these have each kind of layer. MPT_ALL_GRAPHS=1 exports all.
REPRESENTATIVE = ("clstm", "image_cnn", "mgnns", "citenet")
LENGTHS = [(5, 12, 20), (1, 3, 2), (2, 2, 9), (3, 12, 4)]  # of posts, text, rationales


def batch(posts: int, text: int, rationales: int) -> dict[str, torch.Tensor]:
    """Cut the batch whose posts lack each of the parts."""
    widths = {"input_ids": text, "attention_mask": text}
    widths |= {"rationale_input_ids": rationales, "rationale_attention_mask": rationales}
    return {
        name: value[-posts:, ..., : widths[name]] if name in widths else value[-posts:]
        for name, value in tiny.batch().items()
    }


def model(name: str, **changes) -> torch.nn.Module:
    one = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    changes = {"text_config": tiny.text_config(**one), "vision_config": tiny.vision_config(**one)} | changes
    return tiny.model(**changes) if name == "mpt" else tiny_baselines.model(name, use_rationales=True, **changes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SYSTEMS if os.environ.get("MPT_ALL_GRAPHS") else REPRESENTATIVE)
def test_a_system_exports_to_onnx(name, tmp_path):
    network = model(name)
    write_graph(network, (32, 32), tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    names = {each.name for each in session.get_inputs()}
    for sizes in LENGTHS:
        inputs = batch(*sizes)
        with torch.inference_mode():
            expected = network(**inputs).logits.numpy()
        given = {key: value.numpy() for key, value in inputs.items() if key in names}
        np.testing.assert_allclose(session.run(["logits"], given)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_any_size_are_quantized(tmp_path):
    text = tiny.text_config(num_hidden_layers=1, hidden_size=64, intermediate_size=128)
    write_graph(model("bert", text_config=text), (32, 32), tmp_path / "model.onnx")
    quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    stored = {}
    for file in ("model", "int8"):
        weights = [each for each in onnx.load(tmp_path / f"{file}.onnx").graph.initializer if len(each.dims) == 2]
        stored[file] = [each.name for each in weights if each.data_type == onnx.TensorProto.FLOAT]
    assert len(stored["model"]) > 8 and not stored["int8"]


@pytest.mark.filterwarnings("ignore")
def test_other_traces_in_the_process_change_no_export_and_are_not_changed():
    lstm = torch.nn.LSTM(4, 4, batch_first=True).eval()

    def steps() -> int:
        program = torch.export.export(lstm, (torch.zeros(2, 5, 4),), strict=False).run_decompositions()
        return sum("sigmoid" in str(node.target) for node in program.graph.nodes)

    unrolled = steps()
    assert unrolled >= 5
    traced(model("clstm"), (32, 32))  # an error if its steps were unrolled as well
    assert steps() == unrolled


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_cannot_be_exported_says_why(tmp_path, monkeypatch):
    network = model("bert")

    def forward(**inputs):
        ids = inputs["input_ids"]
        return {"logits": ids if ids.sum() > 5 else -ids}  # the graph depends on a value

    monkeypatch.setattr(network, "forward", forward)
    with pytest.raises(ValueError, match="BERT.* cannot be exported: ") as error:
        write_graph(network, (32, 32), tmp_path / "model.onnx")
    assert len(str(error.value)) <= 400 and "\n" not in str(error.value)
