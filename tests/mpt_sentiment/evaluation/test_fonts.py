"""Labels in any script: drawn with a font that has their characters, or transliterated."""

import warnings

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, ft2font
from matplotlib.text import Text

from mpt_sentiment.evaluation import fonts, plot_confusion_matrix, plots
from mpt_sentiment.evaluation.fonts import readable_text

LABELS = ["正面", "سلبي", "😀 good", "प्रसन्न", "$a$ 5", "naïve ❤️", "tab\there", "한국어", "\U0001f9d1‍🚀"]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a confusion matrix without any warning; return its texts and the families they use."""
    texts, families = [], []

    def draw(labels, title="Title"):
        original = plots.save_figure

        def save(figure, path):
            written = original(figure, path)
            found = [text for text in figure.findobj(Text) if text.get_text()]
            texts.extend(text.get_text() for text in found)
            families.extend(found[0].get_fontfamily())
            return written

        with warnings.catch_warnings():
            warnings.simplefilter("error")  # matplotlib warns of a character without glyph
            monkeypatch.setattr(plots, "save_figure", save)
            plot_confusion_matrix(tmp_path / "figure.png", np.eye(len(labels), dtype=int), labels, title)
            monkeypatch.setattr(plots, "save_figure", original)
        return texts, families

    return draw


@pytest.fixture
def installed_font(tmp_path):
    """Install a font with two Chinese characters for the time of a test."""
    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((500, 0)), pen.lineTo((500, 700)), pen.closePath()
    builder.setupGlyphOrder([".notdef", "one", "two"])
    builder.setupCharacterMap({ord("正"): "one", ord("面"): "two"})
    builder.setupGlyf(dict.fromkeys([".notdef", "one", "two"], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", "one", "two"], (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "two.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "two.ttf")
    yield "Two Characters"
    font_manager.fontManager.ttflist[:] = before


def test_every_character_of_a_figure_has_a_glyph(drawn):
    texts, families = drawn(LABELS, "数据 für all")
    paths = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in families]
    glyphs = {code for path in paths for code in ft2font.FT2Font(path).get_charmap()}
    assert not any("LastResort" in path for path in paths)
    assert {character for text in texts for character in text if ord(character) not in glyphs} <= {"\n"}
    assert "$a$ 5" in texts and "naïve ❤" in texts and "tab here" in texts


def test_an_installed_font_with_the_characters_is_used(drawn, installed_font, caplog):
    texts, families = drawn(["正面", "good"])
    assert "正面" in texts and installed_font in families and not caplog.text
    assert installed_font not in matplotlib.rcParams["font.family"]


def test_without_such_a_font_labels_are_transliterated_with_one_warning(caplog):
    pytest.importorskip("anyascii")
    with readable_text(["\U00020000", "喜\U00020000", "good", "希\U00020000"]) as (codes, first, plain, second):
        assert first.startswith("Xi") and plain == "good" and codes
        assert first != second, "two classes must not look like one"
    assert len(caplog.records) == 1 and "Install one" in caplog.text


def test_without_a_transliteration_the_codes_are_shown(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_transliterates", lambda: False)
    with readable_text(["\U000e0100a\U00012345"]) as (shown,):
        assert "U+12345" in shown
    assert "mpt-sentiment[fonts]" in caplog.text


def test_text_from_right_to_left_is_transliterated_where_matplotlib_cannot_order_it(monkeypatch):
    monkeypatch.setattr(fonts, "SHAPES_TEXT", False)
    with readable_text(["سلبي", "good"]) as (arabic, latin):
        assert arabic.isascii() and latin == "good"
