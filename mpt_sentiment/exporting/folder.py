"""Export of a trained model to a folder with an ONNX graph and all that it needs."""

import copy
import functools
import importlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from PIL import Image
from transformers import Pipeline

from dataset_scripts.output import check_writable
from mpt_sentiment.evaluation import evaluate_predictions
from mpt_sentiment.evaluation.scores import SCORES
from mpt_sentiment.exporting.classifier import GRAPH, OnnxClassifier
from mpt_sentiment.exporting.graph import quantize as quantize_graph
from mpt_sentiment.exporting.graph import quiet, write_graph
from mpt_sentiment.exporting.inputs import PostInputs
from mpt_sentiment.exporting.page import write_page
from mpt_sentiment.extras import needs_extra
from mpt_sentiment.predicting import load_pipeline

logger = logging.getLogger(__name__)

FORMATS, QUANTIZATIONS = ("onnx",), ("int8",)
MAX_DIFFERENCE = 1e-4  # of logits between the graph and the network, relative to logits above 1
PROBES = (
    "What a DAY at the sea! https://example.org/a?b=1&amp;c @someone \N{GRINNING FACE} café",
    "nothing",
    " ".join(f"word{number} and" for number in range(1000)),
    "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}, punctuation… \t tabs",
)


def export(
    model: str | Path | Pipeline,
    output: str | Path,
    *,
    format: str = "onnx",
    quantize: str | None = None,
    posts: Dataset | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Write a folder that [`OnnxClassifier`] reads, with an ONNX graph of the model.

    It holds tokenizer, settings of images, labels and temperature too.
    The folder is compared with the model before the function returns: tokens and pixels must be equal, logits nearly.

    Args:
        model (`str`, `Path` or [`MPTPipeline`]): output folder of `train`, whose code is run, or its pipeline.
        output (`str` or `Path`): new or empty folder.
        format (`str`, defaults to `"onnx"`): of the graph; there is one.
        quantize (`str`, *optional*): `"int8"` stores the weights of linear layers and embeddings in 8 bits.
        posts ([`Dataset`], *optional*): labelled posts, usually the test split, on which model and graph are scored.
        batch_size (`int`, defaults to 16): posts per forward pass.

    Returns:
        The content of `metrics.json`: `max_logit_difference` of the graph in single precision, `megabytes` of the
        weights of the model and of the graph, and with `posts` the `scores` of `torch`, `onnx` and `int8`, and for
        each graph the share of posts that get the same label as from the model.

    Raises:
        ImportError: the extra `onnx` is not installed.
        ValueError: a folder without a model, an output that has files, a network or a processor that cannot be
            exported, or posts without known labels.
    """
    _check_choice("format", format, FORMATS)
    _check_choice("quantize", quantize, (None, *QUANTIZATIONS))
    with needs_extra("onnx", "export"):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(package)
    output = Path(output)
    check_writable(output, "output")
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"The folder {output} has files. Choose a folder that is new or empty.")
    pipe = model if isinstance(model, Pipeline) else load_pipeline(model, "cpu")
    labels = None if posts is None else label_indices(posts, pipe.model.config.id2label)
    read_by = functools.partial(_probabilities, batch_size=batch_size)
    network = copy.deepcopy(pipe.model).float().cpu().eval()
    existed = output.is_dir()
    output.mkdir(parents=True, exist_ok=True)
    try:
        write_settings(pipe, output)
        pairs = compared_inputs(pipe.processor, PostInputs(output, network.config.modalities), network.config)
        write_graph(network, pipe.processor.image_size, output / GRAPH)
        metrics = {
            "system": network.config.title,
            "quantize": quantize,
            "max_logit_difference": compared_logits(network, OnnxClassifier(output), pairs),
            "megabytes": {"torch": _megabytes_of(network), "onnx": _megabytes(output)},
        }
        scored = {}
        if posts is not None:
            scored = {"torch": read_by(pipe, posts), "onnx": read_by(OnnxClassifier(output), posts)}
        if quantize is not None:
            _replace_graph(output)
            metrics["megabytes"][quantize] = _megabytes(output)
            if posts is not None:
                scored[quantize] = read_by(OnnxClassifier(output), posts)
        if posts is not None:
            metrics |= _scores(scored, labels, list(pipe.model.config.id2label.values()))
        (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        write_page(output, metrics, network.config)
    except BaseException:
        for path in output.iterdir():
            path.unlink()
        if not existed:
            output.rmdir()
        raise
    return metrics


def label_indices(posts: Dataset, id2label: Mapping[int, str]) -> list[int]:
    """Return the class of the model of each post.

    Raises:
        ValueError: a post without a label, or with one that is not the model's.
    """
    names = [id2label[index] for index in sorted(id2label)]
    given = posts["label"] if "label" in posts.column_names else [None] * len(posts)
    feature = posts.features.get("label")
    if isinstance(feature, ClassLabel):
        given = [None if value is None or value < 0 else feature.names[value] for value in given]
    for index, value in enumerate(given):
        if value not in names:
            name = f"Post {posts[index]['id']!r}" if "id" in posts.column_names else f"Post {index}"
            raise ValueError(
                f"{name} has the label {value!r}, but the model has {names}. Give labelled posts, such as the test "
                "split, to score the export, or none."
            )
    if not len(posts):
        raise ValueError("There is no post to score the export on.")
    return [names.index(value) for value in given]


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = " or ".join(repr(choice) for choice in choices if choice is not None)
        raise ValueError(f"`{name}` must be {known}, got {value!r}.")


def write_settings(pipe: Pipeline, output: Path) -> None:
    """Write tokenizer, processor and configuration, without the code that the graph replaces."""
    processor, tokenizer = pipe.processor, pipe.processor.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json, which the export needs.")
    tokenizer.save_pretrained(output)
    for path in output.glob("*.py"):
        path.unlink()
    config = pipe.model.config.to_dict() | {"modalities": list(pipe.model.config.modalities)}
    settings = {"processor_config.json": processor.to_dict(), "config.json": config}
    settings["tokenizer_config.json"] = json.loads((output / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name, values in settings.items():
        values = {key: value for key, value in values.items() if key not in _ABOUT_CODE}
        (output / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


_ABOUT_CODE = ("auto_map", "custom_pipelines", "_name_or_path", "processor_class")


@quiet("processing_mpt", "transformers_modules", "mpt_sentiment.exporting")  # on texts of the comparison
def compared_inputs(
    processor: Any, inputs: PostInputs, config: Any
) -> list[tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]]:
    """Return inputs of mixed batches, of the processor and without torch.

    Raises:
        ValueError: for tokens that differ, or pixels that differ by more than one shade of 255.
    """
    processor = copy.deepcopy(processor)  # which counts the texts that it truncates
    shade = 0.0 if inputs.pixels is None else 1.01 * float(np.max(1 / inputs.pixels.std))
    pairs = []
    for posts in _probes(config):
        parts = [[post.get(name) for post in posts] for name in ("image", "text", "rationales")]
        expected, given = dict(processor(*parts)), inputs(posts)
        for name, value in expected.items():
            array = given[name] if name == "pixel_values" else given[name][..., : value.shape[-1]]
            tolerance = shade if name == "pixel_values" else 0
            if array.shape != value.shape or not np.allclose(array, value.numpy(), atol=tolerance, rtol=0):
                part = "image processor" if name == "pixel_values" else "tokenizer"
                kind = type(getattr(processor, part.replace(" ", "_"))).__name__
                raise ValueError(f"`{name}` differs without transformers: the {part} {kind} cannot be exported.")
        pairs.append((expected, given))
    return pairs


@torch.inference_mode()
def compared_logits(
    network: Any,
    classifier: OnnxClassifier,
    pairs: Iterable[tuple[Mapping[str, torch.Tensor], Mapping[str, np.ndarray]]],
) -> float:
    """Return the largest difference of logits between a network and its graph.

    Raises:
        ValueError: for logits that differ.
    """
    largest = 0.0
    for expected, given in pairs:
        logits = network(**expected).logits.numpy()
        difference = np.abs(classifier.outputs(given)["logits"] - logits).max() / max(1.0, np.abs(logits).max())
        if not difference <= MAX_DIFFERENCE:
            raise ValueError(
                f"The logits of the graph differ by {difference:.1e} from the network's. Upgrade torch "
                f"({torch.__version__} is installed), onnx and onnxscript."
            )
        largest = max(largest, float(difference))
    return largest


def _probes(config: Any) -> Iterable[list[dict[str, Any]]]:
    """Return batches of posts with all parts and with each of them absent."""
    rng = np.random.default_rng(0)
    sizes = ((48, 64), (300, 200), (61, 47), (9, 500))
    full = [
        {
            "text": text,
            "image": Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
            "rationales": {name: f"{text} {name}" for name in config.perspectives},
        }
        for text, size in zip(PROBES, sizes, strict=True)
    ]
    full = [{key: value for key, value in post.items() if key in config.modalities} for post in full]
    yield full
    yield full[1:2]
    if len(config.modalities) > 1:
        partial = [
            {key: value for key, value in post.items() if key != left_out}
            for post, left_out in zip(full, config.modalities, strict=False)
        ]
        yield partial
        for name in config.modalities:
            yield [{name: post[name]} for post in full[:2]]


def _probabilities(classifier: Pipeline | OnnxClassifier, posts: Dataset, batch_size: int) -> np.ndarray:
    """Let a classifier read posts, with images as they are stored."""
    feature = posts.features.get("image")
    if getattr(feature, "decode", False):
        posts = posts.cast_column("image", type(feature)(decode=False))
    columns = [name for name in posts.column_names if name in ("id", "text", "image") or name.startswith("rationale_")]
    results = classifier(iter(posts.select_columns(columns)), batch_size=batch_size)
    return np.array([[*result["scores"].values()] for result in results])


def _scores(scored: Mapping[str, np.ndarray], labels: list[int], names: list[str]) -> dict[str, Any]:
    """Score the model and its graphs on the same posts."""
    scores, agreement = {}, {}
    for kind, probabilities in scored.items():
        metrics = evaluate_predictions(probabilities, labels, names)
        scores[kind] = {name: metrics[name] for name in SCORES}
        scores[kind]["intervals"] = {name: metrics["intervals"][name] for name in SCORES}
        if kind != "torch":
            same = probabilities.argmax(axis=1) == scored["torch"].argmax(axis=1)
            agreement[kind] = float(same.mean())
    return {"posts": len(labels), "scores": scores, "same_label_as_torch": agreement}


def _replace_graph(output: Path) -> None:
    """Replace the graph of a folder by its quantized one."""
    quantized = output / f"quantized-{GRAPH}"
    quantize_graph(output / GRAPH, quantized)
    for path in output.glob(f"{GRAPH}*"):
        path.unlink()
    os.replace(quantized, output / GRAPH)


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.glob(f"{GRAPH}*")) / 1e6, 3)


def _megabytes_of(network: torch.nn.Module) -> float:
    return round(sum(weight.numel() * weight.element_size() for weight in network.parameters()) / 1e6, 3)
