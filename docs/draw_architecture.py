"""Draw the figure of the architecture that README shows.

    python docs/draw_architecture.py

The same version of matplotlib writes the same bytes: no date, fixed ids, glyphs as outlines.
"""

import argparse
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle

WIDTH, HEIGHT = 1180, 560  # one unit is one point; README shows the figure about 900 px wide
STYLE = {
    "svg.hashsalt": "mpt",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
}

INK, SOFT, PAPER, LINE = "#1F2937", "#6B7280", "#FFFFFF", "#D1D5DB"
# (fill, edge) by type of component
TEXT = ("#DCEBFA", "#2F74B5")
IMAGE = ("#DDF3E4", "#2E8B57")
RATIONALE = ("#FCEBD3", "#C77700")
FUSION = ("#E9E5F8", "#6A51B2")
PLAIN = ("#F3F4F6", "#9CA3AF")
LOSS = ("#FCE4EA", "#C2375E")


class Canvas:
    """White rounded card with boxes and arrows; x to the right, y downwards."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        FigureCanvasSVG(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.axis("off")

    def box(self, x, y, width, height, text="", colours=PLAIN, size=15, weight="normal", radius=9, line=1.6, dash="-"):
        """Draw a rounded box with centred text."""
        fill, edge = colours
        shape = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch((x, y), width, height, shape, facecolor=fill, edgecolor=edge, linewidth=line)
        patch.set_linestyle(dash)
        self.axes.add_patch(patch)
        if text:
            self.text(x + width / 2, y + height / 2, text, size=size, weight=weight)

    def text(self, x, y, text, size=15, colour=INK, align="center", **style):
        """Write text at a position."""
        self.axes.text(x, y, text, size=size, color=colour, ha=align, va="center", linespacing=1.25, **style)

    def arrow(self, *points, colour=SOFT, dash="-", head=True, line=1.7):
        """Draw a line through the points, with a head at the last one."""
        *through, before, end = points
        xs, ys = zip(*through, before, strict=True) if through else ((before[0],), (before[1],))
        if through:
            self.axes.plot(xs, ys, color=colour, linewidth=line, linestyle=dash, solid_joinstyle="round")
        style = "-|>,head_length=6,head_width=3.2" if head else "-"
        patch = FancyArrowPatch(before, end, arrowstyle=style, color=colour, linewidth=line, shrinkA=0, shrinkB=0)
        patch.set_linestyle(dash)
        patch.set_capstyle("butt")
        self.axes.add_patch(patch)

    def vector(self, x, y, text, colours):
        """Draw a modality's vector: a disc with its symbol."""
        self.axes.add_patch(Circle((x, y), 23, facecolor=colours[1], edgecolor=PAPER, linewidth=2, zorder=3))
        self.text(x, y, text, size=17, colour=PAPER, zorder=4)

    def bars(self, x, y, width, rows, step=26):
        """Draw small horizontal bars with names; the length of a bar is its share."""
        for index, (name, share, colour) in enumerate(rows):
            middle = y + index * step
            self.text(x - 8, middle, name, size=14, align="right")
            self.axes.add_patch(
                Rectangle((x, middle - 7), width, 14, facecolor="#FFFFFF", edgecolor=LINE, linewidth=1)
            )
            self.axes.add_patch(Rectangle((x, middle - 7), width * share, 14, facecolor=colour))


def draw_post(canvas: Canvas) -> None:
    """Draw the input: text and image of one post, and the rationales of a large multimodal model."""
    canvas.box(22, 22, 216, 300, colours=("#FAFAFA", LINE), radius=14)
    canvas.text(38, 44, "Post", align="left", weight="bold")
    canvas.box(38, 62, 184, 56, "“Lovely weather,\nas always!”", TEXT, size=14)
    canvas.box(38, 136, 184, 170, colours=("#C3D0DC", IMAGE[1]), radius=9)
    for x, y, width, height in ((105, 200, 76, 46), (155, 200, 80, 44), (130, 180, 74, 52)):
        canvas.axes.add_patch(Ellipse((x, y), width, height, facecolor="#66788A"))
    for row in range(3):
        for column in range(5):
            x, y = 82 + column * 26 - row * 7, 232 + row * 20
            canvas.arrow((x, y), (x - 5, y + 13), colour="#2F6FA5", head=False, line=2.2)

    canvas.arrow((130, 322), (130, 352))
    canvas.box(22, 352, 216, 44, "Large multimodal model", ("#374151", "#374151"), size=14)
    canvas.axes.texts[-1].set(color=PAPER, weight="bold")
    canvas.arrow((130, 396), (130, 418))
    rationales = ("positive: “lovely”, friendly", "neutral: it tells the weather", "negative: rain, so irony")
    for index, rationale in enumerate(rationales):
        canvas.box(22, 418 + index * 40, 216, 34, rationale, RATIONALE, size=13, radius=8)


