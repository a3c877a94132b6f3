"""Any OpenAI-compatible server as an engine: what may be sent to it, and what its failures mean."""

from __future__ import annotations

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

from dataset_scripts.rationales.engines.base import Answer, check_prompt, decoding, generation_config
from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PermanentError,
    RetryableError,
)

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Message, Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

try:  # huggingface_hub 2 stands on httpx2, 1 on httpx
    import httpx2 as httpx
except ImportError:
    import httpx

HEALTH_TIMEOUT = 5.0
# A client opens at most 100 connections, keeps 20 of them open while they idle, and looks through all of them for each
# request. So there is another client for every so many requests at a time.
_PER_CLIENT = 8
_EXCERPT = 300
# A 400 that is about the model's name and not about the item. transformers serve: "Server is pinned to ...".
_WRONG_MODEL = re.compile(
    r"pinned to|\bmodel:? [`'\"]?[\w./:-]+[`'\"]? (?:was |is )?(?:not found|does not exist|not exist|not available)",
    re.IGNORECASE,
)
# A field that this kind of server does not take, in every request alike.
_WRONG_PROFILE = re.compile(
    r"unexpected fields|extra inputs are not permitted|unrecognized request argument", re.IGNORECASE
)
_RETRYABLE = {408, 409, 425, 429}
_MISCONFIGURED = {401, 402, 403, 404, 405}


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a kind of server takes. A field that it does not know is answered by 422, or ignored in silence.

    Attributes:
        health: path of a request that only a live server answers by 200.
        metrics: path of Prometheus counters.
        repetition_penalty: takes it in the body.
        generation_config: takes the whole decoding as `generation_config`, a JSON string of transformers' own, and
            ignores the temperature outside it.
        chat_template_kwargs: takes variables of the chat template; `enable_thinking` is switched off there.
        choice: field that restricts an answer to given strings; `None` if there is none.
        logprobs: tells the log-probabilities of the most probable tokens.
        systemone: answers typed questions with probabilities at `/v1/systemone`.
    """

    health: str = "/health"
    metrics: str | None = None
    repetition_penalty: bool = False
    generation_config: bool = False
    chat_template_kwargs: bool = False
    choice: str | None = None
    logprobs: bool = False
    systemone: bool = False


PROFILES: Mapping[str, Profile] = {
    "vllm": Profile(
        metrics="/metrics",
        repetition_penalty=True,
        chat_template_kwargs=True,
        choice="structured_outputs",
        logprobs=True,
    ),
    "sglang": Profile(
        metrics="/metrics", repetition_penalty=True, chat_template_kwargs=True, choice="regex", logprobs=True
    ),
    "transformers": Profile(generation_config=True, systemone=True),
    "openai": Profile(health="/v1/models", logprobs=True),
}


class Endpoint:
    """Requests to one server, with its failures sorted into the four classes. No request is repeated here.

    Args:
        url: of the server, with or without `/v1`.
        model: name under which the server knows the model.
        profile: one of `PROFILES`.
        api_key: sent as bearer token.
        timeout: seconds after which an answer counts as lost.

    Raises:
        ValueError: `url` is not an http(s) URL, `profile` is unknown, or huggingface_hub is in offline mode.
    """

    def __init__(
        self, url: str, model: str, *, profile: str = "vllm", api_key: str | None = None, timeout: float = 180.0
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(f"{url!r} is not the address of a server; write it like http://localhost:8000.")
        if profile not in PROFILES:
            raise ValueError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
        if is_offline_mode():  # each request would fail, and look like a server that is gone
            raise ValueError(
                f"HF_HUB_OFFLINE=1 keeps huggingface_hub's client from every server, {url} too. Set HF_HUB_OFFLINE=0 "
                "for this command."
            )
        self.url = re.sub(r"/v1/?$", "", url).rstrip("/")
        self.model = model
        self.profile = PROFILES[profile]
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout
        # Without a key of its own, a client would send the user's Hub token to whatever server stands there.
        self._options = {"base_url": f"{self.url}/v1", "api_key": api_key or "EMPTY", "timeout": timeout}
        self._clients: list[AsyncInferenceClient] = []
        self._free: list[AsyncInferenceClient] = []  # each client as often as it may take another request

    async def chat(self, messages: list[Message], **fields: Any) -> Any:
        """The first choice of a chat completion, with `usage` and `system_fingerprint` of the whole.

        Args:
            messages: of the chat.
            fields: further fields of the request; those that are not part of the OpenAI schema as `extra_body`.

        Returns:
            (choice, completion): as parsed by huggingface_hub.

        Raises:
            EngineError: one of the four classes.
        """
        if not self._free:
            self._clients.append(AsyncInferenceClient(**self._options))
            self._free += [self._clients[-1]] * _PER_CLIENT
        client = self._free.pop()
        try:
            completion = await client.chat_completion(messages, model=self.model, **fields)
        except Exception as error:
            raise await self._classified(error) from None
        finally:
            self._free.append(client)
        try:
            choice = completion.choices[0]
            if not isinstance(choice.message.content, str):
                raise RetryableError(f"{self.url} answered without content (finish_reason {choice.finish_reason!r}).")
        except (AttributeError, IndexError, TypeError):
            raise RetryableError(f"{self.url} answered without choices.") from None
        return choice, completion

    async def post_json(self, path: str, body: Mapping[str, Any]) -> Any:
        """Answer to a request outside the OpenAI schema; failures are sorted as those of `chat`."""
        try:
            async with get_async_session() as session:
                response = await session.post(self.url + path, json=body, headers=self._headers, timeout=self._timeout)
            if response.status_code >= 400:
                raise await self._of_status(response.status_code, response.text, response.headers)
            return response.json()
        except EngineError:
            raise
        except Exception as error:
            raise await self._classified(error) from None

    async def get(self, path: str) -> str | None:
        """Body of a page of the server; `None` if it is not there."""
        try:
            async with get_async_session() as session:
                response = await session.get(self.url + path, headers=self._headers, timeout=HEALTH_TIMEOUT)
        except (httpx.HTTPError, OSError):
            return None
        return response.text if response.status_code == 200 else None

    async def healthy(self) -> bool:
        return await self.get(self.profile.health) is not None

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def _classified(self, error: Exception) -> EngineError:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            response = error.response
            return await self._of_status(response.status_code, response.text, response.headers)
        if isinstance(error, (InferenceTimeoutError, TimeoutError, httpx.TimeoutException)):
            return await self._lost(f"{self.url} did not answer in time", overloaded=True)
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
            return MisconfiguredError(f"{self.url} cannot be asked: {error}")
        if isinstance(error, (httpx.HTTPError, OSError)):
            return await self._lost(f"{self.url}: {type(error).__name__} {_excerpt(str(error))}")
        # A body that was cut off, an HTML page of some proxy, or JSON of another shape: parsing raises what it meets.
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, IndexError)):
            return RetryableError(f"{self.url} sent an unreadable answer ({type(error).__name__}).")
        raise error

    async def _of_status(self, status: int, body: str, headers: Mapping[str, str]) -> EngineError:
        said = f"{self.url} answered {status}: {_excerpt(body)}"
        if status in _MISCONFIGURED or (status == 400 and _WRONG_MODEL.search(body[: 4 * _EXCERPT])):
            return MisconfiguredError(said)
        if status in (400, 422) and _WRONG_PROFILE.search(body[: 4 * _EXCERPT]):
            return MisconfiguredError(f"{said} Choose another profile: {', '.join(PROFILES)}.")
        wait = _retry_after(headers.get("retry-after"))
        if status in _RETRYABLE:
            return RetryableError(said, wait, overloaded=status == 429)
        if status >= 500:
            # A dying engine answers 500 to all that is in flight, and a proxy 502 for a dead one behind it.
            return await self._lost(said, wait, overloaded=status == 503)
        return PermanentError(said)

    async def _lost(self, said: str, retry_after: float | None = None, overloaded: bool = False) -> EngineError:
        """The server's own health check tells one lost answer from a lost server."""
        if await self.healthy():
            return RetryableError(said, retry_after, overloaded)
        return OutageError(f"{said}; its health check fails too.")


