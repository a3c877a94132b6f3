"""What a rationale depends on: two stores with one specification hold the same kind of data, and only those mix."""

import dataclasses
import functools
import hashlib
import json
from typing import Any

from dataset_scripts.schema import PERSPECTIVES

LANGUAGES = ("en", "zh", "auto")


@dataclasses.dataclass(frozen=True)
class RationaleSpec:
    """Everything that changes what is asked of the model. Not in it: where the model runs, how many requests run at
    a time, and the gate, because none of these changes the question.

    Attributes:
        model (`str`): name under which the engine knows the model.
        revision (`str`, *optional*): commit of its weights; `None` where the engine cannot tell.
        prompt (`str`): name of the prompt file.
        prompt_hash (`str`): SHA-256 of the prompt's content (`prompts.load_prompt`).
        language (`str`): of the rationales: `"en"`, `"zh"`, or `"auto"` (each post's own).
        perspectives (tuple of `str`): what is asked for each post, in this order.
        max_pixels (`int`): larger images are scaled down to it before they are sent.
        max_tokens (`int`): longest answer.
        temperature (`float`): of the first try; re-asks sample warmer.
        seed (`int`): of the first try; re-asks add their number.
        repetition_penalty (`float`, *optional*): where the engine takes one.
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

    def __post_init__(self) -> None:
        for name in ("model", "prompt", "prompt_hash"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name}={value!r}; it must be a text that is not blank.")
        if self.language not in LANGUAGES:
            raise ValueError(f"language={self.language!r}; write one of {', '.join(LANGUAGES)}.")
        if isinstance(self.perspectives, str) or not self.perspectives:
            raise ValueError(f"perspectives={self.perspectives!r}; give at least one name, e.g. ('positive',).")
        object.__setattr__(self, "perspectives", tuple(self.perspectives))
        if len(set(self.perspectives)) < len(self.perspectives) or not all(self.perspectives):
            raise ValueError(f"perspectives={self.perspectives!r}; write each name once, none of them blank.")
        for name in ("max_pixels", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}; it must be a whole number of at least 1.")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature!r}; it must not be negative.")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty!r}; it must be positive, or None.")

    @functools.cached_property
    def spec_hash(self) -> str:
        """SHA-256 (hex) of the fields as canonical JSON: the same in any process, on any machine."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        fields = dataclasses.asdict(self)
        # 0 and 0.0 are one temperature, and one hash
        return fields | {"perspectives": list(self.perspectives), "temperature": float(self.temperature)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RationaleSpec":
        """The specification that `to_dict` wrote.

        Raises:
            ValueError: a field is missing, or one that this version does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != known:
            raise ValueError(
                f"not the fields of a specification: {', '.join(sorted(fields.keys() ^ known))} missing or unknown; "
                "was this written by another version?"
            )
        return cls(**(fields | {"perspectives": tuple(fields["perspectives"])}))

    def differences(self, other: "RationaleSpec") -> list[str]:
        """`field: mine, not theirs` for each field in which the two are not the same."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name}: {mine[name]!r}, not {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


def item_key(spec_hash: str, image_sha256: str | None, text_sha256: str | None, perspective: str) -> str:
    """Name of one answer by the content of what was asked: posts that are the same are asked once.

    The id and the path of a post are not in it: neither reaches the model, and paths of published datasets spell
    the label.
    """
    content = canonical_json([spec_hash, image_sha256, text_sha256, perspective])
    return hashlib.sha256(content.encode()).hexdigest()


def content_key(image_sha256: str | None, text_sha256: str | None) -> str:
    """Return the key of a post's content, equal for posts that are the same to a model."""
    return f"{image_sha256 or ''}:{text_sha256 or ''}"


def canonical_json(value: Any) -> str:
    """One spelling for one value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
