"""Refusals of requests: HTTP status, field, and one line."""

from typing import Any

from mpt_sentiment.commands.faults import one_line


class RequestError(Exception):
    """Refusal of a request or of one of its posts.

    Args:
        status (`int`): HTTP status.
        field (`str`): part of the request that is refused, e.g. `"[2].image"`.
        message (`str`): reason and remedy.
        headers (`dict`, *optional*): headers of the answer.
    """

    def __init__(self, status: int, field: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.field, self.message = _encodable(field), _encodable(one_line(message))

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        return {"error": {"status": self.status, "field": self.field, "message": self.message}}


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which a client can send in JSON and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
