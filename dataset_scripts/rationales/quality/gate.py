"""Rationale gate: named rules that accept an answer, or reject it for another attempt.

The rules never read a label, and no post is dropped for failing them. Failures depend on the label: models refuse to
argue against what they see, so most rejected answers argue for a wrong class. A gate that read the label, or dropped
posts, would leak the label into the data. Generation, inference and imported files therefore use the same function.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from dataset_scripts.rationales.quality.lexicon import LEXICONS, Lexicon
from dataset_scripts.rationales.quality.text import (
    CONTROL,
    HAN_LETTER,
    encoder_tokens,
    ends_a_sentence,
    ngrams,
    normalize,
    script_share,
    units,
    without_thinking,
)

# Faults for which the question is asked again.
HARD = {
    "empty": "no letter is left after normalization",
    "short": "fewer than 20 Chinese characters or 8 English words",
    "truncated": "not finished: cut off at the token limit, or no punctuation mark at its end",
    "language": "most of its letters belong to another language than requested",
    "script": "letters of a script that neither the language nor the post uses",
    "refusal": "the model refuses or is unable to answer",
    "meta": "comments on the instruction",
    "wrong_side": "denies its own perspective, or concludes for another",
    "loop": "repeated n-grams",
    "control": "control tokens, or known artifacts of decoding",
    "copy": "most of it is copied from the post",
    "sibling_same": "most of it equals the rationale of another perspective",
}
# Faults that are corrected or harmless, and counted.
SOFT = {
    "outer": "surrounded by white space or quotation marks",
    "newline": "several lines",
    "markup": "list, heading, bold, HTML",
    "unicode": "not in NFC, or with invisible characters",
    "foreign_word": "Latin words in Chinese that are not in the post",
    "long": "more than about 320 encoder tokens",
    "label_named": "the last sentence names its own class",
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
    "Hebrew": re.compile("[\u05d0-\u05ea]"),
    "Indic": re.compile("[\u0904-\u0dff]"),
}
# Finish reasons of a complete answer. Files of other origin have none.
_FINISHED = {None, "stop", "eos", "eos_token", "stop_sequence", "end_turn"}
_LATIN_WORD = re.compile(r"[A-Za-z]{3,}")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Result of the gate for one answer.

    Attributes:
        text: normalized answer: NFC, one line, without markup and outer quotes. `None` if no letter is left.
        hard: codes of `HARD`.
        soft: codes of `SOFT`.
    """

    text: str | None
    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()

    @property
    def codes(self) -> list[str]:
        """Hard codes, then soft codes."""
        return [*self.hard, *self.soft]


def check(
    answer: str,
    *,
    perspective: str,
    language: str,
    finish_reason: str | None = None,
    post_text: str | None = None,
    siblings: Mapping[str, str] | None = None,
) -> Verdict:
    """Normalize an answer and apply all rules, in time linear in its length.

    Args:
        answer: raw output of the model.
        perspective: requested perspective. `wrong_side` and `label_named` apply to `positive`, `neutral` and
            `negative` only.
        language: requested language: `en` or `zh`, also with a region (`zh-CN`).
        finish_reason: reported by the engine; any but `"stop"` and its synonyms means truncated. `None` for answers
            of other origin.
        post_text: text of the post; `None` if it has none.
        siblings: known rationales of the same post by perspective; that of `perspective` itself is ignored.

    Raises:
        ValueError: there is no lexicon for `language`.
    """
    base = supported_language(language)
    if base is None:
        raise ValueError(f"The gate supports the languages {', '.join(LEXICONS)}, got {language!r}.")
    lexicon = LEXICONS[base]
    answer = without_thinking(answer)
    text, soft = normalize(answer)
    control = CONTROL.search(answer) is not None
    if not any(character.isalpha() for character in text):
        return Verdict(None, ("empty", "control") if control else ("empty",), tuple(soft))
    post = post_text or ""
    parts = units(text)
    sentences = [sentence for sentence in lexicon.sentence_end.split(text) if sentence.strip()]
    grams = set(ngrams(parts, lexicon.sibling_size))
    own_words = lexicon.class_words.get(perspective)
    hard = {
        "short": len(parts) < lexicon.min_length,
        "truncated": finish_reason not in _FINISHED or not ends_a_sentence(text),
        "language": script_share(text, lexicon.chinese) < MIN_SHARE,
        "script": any(
            script.search(text) and not script.search(post)
            for script in (*_SCRIPTS.values(), *(() if lexicon.chinese else (HAN_LETTER,)))
        ),
        "refusal": _in_own_words(lexicon.refusal, text, post),
        "meta": _in_own_words(lexicon.meta, text, post),
        "wrong_side": own_words is not None and wrong_side(sentences, perspective, lexicon),
        "loop": _repeated_share(parts, lexicon.loop_size) > MAX_LOOP,
        "control": control,
        "copy": _copied_share(parts, units(post), lexicon.copy_size) > MAX_COPY,
        "sibling_same": any(
            _jaccard(grams, set(ngrams(units(other), lexicon.sibling_size))) > MAX_SIBLING
            for name, other in (siblings or {}).items()
            if name != perspective and other
        ),
    }
    warnings = {
        "foreign_word": lexicon.chinese and _has_foreign_words(text, post),
        "long": encoder_tokens(text, parts) > MAX_TOKENS,
        "label_named": own_words is not None and True in mentions(sentences[-1], own_words, lexicon),
    }
    soft += [code for code, present in warnings.items() if present]
    return Verdict(text, tuple(code for code, present in hard.items() if present), tuple(soft))


