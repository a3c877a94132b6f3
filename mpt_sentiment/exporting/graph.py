"""ONNX graph of a network, for any number of posts and any lengths."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling_mpt.pretrained_mpt import SentimentPreTrainedModel

# Outputs of a network that the graph has.
OUTPUTS = ("logits", "modality_weights", "perspective_weights")
# Tokens of the texts and of the rationales in the example that is traced.
_LENGTHS = {"": 6, "rationale_": 7}
_TOKENS = ("input_ids", "attention_mask")
# Files of protocol buffers hold at most 2 GiB; weights of larger networks go to a second file.
_MAX_BYTES = 1.9 * 2**30
# Operators whose weights become whole numbers of 8 bits: linear layers and embeddings.
_QUANTIZED = ["MatMul", "Gemm", "Gather"]


class Graph(nn.Module):
    """Network with the inputs of posts and the outputs of the pipeline, as a tuple."""

    def __init__(self, network: SentimentPreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        rationale_input_ids: torch.Tensor | None = None,
        rationale_attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return those of the `OUTPUTS` that the network has."""
        output = self.network(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_mask=image_mask,
            rationale_input_ids=rationale_input_ids,
            rationale_attention_mask=rationale_attention_mask,
            return_dict=True,
        )
        return tuple(output[name] for name in OUTPUTS if output.get(name) is not None)


def example_inputs(network: SentimentPreTrainedModel, image_size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Return inputs of three posts with all modalities that the network reads.

    Args:
        image_size (`tuple[int, int]`): height and width of the pixels.
    """
    reads, inputs = network.config.modalities, {}
    if "text" in reads:
        inputs |= _tokens("", 3)
    if "image" in reads:
        inputs |= {"pixel_values": torch.zeros(3, 3, *image_size), "image_mask": torch.ones(3, dtype=torch.bool)}
    if "rationales" in reads:
        inputs |= _tokens("rationale_", 3, len(network.config.perspectives))
    return inputs


def _tokens(prefix: str, *shape: int) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.ones(*shape, _LENGTHS[prefix], dtype=torch.long) for name in _TOKENS}


def dynamic_shapes(network: SentimentPreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, dict[int, Any]]:
    """Return the dimensions that vary: posts, and lengths up to the limit of the encoder."""
    posts = torch.export.Dim("posts", min=2)
    shapes = {name: {0: posts} for name in inputs}
    for prefix in _LENGTHS:
        length = torch.export.Dim(f"{prefix or 'text_'}length", min=2, max=network.base_model.text_limit)
        for name in _TOKENS:
            if prefix + name in inputs:
                shapes[prefix + name][inputs[prefix + name].dim() - 1] = length
    return shapes


@torch.no_grad()
def traced(network: SentimentPreTrainedModel, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Trace a network in evaluation mode with `torch.export`.

    Raises:
        ValueError: For a network whose graph would depend on values or lengths of its inputs.
    """
    inputs = example_inputs(network, image_size)
    dynamic = dynamic_shapes(network, inputs)
    try:
        with _dynamic_lengths(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(Graph(network), (), inputs, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # of any type, from the encoders that the network reads
        raise ValueError(refusal(network, error)) from error


@torch.no_grad()
def write_graph(network: SentimentPreTrainedModel, image_size: tuple[int, int], path: Path) -> None:
    """Write the ONNX graph of a network in evaluation mode.

    Args:
        network ([`SentimentPreTrainedModel`]): on the CPU, in single precision.
        image_size (`tuple[int, int]`): height and width of its pixels.
        path (`Path`): file to write; weights of more than 2 GiB go to `PATH.data`.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: For a network that ONNX cannot express.
    """
    program = traced(network, image_size)
    names = [name for name in OUTPUTS if network(**example_inputs(network, image_size)).get(name) is not None]
    size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    try:
        silence = (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            quiet("onnxscript", "onnx_ir"),
        )
        with contextlib.ExitStack() as stack:
            for each in (*silence, _dynamic_lengths()):
                stack.enter_context(each)
            warnings.simplefilter("ignore")
            graph = torch.onnx.export(program, output_names=names, dynamo=True, verbose=False)
            fold_transposes(graph.model)
            remove_traces(graph.model)
            graph.save(path, external_data=size > _MAX_BYTES)
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(refusal(network, error)) from error


def fold_transposes(model: Any) -> None:
    """Store weights as they are multiplied: those that are transposed first are not quantized."""
    from onnxscript import optimizer

    optimizer.fold_constants(model, should_fold=lambda node: node.op_type == "Transpose" or None)
    optimizer.remove_unused_nodes(model)


def remove_traces(model: Any) -> None:
    """Remove the lines of code, with their paths, that torch notes at each operation."""
    import onnx_ir

    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
            for part in (node, *node.outputs):
                part.metadata_props.clear()
                part.doc_string = None


def quantize(path: Path, output: Path) -> None:
    """Write a graph with linear layers and embeddings of 8 bits.

    Activations are quantized as they come. Convolutions and recurrent layers keep single precision: they gain little,
    and lose more.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet(None):  # it recommends a preparation of graphs that older exporters need
        quantize_dynamic(path, output, op_types_to_quantize=_QUANTIZED, weight_type=QuantType.QInt8, per_channel=True)


def refusal(network: SentimentPreTrainedModel, error: BaseException) -> str:
    """Say in one line why a network cannot be exported."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(str(error).split())[:160]
    providers = "".join(f", {kind} {name}" for kind, name in network.config.providers.items())
    return f"{network.config.title}{providers} cannot be exported: {type(error).__name__}: {reason}"


@contextlib.contextmanager
def _dynamic_lengths() -> Iterator[None]:
    """Keep the lengths of recurrent networks dynamic; without it, their steps are unrolled."""
    try:
        from torch.export import _patches
    except ImportError:
        _patches = None
    with contextlib.ExitStack() as stack:
        for kind in ("lstm", "gru"):
            register = getattr(_patches, f"register_{kind}_while_loop_decomposition", None)
            if register is not None:
                # torch keeps the implementation of its last trace, also past a change of the registration.
                forget = getattr(torch.ops.aten, kind).input._dispatch_cache.clear
                forget()
                stack.callback(forget)
                stack.enter_context(register())
        yield


@contextlib.contextmanager
def quiet(*names: str | None) -> Iterator[None]:
    """Silence loggers below errors; `None` is the root logger."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
