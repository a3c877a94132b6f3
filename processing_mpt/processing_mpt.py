"""MPTProcessor: posts and their rationales to the tensors a model of this package reads."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature, ProcessorMixin

# Not used below: a saved processor takes along the files that this one imports, and so its pipeline.
from .pipeline_mpt import MPTPipeline  # noqa: F401

logger = logging.getLogger(__name__)

# What the processor and the collator make and the model's forward takes.
MODEL_INPUTS = (
    "input_ids",
    "attention_mask",
    "pixel_values",
    "image_mask",
    "rationale_input_ids",
    "rationale_attention_mask",
)


class MPTProcessor(ProcessorMixin):
    r"""
    A tokenizer and an image processor in one, for posts of text, image and one rationale per perspective.

    Args:
        image_processor: of the vision encoder, e.g. [`ViTImageProcessor`], with that encoder's own statistics.
        tokenizer: of the text encoder.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales, in the order of the model's rationale axis.
        max_length (`int`, defaults to 320), rationale_max_length (`int`, defaults to 320):
            Tokens to which a text and a rationale are cut, never more than the tokenizer's `model_max_length`. What
            was cut is counted in `truncated` and the first cut logged (a DataLoader worker counts and logs for
            itself). The model encodes no padding, so generous limits cost nothing.

    Raises:
        ValueError: for perspectives that are no list of distinct names, or a limit below 1.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        perspectives: Sequence[str] = ("positive", "neutral", "negative"),
        max_length: int = 320,
        rationale_max_length: int = 320,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        if not perspectives or isinstance(perspectives, str) or len(set(perspectives)) < len(perspectives):
            raise ValueError(f"perspectives={perspectives!r}: write a list of distinct names, at least one.")
        for name, limit in (("max_length", max_length), ("rationale_max_length", rationale_max_length)):
            if not isinstance(limit, int) or limit < 1:
                raise ValueError(f"{name}={limit!r}: write a number of tokens, e.g. 320.")
        self.perspectives = list(perspectives)
        self.max_length = max_length
        self.rationale_max_length = rationale_max_length
        self.truncated = {"text": 0, "rationale": 0}

    @property
    def model_input_names(self) -> list[str]:
        return list(MODEL_INPUTS)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str | None] | None = None,
        rationales: Mapping[str, str | None] | Sequence[Mapping[str, str | None] | None] | None = None,
        padding: str | bool = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list of B; `None` for a post without one. PIL images of any mode (upright as their
                EXIF says, transparency on white, the first frame of an animation), or arrays and tensors `(height,
                width, 3)` or `(3, height, width)` with values from 0 to 255.
            text: one text or a list of B; `None` or a blank string for a post without text.
            rationales: one mapping or a list of B from perspective to rationale; absent, `None` or blank ones are
                masked.
            padding: `True` to the longest of the batch, `"max_length"` to the limits; on the right.
            return_tensors: only `"pt"`.

        Returns:
            [`BatchFeature`] with those of `input_ids`, `attention_mask` `(B, L)`, `pixel_values`
            `(B, 3, height, width)`, `image_mask` `(B,)`, `rationale_input_ids`, `rationale_attention_mask`
            `(B, P, R)` that any post of the batch has. A row of zeros in an attention mask is an absent text or
            rationale.

        Raises:
            ValueError: for lists of unequal length, an unknown perspective, a post with nothing to read, an image that
                does not decode, and values of other types than above. The message names the post by its place.
        """
        if return_tensors != "pt":
            raise ValueError(
                f"return_tensors={return_tensors!r}: MPTProcessor makes PyTorch tensors only, write 'pt'."
            )
        if padding not in (True, "max_length"):
            raise ValueError(f"padding={padding!r}: write True (to the longest of the batch) or 'max_length'.")
        images, texts, rationales = _as_lists(images, text, rationales)
        size = len(images)
        texts = [_text(value, f"The text of post {index}") for index, value in enumerate(texts)]
        rows = [self._rationale_row(row, index) for index, row in enumerate(rationales)]
        for index in range(size):
            if images[index] is None and texts[index] is None and not any(rows[index]):
                raise ValueError(
                    f"Post {index} of the batch has neither image, text nor rationale; give at least one of them."
                )
        data: dict[str, torch.Tensor] = {}
        if any(texts):
            limit = self._limit(self.max_length)
            data["input_ids"], data["attention_mask"] = self._tokenize(texts, limit, "text", padding)
        if any(image is not None for image in images):
            data["pixel_values"], data["image_mask"] = self._pixels(images)
        if any(any(row) for row in rows):
            flat = [rationale for row in rows for rationale in row]
            ids, mask = self._tokenize(flat, self._limit(self.rationale_max_length), "rationale", padding)
            shape = (size, len(self.perspectives), ids.shape[-1])
            data["rationale_input_ids"], data["rationale_attention_mask"] = ids.view(shape), mask.view(shape)
        return BatchFeature(data)

    def _limit(self, limit: int) -> int:
        return min(limit, self.tokenizer.model_max_length)

    def _rationale_row(self, row: Mapping[str, str | None] | None, index: int) -> list[str | None]:
        if row is not None and not isinstance(row, Mapping):
            raise ValueError(
                f"The rationales of post {index} are {row!r}; write a mapping, e.g. "
                f"{{{self.perspectives[0]!r}: 'The image shows …'}}, or None."
            )
        unknown = sorted(set(row or {}) - set(self.perspectives))
        if unknown:
            raise ValueError(
                f"Post {index} of the batch has rationales for {unknown}; this processor knows {self.perspectives}."
            )
        return [
            _text((row or {}).get(perspective), f"The {perspective} rationale of post {index}")
            for perspective in self.perspectives
        ]

    def _tokenize(
        self, texts: list[str | None], limit: int, kind: str, padding: str | bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask `(len(texts), longest)`; a row of zeros in the mask for `None`."""
        given = [value for value in texts if value is not None]
        encoded = self.tokenizer(given, truncation=True, max_length=limit, padding=False)["input_ids"]
        full = [value for value, ids in zip(given, encoded, strict=True) if len(ids) == limit]
        if full:  # only these can have been cut
            cut = sum(len(ids) > limit for ids in self.tokenizer(full, verbose=False)["input_ids"])
            if cut and not self.truncated[kind]:
                logger.warning(
                    "A %s of more than %d tokens was cut; `processor.truncated` counts them. Raise %s where the text "
                    "encoder allows it.",
                    kind,
                    limit,
                    "max_length" if kind == "text" else "rationale_max_length",
                )
            self.truncated[kind] += cut
        width = limit if padding == "max_length" else max(map(len, encoded))
        ids = torch.full((len(texts), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(texts), width, dtype=torch.long)
        rows = (row for row, value in enumerate(texts) if value is not None)
        for row, tokens in zip(rows, encoded, strict=True):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask

    def _pixels(self, images: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels `(len(images), 3, height, width)`, zero for `None`, and which images there are."""
        present = torch.tensor([image is not None for image in images])
        given = [_readable(image, index) for index, image in enumerate(images) if image is not None]
        pixels = self.image_processor(given, return_tensors="pt")["pixel_values"]
        all_pixels = pixels.new_zeros(len(images), *pixels.shape[1:])
        all_pixels[present] = pixels
        return all_pixels, present


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in RGB, what is transparent as white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") and (image.mode != "I" or image.getextrema()[1] > 255):
        # 16 bits a pixel (Pillow opens some as mode I): its own conversion would turn all above 255 white
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _readable(image: Any, index: int) -> Any:
    """What an image processor takes, from the image of post `index`."""
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"The image of post {index} ({getattr(image, 'filename', '') or image}) cannot be decoded ({error}); "
                "replace it, or write None."
            ) from error
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise ValueError(
            f"The image of post {index} is a {type(image).__name__}, {str(image)[:80]!r}; write a PIL image (e.g. "
            "PIL.Image.open(path)), an array, a tensor or None."
        )
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
        raise ValueError(
            f"The image of post {index} has the shape {tuple(image.shape)}; write (height, width, 3) or (3, height, "
            "width). PIL.Image.fromarray makes an image of other arrays."
        )
    return image


def _text(value: str | None, name: str) -> str | None:
    """`None` for a blank one. Halves of a surrogate pair, which no tokenizer reads, become question marks."""
    if value is not None and not isinstance(value, str):
        raise ValueError(
            f"{name} is {value!r}, a {type(value).__name__}; write a string, or None where there is none."
        )
    return value.encode("utf-8", "replace").decode("utf-8") if value and value.strip() else None


def _as_lists(images: Any, text: Any, rationales: Any) -> tuple[list, list, list]:
    """Single values as lists of one, absent ones as lists of `None`, all of the same length."""
    if isinstance(text, str):
        text = [text]
    if isinstance(rationales, Mapping):
        rationales = [rationales]
    if images is not None and not isinstance(images, list | tuple):
        images = list(images) if getattr(images, "ndim", 3) == 4 else [images]
    sizes = {
        name: len(values)
        for name, values in (("images", images), ("text", text), ("rationales", rationales))
        if values is not None
    }
    if not any(sizes.values()):
        raise ValueError("Nothing to process: give at least one of images, text, rationales.")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"One entry per post is needed in each list (None where a post has none), but got {sizes}.")
    size = next(iter(sizes.values()))
    return tuple([None] * size if values is None else list(values) for values in (images, text, rationales))
