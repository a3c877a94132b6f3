"""Errors of rationale generation, one class for each reaction of a run."""

from typing import ClassVar


class EngineError(Exception):
    """Base class of failed requests to an engine.

    The text of the error is one line for the user.

    Args:
        message (`str`): what failed, in the words of the server, and the option that helps.
        status (`int`, *optional*): HTTP status, also one that the server reports inside a reply with status 200.
        reason (`str`, *optional*): see below.

    Attributes:
        kind (`str`): name of the class in stored error messages and in the run report.
        status (`int`, *optional*): as given.
        reason (`str`):
            Short key that is equal for failures of the same sort, to count them: `"status 413"`, `"timeout"`,
            `"refusal"`, `"content_filter"`, `"unreadable reply"` …; by default the status, or else `kind`.
    """

    kind: ClassVar[str] = "engine"

    def __init__(self, message: str, *, status: int | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason or (f"status {status}" if status else self.kind)


class PermanentError(EngineError):
    """Failure that every attempt would repeat: HTTP 400, 413, 422, a refusal. It is not retried.

    It is the failure of this post once another post has been answered. Before the first answer of a run it may be
    the failure of every request: a moderation or firewall (403), a model without a limit large enough.
    """

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
        retry_after (`float`, *optional*): seconds to wait, as the server says; hours if its daily limit is reached.
        overloaded (`bool`): the server has too many requests (HTTP 429, 503, a timeout).
    """

    kind = "retryable"

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        overloaded: bool = False,
        *,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after = retry_after
        self.overloaded = overloaded


class OutageError(EngineError):
    """Server that cannot be reached or fails its health check, and may come back (exit code 75).

    Requests wait, and no attempt is counted.
    """

    kind = "outage"


class MisconfiguredError(EngineError):
    """Failure of every request until the user corrects its cause (exit code 1).

    Examples are a wrong address, key, model, certificate, proxy, or field of the request. The run stops at once, and
    no failure is recorded.
    """

    kind = "misconfigured"


class QuotaError(MisconfiguredError):
    """Account without credit (HTTP 402, or 429 with `insufficient_quota`): waiting is no help."""

    kind = "quota"


class StoreError(RuntimeError):
    """Store that cannot be read or written. Everything recorded so far is kept."""
