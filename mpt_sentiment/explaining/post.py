"""Parts of a post that can be deleted: words, regions, perspectives and modalities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Pipeline

from mpt_sentiment.explaining.words import Words, words_of
from processing_mpt.texts_mpt import TEXT_PREPROCESSING, checked_text

# Kinds of parts. The words of all rationales are one kind.
WORDS, RATIONALE_WORDS, REGIONS, PERSPECTIVES, MODALITIES = KINDS = (
    "words",
    "rationale_words",
    "regions",
    "perspectives",
    "modalities",
)
_SOURCES = {WORDS: "text", RATIONALE_WORDS: "rationales"}
_MASKS = {"text": "attention_mask", "image": "image_mask", "rationales": "rationale_attention_mask"}


@dataclass
class PostParts:
    """Inputs of one post and the parts of it that a network reads.

    Attributes:
        inputs (`dict[str, torch.Tensor]`): arguments of `forward`, with one row.
        words (`Words`, *optional*): of the text.
        rationales (`dict[str, Words]`): of each perspective that the post has.
        image (`PIL.Image.Image`, *optional*): upright image.
        box (`tuple`, *optional*): left, top, right and bottom of the part of the image that the network reads, as
            shares of its width and height.
        grid (`int`): rows and columns of the regions of this part.
        perspectives (`list[str]`): all perspectives of the network, in the order of its inputs.
        blank_id (`int`): id of the mask token, or of the padding token where there is none.
        names (`dict[str, list]`): the parts of each kind; a word of a rationale is `(perspective, word index)`.
    """

    inputs: dict[str, torch.Tensor]
    words: Words | None
    rationales: dict[str, Words]
    image: Image.Image | None
    box: tuple[float, float, float, float] | None
    grid: int
    perspectives: list[str]
    blank_id: int
    names: dict[str, list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        modalities = {"text": self.words, "image": self.image, "rationales": self.rationales or None}
        self.names = {
            WORDS: self.words.read if self.words else [],
            RATIONALE_WORDS: [(name, word) for name, words in self.rationales.items() for word in words.read],
            REGIONS: list(range(self.grid**2)) if self.image else [],
            PERSPECTIVES: list(self.rationales),
            MODALITIES: [name for name, part in modalities.items() if part is not None],
        }
        self.names = {kind: names for kind, names in self.names.items() if names}

    def without(self, kind: str, deleted: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the inputs of variants of the post without some parts.

        Tokens are removed, as if the text had never had them: the network packs the remaining ones. A text without
        words, and a rationale without words, is absent. A region gets the mean colour of the image.

        Args:
            kind (`str`): one of `KINDS`.
            deleted (`np.ndarray` of shape `(variants, parts)`): true for a part to delete, in the order of `names`.

        Returns:
            Arguments of `forward` with one row per variant.
        """
        missing = torch.from_numpy(np.ascontiguousarray(deleted)).to(self.device)
        count = missing.shape[0]
        batch = {name: value.expand(count, *value.shape[1:]) for name, value in self.inputs.items()}
        if kind == REGIONS:
            keep = (~missing).float().view(count, 1, self.grid, self.grid)
            batch["pixel_values"] = self.blend(keep)
            return batch
        masks = {"attention_mask", "image_mask", "rationale_attention_mask"} & batch.keys()
        batch |= {name: batch[name].clone() for name in masks}
        if kind == MODALITIES:
            for column, name in enumerate(self.names[kind]):
                batch[_MASKS[name]][missing[:, column]] = 0
        elif kind == PERSPECTIVES:
            for column, name in enumerate(self.names[kind]):
                batch[_MASKS["rationales"]][missing[:, column], self.perspectives.index(name)] = 0
        else:
            for mask, words, columns in self._sequences(kind, batch):
                for column, index in zip(columns, words.read, strict=True):
                    rows = missing[:, column].nonzero()
                    mask[rows, torch.tensor(words.tokens[index], device=self.device)] = 0
                if columns:
                    mask[missing[:, columns].all(dim=1)] = 0
        return batch

    def blend(self, keep: torch.Tensor) -> torch.Tensor:
        """Mix the image with its mean colour.

        Args:
            keep (`torch.Tensor` of shape `(variants, 1, grid, grid)`): 1 keeps a region, 0 replaces it.

        Returns:
            Pixels `(variants, 3, height, width)`.
        """
        pixels = self.inputs["pixel_values"]
        keep = torch.nn.functional.interpolate(keep, size=pixels.shape[-2:], mode="nearest").to(pixels.dtype)
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        return mean + keep * (pixels - mean)

    def token_gates(self, kind: str, gates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spread the gates of words over their tokens.

        Args:
            kind (`str`): `WORDS` or `RATIONALE_WORDS`.
            gates (`torch.Tensor` of shape `(variants, words)`): gates of the words.

        Returns:
            Ids and gates of the sequences that an encoder reads, `(rows, len)`. Special tokens have the gate 1.
        """
        ids = self.inputs["input_ids" if kind == WORDS else "rationale_input_ids"]
        word_of = torch.full(ids.shape, gates.shape[1])  # the column of ones
        for sequence, words, columns in self._sequences(kind, {_MASKS[_SOURCES[kind]]: word_of}):
            for column, index in zip(columns, words.read, strict=True):
                sequence[:, words.tokens[index]] = column
        columns = torch.cat([gates, torch.ones_like(gates[:, :1])], dim=1)
        spread = columns[:, word_of.flatten().to(gates.device)].view(-1, ids.shape[-1])
        return ids.expand(len(gates), *ids.shape[1:]).reshape(-1, ids.shape[-1]), spread

    @property
    def device(self) -> torch.device:
        return next(iter(self.inputs.values())).device

    def _sequences(self, kind: str, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, Words, list]]:
        """Iterate over sequences: mask `(variants, len)`, words, columns of their parts."""
        if kind == WORDS:
            yield batch["attention_mask"], self.words, list(range(len(self.words.read)))
            return
        start = 0
        for name, words in self.rationales.items():
            end = start + len(words.read)
            yield batch["rationale_attention_mask"][:, self.perspectives.index(name)], words, list(range(start, end))
            start = end


def read_post(pipe: Pipeline, post: Mapping[str, Any], grid: int) -> PostParts:
    """Process a post as the pipeline does, and find its parts.

    Args:
        pipe ([`MPTPipeline`]): model and processor.
        post (mapping): see [`MPTPipeline`].
        grid (`int`): rows and columns of the regions of the image.

    Raises:
        ValueError: a post that the pipeline refuses.
    """
    post = pipe.preprocess(post)["post"]
    processor = pipe.processor
    image, rationales = post["image"], post["rationales"] or {}
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image if image.shape[-1] == 3 else image.transpose(1, 2, 0))
    inputs = processor(images=[image], text=[post["text"]], rationales=[rationales or None], padding_side="right")
    inputs = {name: value.to(pipe.device) for name, value in inputs.items()}
    words = None
    if "input_ids" in inputs:
        text = checked_text(post["text"], "The text", TEXT_PREPROCESSING[processor.text_preprocessing])
        words = words_of(processor.tokenizer, text, int(inputs["attention_mask"].sum()))
    of_rationales = {}
    for index, name in enumerate(processor.perspectives):
        text = checked_text(rationales.get(name), f"The {name} rationale")
        if text is not None:
            length = int(inputs["rationale_attention_mask"][0, index].sum())
            of_rationales[name] = words_of(processor.tokenizer, text, length)
    tokenizer = processor.tokenizer
    blank = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.pad_token_id
    box = None if image is None else visible_box(processor.image_processor, image.size)
    return PostParts(inputs, words, of_rationales, image, box, grid, list(processor.perspectives), blank or 0)


def visible_box(image_processor: Any, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Find the part of an image that is left after an image processor has cropped its center.

    Args:
        image_processor: image processor of transformers.
        size (`tuple[int, int]`): width and height of the image in pixels.

    Returns:
        Left, top, right and bottom, as shares of the width and height.
    """
    if not getattr(image_processor, "do_center_crop", False):
        return (0.0, 0.0, 1.0, 1.0)
    crop, target = dict(image_processor.crop_size), dict(image_processor.size)
    width, height = size
    if getattr(image_processor, "do_resize", False):
        if target.get("shortest_edge"):
            scale = target["shortest_edge"] / min(width, height)
            width, height = width * scale, height * scale
        else:
            width, height = target["width"], target["height"]
    right, bottom = (0.5 + min(1.0, share) / 2 for share in (crop["width"] / width, crop["height"] / height))
    return (1 - right, 1 - bottom, right, bottom)
