"""Engine for OpenAI-compatible servers."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.engines.address import Address
from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.engines.faults import (
    CONNECTION_LOST,
    REDIRECTED_STATUS,
    connection_error,
    httpx,
    redirect_error,
    status_error,
    status_of_code,
)
from dataset_scripts.rationales.engines.profiles import profile_named, request_body
from dataset_scripts.rationales.engines.replies import (
    error_of,
    is_web_page,
    parse_reply,
    read_answer,
    reply_words,
)
from dataset_scripts.rationales.errors import EngineError, MisconfiguredError, OutageError, RetryableError
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.reading.option_names import field

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

HEALTH_TIMEOUT = 5.0
# httpx searches all connections of a client for each request, so many concurrent requests are spread over clients.
_REQUESTS_PER_CLIENT = 8
_MODELS, _CHAT = "/models", "/chat/completions"


class Endpoint:
    """HTTP client of one server.

    Failures are raised as subclasses of `EngineError`, without a retry.

    Args:
        url: address of the server (`Address`).
        model: name of the model on the server.
        profile: key of `PROFILES`.
        api_key: key of the server.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: `url` is not an http(s) URL, `profile` is unknown, `api_key` has a character that no header can
            hold, or the environment names an unusable proxy or file of certificates.
    """

    def __init__(
        self, url: str, model: str, *, profile: str = "vllm", api_key: str | None = None, timeout: float = 180.0
    ) -> None:
        self.address = Address(url)
        self.model = model
        self.profile = profile_named(profile)
        self.timeout = timeout
        self._headers = _key_headers(api_key, self.address)
        self._tls = _tls_context() if self.address.https else False
        self._client(timeout)  # raises for an unusable proxy
        self._clients: list[httpx.AsyncClient] = []
        self._free: list[httpx.AsyncClient] = []  # one entry per request that a client can still accept
        self._has_answered = False

    async def chat(self, body: Mapping[str, Any]) -> Any:
        """Request a chat completion and return the parsed reply.

        Raises:
            EngineError: the request failed, or the reply is an error.
        """
        return await self.post_json(self.address.url(_CHAT), body)

    async def post_json(self, url: str, body: Mapping[str, Any]) -> Any:
        """Post a JSON body and return the parsed reply; raises as `chat`."""
        async with self._free_client() as client:
            try:
                response = await client.post(url, json=body)
            except Exception as error:
                raise await self._connection_error(error) from None
        if response.status_code >= 300:
            raise await self._status_error(response.status_code, response.text, response.headers, body)
        with self.named():
            reply = parse_reply(response.content)
        if error := error_of(reply):
            raise await self._status_error(status_of_code(error[0]), response.text, response.headers, body)
        self._has_answered = True
        return reply

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Begin the message of an `EngineError` with the name of the server."""
        try:
            yield
        except EngineError as error:
            error.args = (f"{self.address.name}: {error}",)
            raise

    async def get(self, url: str) -> str | None:
        """Return the body of a GET request; `None` if it fails."""
        try:
            response = await self._get(url)
        except EngineError:
            return None
        return response.text if response.status_code == 200 else None

    async def check_health(self) -> None:
        """Check that the server can be asked.

        A server without the health path of its profile is alive if it answers a request for its models.

        Raises:
            OutageError: it cannot be reached, or reports an error of its own.
            MisconfiguredError: address, key, certificate or proxy are wrong.
        """
        if self.profile.health is not None:
            response = await self._get(self.address.server_url(self.profile.health))
            if response.status_code == 200 and not is_web_page(response.text):
                return
            self._raise_if_down(response)
        response = await self._get(self.address.url(_MODELS))
        self._raise_if_down(response)
        status, location = response.status_code, response.headers.get("location", "")
        if status in REDIRECTED_STATUS:
            raise redirect_error(self.address, status, _MODELS, location)
        if status in (400, 401, 407):
            error = await self._status_error(status, response.text, response.headers, {})
            if isinstance(error, MisconfiguredError):
                raise error
        if status == 200 and is_web_page(response.text):
            raise MisconfiguredError(
                f"{self.address.name} answers with a web page ({reply_words(response.text)}) instead of the API. "
                f"Check --endpoint, and whether a login or a proxy is in between.{self.address.proxy_hint()}",
                reason="web page",
            )

    async def models(self) -> list[str]:
        """List the names of the server's models; empty if it does not tell them."""
        try:
            reply = parse_reply((await self.get(self.address.url(_MODELS)) or "").encode())
            return [str(model["id"]) for model in reply["data"]]
        except (RetryableError, KeyError, TypeError):
            return []

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def _client(self, timeout: float) -> httpx.AsyncClient:
        try:
            return httpx.AsyncClient(headers=self._headers, timeout=timeout, verify=self._tls)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            package = isinstance(error, ImportError)
            reason = f"SOCKS needs pip install '{httpx.__name__}[socks]'" if package else str(error)[:120]
            raise ValueError(
                f"The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({reason}). Unset the variable, or "
                "set NO_PROXY='*', to reach the server directly."
            ) from None

    @contextlib.asynccontextmanager
    async def _free_client(self) -> AsyncIterator[httpx.AsyncClient]:
        if not self._free:
            self._clients.append(self._client(self.timeout))
            self._free += [self._clients[-1]] * _REQUESTS_PER_CLIENT
        client = self._free.pop()
        try:
            yield client
        finally:
            self._free.append(client)

    async def _get(self, url: str) -> httpx.Response:
        """Send a GET request.

        Raises:
            OutageError, MisconfiguredError: the connection failed.
        """
        try:
            async with self._client(HEALTH_TIMEOUT) as client:
                return await client.get(url)
        except Exception as error:
            fault = connection_error(self.address, error, HEALTH_TIMEOUT)
            if fault is None:
                raise
            if fault.reason == CONNECTION_LOST and await self._uses_https():
                message = f"{self.address.name}: the server uses https. Use {self.address.other_scheme()}."
                raise MisconfiguredError(message, reason="https") from None
            raise fault from None

    async def _uses_https(self) -> bool:
        """Return whether the server at an http address answers to https."""
        if self.address.https:
            return False
        try:
            async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT, verify=False) as client:  # without the key
                await client.get(self.address.url(_MODELS).replace("http:", "https:", 1))
        except (httpx.HTTPError, OSError):
            return False
        return True

    def _raise_if_down(self, response: httpx.Response) -> None:
        if response.status_code >= 500 and response.status_code != 501:
            words = reply_words(response.text)
            raise OutageError(
                f"{self.address.name} fails its health check: status {response.status_code}"
                f"{f': {words}' if words else ''}.{self.address.proxy_hint()}",
                status=response.status_code,
            )

    async def _connection_error(self, error: Exception) -> EngineError:
        """Convert an exception of the client."""
        fault = connection_error(self.address, error, self.timeout)
        if fault is None:
            raise error
        if isinstance(fault, MisconfiguredError) and not self._has_answered:
            return fault
        return await self._retryable_or_outage(
            RetryableError(str(fault), overloaded=fault.reason == "timeout", reason=fault.reason)
        )

    async def _status_error(
        self, status: int, text: str, headers: Mapping[str, str], request: Mapping[str, Any]
    ) -> EngineError:
        has_key = bool(self._headers)
        error = status_error(self.address, status, text, headers, request=request, has_key=has_key)
        if status >= 500 and isinstance(error, RetryableError):  # also sent by a proxy whose server is down
            return await self._retryable_or_outage(error)
        if isinstance(error, MisconfiguredError) and (error.reason == "unknown model" or error.reason == "status 404"):
            names = await self.models()
            if names and self.model not in names:
                message = f"{self.address.name}: {wrong_model(names, self.model)}"
                return MisconfiguredError(message, status=status, reason="unknown model")
        return error

    async def _retryable_or_outage(self, error: RetryableError) -> EngineError:
        """Distinguish a failed request from a server that is down, by a health check."""
        try:
            await self.check_health()
        except EngineError:
            return OutageError(f"{error} The health check fails too.", status=error.status, reason=error.reason)
        return error


