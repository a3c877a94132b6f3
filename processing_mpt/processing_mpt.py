"""MPTProcessor: posts and their rationales to tensors."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from .collator_mpt import MODALITIES, MPTDataCollator, columns_by_modality
from .images_mpt import checked_image, image_processor_for

# Unused here: a saved processor carries the files that this one imports, and so its pipeline.
from .pipeline_mpt import MPTPipeline  # noqa: F401
from .vocabulary_mpt import tokenizer_for

logger = logging.getLogger(__name__)

# Tensors that the processor and the collator make and the model's forward reads.
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
    Tokenizer and image processor of posts with text, image and one rationale per perspective.

    Args:
        image_processor: image processor of the vision encoder, e.g. [`ViTImageProcessor`], with that encoder's
            statistics.
        tokenizer: tokenizer of the text encoder.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales, in the order of the model's rationale axis.
        modalities (`list[str]`, defaults to text, image, rationales):
            Modalities of the posts, the default of [`~MPTProcessor.data_collator`] and of the model's
            `from_backbones`.
        max_length (`int`, defaults to 320), rationale_max_length (`int`, defaults to 320):
            Maximum number of tokens of a text and of a rationale, never more than the tokenizer's `model_max_length`.
            `truncated` counts the longer ones, and the first is logged (a DataLoader worker counts and logs for
            itself). The model encodes no padding, so generous limits cost nothing.

    Raises:
        ValueError: For perspectives that are no list of distinct names, an unknown modality, or a limit below 1.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        perspectives: Sequence[str] = ("positive", "neutral", "negative"),
        modalities: Sequence[str] = MODALITIES,
        max_length: int = 320,
        rationale_max_length: int = 320,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        if not perspectives or isinstance(perspectives, str) or len(set(perspectives)) < len(perspectives):
            raise ValueError(f"`perspectives` must be a list of distinct names, at least one, got {perspectives!r}.")
        for name, limit in (("max_length", max_length), ("rationale_max_length", rationale_max_length)):
            if not isinstance(limit, int) or limit < 1:
                raise ValueError(f"`{name}` must be a positive number of tokens, got {limit!r}.")
        self.perspectives = list(perspectives)
        self.modalities = MPTDataCollator(self, modalities).modalities
        self.max_length = max_length
        self.rationale_max_length = rationale_max_length
        self.truncated = {"text": 0, "rationale": 0}

    @classmethod
    def from_backbones(
        cls,
        text: str | PreTrainedConfig | None = None,
        vision: str | PreTrainedConfig | None = None,
        cnn: str | PreTrainedConfig | None = None,
        *,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        posts: Any = None,
        perspectives: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        max_length: int = 320,
        rationale_max_length: int = 320,
    ) -> "MPTProcessor":
        r"""
        Create the processor of a model with these encoders, see `from_backbones` of the model.

        Args:
            text, vision, cnn (`str` or [`PreTrainedConfig`], *optional*):
                Hub id, folder or configuration of each encoder. Of a text encoder given by its configuration, and
                without `tokenizer`, the vocabulary is learned on `posts`. Images are processed for the vision
                encoder; without one, with the size and statistics that the CNN was trained with.
            tokenizer (`str` or tokenizer, *optional*):
                Used instead of the text encoder's own.
            posts (`Dataset` or `DatasetDict`, *optional*):
                Posts to train on, or splits of which `train` is read.
            perspectives (`list[str]`, *optional*):
                Names of the rationales. Default: the columns `rationale_PERSPECTIVE` of `posts` in their order, or
                positive, neutral, negative.
            modalities (`list[str]`, *optional*):
                Default: those of which `posts` hold any value; without `posts` all three, or the image alone where
                neither `text` nor `tokenizer` is given.
            max_length, rationale_max_length (`int`):
                See [`MPTProcessor`].

        Raises:
            ValueError: For splits without `train`, or a text configuration with neither `posts` nor `tokenizer`.

        Example:

        ```python
        >>> processor = MPTProcessor.from_backbones(
        ...     "google-bert/bert-base-uncased", "google/vit-base-patch16-224-in21k", posts=posts
        ... )
        ```
        """
        if hasattr(posts, "keys"):
            if "train" not in posts:
                raise ValueError(f"`posts` must have the split 'train', got {list(posts)}.")
            posts = posts["train"]
        columns = [name for name in getattr(posts, "column_names", ()) if name.startswith("rationale_")]
        if perspectives is None and columns:
            perspectives = [name.removeprefix("rationale_") for name in columns]
        perspectives = perspectives or ("positive", "neutral", "negative")
        if modalities is None and posts is not None:
            columns = columns_by_modality(perspectives)
            modalities = [name for name in columns if any(_has_values(posts, column) for column in columns[name])]
        elif modalities is None:
            modalities = ["image"] if text is None and tokenizer is None else MODALITIES
        if posts is None and tokenizer is None and not isinstance(text, str) and list(modalities) != ["image"]:
            raise ValueError("A text encoder given by its configuration needs `posts` or a `tokenizer`.")
        if text is None:
            text = AutoConfig.for_model("bert")
        return cls(
            image_processor_for(vision, cnn),
            tokenizer_for(text, tokenizer, posts, perspectives),
            perspectives=perspectives,
            modalities=modalities,
            max_length=max_length,
            rationale_max_length=rationale_max_length,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pixels that the image processor makes."""
        return tuple(self.image_processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"].shape[-2:])

    def data_collator(self, modalities: Sequence[str] | None = None) -> MPTDataCollator:
        """Return the collator that turns rows of a dataset into batches.

        Args:
            modalities (`list[str]`, *optional*): modalities that the model reads. Default: those of the posts.
        """
        return MPTDataCollator(self, self.modalities if modalities is None else modalities)

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
        Convert posts to the tensors that a model reads.

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
            ValueError: For lists of unequal length, an unknown perspective, a post with nothing to read, an image that
                cannot be decoded, and values of other types than above. The message names the post by its index.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt', got {return_tensors!r}.")
        if padding not in (True, "max_length"):
            raise ValueError(f"`padding` must be True (to the longest of the batch) or 'max_length', got {padding!r}.")
        images, texts, rationales = _as_lists(images, text, rationales)
        size = len(images)
        texts = [_text(value, f"The text of post {index}") for index, value in enumerate(texts)]
        rows = [self._rationale_row(row, index) for index, row in enumerate(rationales)]
        for index in range(size):
            if images[index] is None and texts[index] is None and not any(rows[index]):
                raise ValueError(f"Post {index} of the batch must have an image, a text or a rationale, but has none.")
        data: dict[str, torch.Tensor] = {}
        if any(texts):
            data["input_ids"], data["attention_mask"] = self._tokenize(texts, "text", padding)
        if any(image is not None for image in images):
            data["pixel_values"], data["image_mask"] = self._pixels(images)
        if any(any(row) for row in rows):
            ids, mask = self._tokenize([rationale for row in rows for rationale in row], "rationale", padding)
            shape = (size, len(self.perspectives), ids.shape[-1])
            data["rationale_input_ids"], data["rationale_attention_mask"] = ids.view(shape), mask.view(shape)
        return BatchFeature(data)

    def _rationale_row(self, row: Mapping[str, str | None] | None, index: int) -> list[str | None]:
        if row is not None and not isinstance(row, Mapping):
            raise ValueError(
                f"The rationales of post {index} must be a mapping, e.g. {{{self.perspectives[0]!r}: 'The image shows "
                f"…'}}, or None, got {row!r}."
            )
        unknown = sorted(set(row or {}) - set(self.perspectives))
        if unknown:
            raise ValueError(
                f"Post {index} of the batch has rationales for {unknown}; the perspectives are {self.perspectives}."
            )
        return [
            _text((row or {}).get(perspective), f"The {perspective} rationale of post {index}")
            for perspective in self.perspectives
        ]

    def _tokenize(self, texts: list[str | None], kind: str, padding: str | bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask `(len(texts), longest)`; the mask of `None` is a row of zeros."""
        option = {"text": "max_length", "rationale": "rationale_max_length"}[kind]
        limit = min(getattr(self, option), self.tokenizer.model_max_length)
        given = [value for value in texts if value is not None]
        encoded = self.tokenizer(given, truncation=True, max_length=limit, padding=False)["input_ids"]
        full = [value for value, ids in zip(given, encoded, strict=True) if len(ids) == limit]
        if full:  # only these can have been truncated
            cut = sum(len(ids) > limit for ids in self.tokenizer(full, verbose=False)["input_ids"])
            if cut and not self.truncated[kind]:
                logger.warning(
                    "A %s was truncated to %d tokens; `processor.truncated` counts them. Raise `%s` if the text "
                    "encoder reads more.",
                    kind,
                    limit,
                    option,
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
        """Return pixels `(len(images), 3, height, width)`, zero for `None`, and their mask."""
        present = torch.tensor([image is not None for image in images])
        given = [checked_image(image, index) for index, image in enumerate(images) if image is not None]
        pixels = self.image_processor(given, return_tensors="pt")["pixel_values"]
        all_pixels = pixels.new_zeros(len(images), *pixels.shape[1:])
        all_pixels[present] = pixels
        return all_pixels, present


def _text(value: str | None, name: str) -> str | None:
    """Return a text as a tokenizer reads it, `None` if it is blank.

    Halves of a surrogate pair, which no tokenizer reads, become question marks.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string or None, got {value!r} of type {type(value).__name__}.")
    return value.encode("utf-8", "replace").decode("utf-8") if value and value.strip() else None


def _as_lists(images: Any, text: Any, rationales: Any) -> tuple[list, list, list]:
    """Return lists of equal length, of one for single values, of `None` for missing inputs."""
    if isinstance(text, str):
        text = [text]
    if isinstance(rationales, Mapping):
        rationales = [rationales]
    if images is not None and not isinstance(images, list | tuple):
        images = list(images) if getattr(images, "ndim", 3) == 4 else [images]
    given = {"images": images, "text": text, "rationales": rationales}
    sizes = {name: len(values) for name, values in given.items() if values is not None}
    if not any(sizes.values()):
        raise ValueError("At least one of `images`, `text`, `rationales` is required.")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Each list must have one entry per post (None for a missing one), got {sizes}.")
    size = next(iter(sizes.values()))
    return tuple([None] * size if values is None else list(values) for values in given.values())


def _has_values(posts: Any, column: str) -> bool:
    """Return whether any post of a dataset has a value in this column."""
    if column not in posts.column_names:
        return False
    tables = posts.select_columns([column]).with_format("arrow").iter(1000)  # images stay undecoded
    return any(table.column(column).null_count < len(table) for table in tables)
