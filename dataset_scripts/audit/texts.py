"""What is wrong with a post's text or with a rationale, and which texts are the same at which level."""

import re
import unicodedata
from collections.abc import Callable, Mapping

from dataset_scripts.duplicates import normalize_text

# Bounds of a rationale, in words; a Chinese, Japanese or Korean character counts as half a word.
MIN_RATIONALE_WORDS = 5
MAX_RATIONALE_WORDS = 150
# A rationale repeats the post if the whole post stands in it, has at least so many words, and is half of it or more:
# to quote a short post and then argue is what a rationale should do.
MIN_REPEATED_WORDS = 5

_URL = re.compile(r"https?[!-~]*|www\.[!-~]+", re.IGNORECASE)
_MENTION = re.compile(r"[@＠]\w+")
_RETWEET = re.compile(r"\brt\b", re.IGNORECASE)
_HASHTAG = re.compile(r"[#＃]\w+[#＃]?")
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")


def _exact(text: str) -> str:
    return text.strip()


def _without_urls(text: str) -> str:
    return _plain(_URL.sub(" ", text.lower()))


def _without_mentions(text: str) -> str:
    return _plain(_RETWEET.sub(" ", _MENTION.sub(" ", _without_urls(text))))


def _plain(text: str) -> str:
    """Single spaces; nothing where no letter or digit is left."""
    return " ".join(text.split()) if any(character.isalnum() for character in text) else ""


WORDS_ALONE = "text, words alone"
# Each level finds what the one before finds, and more, except texts of which no letter or digit remains: they are no
# one's duplicate.
TEXT_LEVELS: dict[str, Callable[[str], str]] = {
    "text, exact": _exact,
    "text, lower-case, without URLs": _without_urls,
    "text, also without RT and mentions": _without_mentions,
    WORDS_ALONE: normalize_text,  # what the protocol "grouped" keeps together
}

TEXT_FAULTS = ("blank", "URLs and mentions alone", "hashtags alone", "digits, emoji or signs alone", "damaged bytes")


def text_fault(text: str | None) -> str | None:
    """Which of `TEXT_FAULTS` the text of a post has, or None. Hashtags may stand with URLs and mentions."""
    if not text or not text.strip():
        return "blank"
    remains = _RETWEET.sub(" ", _MENTION.sub(" ", _URL.sub(" ", text)))
    if not _has_letter(_HASHTAG.sub(" ", remains)):
        if any(_has_letter(tag) for tag in _HASHTAG.findall(remains)):
            return "hashtags alone"
        return "digits, emoji or signs alone" if remains.strip(" \t\r\n:.,…") else "URLs and mentions alone"
    return "damaged bytes" if "\ufffd" in text else None


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)


RATIONALE_FAULTS = (
    "missing",
    "blank",
    "too short",
    "too long",
    "same as another perspective's",
    "repeats the post",
    "names a label",
    "control tokens or markup",
    "wrong script",
)

_MARKUP = re.compile(
    r"<\|[^<>|\n]{1,40}\|>"  # <|im_end|>
    r"|<｜[^<>｜\n]{1,40}｜>"  # the same with DeepSeek's full-width bars
    r"|</?[A-Za-z][\w:-]*(?:\s[^<>\n]*)?/?>"  # <s>, </think>, <br/>, <unused12>
    r"|\[/?(?:INST|CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]"
    r"|\*\*|```|^\s*#{1,6}\s|^\s*[-*•]\s|^\s*\{\s*\""  # Markdown and JSON
    r"|^\s*(?:assistant|user|system|human|model)\s*[:：]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\ufffd]",
    re.IGNORECASE | re.MULTILINE,
)
_LABEL_WORDS_ZH = ("积极", "正面", "正向", "中性", "中立", "消极", "负面", "负向")
_LATIN = "LATIN"
# First words of the Unicode names of a language's letters. Languages not named here are written in Latin letters.
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk", "sr", "kk", "mn"), ("CYRILLIC", _LATIN)),
    **dict.fromkeys(("ar", "fa", "ur", "ps"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    **{"bn": ("BENGALI",), "ta": ("TAMIL",), "te": ("TELUGU",), "th": ("THAI",), "el": ("GREEK",)},
    **{"he": ("HEBREW",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",), "am": ("ETHIOPIC",)},
}


def word_count(text: str) -> float:
    """Words separated by space; of East Asian scripts, two characters make a word."""
    return len(_EAST_ASIAN.findall(text)) / 2 + len(_EAST_ASIAN.sub(" ", text).split())


def rationale_faults(
    rationales: Mapping[str, str | None], text: str | None, language: str | None, label_words: re.Pattern[str]
) -> dict[str, list[str]]:
    """Faults of each perspective's rationale of one post, by names of `RATIONALE_FAULTS`.

    Args:
        rationales: by perspective; None where there is none.
        text: of the post.
        language: of the post, a tag such as `"en"` or `"zh-CN"`; None: the script is not judged.
        label_words: what counts as naming a label (`label_pattern`).
    """
    words = {perspective: normalize_text(written) for perspective, written in rationales.items() if written}
    post = normalize_text(text or "")
    faults: dict[str, list[str]] = {}
    for perspective, written in rationales.items():
        if written is None:
            faults[perspective] = ["missing"]
            continue
        if not words.get(perspective):
            faults[perspective] = ["blank"]
            continue
        length = word_count(written)
        own = words[perspective]
        found = {
            "too short": length < MIN_RATIONALE_WORDS,
            "too long": length > MAX_RATIONALE_WORDS,
            "same as another perspective's": any(own == words[other] for other in words if other != perspective),
            "repeats the post": post in own
            and word_count(post) >= MIN_REPEATED_WORDS
            and 2 * word_count(post) >= word_count(own),
            "names a label": label_words.search(written) is not None,
            "control tokens or markup": _MARKUP.search(written) is not None,
            "wrong script": language is not None and _wrong_script(written, language),
        }
        faults[perspective] = [name for name, present in found.items() if present]
    return faults


def label_pattern(names: list[str]) -> re.Pattern[str]:
    """Matches the class names, as whole words in any case, and the usual Chinese words for the three polarities."""
    latin = "|".join(re.escape(name) for name in names)
    return re.compile(rf"(?<![a-z])(?:{latin})(?:ly)?(?![a-z])|{'|'.join(_LABEL_WORDS_ZH)}", re.IGNORECASE)


def _wrong_script(written: str, language: str) -> bool:
    """True if fewer than half of the letters are of a script of the language."""
    scripts = _SCRIPTS.get(language.lower().replace("_", "-").split("-")[0], (_LATIN,))
    letters = [character for character in written if character.isalpha()]
    fitting = sum(unicodedata.name(letter, "").startswith(scripts) for letter in letters)
    return 2 * fitting < len(letters)
