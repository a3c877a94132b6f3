"""Is this answer a rationale for the side it was asked to argue? Rules with names, and no look at any label.

An answer that fails is not a random one: models balk at arguing against what they see, so most failures argue for the
wrong class. A gate that knew the label, or a post dropped for failing, would write the label into the data. Hence the
same function while generating, at inference and on imported files; and no post is ever dropped by it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from dataset_scripts.rationales.quality.lexicon import LEXICONS, Lexicon
from dataset_scripts.rationales.quality.text import (
    CONTROL,
    encoder_tokens,
    ended,
    ngrams,
    normalize,
    script_share,
    units,
)

# Worth asking again.
HARD = {
    "empty": "no letter is left",
    "short": "fewer than 20 Chinese characters or 8 English words",
    "truncated": "cut off at the token limit, or no mark at its end",
    "language": "most of its letters are not of the language asked for",
    "script": "letters of a script that neither the language nor the post has",
    "refusal": "will not or cannot answer",
    "meta": "talks about the instruction",
    "wrong_side": "denies the side it argues for, or concludes for another",
    "loop": "repeats itself",
    "control": "control tokens, or what decoding is known to break into",
    "copy": "most of it stands in the post",
    "sibling_same": "most of it stands in the rationale of another perspective",
}
# Mended or harmless; worth counting.
SOFT = {
    "outer": "blanks or quotes around it",
    "newline": "several lines",
    "markup": "list, heading, bold, HTML",
    "unicode": "not NFC, or invisible characters",
    "foreign_word": "Latin words in Chinese that the post does not have",
    "long": "more than about 320 tokens of an encoder",
    "label_named": "the last sentence names the side",
}

MAX_LOOP = 0.3
MAX_COPY = 0.6
MAX_SIBLING = 0.6
MAX_TOKENS = 320
MIN_SHARE = 0.5

_SCRIPTS = {
    "kana": re.compile("[\u3041-\u3096\u30a1-\u30fa]"),
    "Hangul": re.compile("[\u1100-\u11ff\uac00-\ud7a3]"),
    "Cyrillic": re.compile("[\u0400-\u052f]"),
    "Thai": re.compile("[\u0e01-\u0e4e]"),
    "Arabic": re.compile("[\u0621-\u064a\u0671-\u06d3]"),
}
_LATIN_WORD = re.compile(r"[A-Za-z]{3,}")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the gate says of one answer.

    Attributes:
        text: the answer normalised: NFC, one line, without markup and outer quotes. `None` if no letter is left.
        hard: codes of `HARD`: worth asking again.
        soft: codes of `SOFT`: worth counting.
    """

    text: str | None
    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()


def check(
    answer: str,
    *,
    perspective: str,
    language: str,
    finish_reason: str | None = None,
    post_text: str | None = None,
    siblings: Mapping[str, str] | None = None,
) -> Verdict:
    """Normalise an answer and judge it, in time proportional to its length.

    Args:
        answer: as the model wrote it.
        perspective: that was asked for. The rule about sides knows `positive`, `neutral` and `negative`.
        language: that was asked for: `en` or `zh`, also with a region (`zh-CN`).
        finish_reason: as the engine gave it; `"length"` is a cut.
        post_text: of the post; `None` if it has none.
        siblings: rationales of the same post by perspective, as far as they are known; that of `perspective` itself
            is ignored.

    Raises:
        ValueError: a language without a lexicon.
    """
    lexicon = lexicon_of(language)
    text, soft = normalize(answer)
    control = CONTROL.search(answer) is not None
    if not any(character.isalpha() for character in text):
        return Verdict(None, ("empty", "control") if control else ("empty",), tuple(soft))
    post = post_text or ""
    parts = units(text)
    sentences = [sentence for sentence in lexicon.sentence_end.split(text) if sentence.strip()]
    grams = set(ngrams(parts, lexicon.sibling_size))
    side = lexicon.sides.get(perspective)
    hard = {
        "short": len(parts) < lexicon.min_length,
        "truncated": finish_reason == "length" or not ended(text),
        "language": script_share(text, lexicon.chinese) < MIN_SHARE,
        "script": any(script.search(text) and not script.search(post) for script in _SCRIPTS.values()),
        "refusal": _in_own_words(lexicon.refusal, text, post),
        "meta": _in_own_words(lexicon.meta, text, post),
        "wrong_side": side is not None and wrong_side(sentences, perspective, lexicon),
        "loop": _repeated(parts, lexicon.loop_size) > MAX_LOOP,
        "control": control,
        "copy": _contained(parts, units(post), lexicon.copy_size) > MAX_COPY,
        "sibling_same": any(
            _jaccard(grams, set(ngrams(units(other), lexicon.sibling_size))) > MAX_SIBLING
            for name, other in (siblings or {}).items()
            if name != perspective and other
        ),
    }
    noted = {
        "foreign_word": lexicon.chinese and _foreign(text, post),
        "long": encoder_tokens(text, parts) > MAX_TOKENS,
        "label_named": side is not None and True in mentions(sentences[-1], side, lexicon),
    }
    soft += [code for code, present in noted.items() if present]
    return Verdict(text, tuple(code for code, present in hard.items() if present), tuple(soft))


