"""Traced and exported networks give the results of the eager ones.

They must do so for other batches and lengths than those of their example, where a wrong graph raises no error.
"""

import contextlib
import functools

import pytest
import torch

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS

every_system = pytest.mark.parametrize("name", SYSTEMS)
LENGTHS = {"input_ids": 1, "attention_mask": 1, "rationale_input_ids": 2, "rationale_attention_mask": 2}
MASKS = ("attention_mask", "image_mask", "rationale_attention_mask")
RECURRENT = ("mpt", "bilstm", "clstm", "co_mem", "mvan", "pemnet", "mgnns", "itin")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of torch's tracers, on checks of shapes
    pytest.mark.usefixtures("without_gradients"),
]


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@functools.cache
def build(name: str, use_rationales: bool = False) -> torch.nn.Module:
    """Build a model with one layer per encoder, because tracing takes time for each."""
    one = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoders = {"text_config": tiny.text_config(**one), "vision_config": tiny.vision_config(**one)}
    if name == "mpt":
        return tiny.model(**encoders)
    return tiny_baselines.model(name, use_rationales=use_rationales, **encoders)


def cut(batch: dict, rows: list[int], text: int, rationales: int) -> dict[str, torch.Tensor]:
    widths = {1: text, 2: rationales}
    return {
        key: value[rows][..., : widths[LENGTHS[key]]] if key in LENGTHS else value[rows]
        for key, value in batch.items()
    }


def other_batches() -> list[dict[str, torch.Tensor]]:
    """Return batches with other numbers of posts, other lengths, or without a modality."""
    batch = tiny.batch()
    longer = {key: torch.nn.functional.pad(batch[key], (0, 9), value=1) for key in LENGTHS}
    absent = [batch | {mask: torch.zeros_like(batch[mask])} for mask in MASKS]
    return [
        cut(batch, [1, 2, 3], 7, 9),
        cut(batch, [2], 3, 5),
        cut(batch | longer, [0, 1, 2, 3, 4, 0, 1], 21, 29),
        *absent,
    ]


class Logits(torch.nn.Module):
    """Model whose arguments are positional."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, values, strict=True)), return_dict=False)[0]


@every_system
@pytest.mark.parametrize("left_out", [(), ("pixel_values", "image_mask")], ids=["all inputs", "without images"])
def test_a_traced_network_reads_any_batch(name, left_out):
    batch = {key: value for key, value in tiny.batch().items() if key not in left_out}
    model = build(name, use_rationales=True)
    traced = torch.jit.trace(Logits(model, list(batch)), tuple(batch.values()), check_trace=False)
    for inputs in (tiny.batch(), *other_batches()):
        inputs = {key: inputs[key] for key in batch}
        torch.testing.assert_close(traced(*inputs.values()), model(**inputs).logits, atol=1e-6, rtol=1e-5)


@contextlib.contextmanager
def dynamic_rnn():
    """Keep the length of an LSTM or GRU dynamic, as `torch.onnx.export` does."""
    patches = pytest.importorskip("torch.export._patches")
    if not hasattr(patches, "register_gru_while_loop_decomposition"):
        pytest.skip("this torch unrolls the steps of an LSTM")
    with patches.register_lstm_while_loop_decomposition(), patches.register_gru_while_loop_decomposition():
        yield


def dynamic_shapes(batch: dict[str, torch.Tensor]) -> dict[str, dict]:
    dimension = functools.partial(torch.export.Dim, min=2, max=64)
    posts, lengths = dimension("posts"), {1: dimension("text_len"), 2: dimension("rationale_len")}
    shapes = {key: {0: posts} for key in batch}
    for key, axis in LENGTHS.items():
        shapes[key][axis] = lengths[axis]
    return shapes


@every_system
def test_an_exported_network_reads_any_batch(name):
    batch = tiny.batch()
    with dynamic_rnn() if name in RECURRENT else contextlib.nullcontext():
        program = torch.export.export(build(name), (), batch, dynamic_shapes=dynamic_shapes(batch), strict=False)
    module = program.module()
    for inputs in other_batches()[::2]:  # the first is shorter, the third longer
        torch.testing.assert_close(module(**inputs).logits, build(name)(**inputs).logits, atol=1e-5, rtol=1e-4)
