"""Texts as a tokenizer reads them: checked, and with the masks of TweetEval where asked."""

import html
import re
import reprlib
from collections.abc import Callable
from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)


def mask_tweet(text: str) -> str:
    """Prepare a tweet as TweetEval does: HTML entities resolved, users and links masked.

    A word that begins with `@` becomes `@user`, one that begins with `http` becomes `http`.
    """
    return re.sub(r"(?<!\S)http\S*", "http", re.sub(r"(?<!\S)@\S+", "@user", html.unescape(text)))


# Name of a preparation of texts (not of rationales): its function.
TEXT_PREPROCESSING: dict[str, Callable[[str], str]] = {"none": str, "tweet": mask_tweet}

# Types of the values that pandas puts where a table has none.
PANDAS_MISSING = ("float", "NAType", "NaTType")


def checked_text(value: Any, name: str, prepare: Callable[[str], str] = str) -> str | None:
    """Return a text, after `prepare`, as a tokenizer reads it; `None` if it is blank.

    Two halves of a surrogate pair become their character; a single half, which no tokenizer reads, becomes U+FFFD, and
    is logged.

    Raises:
        ValueError: For another type.
    """
    if value is not None and not isinstance(value, str):
        hint = " Pass None where pandas has no value." if type(value).__name__ in PANDAS_MISSING else ""
        raise ValueError(
            f"{name} must be a string or None, got {reprlib.repr(value)} of type {type(value).__name__}.{hint}"
        )
    value = prepare(value or "")
    if not value.strip():
        return None
    text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\ufffd" in text and "\ufffd" not in value:
        logger.warning_once("A text holds half a surrogate pair (half an emoji), which is read as U+FFFD.")
    return text
