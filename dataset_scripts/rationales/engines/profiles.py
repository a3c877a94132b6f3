"""Request fields that kinds of servers support, and the body of a request."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.engines.base import generation_config, temperature_and_seed
from dataset_scripts.reading.report import did_you_mean

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Message
    from dataset_scripts.rationales.spec import RationaleSpec


@dataclasses.dataclass(frozen=True)
class Profile:
    """Request fields and paths that a kind of server supports.

    Servers reject an unknown field with status 400 or 422, or ignore it.

    Attributes:
        health: path that returns 200 while the server is alive; `None`: the list of models shows it.
        metrics: path of Prometheus counters.
        token_limit: name of the field with the maximum number of tokens.
        temperature: accepts `temperature`.
        seed: accepts `seed`.
        system_role: accepts a message of the system; otherwise its text begins the message of the user.
        repetition_penalty: accepts `repetition_penalty` in the body.
        generation_config: accepts decoding parameters only as `generation_config`, a JSON string of
            `transformers.GenerationConfig`.
        chat_template_kwargs: accepts variables of the chat template; `enable_thinking` is set to false.
        choice: field that restricts an answer to given strings; `None` if there is none.
        logprobs: returns the log-probabilities of the most probable tokens.
        systemone: has the path `/v1/systemone` of transformers' decision pipeline.
    """

    health: str | None = "/health"
    metrics: str | None = None
    token_limit: str = "max_tokens"
    temperature: bool = True
    seed: bool = True
    system_role: bool = True
    repetition_penalty: bool = False
    generation_config: bool = False
    chat_template_kwargs: bool = False
    choice: str | None = None
    logprobs: bool = False
    systemone: bool = False


_VLLM = Profile(
    metrics="/metrics",
    repetition_penalty=True,
    chat_template_kwargs=True,
    choice="structured_outputs",
    logprobs=True,
)
REASONING, MINIMAL = "openai_reasoning", "minimal"
PROFILES: Mapping[str, Profile] = {
    "vllm": _VLLM,
    "sglang": dataclasses.replace(_VLLM, choice="regex"),
    "transformers": Profile(temperature=False, generation_config=True, systemone=True),
    "openai": Profile(health=None, logprobs=True),
    # Reasoning models of OpenAI accept neither `max_tokens` nor a temperature.
    REASONING: Profile(health=None, token_limit="max_completion_tokens", temperature=False, seed=False),
    # Fields that every server knows.
    MINIMAL: Profile(temperature=False, seed=False, system_role=False),
}


def profile_named(name: str) -> Profile:
    """Return a profile of `PROFILES`.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PROFILES:
        hint = did_you_mean(name, PROFILES)
        raise ValueError(f"`profile` must be one of {', '.join(PROFILES)}, got {name!r}.{hint}")
    return PROFILES[name]


def request_body(
    spec: RationaleSpec, profile: Profile, messages: list[Message], attempt: int = 0, **fields: Any
) -> dict[str, Any]:
    """Return the body of a chat request, with the decoding parameters that the server accepts.

    Args:
        spec: specification; its `extra_body` is merged into the body at last.
        profile: fields that the server accepts.
        messages: messages of the chat.
        attempt: see `Engine`.
        fields: further fields of the request.
    """
    temperature, seed = temperature_and_seed(spec, attempt)
    body: dict[str, Any] = {
        "model": spec.model,
        "messages": messages if profile.system_role else without_system_role(messages),
        "stream": False,
        profile.token_limit: spec.max_tokens,
    }
    if profile.seed:
        body["seed"] = seed
    if profile.temperature:
        body["temperature"] = temperature
    if profile.generation_config:
        body["generation_config"] = json.dumps(generation_config(spec, attempt))
    if profile.repetition_penalty and spec.repetition_penalty is not None:
        body["repetition_penalty"] = spec.repetition_penalty
    if profile.chat_template_kwargs:
        body["chat_template_kwargs"] = {"enable_thinking": False}
    return merged(body | fields, spec.extra_body or {})


def merged(body: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge fields into a body, objects field by field; null removes a field (RFC 7396)."""
    result = dict(body)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            earlier = result.get(name)
            result[name] = merged(earlier if isinstance(earlier, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def without_system_role(messages: list[Message]) -> list[Message]:
    """Begin the first message of the user with the text of the message of the system."""
    if not messages or messages[0]["role"] != "system":
        return messages
    system, user, *rest = messages
    text = {"type": "text", "text": f"{system['content']}\n\n"}
    return [{"role": "user", "content": [text, *user["content"]]}, *rest]
