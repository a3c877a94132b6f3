"""Figure of the architecture: the committed file equals what the script draws."""

import re
import runpy
from pathlib import Path

import matplotlib

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_figure_equals_what_the_script_draws(tmp_path):
    draw = runpy.run_path(str(DOCS / "draw_architecture.py"))["draw"]
    draw(tmp_path / "one.svg")
    draw(tmp_path / "two.svg")
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    committed = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")
    # Another version of matplotlib may write other bytes for the same words.
    words = r"<!-- (.+?) -->"
    assert re.findall(words, drawn) == re.findall(words, committed)
    if f"Matplotlib v{matplotlib.__version__}," in committed:
        assert drawn == committed
