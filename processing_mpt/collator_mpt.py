"""MPTDataCollator: rows of a dataset to a batch for the Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from transformers import ProcessorMixin

from .images_mpt import checked_image
from .texts_mpt import checked_text

MODALITIES = ("text", "image", "rationales")


def columns_by_modality(perspectives: Sequence[str]) -> dict[str, list[str]]:
    """Map each modality to the columns of a dataset that hold it."""
    return {"text": ["text"], "image": ["image"], "rationales": [f"rationale_{name}" for name in perspectives]}


@dataclass
class MPTDataCollator:
    """
    Collator of rows with the columns `image`, `text`, `rationale_PERSPECTIVE` and `label`.

    Any column but one may be absent or null. The batch holds the arguments of the model's forward.

    Args:
        processor ([`MPTProcessor`])
        modalities (`list[str]`, defaults to all three): modalities to process. An image that the model does not read
            is not decoded.

    Raises:
        ValueError: For an unknown modality.
    """

    processor: ProcessorMixin
    modalities: Sequence[str] = MODALITIES

    def __post_init__(self) -> None:
        if isinstance(self.modalities, str) or not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"`modalities` must be one or more of {list(MODALITIES)}, got {self.modalities!r}.")
        self.modalities = list(self.modalities)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Collate rows into a batch.

        Returns:
            The tensors of [`MPTProcessor.__call__`], and `labels` `(batch,)` if the rows have labels.

        Raises:
            ValueError: For a row with nothing to read, a text that is no string, an image that cannot be decoded, a
                label that is no class index, or rows of which only some have a label. The message names the rows by
                their id.
        """
        names = row_names(rows)
        inputs = self.inputs(rows)
        if "images" in inputs:
            inputs["images"] = [
                None if image is None else checked_image(image, f"The image of post {name}")
                for image, name in zip(inputs["images"], names, strict=True)
            ]
        batch = dict(self.processor(**inputs))
        labels = self.labels(rows)
        if labels is not None:
            batch["labels"] = torch.tensor(labels)
        return batch

    def inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
        """
        Check the texts of rows, and return the arguments of the processor.

        Images are left as they are in the rows.

        Raises:
            ValueError: For a row with nothing to read, or a text that is no string.
        """
        names = row_names(rows)
        columns = columns_by_modality(self.processor.perspectives)
        read = [column for modality in self.modalities for column in columns[modality]]
        for row, name in zip(rows, names, strict=True):
            if all(row.get(column) is None for column in read):
                raise ValueError(
                    f"Post {name} must have a value in one of the columns {read}; its columns are {list(row)}. A "
                    "Trainer needs `remove_unused_columns=False` to keep them."
                )
        # Checked here to name the post by its id; the processor would name it by its place in the batch.
        inputs: dict[str, list] = {}
        if "text" in self.modalities:
            inputs["text"] = [
                checked_text(row.get("text"), f"The text of post {name}")
                for row, name in zip(rows, names, strict=True)
            ]
        if "image" in self.modalities:
            inputs["images"] = [row.get("image") for row in rows]
        if "rationales" in self.modalities:
            named = list(zip(self.processor.perspectives, columns["rationales"], strict=True))
            inputs["rationales"] = [
                {
                    perspective: checked_text(row.get(column), f"The {perspective} rationale of post {name}")
                    for perspective, column in named
                }
                for row, name in zip(rows, names, strict=True)
            ]
        return inputs

    def labels(self, rows: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """
        Return the labels of rows, or `None` if no row has one.

        Raises:
            ValueError: For a label that is no class index, or rows of which only some have a label.
        """
        names, labels = row_names(rows), [row.get("label") for row in rows]
        unlabeled = [name for name, label in zip(names, labels, strict=True) if label is None]
        if len(unlabeled) == len(rows):
            return None
        if unlabeled:
            raise ValueError(
                f"All posts of a batch or none must have a label; missing for {', '.join(unlabeled)}. Label or "
                "remove them."
            )
        for name, label in zip(names, labels, strict=True):
            if not isinstance(label, Integral):
                raise ValueError(
                    f"The label of post {name} must be a class index, got {label!r}. "
                    "`dataset.class_encode_column('label')` converts names to indices."
                )
        return labels


def row_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name rows by their id, or by their place in the batch."""
    return [f"{i} of the batch" if row.get("id") is None else repr(row["id"]) for i, row in enumerate(rows)]
