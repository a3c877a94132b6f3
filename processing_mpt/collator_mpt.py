"""MPTDataCollator: rows of a dataset to a batch for the Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch

from .processing_mpt import MPTProcessor

MODALITIES = ("text", "image", "rationales")


@dataclass
class MPTDataCollator:
    """
    Collates rows with the columns `image`, `text`, `rationale_PERSPECTIVE` and `label` (any but one may be absent or
    null) into the arguments of the model's forward.

    Args:
        processor ([`MPTProcessor`])
        modalities (`Sequence[str]`, defaults to all three): what to process; leaving out what the model does not read
            saves its decoding.

    Raises:
        ValueError: for an unknown modality.
    """

    processor: MPTProcessor
    modalities: Sequence[str] = MODALITIES

    def __post_init__(self) -> None:
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities={self.modalities!r}: write one or more of {list(MODALITIES)}.")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Returns:
            The tensors of [`MPTProcessor.__call__`], and `labels` `(batch,)` where the rows carry them.

        Raises:
            ValueError: where a row has nothing to read, a label is no class index, or some rows have a label and
                others none; the message names the rows by their id.
        """
        names = [
            f"{row['id']!r}" if row.get("id") is not None else f"{index} of the batch"
            for index, row in enumerate(rows)
        ]
        perspectives = self.processor.perspectives
        columns = {"text": ["text"], "image": ["image"], "rationales": [f"rationale_{name}" for name in perspectives]}
        read = [column for modality in self.modalities for column in columns[modality]]
        for row, name in zip(rows, names, strict=True):
            if all(row.get(column) is None for column in read):
                raise ValueError(
                    f"Post {name} has none of {read} (its columns are {list(row)}); give at least one of them. A "
                    "Trainer needs remove_unused_columns=False to leave the columns in."
                )
        texts = [row.get("text") for row in rows] if "text" in self.modalities else None
        images = [row.get("image") for row in rows] if "image" in self.modalities else None
        rationales = None
        if "rationales" in self.modalities:
            rationales = [{name: row.get(f"rationale_{name}") for name in perspectives} for row in rows]
        batch = dict(self.processor(images=images, text=texts, rationales=rationales))
        labels = [row.get("label") for row in rows]
        without = [name for name, label in zip(names, labels, strict=True) if label is None]
        if len(without) < len(rows):
            if without:
                raise ValueError(
                    f"Posts without a label: {', '.join(without)}; others of the batch have one. Label them or leave "
                    "them out."
                )
            for name, label in zip(names, labels, strict=True):
                if not isinstance(label, Integral):
                    raise ValueError(
                        f"The label of post {name} is {label!r}; write the index of its class "
                        "(`dataset.class_encode_column('label')` makes indices of names)."
                    )
            batch["labels"] = torch.tensor(labels)
        return batch