def lexicon_of(language: str) -> Lexicon:
    """The lexicon of a language tag.

    Raises:
        ValueError: there is none.
    """
    base = language.lower().replace("_", "-").partition("-")[0]
    if base not in LEXICONS:
        raise ValueError(f"language={language!r}; the gate has a lexicon for {' and '.join(LEXICONS)} only.")
    return LEXICONS[base]


def wrong_side(sentences: Sequence[str], perspective: str, lexicon: Lexicon) -> bool:
    """Whether a rationale takes back the side it argues for: its last word on that side is a denial, or its last
    sentence names only another side."""
    own = [affirmed for sentence in sentences for affirmed in mentions(sentence, lexicon.sides[perspective], lexicon)]
    if own and not own[-1]:
        return True
    last = sentences[-1]
    if lexicon.sides[perspective].search(last) or not lexicon.conclusion.search(last):
        return False
    others = [words for name, words in lexicon.sides.items() if name != perspective]
    return any(True in mentions(last, words, lexicon) for words in others)


def mentions(sentence: str, words: re.Pattern[str], lexicon: Lexicon) -> list[bool]:
    """For each of the words, in order, whether the sentence affirms it (True) or denies it; "not negative" denies.

    A negation reaches the words after it in its own clause, up to `lexicon.reach` characters. What a clause only
    concedes ("although the words are negative, ...") is left out.
    """
    found = []
    for match in words.finditer(sentence):
        before = sentence[max(0, match.start() - lexicon.reach) : match.start()]
        clause = before[max(before.rfind(mark) for mark in lexicon.clause_end) + 1 :]
        turns = [turn.end() for turn in lexicon.turn.finditer(clause)]
        clause = clause[turns[-1] :] if turns else clause
        if lexicon.concession.search(clause):
            continue
        denied = lexicon.negation.search(lexicon.no_negation.sub("", clause)) is not None
        found.append(not denied and lexicon.denial_after.match(sentence, match.end()) is None)
    return found


def _in_own_words(pattern: re.Pattern[str], text: str, post: str) -> bool:
    """Whether the text says what the pattern finds, and does not quote it from the post."""
    found = set(pattern.findall(text))
    return bool(found) and not found <= set(pattern.findall(post))


def _repeated(parts: Sequence[str], size: int) -> float:
    """Share of the n-grams that occurred before."""
    grams = ngrams(parts, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _contained(parts: Sequence[str], post: Sequence[str], size: int) -> float:
    """Share of the n-grams that the post has too."""
    grams, there = ngrams(parts, size), set(ngrams(post, size))
    return sum(gram in there for gram in grams) / len(grams) if grams else 0.0


def _jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def _foreign(text: str, post: str) -> bool:
    known = {word.lower() for word in _LATIN_WORD.findall(post)}
    return any(word.lower() not in known for word in _LATIN_WORD.findall(text))
