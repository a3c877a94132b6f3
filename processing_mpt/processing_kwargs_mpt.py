"""Inputs and arguments of a call of MPTProcessor, and the forms of its result."""

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypedDict

import torch
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy


class MPTTextKwargs(TypedDict, total=False):
    """Arguments of a tokenizer that posts can have."""

    add_special_tokens: bool | None
    padding: bool | str | PaddingStrategy | None
    padding_side: str | None
    pad_to_multiple_of: int | None
    truncation: bool | str | TruncationStrategy | None
    max_length: int | None
    return_tensors: str | None


class MPTProcessorKwargs(ProcessingKwargs, total=False):
    """Arguments of a call of [`MPTProcessor`], grouped as transformers groups them."""

    text_kwargs: MPTTextKwargs

    _defaults = {"text_kwargs": {"padding": True, "truncation": True}}


def check_names(
    arguments: Mapping[str, Any], rationales_kwargs: Mapping[str, Any] | None, image_processor: Any
) -> None:
    """Check that a processor has these arguments.

    Raises:
        ValueError: It lacks one, or a group of them is no mapping.
    """
    text = set(MPTTextKwargs.__annotations__)
    of_images = getattr(getattr(image_processor, "valid_kwargs", None), "__annotations__", {})
    groups = {"text_kwargs": text, "images_kwargs": {*ImagesKwargs.__annotations__, *of_images}}
    everything = {"common_kwargs", *groups}.union(*groups.values())
    # Both the tokenizer and the image processor take the common ones.
    common = set.intersection(*groups.values())
    _check("MPTProcessor", arguments, everything, groups)
    given = {**arguments, "rationales_kwargs": rationales_kwargs}
    for group, known in {**groups, "common_kwargs": common, "rationales_kwargs": text - common}.items():
        values = given.get(group)
        if values is not None and not isinstance(values, Mapping):
            raise ValueError(f"`{group}` must be a mapping, e.g. {{'max_length': 64}}, got {values!r}.")
        _check(f"`{group}`", values or {}, known, groups)


def _check(owner: str, names: Mapping[str, Any], known: set[str], groups: Mapping[str, set[str]]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), sorted(known), n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Leave it out."
            home = next((group for group, members in groups.items() if name in members), None)
            raise ValueError(f"{owner} has no argument {name!r}. {f'Pass it in `{home}`.' if home else hint}")


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out arguments that are None, the default, except `return_tensors`."""
    return {name: value for name, value in values.items() if value is not None or name == "return_tensors"}


def token_limit(name: str, value: Any) -> int:
    """Return a limit of tokens.

    Raises:
        ValueError: It is no whole number, or below 1.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive number of tokens, got {value!r}.")
    return int(value)


def as_lists(images: Any, text: Any, rationales: Any) -> tuple[list, list, list]:
    """Return lists of equal length, of one for single values, of `None` for missing inputs."""
    if images is not None:
        many = isinstance(images, Sequence) and not isinstance(images, str | bytes) or getattr(images, "ndim", 3) == 4
        images = [_single(image, index) for index, image in enumerate(images if many else [images])]
    given = {"images": images, "text": text, "rationales": rationales}
    for name in ("text", "rationales"):
        values = given[name]
        if values is not None and (isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__")):
            given[name] = [values]
    sizes = {name: len(values) for name, values in given.items() if values is not None}
    if not any(sizes.values()):
        raise ValueError("At least one of `images`, `text`, `rationales` is required.")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Each list must have one entry per post (None for a missing one), got {sizes}.")
    size = next(iter(sizes.values()))
    return tuple([None] * size if values is None else list(values) for values in given.values())


def _single(image: Any, index: int) -> Any:
    """Return the image of a post that transformers' nested lists may hold."""
    if not isinstance(image, list | tuple):
        return image
    if len(image) > 1:
        raise ValueError(f"Post {index} of the batch has {len(image)} images; a post has one, or None.")
    return image[0] if image else None


def in_form(rows: Sequence[Any] | torch.Tensor, return_tensors: str | None) -> Any:
    """Return rows as a tensor (`"pt"`), an array (`"np"`) or a list (`None`).

    Raises:
        ValueError: Rows of unequal length, which make no tensor.
    """
    if return_tensors is None:
        return rows.tolist() if isinstance(rows, torch.Tensor) and rows.ndim == 1 else list(rows)
    try:
        tensor = rows if isinstance(rows, torch.Tensor) else torch.tensor(rows)
    except ValueError:
        raise ValueError(
            "Texts of unequal length make no tensor: leave out `padding` and `truncation`, or pass "
            "`return_tensors=None` for lists."
        ) from None
    return tensor if return_tensors == "pt" else tensor.numpy(force=True)


def form_of(text: Mapping[str, Any], images: Mapping[str, Any]) -> str | None:
    """Return the form of the result that is asked for, `"pt"` by default.

    Raises:
        ValueError: For an unknown form, or one form for texts and another for images.
    """
    given = [kwargs["return_tensors"] for kwargs in (text, images) if "return_tensors" in kwargs] or ["pt"]
    forms = {None if form is None else str(getattr(form, "value", form)) for form in given}
    if len(forms) > 1 or not forms <= {"pt", "np", None}:
        raise ValueError(f"`return_tensors` must be 'pt', 'np' or None, the same for all inputs, got {given}.")
    return forms.pop()


def padded(rows: list[list[int]], fill: int, kwargs: Mapping[str, Any], limit: int) -> list[list[int]]:
    """Pad rows as `padding`, `padding_side` and `pad_to_multiple_of` say.

    Raises:
        ValueError: For an unknown strategy or side.
    """
    padding = kwargs["padding"]
    strategy = PaddingStrategy(
        {True: "longest", False: "do_not_pad"}[padding] if isinstance(padding, bool) else padding
    )
    if strategy == PaddingStrategy.DO_NOT_PAD:
        return rows
    multiple, side = kwargs.get("pad_to_multiple_of") or 1, kwargs["padding_side"]
    if side not in ("left", "right"):
        raise ValueError(f"`padding_side` must be 'left' or 'right', got {side!r}.")
    width = limit if strategy == PaddingStrategy.MAX_LENGTH else max(map(len, rows))
    width = -(-width // multiple) * multiple
    padding = [[fill] * (width - len(row)) for row in rows]
    return [row + more if side == "right" else more + row for row, more in zip(rows, padding, strict=True)]