class EndpointEngine:
    """Rationales from a server. It answers whatever model it serves: `doctor` checks that this is the one wanted.

    Args:
        url: of the server.
        spec: what is asked, and how it is decoded.
        prompt: as loaded for `spec`.
        profile, api_key, timeout: see `Endpoint`.
    """

    def __init__(
        self,
        url: str,
        spec: RationaleSpec,
        prompt: Prompt,
        *,
        profile: str = "vllm",
        api_key: str | None = None,
        timeout: float = 180.0,
    ) -> None:
        check_prompt(spec, prompt)
        self.endpoint = Endpoint(url, spec.model, profile=profile, api_key=api_key, timeout=timeout)
        self.name = self.endpoint.url
        self.spec = spec
        self.prompt = prompt

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """One rationale.

        Raises:
            EngineError: one of the four classes.
        """
        choice, completion = await self.endpoint.chat(
            self.prompt.messages(post, perspective), **request_fields(self.spec, self.endpoint.profile, attempt)
        )
        return to_answer(choice, completion)

    async def healthy(self) -> bool:
        return await self.endpoint.healthy()

    async def close(self) -> None:
        await self.endpoint.close()


def to_answer(choice: Any, completion: Any) -> Answer:
    """What `Endpoint.chat` returns, as an answer."""
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
    """How to decode, in the fields that the server takes."""
    temperature, seed = decoding(spec, attempt)
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
    """Seconds, from a number or from an HTTP date; `None` for anything else."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _excerpt(body: str) -> str:
    """The beginning of a message on one line. Servers quote the request back, and it holds a whole image."""
    return " ".join(re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,...", body).split())[:_EXCERPT]
