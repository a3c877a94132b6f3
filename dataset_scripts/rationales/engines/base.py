"""Protocol of engines, their decoding parameters, and a deterministic engine for tests."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.spec import RationaleSpec

# Later attempts sample: greedy decoding would repeat the rejected answer.
RETRY_TEMPERATURE = 0.7


@dataclasses.dataclass(frozen=True)
class Answer:
    """Answer of an engine with its token counts; `None` where the engine does not report one.

    Attributes:
        text: raw output of the model.
        finish_reason: `"stop"`, `"length"` if the answer reached the token limit, or another word of the server in
            lower case; `"unknown"` if it has none.
        prompt_tokens: tokens of the whole prompt.
        cached_tokens: tokens of the prompt that were taken from a cache.
        completion_tokens: tokens of the answer.
        system_fingerprint: build of the server.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    system_fingerprint: str | None = None


class Engine(Protocol):
    """Model that writes a rationale for one perspective of one post.

    `generate` makes exactly one request, without retry or waiting, and raises a subclass of `errors.EngineError` if it
    fails. `attempt` counts answers that the gate rejected, not failed connections: attempt 0 decodes as specified,
    later ones sample with `seed + attempt`. `name` appears in messages. `check_health` raises `OutageError` if waiting
    may help, and `MisconfiguredError` if the user has to change something.
    """

    name: str

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer: ...

    async def check_health(self) -> None: ...

    async def close(self) -> None: ...


def temperature_and_seed(spec: RationaleSpec, attempt: int) -> tuple[float, int]:
    """Return the temperature and the seed of an attempt."""
    return (spec.temperature if attempt == 0 else max(spec.temperature, RETRY_TEMPERATURE)), spec.seed + attempt


def generation_config(spec: RationaleSpec, attempt: int) -> dict[str, Any]:
    """Return the arguments of `transformers.GenerationConfig` for an attempt.

    They override the defaults in the model's repository: `top_k` and `top_p` are disabled.
    """
    temperature, _ = temperature_and_seed(spec, attempt)
    # transformers warns about sampling parameters that differ from its defaults if it does not sample.
    sampling = {"temperature": temperature, "top_k": 0} if temperature > 0 else {"temperature": 1.0, "top_k": 50}
    return {
        "max_new_tokens": spec.max_tokens,
        "do_sample": temperature > 0,
        "top_p": 1.0,
        "repetition_penalty": spec.repetition_penalty or 1.0,
        **sampling,
    }


# Parts of sentences that pass the gate and name no class; a sentence takes one of each.
_PARTS = {
    "en": (
        "The picture|The first line|The wording|The composition|The tone of the caption|The scene",
        "draws the eye to|keeps returning to|sets apart|lingers on|leaves little room for|opens with",
        "a single bright corner|one plain detail|the distance between people|an ordinary afternoon|its edges",
        "and the text answers that|which the words take up|while the sentence stays short|as the caption says",
        "so the support is weak but present|which carries this reading|and little else is needed|step by step",
    ),
    "zh": (
        "画面|文字开头|用词|构图|配文的语气|场景",
        "把目光引向|反复提到|突出了|停留在|几乎只留下|一开始就是",
        "明亮的一角|一个朴素的细节|人与人之间的距离|普通的一个下午|画面的边缘",
        "，配文也呼应了这一点|，词语接着展开|，句子却很短|，正如文字所写",
        "，因此依据较弱但确实存在。|，这支持了这种解读。|，不需要更多说明。|，一步一步展开。",
    ),
}


class FakeEngine:
    """Deterministic engine without a model, for tests and trial runs.

    An answer depends on post, perspective and attempt. Its content has no relation to the post.
    """

    name = "fake"

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        content = f"{post.image_sha256} {post.text_sha256} {perspective} {attempt} {post.language}"
        choices = [parts.split("|") for parts in _PARTS[post.language]]
        sentences = []
        for number in range(2):
            digest = hashlib.sha256(f"{content} {number}".encode()).digest()
            words = [parts[byte % len(parts)] for parts, byte in zip(choices, digest, strict=False)]
            sentences.append("".join(words) if post.language == "zh" else f"{' '.join(words)}.")
        text = ("" if post.language == "zh" else " ").join(sentences)
        prompt_tokens = post.image_tokens + 100 + len(post.text or "")
        return Answer(text, "stop", prompt_tokens, 0, len(text), "fake")

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        return None
