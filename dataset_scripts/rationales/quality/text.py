"""Text functions of the gate: normalization, units, n-grams.

All take time linear in the length of the text.
"""

import re
import unicodedata
from collections.abc import Sequence

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u30a1-\u30fa"
_UNIT = re.compile(rf"[{_HAN}{_KANA}]|[^\W\d_{_HAN}{_KANA}]+(?:['’][^\W\d_{_HAN}{_KANA}]+)?|\d+")
HAN_LETTER = re.compile(f"[{_HAN}]")
_LATIN_LETTER = re.compile(r"[A-Za-zªº\u00c0-\u024f\u1e00-\u1eff]")
_PUNCTUATION = re.compile(r"[^\w\s]")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffd]")
# Chat markup in an answer. `addCriterion` is a known decoding artifact of Qwen2.5-VL.
CONTROL = re.compile(
    r"<[|｜](?:[^<>|｜\n]{0,40}[|｜]>)?"
    r"|</?(?:s|think|image|unk|pad|bos|eos|start_of_turn|end_of_turn|unused\d{1,4})>"
    r"|\[/?(?:INST|CLS|SEP|PAD|UNK|MASK)\]"
    r"|addCriterion"
)
_THOUGHT_NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
# Marks around the thinking of a model, in the forms of several families.
_THOUGHT_START = re.compile(
    rf"<(?:{_THOUGHT_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)
_THOUGHT_END = re.compile(
    rf"</(?:{_THOUGHT_NAMES})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
# Two asterisks within a Latin word censor it and are kept.
_MARKUP = re.compile(r"(?<![A-Za-z])\*\*|\*\*(?![A-Za-z])|```(?:[a-z]{1,10}\n)?|</?[A-Za-z][A-Za-z0-9]{0,10} {0,2}/?>")
_LINE_START = re.compile(r"#{1,6} |[-*•] |\d{1,2}(?:[.)] |、)|> ")
_HEADING = re.compile(
    r"(?:rationale|answer|explanation|reason(?:ing)?|assistant|解释|理由|原因|说明|回答|分析)\s?[:：]", re.IGNORECASE
)
_QUOTES = (("“", "”"), ("‘", "’"), ("「", "」"), ("『", "』"), ('"', '"'), ("'", "'"))
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_CLOSING_MARKS = "”’\"'」』）)】]》"
_END_MARKS = ".!?。！？…～~"


def without_thinking(answer: str) -> str:
    """Remove the thinking of a model from an answer.

    It is all before its last end mark, or all after a start mark without an end. Chat templates often write the start
    mark themselves, so an answer may begin inside the thinking.
    """
    ends = list(_THOUGHT_END.finditer(answer))
    rest = answer[ends[-1].end() :] if ends else answer
    start = _THOUGHT_START.search(rest)
    return rest[: start.start()] if start else rest


def normalize(answer: str) -> tuple[str, list[str]]:
    """Remove control tokens, markup, outer quotes and line breaks; convert to NFC.

    Returns:
        The normalized text, and the soft codes (`gate.SOFT`) of the changes.
    """
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFC", answer))
    text = CONTROL.sub(" ", visible)
    stripped = text.strip()
    plain = _MARKUP.sub("", stripped)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    bare = [_LINE_START.sub("", line, count=1) if _LINE_START.match(line) else line for line in lines]
    if bare:
        bare[0] = bare[0][heading.end() :] if (heading := _HEADING.match(bare[0])) else bare[0]
    joined = " ".join(" ".join(bare).split())
    unquoted = _unquote(joined)
    changes = {
        "outer": stripped != text or unquoted != joined,
        "newline": len(lines) > 1,
        "markup": plain != stripped or bare != lines,
        "unicode": visible != answer,
    }
    return unquoted, [code for code, present in changes.items() if present]


def _unquote(text: str) -> str:
    """Remove quotes that enclose the whole text, and an unpaired quote at either end."""
    for _ in range(2):
        before = text
        for opening, closing in _QUOTES:
            inner = text[1:-1]
            if opening == closing:
                marks = _APOSTROPHE.sub("", text).count(opening)
                encloses = marks == 2 and text[:1] == text[-1:] == opening
                first, last = (marks == 1 and end == opening for end in (text[:1], text[-1:]))
            else:
                encloses = text[:1] == opening and text[-1:] == closing and opening not in inner
                encloses = encloses and closing not in inner
                first = text[:1] == opening and closing not in text
                last = text[-1:] == closing and opening not in text
            text = inner if encloses else text[first : len(text) - (last and not first)]
            text = text.strip()
        if text == before:
            break
    return text


def ends_a_sentence(text: str) -> bool:
    """Return whether the text ends in a punctuation mark or an emoji."""
    rest = text.rstrip(_CLOSING_MARKS)
    return bool(rest) and (rest[-1] in _END_MARKS or unicodedata.category(rest[-1]) in ("So", "Sk", "Mn", "Cf"))


def units(text: str) -> list[str]:
    """Split into single Han and kana characters, lower-case words of other scripts, and numbers."""
    return _UNIT.findall(text.lower())


def script_share(text: str, chinese: bool) -> float:
    """Return the share of letters that are Han (`chinese`) or Latin; 0 without letters."""
    letters = sum(map(str.isalpha, text))
    return len((HAN_LETTER if chinese else _LATIN_LETTER).findall(text)) / letters if letters else 0.0


def ngrams(parts: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return all n-grams of `size` units."""
    return list(zip(*(parts[start:] for start in range(size)), strict=False))


def encoder_tokens(text: str, parts: Sequence[str]) -> int:
    """Estimate the number of encoder tokens.

    A Chinese character, a punctuation mark and six letters of a word count as one token.
    """
    return sum(1 + (len(part) - 1) // 6 for part in parts) + len(_PUNCTUATION.findall(text))
