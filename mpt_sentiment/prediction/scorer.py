"""Outputs of a model for prepared posts, as a table of predictions."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from transformers import Pipeline

from mpt_sentiment.evaluation.abstention import abstains
from mpt_sentiment.evaluation.predictions import MODALITIES, prediction_table


class Scorer:
    """Model of a pipeline, applied to batches of tensors.

    Args:
        pipe ([`MPTPipeline`])
        calibrated (`bool`, defaults to `True`): divide the logits by the temperature that was fitted on validation.
        abstain_below (`float`, *optional*): probability below which the column `abstained` is true.
    """

    def __init__(self, pipe: Pipeline, calibrated: bool = True, abstain_below: float | None = None) -> None:
        self.model, self.processor, self.device = pipe.model, pipe.processor, pipe.device
        # Folders saved before the field existed bring a configuration without it.
        self.temperature: float = getattr(pipe.model.config, "calibration_temperature", 1.0) if calibrated else 1.0
        self.abstain_below = abstain_below
        self.modalities: list[str] = pipe.model.config.modalities
        self.perspectives: list[str] = pipe.processor.perspectives
        self.label_names = [pipe.model.config.id2label[index] for index in range(pipe.model.config.num_labels)]

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Return probabilities and weights of modalities and perspectives, NaN for none.

        Returns:
            `np.ndarray` of shape `(batch, num_labels + 3 + num_perspectives)`, float64.
        """
        output = self.model(**{name: value.to(self.device, non_blocking=True) for name, value in inputs.items()})
        logits = output["logits"]
        modality_weights, perspective_weights = output.get("modality_weights"), output.get("perspective_weights")
        if modality_weights is None:
            modality_weights = logits.new_full((len(logits), len(MODALITIES)), torch.nan)
        if perspective_weights is None:
            perspective_weights = logits.new_full((len(logits), len(self.perspectives)), torch.nan)
        else:
            is_present = output["modality_mask"][:, MODALITIES.index("rationales"), None].bool()
            perspective_weights = perspective_weights.masked_fill(~is_present, torch.nan)
        # One transfer. Double precision, which MPS lacks, on the CPU, as in the pipeline: there no temperature makes
        # two probabilities equal.
        values = torch.cat([logits, modality_weights, perspective_weights], dim=1).cpu().double()
        probabilities = values[:, : logits.shape[1]]
        probabilities.copy_((probabilities / self.temperature).softmax(dim=-1))
        return values.numpy()

    def table(self, outputs: np.ndarray, ids: Sequence[str], labels: Sequence[str | None]) -> pa.Table:
        """Build the table of predictions from rows of `__call__`.

        Args:
            outputs (`np.ndarray` of shape `(num_posts, num_columns)`)
            ids (sequence of `str`): ids of the posts.
            labels (sequence): labels of the posts as written, of any kind.
        """
        num_labels = len(self.label_names)
        outputs = outputs.reshape(-1, num_labels + len(MODALITIES) + len(self.perspectives))
        probabilities, weights, perspectives = np.split(outputs, [num_labels, num_labels + len(MODALITIES)], axis=1)
        table = prediction_table(
            ids,
            self.label_names,
            probabilities,
            modality_weights=weights,
            perspective_weights=perspectives,
            perspectives=self.perspectives,
        )
        if self.abstain_below is not None:
            table = table.append_column("abstained", pa.array(abstains(probabilities, self.abstain_below), pa.bool_()))
        return table.set_column(table.column_names.index("label"), "label", pa.array(labels, pa.string()))

    def digest(self) -> str:
        """Hash the weights and settings of model and processor."""
        digest = hashlib.sha256()
        settings = [self.model.config.to_dict(), self.processor.to_dict()]
        for part in settings:
            part = {key: value for key, value in part.items() if key not in ("_name_or_path", "transformers_version")}
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        # not the tokenizer's own file, in which its last call is visible
        digest.update(json.dumps(sorted(self.processor.tokenizer.get_vocab().items())).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
