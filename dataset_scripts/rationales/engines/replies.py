"""Replies of OpenAI-compatible servers, in the forms in which servers send them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.errors import EngineError, MisconfiguredError, PermanentError, RetryableError
from dataset_scripts.reading.option_names import field

_WORDS_LENGTH = 160
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
# Finish reasons of an answer that the server broke off.
_BROKEN_OFF = {"abort", "aborted", "error", "cancelled", "canceled"}
_FILTERED = {"content_filter", "safety", "recitation", "prohibited_content"}
# End of a name with a date, a version or a format of the weights.
_MORE_EXACT = re.compile(
    r"(?:[-_.:](?:\d[\w.]*|latest|preview|instruct|hf|awq|gptq|gguf|fp8|fp16|bf16|int[48]|[48]bit|q\d\w*|w\d+a\d+|[km]))*"
)
_REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details")
_TEXT_PARTS = {"text", "output_text"}


def parse_reply(content: bytes) -> Any:
    """Parse the body of a reply.

    Raises:
        RetryableError: it is not JSON: cut off, a page of a proxy, a stream of events.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        text = content.decode("utf-8", "replace")
        reason = "web page" if is_web_page(text) else "unreadable reply" if text.strip() else "empty reply"
        words = reply_words(text)
        raise RetryableError(f"{reason}: {words}" if words else f"{reason}.", reason=reason) from None


def read_answer(completion: Any, request: Mapping[str, Any]) -> Answer:
    """Read the first choice of a completion.

    Args:
        completion: parsed reply.
        request: body of the request; its model must be the one that the reply names.

    Raises:
        RetryableError: there is no choice or no content, or the server broke the answer off.
        PermanentError: a refusal, a filtered answer, or thinking without an answer.
        MisconfiguredError: another model answered.
    """
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        finish_reason = choice.get("finish_reason")
        parts = message.get("content")
    except (AttributeError, IndexError, KeyError, TypeError):
        raise RetryableError("answer without choices.", reason="no choices") from None
    check_model(completion.get("model"), request["model"])
    finish_reason = finish_reason.lower() if isinstance(finish_reason, str) and finish_reason else "unknown"
    if finish_reason in _BROKEN_OFF:
        message = f"the server broke the answer off (finish_reason {finish_reason!r})."
        raise RetryableError(message, reason=finish_reason)
    if finish_reason in _FILTERED:
        raise PermanentError(
            f"a filter of the server withheld the answer (finish_reason {finish_reason!r}).", reason="content_filter"
        )
    text, refusal = _text_of(parts), message.get("refusal")
    if not text and isinstance(parts, list):
        refusal = refusal or next((part["refusal"] for part in parts if _is_part(part) and part.get("refusal")), None)
    if not text and refusal:
        raise PermanentError(f"the model refuses: {excerpt(str(refusal))}", reason="refusal")
    if not text and any(message.get(name) for name in _REASONING_FIELDS):
        raise _only_thinking(finish_reason, request)
    if text is None:
        raise RetryableError(f"answer without content (finish_reason {finish_reason!r}).", reason="no content")
    usage = completion.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
    fingerprint = completion.get("system_fingerprint")
    return Answer(
        text=_encodable(text),
        finish_reason=finish_reason,
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(details, "cached_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        system_fingerprint=_encodable(fingerprint) if isinstance(fingerprint, str) and fingerprint else None,
    )


def check_model(answered: Any, requested: str) -> None:
    """Compare the model that a reply names with the requested one.

    A more exact name is the same model (`gpt-4o-2024-08-06` for `gpt-4o`), also in another folder; another size
    (`gpt-4o-mini`) is not.

    Raises:
        MisconfiguredError: another model answered.
    """
    if not isinstance(answered, str) or not answered:
        return
    names = [name.lower().rstrip("/").rpartition("/")[2].partition("@")[0] for name in (answered, requested)]
    shorter, longer = sorted(names, key=len)
    if not (longer.startswith(shorter) and _MORE_EXACT.fullmatch(longer, len(shorter))):
        raise MisconfiguredError(
            f"the model {excerpt(answered)!r} answered instead of {requested!r}. If it is the right one, use "
            f"{field('model', answered[:_WORDS_LENGTH])} in another folder.",
            reason="another model",
        )


def error_of(reply: Any) -> tuple[Any, Mapping[str, Any]] | None:
    """Return code and object of an error that a reply has instead of an answer, or `None`."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    holders = [reply, *choices[:1]] if isinstance(choices, list) else [reply]
    if isinstance(reply, list) and len(reply) == 1:
        holders = reply
    for holder in holders:
        if not isinstance(holder, Mapping):
            continue
        error = holder.get("error")
        if error or holder.get("object") == "error" or (error_words(holder) and "choices" not in reply):
            details = error if isinstance(error, Mapping) else holder
            return details.get("code") or details.get("status") or details.get("type"), details
    return None


def error_words(reply: Any) -> str:
    """Return the words of an error in a parsed reply: a string, a list or an object."""
    if isinstance(reply, str):
        return reply
    if isinstance(reply, list):
        return "; ".join(filter(None, map(error_words, reply[:3])))
    if not isinstance(reply, Mapping):
        return ""
    place = reply.get("loc")
    for name in ("error", "message", "detail", "msg", "errors", "error_message", "title"):
        if reply.get(name) and (words := error_words(reply[name])):
            names = [str(part) for part in place if part != "body"] if isinstance(place, list) else []
            return f"{'.'.join(names)}: {words}" if names else words
    return ""


def reply_words(body: str) -> str:
    """Return the words of an error's body: its message, the title of a web page, or its start."""
    if is_web_page(body):
        title = _TITLE.search(body)
        return excerpt(re.sub(r"<[^>]+>", " ", title[2])) if title else "a web page"
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return excerpt(body)
    return excerpt(error_words(reply) or body)


def is_web_page(body: str) -> bool:
    """Return whether a body is HTML."""
    return body.lstrip("\ufeff \t\r\n")[:15].lower().startswith(("<!doctype html", "<html", "<head", "<body"))


def excerpt(text: str) -> str:
    """Shorten a message to one line, without image data that the server quotes from the request."""
    words = " ".join(re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,...", text[:100_000]).split())
    words = re.sub(r"[A-Za-z0-9+/=_-]{80,}", "...", words)
    words = "".join(character for character in words if character.isprintable())
    return words if len(words) <= _WORDS_LENGTH else f"{words[:_WORDS_LENGTH]}…"


def _only_thinking(finish_reason: str, request: Mapping[str, Any]) -> EngineError:
    cause = "used all tokens for thinking" if finish_reason == "length" else "sent its thinking and no answer"
    if "chat_template_kwargs" in request:  # `enable_thinking` has no effect on it
        less = "choose a model without thinking"
    else:
        less = f"if the server has this field, lower its effort: {field('extra_body', {'reasoning_effort': 'low'})}"
    return PermanentError(f"the model {cause}. Raise --max_tokens, or {less}.", reason="only thinking")


def _text_of(content: Any) -> str | None:
    """Join the parts of a content; `None` if it has no text."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return None
    texts = [
        part if isinstance(part, str) else part.get("text")
        for part in content
        if isinstance(part, str) or (_is_part(part) and part.get("type", "text") in _TEXT_PARTS)
    ]
    return "".join(text for text in texts if isinstance(text, str)) if texts else None


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping)


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which no file can hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
