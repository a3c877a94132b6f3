"""Posts of requests to tensors, and batches of them to results."""

import copy
import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, Pipeline

from mpt_sentiment.serving.errors import RequestError
from mpt_sentiment.serving.schemas import check_post
from mpt_sentiment.serving_arguments import ServeArguments
from processing_mpt.handler import image_content

# Outputs that `MPTPipeline.postprocess` reads.
OUTPUTS = ("logits", "modality_weights", "modality_mask", "perspective_weights")


class Predictor:
    """Pipeline in two steps, so that threads prepare posts while the model runs.

    Args:
        pipe ([`MPTPipeline`]): model and processor.
        limits ([`ServeArguments`]): of texts and images.
    """

    def __init__(self, pipe: Pipeline, limits: ServeArguments) -> None:
        self.pipe = pipe
        self.limits = limits
        self._of_thread = threading.local()

    def prepare(self, values: Any) -> BatchFeature:
        """Check a post of a client, and convert it to the tensors of a batch of one.

        Raises:
            RequestError: 422 with the field.
        """
        post = check_post(values)
        for perspective in post.rationales or {}:
            if perspective not in self.pipe.processor.perspectives:
                known = ", ".join(self.pipe.processor.perspectives)
                raise RequestError(
                    422, f"rationales.{perspective[:60]}", f"Unknown perspective; this model has {known}."
                )
        texts = {"text": post.text, **{f"rationales.{name}": text for name, text in (post.rationales or {}).items()}}
        for field, text in texts.items():
            if text is not None and len(text) > self.limits.max_text_length:
                limit = f"{self.limits.max_text_length:,}"
                raise RequestError(422, field, f"The text has {len(text):,} characters; {limit} are allowed.")
        image = None
        field = "image"
        try:
            if post.image is not None:
                image = image_content(post.image, int(self.limits.max_megapixels * 1_000_000))
            if image is None or "image" not in self.pipe.model.config.modalities:
                field = "post"  # the image is not decoded: only what the post lacks can be refused
            parts = self.pipe.preprocess({"text": post.text, "image": image, "rationales": post.rationales})["post"]
            return self._processor()(
                images=[parts["image"]], text=[parts["text"]], rationales=[parts["rationales"]], return_tensors="pt"
            )
        except ValueError as error:
            raise RequestError(422, field, str(error)) from None

    def predict(self, prepared: Sequence[BatchFeature]) -> list[dict[str, Any]]:
        """Classify prepared posts in one forward pass, with the results of [`MPTPipeline`]."""
        batch = stack(prepared, self.pipe.processor.tokenizer.pad_token_id or 0)
        with torch.inference_mode():
            output = self.pipe.model(**{name: value.to(self.pipe.device) for name, value in batch.items()})
        values = {name: None if output.get(name) is None else output[name].cpu() for name in OUTPUTS}
        return [
            self.pipe.postprocess(
                {name: None if value is None else value[row : row + 1] for name, value in values.items()}
            )
            for row in range(len(prepared))
        ]

    def _processor(self) -> Any:
        """Return the processor of this thread: a tokenizer holds the state of a call."""
        if not hasattr(self._of_thread, "processor"):
            self._of_thread.processor = copy.deepcopy(self.pipe.processor)
        return self._of_thread.processor


def stack(prepared: Sequence[BatchFeature], padding: int = 0) -> dict[str, torch.Tensor]:
    """Stack batches of one post, padded on the right.

    What a post lacks has a mask of zeros.

    Args:
        prepared (sequence of [`BatchFeature`]): of one post each.
        padding (`int`): id of the padding token.
    """
    batch = {}
    for name in dict.fromkeys(name for post in prepared for name in post):
        rows = [post[name][0] if name in post else None for post in prepared]
        given = [row for row in rows if row is not None]
        shape = [max(sizes) for sizes in zip(*(row.shape for row in given), strict=True)]
        fill = padding if name.endswith("input_ids") else 0
        batch[name] = torch.full((len(rows), *shape), fill, dtype=given[0].dtype)
        for index, row in enumerate(rows):
            if row is not None:
                batch[name][(index, *map(slice, row.shape))] = row
    return batch
