"""The four ways in which asking a model fails: one class for each reaction that it asks for."""


class EngineError(Exception):
    """An answer that did not come. Raised as one of the classes below."""


class PermanentError(EngineError):
    """This item fails however often it is asked (HTTP 400, 413, 415, 422): recorded, not retried."""


class PreparationError(PermanentError):
    """A post that cannot be sent at all, found before any request; the message names the post and the reason."""


class RetryableError(EngineError):
    """The same request may succeed later: rate limits, server errors, timeouts, unreadable answers.

    Attributes:
        retry_after (`float`, *optional*): seconds that the server asks to wait.
        overloaded (`bool`): the server has more to do than it can (HTTP 429, 503, a timeout): ask it less at a time.
    """

    def __init__(self, message: str, retry_after: float | None = None, overloaded: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.overloaded = overloaded


class OutageError(EngineError):
    """The server is gone, by its own health check: nobody's fault, so it costs the item no attempt; all wait."""


class MisconfiguredError(EngineError):
    """Every request would fail alike (HTTP 401, 403, 404, a wrong model name): stop at once, record nothing."""


class StoreError(RuntimeError):
    """A store that cannot be written or read as it is. Nothing that was recorded is lost."""
