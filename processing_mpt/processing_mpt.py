"""MPTProcessor: posts and their rationales to tensors."""

import logging
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import AutoConfig, BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.processing_utils import Unpack

from .collator_mpt import MODALITIES, MPTDataCollator, columns_by_modality

# Unused here, as MPTPipeline: a saved processor carries the files that this one imports.
from .handler import EndpointHandler  # noqa: F401
from .images_mpt import bands, checked_image, image_processor_for
from .pipeline_mpt import MPTPipeline  # noqa: F401
from .processing_kwargs_mpt import (
    MPTProcessorKwargs,
    as_lists,
    check_names,
    form_of,
    in_form,
    padded,
    token_limit,
    without_none,
)
from .texts_mpt import TEXT_PREPROCESSING, checked_text
from .vocabulary_mpt import tokenizer_for

logger = logging.getLogger(__name__)

# Tokens of a text or a rationale that are kept, where neither the caller nor the tokenizer says so.
MAX_LENGTH = 320
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
        max_length (`int`, *optional*), rationale_max_length (`int`, defaults to 320):
            Maximum number of tokens of a text and of a rationale, never more than the tokenizer's `model_max_length`.
            Default of `max_length`: the tokenizer's own, where its settings have one, or 320. `truncated` counts the
            longer ones, and the first is logged (a DataLoader worker counts and logs for itself). The model encodes no
            padding, so generous limits cost nothing.
        text_preprocessing (`str`, defaults to `"none"`):
            `"tweet"` prepares texts, not rationales, as TweetEval does: HTML entities are resolved, users become
            `@user`, links `http`.

    Raises:
        ValueError: For perspectives that are no list of distinct names, an unknown modality or text
            preprocessing, or a limit below 1.
    """

    valid_processor_kwargs = MPTProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        perspectives: Sequence[str] = ("positive", "neutral", "negative"),
        modalities: Sequence[str] = MODALITIES,
        max_length: int | None = None,
        rationale_max_length: int = MAX_LENGTH,
        text_preprocessing: str = "none",
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        if not perspectives or isinstance(perspectives, str) or len(set(perspectives)) < len(perspectives):
            raise ValueError(f"`perspectives` must be a list of distinct names, at least one, got {perspectives!r}.")
        if text_preprocessing not in list(TEXT_PREPROCESSING):
            raise ValueError(
                f"`text_preprocessing` must be one of {list(TEXT_PREPROCESSING)}, got {text_preprocessing!r}."
            )
        if max_length is None:
            max_length = self.tokenizer.init_kwargs.get("max_length") or MAX_LENGTH
        self.perspectives = list(perspectives)
        self.modalities = MPTDataCollator(self, modalities).modalities
        self.max_length = token_limit("max_length", max_length)
        self.rationale_max_length = token_limit("rationale_max_length", rationale_max_length)
        self.text_preprocessing = text_preprocessing
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
        max_length: int | None = None,
        rationale_max_length: int = MAX_LENGTH,
        text_preprocessing: str = "none",
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
            max_length, rationale_max_length, text_preprocessing:
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
            tokenizer_for(text, tokenizer, posts, perspectives, TEXT_PREPROCESSING.get(text_preprocessing, str)),
            perspectives=perspectives,
            modalities=modalities,
            max_length=max_length,
            rationale_max_length=rationale_max_length,
            text_preprocessing=text_preprocessing,
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

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration that is saved; only the processor's own entry names its class."""
        output = super().to_dict()
        _forget_class(output["image_processor"])
        return output

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Save configuration, tokenizer and code; see [`ProcessorMixin.save_pretrained`]."""
        files = super().save_pretrained(save_directory, *args, **kwargs)
        # Saving notes the class in memory too, where a loaded processor does not have it.
        for part in (self, self.image_processor):
            _forget_class(vars(part))
        return files

    @property
    def model_input_names(self) -> list[str]:
        return list(MODEL_INPUTS)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str | None] | None = None,
        rationales: Mapping[str, str | None] | Sequence[Mapping[str, str | None] | None] | None = None,
        rationales_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Unpack[MPTProcessorKwargs],
    ) -> BatchFeature:
        """
        Convert posts to the tensors that a model reads.

        Args:
            images: one image or a list of B; `None` or an empty list for a post without one. PIL images of any mode
                (upright as their EXIF says, transparency on white, the first frame of an animation), paths, URLs,
                bytes, or arrays and tensors `(height, width, 3)` or `(3, height, width)`. As in transformers'
                processors, paths are opened and URLs fetched: check those that others wrote. [`MPTPipeline`] fetches
                no URL.
            text: one text or a list of B; `None` or a blank string for a post without text.
            rationales: one mapping or a list of B from perspective to rationale; absent, `None` or blank ones are
                masked.
            rationales_kwargs (mapping, *optional*): as `text_kwargs`, for the rationales. Default: those of the texts,
                but for `max_length`, which is the processor's `rationale_max_length`.
            kwargs: as of any processor, flat or in the groups `text_kwargs`, `images_kwargs` and `common_kwargs`.
                - `padding`: `True` or `"longest"` (default), `"max_length"`, or `False` (with `return_tensors=None`,
                  or for texts of equal length). The side is the tokenizer's, or `padding_side`.
                - `max_length`, `truncation`: of texts. `max_length` may not exceed the tokenizer's `model_max_length`.
                - `return_tensors`: `"pt"` (default), `"np"`, or `None` for lists.
                - `add_special_tokens`, `pad_to_multiple_of`, and all arguments of the image processor.

        Returns:
            [`BatchFeature`] with those of `input_ids`, `attention_mask` `(B, L)`, `pixel_values`
            `(B, 3, height, width)`, `image_mask` `(B,)`, `rationale_input_ids`, `rationale_attention_mask`
            `(B, P, R)` that any post of the batch has. A row of zeros in an attention mask is an absent text or
            rationale.

        Raises:
            ValueError: For lists of unequal length, an unknown perspective or argument, a post with nothing to read,
                an image that cannot be decoded, and values of other types than above. The message names the post by
                its index.
        """
        check_names(kwargs, rationales_kwargs, self.image_processor)
        text_kwargs, images_kwargs = self._kwargs_by_modality(kwargs)
        form = form_of(text_kwargs, images_kwargs)
        images, texts, rationales = as_lists(images, text, rationales)
        size = len(images)
        prepare = TEXT_PREPROCESSING[self.text_preprocessing]
        texts = [checked_text(value, f"The text of post {index}", prepare) for index, value in enumerate(texts)]
        rows = [self._rationale_row(row, index) for index, row in enumerate(rationales)]
        for index in range(size):
            if images[index] is None and texts[index] is None and not any(rows[index]):
                raise ValueError(f"Post {index} of the batch must have an image, a text or a rationale, but has none.")
        data: dict[str, Any] = {}
        if any(texts):
            ids, mask = self._tokenize(texts, "text", text_kwargs)
            data["input_ids"], data["attention_mask"] = in_form(ids, form), in_form(mask, form)
        if any(image is not None for image in images):
            pixels, present = self._pixels(images, images_kwargs)
            data["pixel_values"] = in_form(pixels, form)
            data["image_mask"] = in_form(present, form)
        if any(any(row) for row in rows):
            own = {**text_kwargs, "max_length": None, **without_none(rationales_kwargs or {})}
            flat = self._tokenize([rationale for row in rows for rationale in row], "rationale", own)
            for name, values in zip(("rationale_input_ids", "rationale_attention_mask"), flat, strict=True):
                count = len(self.perspectives)
                data[name] = in_form([values[start : start + count] for start in range(0, len(values), count)], form)
        return BatchFeature(data)

    def token_ids(self, texts: Sequence[str | None], kind: str = "text") -> list[list[int]]:
        """Tokenize texts without padding, as a call does.

        Args:
            texts: texts or rationales.
            kind (`str`): `"text"` or `"rationale"`, which have limits of their own.

        Returns:
            The ids of each; an empty list for `None` or a blank text.
        """
        prepare = TEXT_PREPROCESSING[self.text_preprocessing] if kind == "text" else str
        texts = [checked_text(value, f"The {kind} {index}", prepare) for index, value in enumerate(texts)]
        if not any(texts):
            return [[] for _ in texts]
        text_kwargs, _ = self._kwargs_by_modality({"padding": False})
        return self._tokenize(texts, kind, text_kwargs)[0]

    def _kwargs_by_modality(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of tokenizer and image processor, with the tokenizer's settings."""
        # Copies: transformers 5.11 empties the groups that it is given.
        groups = {
            name: without_none(value) if name.endswith("_kwargs") else value
            for name, value in without_none(kwargs).items()
        }
        # The tokenizer's `max_length` is the default of the processor's.
        settings = without_none({**self.tokenizer.init_kwargs, "max_length": None})
        try:
            merged = self._merge_kwargs(
                MPTProcessorKwargs,
                tokenizer_init_kwargs=settings,
                **groups,
            )
        except StrictDataclassError as error:
            raise ValueError(" ".join(str(error).split())) from None
        return {"padding_side": self.tokenizer.padding_side, **merged["text_kwargs"]}, merged["images_kwargs"]

    def _rationale_row(self, row: Mapping[str, str | None] | None, index: int) -> list[str | None]:
        if row is not None and not isinstance(row, Mapping):
            raise ValueError(
                f"The rationales of post {index} must be a mapping, e.g. {{{self.perspectives[0]!r}: 'The image shows "
                f"…'}}, or None, got {reprlib.repr(row)}."
            )
        unknown = sorted(set(row or {}) - set(self.perspectives))
        if unknown:
            raise ValueError(
                f"Post {index} of the batch has rationales for {unknown}; the perspectives are {self.perspectives}."
            )
        return [
            checked_text((row or {}).get(perspective), f"The {perspective} rationale of post {index}")
            for perspective in self.perspectives
        ]

    def _tokenize(
        self, texts: list[str | None], kind: str, kwargs: Mapping[str, Any]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Return rows of ids and of their mask; those of `None` have an empty mask."""
        option = {"text": "max_length", "rationale": "rationale_max_length"}[kind]
        allowed = self.tokenizer.model_max_length
        limit = kwargs.get("max_length")
        limit = min(getattr(self, option), allowed) if limit is None else token_limit("max_length", limit)
        if limit > allowed:
            raise ValueError(
                f"`max_length` may be at most the tokenizer's `model_max_length`, {allowed}, got {limit}."
            )
        special = {name: kwargs[name] for name in ("add_special_tokens",) if kwargs.get(name) is not None}
        given = [value for value in texts if value is not None]
        encoded = self.tokenizer(given, truncation=kwargs["truncation"], max_length=limit, padding=False, **special)[
            "input_ids"
        ]
        full = [value for value, ids in zip(given, encoded, strict=True) if len(ids) == limit]
        if full:  # only these can have been truncated
            cut = sum(len(ids) > limit for ids in self.tokenizer(full, verbose=False, **special)["input_ids"])
            if cut and not self.truncated[kind]:
                logger.warning(
                    "A %s was truncated to %d tokens; `processor.truncated` counts them. Raise `%s` if the text "
                    "encoder reads more.",
                    kind,
                    limit,
                    option,
                )
            self.truncated[kind] += cut
        remaining = iter(encoded)
        ids = [[] if value is None else next(remaining) for value in texts]
        mask = [[1] * len(row) for row in ids]
        return padded(ids, self.tokenizer.pad_token_id or 0, kwargs, limit), padded(mask, 0, kwargs, limit)

    def _pixels(self, images: list[Any], kwargs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pixels `(len(images), 3, height, width)`, zero for `None`, and their mask."""
        present = torch.tensor([image is not None for image in images])
        given = [checked_image(image, f"The image of post {i}") for i, image in enumerate(images) if image is not None]
        if kwargs.get("input_data_format") is None:
            given = [bands(image) for image in given]
        try:
            pixels = self.image_processor(given, **{**kwargs, "return_tensors": "pt"})["pixel_values"]
        except ValueError as error:
            raise ValueError(
                f"The images make no tensor ({str(error)[:150]}). A batch has images of one size: leave "
                "`do_resize` on, with a `size` of height and width."
            ) from error
        all_pixels = pixels.new_zeros(len(images), *pixels.shape[1:])
        all_pixels[present] = pixels
        return all_pixels, present


def _forget_class(values: dict[str, Any]) -> None:
    """Remove the class of the processor from a configuration or the attributes of a part."""
    classes = values.get("auto_map") or {}
    classes.pop("AutoProcessor", None)
    if "auto_map" in values and not classes:
        del values["auto_map"]


def _has_values(posts: Any, column: str) -> bool:
    """Return whether any post of a dataset has a value in this column."""
    if column not in posts.column_names:
        return False
    tables = posts.select_columns([column]).with_format("arrow").iter(1000)  # images stay undecoded
    return any(table.column(column).null_count < len(table) for table in tables)
