"""Figures of confidence: PNG and SVG, equal files for equal posts, any script."""

import numpy as np
from PIL import Image

from mpt_sentiment.evaluation import plot_reliability, plot_risk_coverage
from mpt_sentiment.evaluation.abstention import risk_coverage
from mpt_sentiment.evaluation.calibration import reliability


def test_both_figures_are_written_as_png_and_svg_and_follow_the_posts(tmp_path):
    rng = np.random.default_rng(0)
    posts, labels = rng.dirichlet(np.ones(3), 200), rng.integers(3, size=200)
    bins, (_, *curve) = reliability(posts, labels), risk_coverage(posts, labels)

    def draw(name, before, systems):
        plot_reliability(tmp_path / f"{name}.png", bins, before)
        plot_risk_coverage(tmp_path / f"{name}_risk.png", systems, "风险")
        for file in (f"{name}.png", f"{name}_risk.png"):
            with Image.open(tmp_path / file) as image:
                assert image.format == "PNG" and min(image.size) > 400
        svg = (tmp_path / f"{name}.svg").read_text() + (tmp_path / f"{name}_risk.svg").read_text()
        assert svg.count("<svg") == 2 and "<text" not in svg  # letters are paths
        return svg.replace(name, "")

    plain = draw("a", None, {"MPT": curve})
    assert draw("a", None, {"MPT": curve}) == plain
    assert draw("b", bins[:5], {"MPT": curve, "语言模型": curve}) != plain
