"""Errors of rationale generation, one class for each reaction of a run."""

from typing import ClassVar


class EngineError(Exception):
    """Base class of failed requests to an engine.

    Attributes:
        kind (`str`): name of the class in stored error messages and in the run report.
    """

    kind: ClassVar[str] = "engine"


class PermanentError(EngineError):
    """Failure that every attempt would repeat (HTTP 400, 413, 415, 422). It is not retried."""

    kind = "permanent"


class PreparationError(PermanentError):
    """Post that cannot be sent, found before any request."""

    kind = "preparation"


class ServerCrashError(PermanentError):
    """Post that crashes the server whenever it is the only one in flight."""

    kind = "crash"


class RetryableError(EngineError):
    """Temporary failure: rate limit, server error, timeout, unreadable answer.

    Attributes:
        retry_after (`float`, *optional*): seconds to wait, from the server's `Retry-After` header.
        overloaded (`bool`): the server has too many requests (HTTP 429, 503, a timeout).
    """

    kind = "retryable"

    def __init__(self, message: str, retry_after: float | None = None, overloaded: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.overloaded = overloaded


class OutageError(EngineError):
    """Server that fails its health check. Requests wait, and no attempt is counted."""

    kind = "outage"


class MisconfiguredError(EngineError):
    """Failure of every request (HTTP 401, 403, 404, wrong model name). The run stops."""

    kind = "misconfigured"


class StoreError(RuntimeError):
    """Store that cannot be read or written. Everything recorded so far is kept."""
