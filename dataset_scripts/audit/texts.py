"""Normalization levels that define duplicate texts, and faults of single texts."""

import re
from collections.abc import Callable

from dataset_scripts.duplicates import MENTION, RETWEET, URL, normalize_text

_HASHTAG = re.compile(r"[#＃]\w+[#＃]?")


def _without_urls(text: str) -> str:
    return _collapse_spaces(URL.sub(" ", text.lower()))


def _without_mentions(text: str) -> str:
    return _collapse_spaces(RETWEET.sub(" ", MENTION.sub(" ", _without_urls(text))))


def _collapse_spaces(text: str) -> str:
    """Collapse white space. A text without letters and digits becomes empty."""
    return " ".join(text.split()) if any(character.isalnum() for character in text) else ""


WORDS_ONLY = "text, words only"
# From strict to lenient. A text that a level reduces to "" has no duplicates at that level.
TEXT_LEVELS: dict[str, Callable[[str], str]] = {
    "text, exact": str.strip,
    "text, lower-case, without URLs": _without_urls,
    "text, also without RT and mentions": _without_mentions,
    WORDS_ONLY: normalize_text,  # the protocol "grouped" keeps these together
}

TEXT_FAULTS = ("blank", "only URLs and mentions", "only hashtags", "only digits, emoji or signs", "damaged bytes")


def text_fault(text: str | None) -> str | None:
    """Return the member of `TEXT_FAULTS` that applies to the text of a post, or None.

    "only hashtags" also covers hashtags with URLs and mentions.
    """
    if not text or not text.strip():
        return "blank"
    remainder = RETWEET.sub(" ", MENTION.sub(" ", URL.sub(" ", text)))
    if not _has_letter(_HASHTAG.sub(" ", remainder)):
        if any(_has_letter(tag) for tag in _HASHTAG.findall(remainder)):
            return "only hashtags"
        return "only digits, emoji or signs" if remainder.strip(" \t\r\n:.,…") else "only URLs and mentions"
    return "damaged bytes" if "\ufffd" in text else None


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)