def check_post(
    rationales: Mapping[str, str | None], *, language: str | None, text: str | None
) -> dict[str, Verdict | None]:
    """Apply the gate to the stored rationales of one post.

    Args:
        rationales: by perspective; null or blank where there is none.
        language: tag of the language of all rationales.
        text: text of the post.

    Returns:
        A verdict by perspective. `None` where there is no rationale, or no lexicon for `language`.
    """
    base = supported_language(language)
    written = {perspective: rationale for perspective, rationale in rationales.items() if is_written(rationale)}
    return {
        perspective: check(
            written[perspective], perspective=perspective, language=base, post_text=text, siblings=written
        )
        if base is not None and perspective in written
        else None
        for perspective in rationales
    }


def is_written(rationale: str | None) -> bool:
    """Return whether a rationale is neither null nor blank."""
    return bool(rationale and rationale.strip())


def supported_language(tag: str | None) -> str | None:
    """Return the key of `LEXICONS` for a language tag such as `zh-CN`; `None` without a lexicon."""
    base = (tag or "").lower().replace("_", "-").partition("-")[0]
    return base if base in LEXICONS else None


def wrong_side(sentences: Sequence[str], perspective: str, lexicon: Lexicon) -> bool:
    """Return whether a rationale retracts its perspective.

    True if its last mention of the perspective is a denial, or if its last sentence concludes for another one only.
    """
    own_words = lexicon.class_words[perspective]
    affirmations = [affirmed for sentence in sentences for affirmed in mentions(sentence, own_words, lexicon)]
    if affirmations and not affirmations[-1]:
        return True
    last = sentences[-1]
    if own_words.search(last) or not lexicon.conclusion.search(last):
        return False
    others = [words for name, words in lexicon.class_words.items() if name != perspective]
    return any(True in mentions(last, words, lexicon) for words in others)


def mentions(sentence: str, words: re.Pattern[str], lexicon: Lexicon) -> list[bool]:
    """Return True for each match of `words` that the sentence affirms, False if it denies it.

    A negation applies to words within `lexicon.scope` characters after it in the same clause. Matches in a concession
    ("although the words are negative, ...") are omitted.
    """
    affirmations = []
    for match in words.finditer(sentence):
        before = sentence[max(0, match.start() - lexicon.scope) : match.start()]
        clause = before[max(before.rfind(mark) for mark in lexicon.clause_end) + 1 :]
        scope_ends = [end.end() for end in lexicon.scope_end.finditer(clause)]
        clause = clause[scope_ends[-1] :] if scope_ends else clause
        if lexicon.concession.search(clause):
            continue
        denied = lexicon.negation.search(lexicon.no_negation.sub("", clause)) is not None
        affirmations.append(not denied and lexicon.denial_after.match(sentence, match.end()) is None)
    return affirmations


def _in_own_words(pattern: re.Pattern[str], text: str, post: str) -> bool:
    """Return whether the pattern matches a phrase of the text that is not quoted from the post."""
    phrases = set(pattern.findall(text))
    return not phrases <= set(pattern.findall(post))


def _repeated_share(parts: Sequence[str], size: int) -> float:
    """Return the share of n-grams that repeat an earlier one."""
    grams = ngrams(parts, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _copied_share(parts: Sequence[str], post: Sequence[str], size: int) -> float:
    """Return the share of n-grams that also occur in the post."""
    grams, post_grams = ngrams(parts, size), set(ngrams(post, size))
    return sum(gram in post_grams for gram in grams) / len(grams) if grams else 0.0


def _jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right) if left and right else 0.0


def _has_foreign_words(text: str, post: str) -> bool:
    return not set(_LATIN_WORD.findall(text.lower())) <= set(_LATIN_WORD.findall(post.lower()))
