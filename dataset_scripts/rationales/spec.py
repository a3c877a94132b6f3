"""Specification of rationales: everything that changes the questions to the model."""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

from dataset_scripts.reading.option_names import field
from dataset_scripts.schema import PERSPECTIVES

LANGUAGES = ("en", "zh", "auto")
# One patch of Qwen-VL.
MIN_PIXELS = 28 * 28


@dataclasses.dataclass(frozen=True)
class RationaleSpec:
    """Specification of rationales. Stores with equal specifications hold the same kind of data.

    The engine's address, the concurrency and the gate do not change the questions, so they are not part of it.

    Attributes:
        model (`str`): name of the model in the engine.
        revision (`str`, *optional*): commit of its weights, if the engine has this information.
        prompt (`str`): name of the prompt file.
        prompt_hash (`str`): SHA-256 of the prompt's content (`prompts.load_prompt`).
        language (`str`): language of the rationales: `"en"`, `"zh"`, or `"auto"` (that of each post).
        perspectives (tuple of `str`): perspectives asked for each post, in this order.
        max_pixels (`int`): larger images are scaled down before they are sent.
        max_tokens (`int`): maximum length of an answer.
        temperature (`float`): sampling temperature of the first attempt; re-asks use at least 0.7.
        seed (`int`): seed of the first attempt; re-asks add their number.
        repetition_penalty (`float`, *optional*): sent to engines that support it.
        extra_body (`dict`, *optional*):
            JSON fields merged into each request to a server; null removes a field.

    Raises:
        ValueError: a field has an invalid value.
    """

    model: str
    prompt_hash: str
    revision: str | None = None
    prompt: str = "default"
    language: str = "auto"
    perspectives: tuple[str, ...] = PERSPECTIVES
    max_pixels: int = 1280 * 28 * 28
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    repetition_penalty: float | None = 1.05
    extra_body: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("model", "prompt", "prompt_hash"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"`{name}` must be a non-blank string, got {value!r}.")
        if self.language not in LANGUAGES:
            raise ValueError(f"`language` must be one of {', '.join(LANGUAGES)}, got {self.language!r}.")
        if isinstance(self.perspectives, str) or not self.perspectives:
            raise ValueError(f"`perspectives` must be a sequence of at least one name, got {self.perspectives!r}.")
        object.__setattr__(self, "perspectives", tuple(self.perspectives))
        if len(set(self.perspectives)) < len(self.perspectives) or not all(self.perspectives):
            raise ValueError(f"`perspectives` must be unique and not blank, got {self.perspectives!r}.")
        for name, least in (("max_pixels", MIN_PIXELS), ("max_tokens", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"`temperature` must be a number of at least 0, got {self.temperature!r}.")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"`repetition_penalty` must be positive or None, got {self.repetition_penalty!r}.")
        _check_extra_body(self.extra_body)
        object.__setattr__(self, "extra_body", self.extra_body or None)

    @functools.cached_property
    def spec_hash(self) -> str:
        """SHA-256 of the fields as canonical JSON, in hexadecimal."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values. Inverse of `from_dict`."""
        fields = dataclasses.asdict(self)
        if self.extra_body is None:  # as in stores of versions without this field
            del fields["extra_body"]
        # 0 and 0.0 must have the same hash
        return fields | {"perspectives": list(self.perspectives), "temperature": float(self.temperature)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RationaleSpec":
        """Create a specification from the output of `to_dict`.

        Raises:
            ValueError: a field is missing or unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() | {"extra_body"} != known:
            raise ValueError(
                f"The specification has missing or unknown fields: {', '.join(sorted(fields.keys() ^ known))}. It may "
                "have been written by another version."
            )
        return cls(**(fields | {"perspectives": tuple(fields["perspectives"])}))

    def differences(self, other: "RationaleSpec") -> list[str]:
        """List the fields with different values, as `field: own value, not other value`."""
        own, others = self.to_dict(), other.to_dict()
        return [
            f"{name}: {own.get(name)!r}, not {others.get(name)!r}"
            for name in own | others
            if own.get(name) != others.get(name)
        ]


def _check_extra_body(fields: Any) -> None:
    """Check fields that are merged into each request.

    Raises:
        ValueError: not a JSON object, or a field that has an option of its own.
    """
    if fields is None:
        return
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError(f'`extra_body` must be a JSON object such as {{"top_p": 0.9}}, got {type(fields).__name__}.')
    for name in ("messages", "stream", "n"):
        if name in fields:
            raise ValueError(f"`extra_body` cannot change {name!r}. Remove it.")
    for name in ("model", "max_tokens", "temperature", "seed", "repetition_penalty"):
        if fields.get(name) is not None:
            raise ValueError(
                f"`extra_body` has {name!r}, which is an option of its own: {field(name, fields[name])}. Only null, "
                "which leaves the field out, is possible here."
            )
    try:
        canonical_json(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`extra_body` must have JSON values: {error}.") from None


def item_key(spec_hash: str, image_sha256: str | None, text_sha256: str | None, perspective: str) -> str:
    """Return the key of one answer, equal for posts with the same content.

    Id and path of the post are not part of it. They are not sent to the model, and paths of published datasets contain
    the label.
    """
    content = canonical_json([spec_hash, image_sha256, text_sha256, perspective])
    return hashlib.sha256(content.encode()).hexdigest()


def content_key(image_sha256: str | None, text_sha256: str | None) -> str:
    """Return the key of a post's content, equal for posts that are the same to a model."""
    return f"{image_sha256 or ''}:{text_sha256 or ''}"


def canonical_json(value: Any) -> str:
    """Serialize to JSON, with the same output for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