def draw_branches(canvas: Canvas) -> None:
    """Draw the branches that encode text, image and rationales as one vector each."""
    # Text: BERT, then SKNet parallel to an LSTM, concatenated.
    canvas.arrow((222, 90), (296, 90))
    canvas.box(296, 64, 104, 52, "BERT", TEXT, weight="bold")
    canvas.box(452, 38, 110, 42, "SKNet", TEXT)
    canvas.box(452, 100, 110, 42, "LSTM", TEXT)
    for middle, name in ((59, "$h_1$"), (121, "$h_2$")):
        canvas.arrow((400, 90), (424, 90), (424, middle), (452, middle))
        canvas.arrow((562, middle), (588, middle), (588, 90), (612, 90))
        canvas.text(575, middle - 11, name, size=14, colour=SOFT)
    canvas.box(612, 68, 88, 44, "concat", TEXT, size=14)
    canvas.arrow((700, 90), (735, 90))

    # Image: CNN parallel to a ViT, concatenated and projected.
    canvas.box(452, 196, 110, 42, "CNN", IMAGE)
    canvas.box(452, 258, 110, 42, "ViT", IMAGE)
    for middle, name in ((217, "$h_3$"), (279, "$h_4$")):
        canvas.arrow((222, 248), (424, 248), (424, middle), (452, middle))
        canvas.arrow((562, middle), (588, middle), (588, 248), (612, 248))
        canvas.text(575, middle - 11, name, size=14, colour=SOFT)
    canvas.box(612, 226, 88, 44, "project", IMAGE, size=14)
    canvas.arrow((700, 248), (735, 248))

    # Rationales: the text encoder, then attention over the perspectives.
    for index in range(3):
        canvas.arrow((238, 435 + index * 40), (266, 435 + index * 40), (266, 475), (296, 475))
    canvas.box(296, 445, 104, 60, "text\nencoder", RATIONALE, weight="bold")
    canvas.arrow((348, 116), (348, 445), colour=TEXT[1], dash=(0, (4, 3)), head=False)
    canvas.box(288, 322, 120, 28, "shared weights", (PAPER, TEXT[1]), size=13, radius=13, line=1.2)
    canvas.arrow((400, 475), (452, 475))
    canvas.box(452, 441, 110, 68, "perspective\nattention", RATIONALE)
    canvas.arrow((562, 475), (612, 475))
    canvas.box(612, 453, 88, 44, "linear", RATIONALE, size=14)
    canvas.arrow((700, 475), (735, 475))


def draw_fusion(canvas: Canvas) -> None:
    """Draw the vectors, their weighted sum and the prediction."""
    for y, target in ((90, 232), (248, 276), (475, 320)):
        canvas.arrow((758, y), (806, y), (806, target), (838, target))
    canvas.vector(758, 90, "$t\\,'$", TEXT)
    canvas.vector(758, 248, "$v\\,'$", IMAGE)
    canvas.vector(758, 475, "$r\\,'$", RATIONALE)

    canvas.box(838, 148, 146, 224, colours=FUSION, radius=12)
    canvas.text(911, 170, "LAFF", size=16, weight="bold")
    canvas.text(911, 191, "attention fusion", size=13, colour=SOFT)
    weights = (("$\\alpha_t$", 0.22, TEXT[1]), ("$\\alpha_v$", 0.33, IMAGE[1]), ("$\\alpha_r$", 0.45, RATIONALE[1]))
    canvas.bars(886, 232, 80, weights, step=42)
    canvas.text(911, 351, "$\\alpha_t + \\alpha_v + \\alpha_r = 1$", size=13)

    canvas.arrow((984, 260), (1046, 260))
    canvas.text(1012, 247, "$f$", size=16, colour=SOFT)
    canvas.box(1046, 234, 66, 52, "MLP", FUSION, weight="bold")
    canvas.arrow((1079, 286), (1079, 322))
    canvas.box(1000, 322, 158, 104, colours=("#FAFAFA", LINE), radius=12)
    answers = (("positive", 0.07, SOFT), ("neutral", 0.05, SOFT), ("negative", 0.88, INK))
    canvas.bars(1082, 346, 62, answers, step=28)


def draw_losses(canvas: Canvas) -> None:
    """Draw the losses: cross-entropy of the prediction, MLCL between text and image vectors."""
    dash = (0, (4, 3))
    canvas.arrow((758, 113), (758, 154), colour=LOSS[1], dash=dash, head=False)
    canvas.arrow((758, 184), (758, 225), colour=LOSS[1], dash=dash, head=False)
    canvas.box(722, 154, 72, 30, "MLCL", LOSS, size=14, radius=14, weight="bold")
    canvas.arrow((1079, 426), (1079, 462), colour=LOSS[1], dash=dash, head=False)
    canvas.box(1051, 452, 56, 30, "CE", LOSS, size=14, radius=14, weight="bold")
    canvas.box(858, 500, 300, 40, "", (PAPER, LOSS[1]), radius=10)
    canvas.text(1008, 520, "loss $=\\ \\lambda_1\\cdot$ CE $+\\ \\lambda_2\\cdot$ MLCL", size=15, colour=LOSS[1])


def draw(path: Path) -> None:
    """Write the figure; the ending of `path` chooses the format."""
    with rc_context(STYLE):
        canvas = Canvas()
        canvas.box(3, 3, WIDTH - 6, HEIGHT - 6, colours=(PAPER, LINE), radius=18, line=1.2)
        draw_post(canvas)
        draw_branches(canvas)
        draw_fusion(canvas)
        draw_losses(canvas)
        metadata = {"Title": "Architecture of MPT", "Date": None} if path.suffix == ".svg" else None
        canvas.figure.savefig(path, transparent=True, metadata=metadata, dpi=72)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=Path(__file__).with_name("architecture.svg"))
    draw(parser.parse_args().path)
