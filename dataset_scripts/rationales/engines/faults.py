"""Failed requests to a server as errors that name the cause and the option that helps."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dataset_scripts.rationales.engines.address import Address
from dataset_scripts.rationales.engines.profiles import MINIMAL, PROFILES, REASONING
from dataset_scripts.rationales.engines.replies import excerpt, reply_words
from dataset_scripts.rationales.errors import (
    EngineError,
    MisconfiguredError,
    OutageError,
    PermanentError,
    QuotaError,
    RetryableError,
)
from dataset_scripts.reading.option_names import field

try:  # huggingface_hub 2 uses httpx2, 1 uses httpx
    import httpx2 as httpx
except ImportError:
    import httpx

_RETRYABLE_STATUS = {408, 409, 425, 429}
_BUSY_STATUS = {429, 503, 529}
CONNECTION_LOST = "connection lost"
REDIRECTED_STATUS = {301, 302, 303, 307, 308}
_MISCONFIGURED_STATUS = {401, 403, 404, 405, 407, 501}
_KEY_STATUS = {401, 403}
# Faults of the whole run that servers report with status 400, 422 or another one.
_WRONG_MODEL = re.compile(
    r"pinned to|\bmodel:? [`'\"]?[\w./:-]+[`'\"]? (?:was |is )?(?:not found|does not exist|not exist|not available)"
    r"|model_not_found|invalid model name|unknown model",
    re.IGNORECASE,
)
_WRONG_FIELD = re.compile(
    r"unsupported (?:parameter|value|field)|unexpected (?:field|keyword)|extra inputs are not permitted|unrecognized"
    r"|unknown (?:name|field|parameter|argument)|additional propert|not (?:supported|permitted|allowed)"
    r"|(?:does not|doesn't) support|invalid (?:parameter|field)",
    re.IGNORECASE,
)
_NO_IMAGES = re.compile(
    r"not a multimodal model|at most 0 image"
    r"|(?:does not|doesn't|not) (?:support|accept)\w* (?:image|vision|multimodal)"
    r"|image(?:s| input| inputs| url|_url)?[`'\"]? (?:is|are) not (?:supported|allowed)|support image input"
    r"|unknown variant `?image_url|content must be a string|only (?:supports )?text",
    re.IGNORECASE,
)
_SYSTEM_ROLE = re.compile(
    r"system (?:role|message|instruction)s?[^.]{0,20} not (?:supported|allowed|enabled)|roles? must alternate"
    r"|(?:does not|doesn't) support (?:the )?system|only user and assistant roles",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[_ ](?:quota|balance|credit|funds)|exceeded your (?:current|monthly) quota|billing|credits?\b"
    r"|payment required|quota exhausted",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context length|context window|too many tokens|maximum (?:number of )?tokens", re.IGNORECASE)
_HTTPS_PORT = re.compile(r"HTTP request (?:was sent )?to (?:an )?HTTPS", re.IGNORECASE)
_RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')
# Statuses of errors that a reply names in words.
_STATUS_OF_CODE = (
    (re.compile(r"quota|rate.?limit|resource_exhausted|too.?many"), 429),
    (re.compile(r"auth|api.?key|permission"), 401),
    (re.compile(r"model_not_found|not_found"), 404),
    (re.compile(r"payment|billing|credit"), 402),
    (re.compile(r"bad.?request|invalid"), 400),
)


def status_error(
    address: Address,
    status: int,
    body: str,
    headers: Mapping[str, str],
    *,
    request: Mapping[str, Any],
    has_key: bool,
) -> EngineError:
    """Convert an HTTP error into the error of a request.

    Args:
        address: address of the server.
        status: HTTP status of 300 or more.
        body: body of the reply.
        headers: headers of the reply.
        request: body of the request; its fields are named in advice.
        has_key: whether a key was sent.

    Returns:
        `RetryableError` for a status of 500 and more: only a health check shows whether the server is down.
    """
    words = reply_words(body)
    message = f"{address.name}: status {status}: {words}".removesuffix(": ") + ("" if words.endswith(".") else ".")
    options = {"status": status}
    wait = retry_after(headers, body)
    if status in REDIRECTED_STATUS:
        return redirect_error(address, status, "/chat/completions", headers.get("location", ""))
    if status == 402 or (status in (403, 429) and wait is None and _QUOTA.search(body)):
        return QuotaError(
            f"{message} The account has no credit left: add some, then run the same command again.", **options
        )
    if status == 400 and _HTTPS_PORT.search(body):
        return MisconfiguredError(f"{message} Use {address.other_scheme()}.", **options)
    if request.get("messages") and _NO_IMAGES.search(words):
        return MisconfiguredError(
            f"{message} The model or the server takes no images: choose another --model, or enable images.",
            status=status,
            reason="no images",
        )
    if status in (400, 422) and (advice := _field_advice(words, request)):
        return MisconfiguredError(f"{message} {advice}", **options)
    if status in (400, 404, 422) and _WRONG_MODEL.search(words):
        return MisconfiguredError(f"{message} Check --model.", status=status, reason="unknown model")
    if status in _MISCONFIGURED_STATUS:
        return MisconfiguredError(f"{message}{_advice(address, status, has_key)}", **options)
    if status in _RETRYABLE_STATUS or status >= 500:
        return RetryableError(message, wait, overloaded=status in _BUSY_STATUS, **options)
    if _TOO_LONG.search(words):
        message += " Lower --max_pixels or --max_tokens, or raise the server's limit (vLLM: --max-model-len)."
    return PermanentError(message, **options)


def redirect_error(address: Address, status: int, path: str, location: str) -> MisconfiguredError:
    """Describe a redirection, which a POST request cannot follow."""
    target = excerpt(location.partition("?")[0])
    advice = address.redirected(path, location)
    end = f"Use {advice}." if advice else "That is not the API: a login page or another site."
    return MisconfiguredError(f"{address.name} redirects to {target}. {end}", status=status, reason="redirect")


def status_of_code(code: Any) -> int:
    """Return the HTTP status of an error in a reply with status 200; 500 if it is not known."""
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    name = str(code).lower()
    return next((status for pattern, status in _STATUS_OF_CODE if pattern.search(name)), 500)


def connection_error(address: Address, error: Exception, timeout: float) -> EngineError | None:
    """Convert a failure of the connection; `None` for another exception.

    Returns:
        `MisconfiguredError` for a fault that waiting does not end, else `OutageError`, or `RetryableError` for a
        reply that was lost.
    """
    causes = list(_causes(error))
    name, hint = address.name, address.proxy_hint()
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes[:1]):
        waited = "no connection" if isinstance(error, httpx.ConnectTimeout) else "no answer"
        return OutageError(f"{name}: {waited} within {timeout:g} s.{hint}", reason="timeout")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return MisconfiguredError(f"{name}: {_certificate_fault(cause, address)}", reason="certificate")
        if isinstance(cause, ssl.SSLError) and re.search("WRONG_VERSION|UNKNOWN_PROTOCOL|HTTP_REQUEST", str(cause)):
            return MisconfiguredError(f"{name}: the server uses http. Use {address.other_scheme()}.", reason="https")
        if isinstance(cause, socket.gaierror):
            fault = OutageError if cause.errno == socket.EAI_AGAIN else MisconfiguredError
            words = f"the host {address.host!r} cannot be resolved ({cause.strerror}). Check --endpoint."
            return fault(f"{name}: {words}{hint}", reason="name not known")
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return MisconfiguredError(
                f"{name}: {cause.strerror}: each request in flight needs a file descriptor. Lower --concurrency, or "
                "raise the limit (ulimit -n 4096).",
                reason="too many open files",
            )
        if isinstance(cause, httpx.ProxyError):
            return MisconfiguredError(f"{name}: the proxy refuses: {excerpt(str(cause))}.{hint}", reason="proxy")
        if isinstance(cause, ConnectionRefusedError):
            return OutageError(f"{name}: connection refused: no server at this port.{hint}", reason="refused")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return MisconfiguredError(f"{name} is not a valid address: {excerpt(str(error))}")
    if isinstance(error, httpx.LocalProtocolError | UnicodeError):
        return MisconfiguredError(f"{name}: the request cannot be sent: {type(error).__name__}. Check the key.")
    if isinstance(error, httpx.HTTPError | OSError):
        words = excerpt(str(error)) or next((str(cause) for cause in causes if str(cause)), "")
        return OutageError(f"{name}: {type(error).__name__} {words}".rstrip() + f".{hint}", reason=CONNECTION_LOST)
    return None


def retry_after(headers: Mapping[str, str], body: str = "") -> float | None:
    """Return the seconds that a server asks to wait; `None` if it names none.

    Read from `retry-after-ms`, from `Retry-After` as seconds or HTTP date, or from `retryDelay` in the body.
    """
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after")
    if value:
        with contextlib.suppress(ValueError):
            return max(0.0, float(value))
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    delay = _RETRY_DELAY.search(body)
    return float(delay[1]) if delay else None


def _advice(address: Address, status: int, has_key: bool) -> str:
    if status == 407:
        return address.proxy_hint()
    if status in _KEY_STATUS:
        hint = "Check the key in the variable of" if has_key else "If the server needs a key, name its variable:"
        return f" {hint} --api_key_env NAME.{address.proxy_hint()}"
    return f" Check --model and the path of --endpoint (requested: {address.url_without_query('/chat/completions')})."


def _field_advice(words: str, request: Mapping[str, Any]) -> str | None:
    """Return the advice for a field that the server does not accept; `None` for another fault."""
    if _SYSTEM_ROLE.search(words):
        return f"Use {field('profile', MINIMAL)}."
    if not _WRONG_FIELD.search(words):
        return None
    if "unexpected fields in the request" in words.lower():  # the words of transformers serve
        return f"Use {field('profile', 'transformers')}."
    if "max_completion_tokens" in words and "max_tokens" in request:
        return f"Use {field('profile', REASONING)}."
    own = [name for name in request if name not in ("model", "messages")]
    named = [name for name in own if re.search(rf"(?<![a-z_]){name}(?![a-z_])", words)]
    if named:
        return f"Leave it out: {field('extra_body', dict.fromkeys(named))}."
    if re.search(r"fields|inputs|argument|parameter", words, re.IGNORECASE):
        return f"Choose another profile: {', '.join(PROFILES)}."
    return None


def _certificate_fault(error: ssl.SSLCertVerificationError, address: Address) -> str:
    reason = (error.verify_message or "certificate verify failed").rstrip(".")
    if "expired" in reason or "not yet valid" in reason:
        return f"the certificate of the server is not valid now ({reason}). Renew it, or correct the clock."
    if "match" in reason:
        return f"{reason}. Use the host name of the certificate in --endpoint."
    return (
        f"the certificate of the server is not trusted ({reason}). For a private CA, set "
        "SSL_CERT_FILE=/path/to/ca.pem."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending = [error]
    while pending:
        cause = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        pending += getattr(cause, "exceptions", ())  # of an exception group: one per address of the host
        pending += [linked for linked in (cause.__cause__, cause.__context__) if linked is not None]
