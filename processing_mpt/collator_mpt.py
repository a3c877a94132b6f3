"""MPTDataCollator: rows of a dataset to a batch for the Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .processing_mpt import MPTProcessor


@dataclass
class MPTDataCollator:
    """
    Collates rows with the columns `image`, `text`, `rationale_PERSPECTIVE` and `label` (any but one may be absent or
    null) into the arguments of the model's forward.

    Args:
        processor ([`MPTProcessor`])
        modalities (`Sequence[str]`, defaults to all three): what to process; leaving out what the model does not read
            saves its decoding.
    """

    processor: MPTProcessor
    modalities: Sequence[str] = ("text", "image", "rationales")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Returns:
            The tensors of [`MPTProcessor.__call__`], and `labels` `(batch,)` where the rows carry them.

        Raises:
            ValueError: where some rows have a label and others have none.
        """
        texts = [row.get("text") for row in rows] if "text" in self.modalities else None
        images = [row.get("image") for row in rows] if "image" in self.modalities else None
        rationales = None
        if "rationales" in self.modalities:
            names = self.processor.perspectives
            rationales = [{name: row.get(f"rationale_{name}") for name in names} for row in rows]
        batch = dict(self.processor(images=images, text=texts, rationales=rationales))
        labels = [row.get("label") for row in rows]
        missing = [index for index, label in enumerate(labels) if label is None]
        if len(missing) < len(rows):
            if missing:
                names = [rows[index].get("id", index) for index in missing]
                raise ValueError(f"Posts {names} have no label, others of the batch do; label them or leave them out.")
            batch["labels"] = torch.tensor(labels)
        return batch