def wrong_model(names: list[str], model: str) -> str:
    """Name the models of a server that has no `model`."""
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"The server has {listed}, not {model!r}. Use {field('model', names[0] if len(names) == 1 else ...)}."


def _key_headers(api_key: str | None, address: Address) -> dict[str, str]:
    if not api_key:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]+", api_key):
        raise ValueError(
            "The key in the variable of --api_key_env has a line break, a space or another character that no key "
            "has. Remove it, e.g. export KEY=$(printf %s \"$KEY\" | tr -d '[:space:]')."
        )
    azure = {"api-key": api_key} if address.is_azure else {}
    return {"Authorization": f"Bearer {api_key}"} | azure


def _tls_context() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        path = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
        raise ValueError(f"SSL_CERT_FILE={path} cannot be read as certificates in PEM format: {error}") from None


class EndpointEngine:
    """Engine that requests rationales from a server.

    Args:
        url: address of the server.
        spec: specification with the decoding parameters.
        prompt: prompt of `spec`.
        options: `profile`, `api_key` and `timeout` of `Endpoint`.
    """

    def __init__(self, url: str, spec: RationaleSpec, prompt: Prompt, **options: Any) -> None:
        check_prompt(spec, prompt)
        self.endpoint = Endpoint(url, spec.model, **options)
        self.name = self.endpoint.address.name
        self.spec = spec
        self.prompt = prompt

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Request one rationale.

        Raises:
            EngineError: the request failed, or the reply holds no answer.
        """
        profile = self.endpoint.profile
        body = request_body(self.spec, profile, self.prompt.messages(post, perspective), attempt)
        completion = await self.endpoint.chat(body)
        with self.endpoint.named():
            return read_answer(completion, body)

    async def check_health(self) -> None:
        """Raise the reason why the server cannot be asked: `OutageError` or `MisconfiguredError`."""
        await self.endpoint.check_health()

    async def close(self) -> None:
        await self.endpoint.close()
