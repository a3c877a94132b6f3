"""Engine for OpenAI-compatible servers: supported request fields, classified failures."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from huggingface_hub import AsyncInferenceClient, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
from huggingface_hub.utils import get_async_session

from dataset_scripts.rationales.engines.base import Answer, generation_config, temperature_and_seed
from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PermanentError,
    RetryableError,
)
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.reading.report import did_you_mean

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Message, Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

try:  # huggingface_hub 2 uses httpx2, 1 uses httpx
    import httpx2 as httpx
except ImportError:
    import httpx

HEALTH_TIMEOUT = 5.0
# httpx searches all connections of a client for each request, so many concurrent requests are spread over clients.
_REQUESTS_PER_CLIENT = 8
_EXCERPT_LENGTH = 300
# Status 400 because of the model name, e.g. "Server is pinned to ..." of transformers serve.
_WRONG_MODEL = re.compile(
    r"pinned to|\bmodel:? [`'\"]?[\w./:-]+[`'\"]? (?:was |is )?(?:not found|does not exist|not exist|not available)",
    re.IGNORECASE,
)
# Status 400 or 422 because of a field that this kind of server does not accept.
_WRONG_PROFILE = re.compile(
    r"unexpected fields|extra inputs are not permitted|unrecognized request argument", re.IGNORECASE
)
_RETRYABLE_STATUS = {408, 409, 425, 429}
_MISCONFIGURED_STATUS = {401, 402, 403, 404, 405}


@dataclasses.dataclass(frozen=True)
class Profile:
    """Request fields and paths that a kind of server supports.

    Servers reject an unknown field with status 422, or ignore it.

    Attributes:
        health: path that returns 200 while the server is alive.
        metrics: path of Prometheus counters.
        repetition_penalty: accepts `repetition_penalty` in the body.
        generation_config: accepts decoding parameters only as `generation_config`, a JSON string of
            `transformers.GenerationConfig`.
        chat_template_kwargs: accepts variables of the chat template; `enable_thinking` is set to false.
        choice: field that restricts an answer to given strings; `None` if there is none.
        logprobs: returns the log-probabilities of the most probable tokens.
        systemone: has the path `/v1/systemone` of transformers' decision pipeline.
    """

    health: str = "/health"
    metrics: str | None = None
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
PROFILES: Mapping[str, Profile] = {
    "vllm": _VLLM,
    "sglang": dataclasses.replace(_VLLM, choice="regex"),
    "transformers": Profile(generation_config=True, systemone=True),
    "openai": Profile(health="/v1/models", logprobs=True),
}


class Endpoint:
    """HTTP client of one server.

    Failures are raised as subclasses of `EngineError`, without a retry.

    Args:
        url: address of the server, with or without `/v1`.
        model: name of the model on the server.
        profile: key of `PROFILES`.
        api_key: bearer token.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: `url` is not an http(s) URL, `profile` is unknown, or huggingface_hub is in offline mode.
    """

    def __init__(
        self, url: str, model: str, *, profile: str = "vllm", api_key: str | None = None, timeout: float = 180.0
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(f"The endpoint must be an http(s) URL such as http://localhost:8000, got {url!r}.")
        if profile not in PROFILES:
            hint = did_you_mean(profile, PROFILES)
            raise ValueError(f"`profile` must be one of {', '.join(PROFILES)}, got {profile!r}.{hint}")
        if is_offline_mode():  # every request would fail like one to a server that is down
            raise ValueError(
                f"HF_HUB_OFFLINE=1 blocks all requests of huggingface_hub's client, also those to {url}. Set "
                "HF_HUB_OFFLINE=0 for this command."
            )
        self.url = re.sub(r"/v1/?$", "", url).rstrip("/")
        self.model = model
        self.profile = PROFILES[profile]
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Without an API key, the client would send the user's Hub token to the server.
        self._options = {"base_url": f"{self.url}/v1", "api_key": api_key or "EMPTY", "timeout": timeout}
        self._clients: list[AsyncInferenceClient] = []
        self._free: list[AsyncInferenceClient] = []  # one entry per request that a client can still accept

    async def chat(self, messages: list[Message], **fields: Any) -> Any:
        """Request a chat completion.

        Args:
            messages: messages of the chat.
            fields: further fields of the request; those outside the OpenAI schema in `extra_body`.

        Returns:
            First choice and completion, as parsed by huggingface_hub.

        Raises:
            EngineError: the request failed.
        """
        if not self._free:
            self._clients.append(AsyncInferenceClient(**self._options))
            self._free += [self._clients[-1]] * _REQUESTS_PER_CLIENT
        client = self._free.pop()
        try:
            completion = await client.chat_completion(messages, model=self.model, **fields)
        except Exception as error:
            raise await self._engine_error(error) from None
        finally:
            self._free.append(client)
        try:
            choice = completion.choices[0]
            if not isinstance(choice.message.content, str):
                raise RetryableError(f"{self.url}: answer without content (finish_reason {choice.finish_reason!r}).")
        except (AttributeError, IndexError, TypeError):
            raise RetryableError(f"{self.url}: answer without choices.") from None
        return choice, completion

    async def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post a JSON body and return the JSON answer; raises as `chat`."""
        try:
            async with get_async_session() as session:
                timeout = self._options["timeout"]
                response = await session.post(self.url + path, json=body, headers=self._headers, timeout=timeout)
            if response.status_code < 400:
                return response.json()
        except Exception as error:
            raise await self._engine_error(error) from None
        raise await self._status_error(response.status_code, response.text, response.headers)

    async def get(self, path: str) -> str | None:
        """Return the body of a GET request; `None` if it fails."""
        try:
            async with get_async_session() as session:
                response = await session.get(self.url + path, headers=self._headers, timeout=HEALTH_TIMEOUT)
        except (httpx.HTTPError, OSError):
            return None
        return response.text if response.status_code == 200 else None

    async def check_health(self) -> None:
        if await self.get(self.profile.health) is None:
            raise OutageError(f"{self.url} does not answer its health check.")

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def _engine_error(self, error: Exception) -> EngineError:
        """Convert an exception of the client into an `EngineError`."""
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            response = error.response
            return await self._status_error(response.status_code, response.text, response.headers)
        if isinstance(error, (InferenceTimeoutError, TimeoutError, httpx.TimeoutException)):
            return await self._retryable_or_outage(f"{self.url}: timeout", overloaded=True)
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
            return MisconfiguredError(f"{self.url} is not a valid address: {error}")
        if isinstance(error, (httpx.HTTPError, OSError)):
            return await self._retryable_or_outage(f"{self.url}: {type(error).__name__} {_excerpt(str(error))}")
        # Raised when parsing a truncated body, an HTML page of a proxy, or JSON of another structure.
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, IndexError)):
            return RetryableError(f"{self.url}: unreadable answer ({type(error).__name__}).")
        raise error

    async def _status_error(self, status: int, body: str, headers: Mapping[str, str]) -> EngineError:
        """Convert an HTTP error status into an `EngineError`."""
        message = f"{self.url}: status {status}: {_excerpt(body)}"
        beginning = body[: 4 * _EXCERPT_LENGTH]
        if status in _MISCONFIGURED_STATUS or (status == 400 and _WRONG_MODEL.search(beginning)):
            return MisconfiguredError(message)
        if status in (400, 422) and _WRONG_PROFILE.search(beginning):
            return MisconfiguredError(f"{message} Choose another profile: {', '.join(PROFILES)}.")
        wait = _retry_after(headers.get("retry-after"))
        if status in _RETRYABLE_STATUS:
            return RetryableError(message, wait, overloaded=status == 429)
        if status >= 500:  # also sent by a crashing server, or by a proxy whose server is down
            return await self._retryable_or_outage(message, wait, overloaded=status == 503)
        return PermanentError(message)

    async def _retryable_or_outage(
        self, message: str, retry_after: float | None = None, overloaded: bool = False
    ) -> EngineError:
        """Distinguish a failed request from a server that is down, by a health check."""
        try:
            await self.check_health()
        except EngineError:
            return OutageError(f"{message}; the health check fails too.")
        return RetryableError(message, retry_after, overloaded)


