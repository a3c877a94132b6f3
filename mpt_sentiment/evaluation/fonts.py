"""Text of figures in any script: an installed font with its characters, or another spelling."""

import contextlib
import functools
import logging
import unicodedata
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib import font_manager, ft2font

logger = logging.getLogger(__name__)

# Since matplotlib 3.11, libraqm orders and joins the letters of scripts from right to left.
SHAPES_TEXT = hasattr(ft2font, "__libraqm_version__")
BLANK = frozenset(" \n")


@contextlib.contextmanager
def readable_text(texts: Sequence[str]) -> Iterator[list[str]]:
    """Draw figures with fonts that have all characters of their texts.

    Figures must be created and saved inside of the block. A text with characters that no installed font has is
    transliterated, with one warning; likewise a text from right to left if matplotlib cannot order its letters.
    Without the package anyascii, such characters are replaced by their codes (`U+6B63`). `$` starts no formula.

    Args:
        texts (sequence of `str`): labels and titles that come from a user.

    Yields:
        The texts as they can be shown.
    """
    needed = {character for text in texts for character in _clean(text)} - BLANK
    families, covered = _families(needed)
    shown = [_shown(_clean(text), covered) for text in texts]
    shown = [f"{text} ({index})" if text in shown[:index] else text for index, text in enumerate(shown)]
    changed = {text: new for text, new in zip(texts, shown, strict=True) if _clean(text) != new}
    if changed:
        logger.warning(
            "Figures show %s: no installed font has all characters. Install one, e.g. Noto Sans CJK%s.",
            ", ".join(f"{text!r} as {new!r}" for text, new in changed.items())[:200],
            "" if _transliterates() else ", or `pip install 'mpt-sentiment[fonts]'` to transliterate them",
        )
    log = logging.getLogger(font_manager.__name__)
    level = log.level
    log.setLevel(logging.ERROR)  # it would warn of each family without bold letters
    try:
        with matplotlib.rc_context({"font.family": families, "text.parse_math": False}):
            yield shown
    finally:
        log.setLevel(level)


def _clean(text: str) -> str:
    """Return a text without control characters, and with emoji as single characters."""
    kept = (" " if character in "\t\r" else character for character in text)
    return "".join(
        character for character in kept if unicodedata.category(character) != "Cc" and not _is_selector(character)
    )


def _is_selector(character: str) -> bool:
    """Return whether a character only chooses the form of others, e.g. of an emoji."""
    return "\ufe00" <= character <= "\ufe0f" or character in "\u200b\u200e\u200f\u2060\ufeff"


def _families(needed: set[str]) -> tuple[list[str], set[str]]:
    """Choose font families for characters, those of matplotlib's settings first.

    Returns:
        The families, and the characters that they have.
    """
    families = list(matplotlib.rcParams["font.family"])
    paths = [
        font_manager.findfont(font_manager.FontProperties(family=families, weight=weight))
        for weight in ("normal", "bold")
    ]
    covered = {character for character in needed if all(_has(path, character) for path in paths)}
    # matplotlib's own Last Resort draws a box for every character
    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")]
    fonts.sort(key=lambda font: (abs(int(font.weight) - 400), font.style, font.name))
    while missing := needed - covered:
        best = max(fonts, key=lambda font: sum(_has(font.fname, character) for character in missing), default=None)
        new = {character for character in missing if best and _has(best.fname, character)}
        if not new:
            break
        families.append(best.name)
        covered |= new
    return families, covered


def _shown(text: str, covered: set[str]) -> str:
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    if set(text) - BLANK <= covered and (SHAPES_TEXT or not right_to_left):
        return text
    return "".join(
        character if character in BLANK or character.isascii() else _spelled(character) for character in text
    ).strip()


def _spelled(character: str) -> str:
    """Transliterate a character, or write its code."""
    if _transliterates():
        from anyascii import anyascii

        if spelled := anyascii(character):
            return spelled
    return f"U+{ord(character):04X} "


@functools.cache
def _transliterates() -> bool:
    try:
        import anyascii  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _font(path: str) -> tuple[ft2font.FT2Font | None, dict[int, int]]:
    """Open a font; `None` for one that matplotlib cannot draw, such as emoji made of bitmaps."""
    try:
        font = ft2font.FT2Font(path)
        if not font.scalable:
            return None, {}
        font.set_size(12, 72)
        return font, font.get_charmap()
    except (OSError, RuntimeError, ValueError):
        return None, {}


@functools.cache
def _has(path: str, character: str) -> bool:
    """Return whether a font draws a character. Fonts of coloured emoji have empty outlines."""
    font, characters = _font(path)
    if font is None or ord(character) not in characters:
        return False
    if character.isspace() or unicodedata.category(character) in ("Cf", "Mn"):
        return True
    return font.load_char(ord(character)).width > 0
