"""What the runner asks: one method, three adapters (a server, this process, a deterministic stand-in)."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PermanentError,
    RetryableError,
)
from dataset_scripts.rationales.posts import PreparedPost

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

__all__ = [
    "Answer",
    "Engine",
    "EngineError",
    "FakeEngine",
    "MisconfiguredError",
    "OutageError",
    "PermanentError",
    "RetryableError",
    "check_prompt",
    "decoding",
    "generation_config",
]

# Of re-asks: what was decoded greedily before would come out the same again.
RETRY_TEMPERATURE = 0.7


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, and what it cost; counts are `None` where the engine does not tell.

    Attributes:
        text: as the model wrote it.
        finish_reason: `"stop"`, or `"length"` if it was cut off.
        prompt_tokens: of the whole prompt.
        cached_tokens: of these, not computed again.
        completion_tokens: written.
        system_fingerprint: which build of the server answered.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    system_fingerprint: str | None = None


class Engine(Protocol):
    """An engine answers one perspective of one post, or raises one of the classes of `errors.py`.

    `attempt` counts how often the gate sent this answer back, not how often a connection broke: 0 decodes as the
    specification says, later ones sample with the seed `seed + attempt`. One call is one request: engines neither
    repeat nor wait. `name` is for messages.
    """

    name: str

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer: ...

    async def healthy(self) -> bool: ...

    async def close(self) -> None: ...


def decoding(spec: RationaleSpec, attempt: int) -> tuple[float, int]:
    """(temperature, seed) of an attempt."""
    return (spec.temperature if attempt == 0 else max(spec.temperature, RETRY_TEMPERATURE)), spec.seed + attempt


def generation_config(spec: RationaleSpec, attempt: int) -> dict[str, Any]:
    """The decoding of an attempt in transformers' own terms. What a model ships beside its weights must not leak in:
    `top_k` and `top_p` are off."""
    temperature, _ = decoding(spec, attempt)
    # transformers warns of sampling settings that differ from its own defaults where it does not sample.
    sampling = {"temperature": temperature, "top_k": 0} if temperature > 0 else {"temperature": 1.0, "top_k": 50}
    return {
        "max_new_tokens": spec.max_tokens,
        "do_sample": temperature > 0,
        "top_p": 1.0,
        "repetition_penalty": spec.repetition_penalty or 1.0,
        **sampling,
    }


def check_prompt(spec: RationaleSpec, prompt: Prompt) -> None:
    """An engine must ask what the specification says.

    Raises:
        ValueError: `prompt` is not that of `spec`, or lacks one of its perspectives.
    """
    if prompt.hash != spec.prompt_hash:
        raise ValueError(
            f"The prompt {prompt.name!r} ({prompt.language}) has the hash {prompt.hash[:12]}; the specification "
            f"asks for {spec.prompt_hash[:12]} ({spec.prompt!r}, {spec.language}); load that one."
        )
    absent = [perspective for perspective in spec.perspectives if perspective not in prompt.perspectives]
    if absent:
        raise ValueError(
            f"The prompt {prompt.name!r} has no reading for {', '.join(absent)}, only for "
            f"{', '.join(prompt.perspectives)}; add it under `readings`, or leave the perspective out."
        )


# Sentences that pass the gate: enough words, nothing shared by the perspectives, and no class is named.
_PARTS = {
    "en": (
        ("The picture", "The first line", "The wording", "The composition", "The tone of the caption", "The scene"),
        (
            "draws the eye to",
            "keeps returning to",
            "sets apart",
            "lingers on",
            "leaves little room beside",
            "opens with",
        ),
        (
            "a single bright corner",
            "one plain detail",
            "the distance between people",
            "an ordinary afternoon",
            "its edges",
        ),
        (
            "and the text answers that",
            "which the words take up",
            "while the sentence stays short",
            "as the caption says",
        ),
        (
            "so the support is weak but present",
            "which carries this reading",
            "and little else is needed",
            "step by step",
        ),
    ),
    "zh": (
        ("画面", "文字开头", "用词", "构图", "配文的语气", "场景"),
        ("把目光引向", "反复提到", "突出了", "停留在", "几乎只留下", "一开始就是"),
        ("明亮的一角", "一个朴素的细节", "人与人之间的距离", "普通的一个下午", "画面的边缘"),
        ("，配文也呼应了这一点", "，词语接着展开", "，句子却很短", "，正如文字所写"),
        ("，因此依据较弱但确实存在。", "，这支持了这种解读。", "，不需要更多说明。", "，一步一步展开。"),
    ),
}


class FakeEngine:
    """Answers at once, without a model: the same post, perspective and attempt always get the same sentences.

    For tests and for trying out a run. Its answers say nothing about a post.
    """

    name = "fake"

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        content = f"{post.image_sha256} {post.text_sha256} {perspective} {attempt} {post.language}"
        sentences = []
        for number in range(2):
            digest = hashlib.sha256(f"{content} {number}".encode()).digest()
            words = [
                choices[byte % len(choices)] for choices, byte in zip(_PARTS[post.language], digest, strict=False)
            ]
            sentences.append("".join(words) if post.language == "zh" else f"{' '.join(words)}.")
        text = ("" if post.language == "zh" else " ").join(sentences)
        prompt_tokens = post.image_tokens + 100 + len(post.text or "")
        return Answer(text, "stop", prompt_tokens, 0, len(text), "fake")

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        return None