class EndpointEngine:
    """Engine that requests rationales from a server.

    Some servers ignore the requested model name; `check_server` verifies it.

    Args:
        url: address of the server.
        spec: specification with the decoding parameters.
        prompt: prompt of `spec`.
        options: `profile`, `api_key` and `timeout` of `Endpoint`.
    """

    def __init__(self, url: str, spec: RationaleSpec, prompt: Prompt, **options: Any) -> None:
        check_prompt(spec, prompt)
        self.endpoint = Endpoint(url, spec.model, **options)
        self.name = self.endpoint.url
        self.spec = spec
        self.prompt = prompt

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Request one rationale.

        Raises:
            EngineError: the request failed.
        """
        choice, completion = await self.endpoint.chat(
            self.prompt.messages(post, perspective), **request_fields(self.spec, self.endpoint.profile, attempt)
        )
        return to_answer(choice, completion)

    async def check_health(self) -> None:
        """Raise the reason why the server cannot be asked: `OutageError` or `MisconfiguredError`."""
        await self.endpoint.check_health()

    async def close(self) -> None:
        await self.endpoint.close()


def to_answer(choice: Any, completion: Any) -> Answer:
    """Convert the result of `Endpoint.chat`."""
    usage = completion.usage
    details = usage.get("prompt_tokens_details") if usage else None
    return Answer(
        text=choice.message.content,
        finish_reason=choice.finish_reason,
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=details.get("cached_tokens") if isinstance(details, Mapping) else None,
        completion_tokens=usage.completion_tokens if usage else None,
        system_fingerprint=completion.system_fingerprint or None,
    )


def request_fields(spec: RationaleSpec, profile: Profile, attempt: int) -> dict[str, Any]:
    """Return the decoding parameters of an attempt as fields that the server accepts."""
    temperature, seed = temperature_and_seed(spec, attempt)
    fields: dict[str, Any] = {"max_tokens": spec.max_tokens, "seed": seed}
    extra: dict[str, Any] = {}
    if profile.generation_config:
        extra["generation_config"] = json.dumps(generation_config(spec, attempt))
    else:
        fields["temperature"] = temperature
        if profile.repetition_penalty and spec.repetition_penalty is not None:
            extra["repetition_penalty"] = spec.repetition_penalty
    if profile.chat_template_kwargs:
        extra["chat_template_kwargs"] = {"enable_thinking": False}
    return fields | {"extra_body": extra}


def _retry_after(value: str | None) -> float | None:
    """Parse a `Retry-After` header, a number of seconds or an HTTP date; `None` if invalid."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _excerpt(body: str) -> str:
    """Shorten a message to one line, without image data that the server quotes from the request."""
    return " ".join(re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,...", body).split())[:_EXCERPT_LENGTH]
