"""Classifier of an exported model: onnxruntime, tokenizers, PIL and numpy, without torch."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpt_sentiment.extras import needs_extra

MODALITIES = ("text", "image", "rationales")
GRAPH = "model.onnx"


class OnnxClassifier:
    """Classifier of posts from a folder that `export` wrote.

    Posts and results are those of [`MPTPipeline`], but for data URIs, which it does not read. No URL is fetched; paths
    are opened.

    Args:
        folder (`str` or `Path`): output of `export`.
        providers (sequence of `str`, defaults to the CPU): execution providers of onnxruntime.
        num_threads (`int`, *optional*): threads of one operation; by default those of onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the folder holds no exported model.

    Example:

    ```python
    >>> classifier = OnnxClassifier("outputs/mine-onnx")
    >>> classifier({"text": "What a day", "image": "beach.jpg"})["label"]
    ```
    """

    def __init__(
        self,
        folder: str | Path,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        num_threads: int | None = None,
    ) -> None:
        with needs_extra("onnx", "OnnxClassifier"):
            import onnxruntime

            from mpt_sentiment.exporting.inputs import PostInputs
        folder = Path(folder)
        if not (folder / GRAPH).is_file():
            raise ValueError(f"{folder} holds no {GRAPH}. Export the model: mpt-sentiment export FOLDER --output …")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.temperature: float = config.get("calibration_temperature", 1.0)
        self.label_names = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
        self.inputs = PostInputs(folder, config["modalities"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=list(providers))
        self._read = {each.name for each in self.session.get_inputs()}

    def __call__(
        self,
        posts: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        batch_size: int = 16,
        calibrated: bool = True,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Classify posts.

        Args:
            posts: one post, or an iterable of posts such as a list or a dataset.
            batch_size (`int`, defaults to 16): posts per run of the graph.
            calibrated (`bool`, defaults to `True`): divide the logits by the temperature fitted on validation.

        Returns:
            One result or a list, see [`MPTPipeline`].

        Raises:
            ValueError: a post with an unknown key, nothing to read, or an image that cannot be decoded.
        """
        if isinstance(posts, Mapping):
            return self([posts], batch_size, calibrated)[0]
        remaining, results = iter(posts), []
        while batch := list(itertools.islice(remaining, batch_size)):
            inputs = self.inputs(batch)
            outputs = self.outputs(inputs)
            results += [self._result(inputs, outputs, row, calibrated) for row in range(len(batch))]
        return results

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph, and return `logits` and the weights that the system has, by name."""
        names = [each.name for each in self.session.get_outputs()]
        given = {name: value for name, value in inputs.items() if name in self._read}
        return dict(zip(names, self.session.run(names, given), strict=True))

    def _result(
        self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], row: int, calibrated: bool
    ) -> dict[str, Any]:
        # In double precision no temperature makes two probabilities equal.
        logits = outputs["logits"][row].astype(np.float64)
        scaled = logits / (self.temperature if calibrated else 1.0)
        powers = np.exp(scaled - scaled.max())
        scores = (powers / powers.sum()).tolist()
        best = int(logits.argmax())
        weights = outputs.get("modality_weights"), outputs.get("perspective_weights")
        modality_weights = perspective_weights = None
        if weights[0] is not None:
            modality_weights = dict(zip(MODALITIES, weights[0][row].tolist(), strict=True))
        if weights[1] is not None and inputs["rationale_attention_mask"][row].any():
            perspective_weights = dict(zip(self.inputs.perspectives, weights[1][row].tolist(), strict=True))
        return {
            "label": self.label_names[best],
            "score": scores[best],
            "scores": dict(zip(self.label_names, scores, strict=True)),
            "modality_weights": modality_weights,
            "perspective_weights": perspective_weights,
        }
