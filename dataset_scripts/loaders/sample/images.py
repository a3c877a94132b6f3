"""Pictures of the embedded sample: a subject in one of three moods, on a varied background.

Shapes carry the mood (mouth, brows, tears, rays, rain, posture, petals). Colors, sizes, positions, scenery, captions
and noise are independent of it.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from dataset_scripts.loaders.sample.choices import SeededChoices

Color = tuple[int, int, int]

SCENERIES = ("sea", "town", "trees", "hills", "room")
DARK: Color = (35, 30, 40)
WHITE: Color = (250, 250, 250)
TEAR: Color = (60, 140, 235)
LEAF: Color = (50, 140, 60)
SKINS: tuple[Color, ...] = (
    (255, 220, 90),
    (250, 205, 170),
    (225, 170, 120),
    (175, 120, 80),
    (120, 80, 55),
    (160, 215, 140),
    (235, 150, 190),
    (150, 190, 235),
)
OVERSAMPLING = 2  # drawn at twice the size and averaged, for smooth edges


@dataclass(frozen=True)
class Picture:
    """PNG file, and descriptions of its subject with the mood (`shows`) and without it."""

    png: bytes
    shows: str
    subject: str


class Sketch:
    """Canvas with hundredths of its shorter side as the unit; (0, 0) is the top left corner."""

    def __init__(self, choices: SeededChoices):
        self.choices = choices
        width, height = (8 * choices.integer(12, 20) for _ in range(2))
        self.image = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING))
        self.pen = ImageDraw.Draw(self.image)
        self.unit = min(self.image.size) / 100
        self.width, self.height = (side / self.unit for side in self.image.size)

    def _pixels(self, *values: float) -> list[int]:
        # Whole pixels: the last bit of a sine may differ between machines.
        return [round(value * self.unit) for value in values]

    def line(self, points: list[tuple[float, float]], color: Color, thickness: float) -> None:
        pixels = [tuple(self._pixels(*point)) for point in points]
        self.pen.line(pixels, fill=color, width=max(1, round(thickness * self.unit)), joint="curve")

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        self.pen.polygon([tuple(self._pixels(*point)) for point in points], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self.pen.rectangle(self._pixels(left, top, right, bottom), fill=color)

    def disc(self, x: float, y: float, radius: float, color: Color, tall: float = 1.0) -> None:
        self.pen.ellipse(self._pixels(x - radius, y - radius * tall, x + radius, y + radius * tall), fill=color)

    def arc(self, x: float, y: float, radius: float, angles: tuple[int, int], color: Color, thickness: float) -> None:
        """Draw a part of a circle; angles in degrees, clockwise from three o'clock."""
        corners = self._pixels(x - radius, y - radius, x + radius, y + radius)
        self.pen.arc(corners, *angles, fill=color, width=max(1, round(thickness * self.unit)))

    def pie(self, x: float, y: float, radius: float, angles: tuple[int, int], color: Color) -> None:
        self.pen.pieslice(self._pixels(x - radius, y - radius, x + radius, y + radius), *angles, fill=color)

    def color(self, low: int, high: int) -> Color:
        return (self.choices.integer(low, high), self.choices.integer(low, high), self.choices.integer(low, high))


def draw_picture(choices: SeededChoices, mood: str, scenery: str, caption: str) -> Picture:
    """Draw a picture of 96 to 160 pixels a side, in `mood` (positive, neutral or negative)."""
    sketch = Sketch(choices)
    _background(sketch, scenery)
    if choices.chance(0.35):
        _caption(sketch, caption)
    # Drawn last, so that nothing covers it.
    subject, draw = choices.pick(_SUBJECTS)
    shows = draw(sketch, mood)
    image = sketch.image.reduce(OVERSAMPLING)
    _noise(image, choices)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return Picture(buffer.getvalue(), shows, subject)


def _background(sketch: Sketch, scenery: str) -> None:
    choices = sketch.choices
    top, bottom = sketch.color(110, 235), sketch.color(110, 235)
    height = sketch.image.height
    for row in range(height):
        mix = row / height
        shade = tuple(round(a + (b - a) * mix) for a, b in zip(top, bottom, strict=True))
        sketch.pen.line([(0, row), (sketch.image.width, row)], fill=shade)
    horizon = sketch.height * choices.uniform(0.62, 0.85)
    sketch.box(0, horizon, sketch.width, sketch.height, sketch.color(70, 200))
    tint = sketch.color(80, 190)
    count = choices.integer(2, 5)
    for _ in range(count):
        x, size = choices.uniform(0, sketch.width), choices.uniform(6, 16)
        if scenery == "sea":
            sketch.arc(x, horizon + size, size, (200, 340), tint, 1.5)
        elif scenery == "town":
            sketch.box(x, horizon - 2 * size, x + size, horizon, tint)
        elif scenery == "trees":
            sketch.polygon([(x, horizon), (x + size / 2, horizon - 2 * size), (x + size, horizon)], tint)
        elif scenery == "hills":
            sketch.pie(x, horizon + 1, size * 1.6, (180, 360), tint)
        else:
            sketch.box(x, horizon - 1.5 * size, x + 2, horizon + size, tint)


def _face(sketch: Sketch, mood: str) -> str:
    choices = sketch.choices
    r = choices.uniform(27, 42)
    x, y = choices.uniform(r, sketch.width - r), choices.uniform(r, sketch.height - r)
    sketch.disc(x, y, r + 1.5, DARK)
    sketch.disc(x, y, r, choices.pick(SKINS))
    gap, eye_y, pupil = (
        r * choices.uniform(0.34, 0.44),
        y - r * choices.uniform(0.12, 0.25),
        r * choices.uniform(0.09, 0.14),
    )
    thick = r * choices.uniform(0.09, 0.14)
    for side in (-1, 1):
        eye_x = x + side * gap
        sketch.disc(eye_x, eye_y, pupil * 1.7, WHITE)
        sketch.disc(eye_x, eye_y, pupil, DARK)
        # Brows: arched if positive, slanted if negative, else level.
        inner, outer = eye_x - side * r * 0.18, eye_x + side * r * 0.2
        brow = eye_y - r * 0.32
        if mood == "positive":
            sketch.arc(eye_x, brow + r * 0.12, r * 0.22, (200, 340), DARK, thick * 0.8)
        elif mood == "neutral":
            sketch.line([(inner, brow), (outer, brow)], DARK, thick * 0.8)
    angry = mood == "negative" and choices.chance(0.4)
    if mood == "negative":
        lift = -r * 0.17 if angry else r * 0.17
        for side in (-1, 1):
            eye_x, brow = x + side * gap, eye_y - r * 0.32
            inner, outer = eye_x - side * r * 0.22, eye_x + side * r * 0.22
            sketch.line([(inner, brow - lift / 2), (outer, brow + lift)], DARK, thick * 0.9)
    wide = r * choices.uniform(0.45, 0.58)
    if mood == "positive":
        if choices.chance(0.5):
            sketch.pie(x, y + r * 0.15, wide, (0, 180), DARK)
            sketch.pie(x, y + r * 0.15, wide * 0.8, (10, 170), (215, 60, 70))
            sketch.box(x - wide * 0.85, y + r * 0.15, x + wide * 0.85, y + r * 0.26, WHITE)
            return "a laughing face with an open mouth"
        sketch.arc(x, y + r * 0.1, wide * 1.05, (15, 165), DARK, thick * 1.2)
        return "a smiling face with raised brows"
    if mood == "neutral":
        level = y + r * choices.uniform(0.38, 0.48)
        sketch.line([(x - wide * 0.75, level), (x + wide * 0.75, level)], DARK, thick * 1.1)
        return choices.pick(["a calm face with a straight mouth", "a still face with level brows"])
    sketch.arc(x, y + r * 0.78, wide, (200, 340), DARK, thick * 1.3)
    if angry:
        return "an angry face with a deep frown"
    for side in (-1, 1):
        for drop in range(choices.integer(1, 3)):
            sketch.disc(x + side * gap * 1.1, eye_y + r * (0.32 + 0.3 * drop), r * 0.1, TEAR, tall=1.5)
    return "a crying face with tears"


def _cloud(sketch: Sketch, x: float, y: float, size: float, color: Color) -> None:
    for dx, dy, scale in ((-0.8, 0.15, 0.6), (0, -0.15, 0.85), (0.8, 0.1, 0.65)):
        sketch.disc(x + dx * size, y + dy * size, size * scale, color)
    sketch.box(x - 1.1 * size, y + 0.1 * size, x + 1.1 * size, y + 0.7 * size, color)


def _rain(sketch: Sketch, left: float, right: float, top: float, bottom: float) -> None:
    choices = sketch.choices
    slant = choices.uniform(-3, 3)
    for _ in range(round((right - left) * (bottom - top) / 110)):
        x, y = choices.uniform(left, right), choices.uniform(top, bottom)
        sketch.line([(x, y), (x + slant, y + 9)], TEAR, 1.8)


def _weather(sketch: Sketch, mood: str) -> str:
    choices = sketch.choices
    if mood == "positive":
        r = choices.uniform(14, 24)
        x, y = choices.uniform(2 * r, sketch.width - 2 * r), choices.uniform(1.9 * r, sketch.height * 0.6)
        rainbow = choices.chance(0.4)
        if rainbow:
            for band, color in enumerate(((225, 60, 60), (245, 190, 50), (80, 180, 90), (80, 110, 220))):
                sketch.arc(x, y + 2.2 * r, 2.6 * r - 4 * band, (180, 360), color, 4)
        rays, turn = choices.integer(8, 12), choices.uniform(0, 1)
        for ray in range(rays):
            angle = 2 * math.pi * (ray + turn) / rays
            start, end = (
                (x + k * r * math.cos(angle), y + k * r * math.sin(angle)) for k in (1.2, choices.uniform(1.6, 1.9))
            )
            sketch.line([start, end], (255, 190, 40), 3)
        sketch.disc(x, y, r, (255, choices.integer(200, 225), 60))
        return "a shining sun and a rainbow" if rainbow else "a bright shining sun"
    shade = choices.integer(55, 105) if mood == "negative" else choices.integer(195, 240)
    lightning = mood == "negative" and choices.chance(0.5)
    if mood == "negative":
        _rain(sketch, 0, sketch.width, sketch.height * 0.3, sketch.height)
    for _ in range(choices.integer(1, 3)):
        size = choices.uniform(12, 20)
        x, y = choices.uniform(size, sketch.width - size), choices.uniform(size, sketch.height * 0.4)
        if lightning:
            bolt = ((0, 0), (-0.5, 1.1), (0, 1.0), (-0.35, 2.2), (0.6, 0.75), (0.15, 0.8), (0.6, 0))
            sketch.polygon([(x + dx * size, y + size * (0.5 + dy)) for dx, dy in bolt], (255, 235, 80))
        _cloud(sketch, x, y, size, (shade, shade, shade + 10))
    if mood == "neutral":
        return choices.pick(["a plain sky with pale clouds", "an overcast sky without rain"])
    return "a storm with lightning and rain" if lightning else "heavy rain under dark clouds"


def _figure(sketch: Sketch, mood: str) -> str:
    choices = sketch.choices
    size = choices.uniform(62, 82)
    x, top = choices.uniform(28, sketch.width - 28), choices.uniform(10, sketch.height - size - 3)
    head, skin, clothes = size * 0.13, choices.pick(SKINS), sketch.color(30, 130)
    neck, hip, foot = top + size * 0.28, top + size * 0.62, top + size
    limb = size * 0.075
    if mood == "negative":
        _rain(sketch, max(0, x - 26), min(sketch.width, x + 26), max(0, top - 6), foot - 6)
        _cloud(sketch, x, max(8, top - 2), 12, (80, 80, 90))
    stride = size * (0.2 if mood == "positive" else 0.07)
    for side in (-1, 1):
        sketch.line([(x, hip), (x + side * stride, foot)], clothes, limb)
    sketch.line([(x, neck - 2), (x, hip)], clothes, limb * 2)
    if mood == "positive":
        for side in (-1, 1):
            sketch.line([(x, neck + 2), (x + side * size * 0.3, top - 2)], clothes, limb)
        for _ in range(choices.integer(25, 40)):
            sketch.disc(choices.uniform(0, sketch.width), choices.uniform(0, foot), 1.8, sketch.color(40, 255))
    else:
        arm = size * (0.13 if mood == "negative" else 0.17)
        for side in (-1, 1):
            sketch.line([(x, neck + 2), (x + side * arm, hip)], clothes, limb)
    if mood == "neutral":
        sketch.box(x + size * 0.12, hip, x + size * 0.3, hip + size * 0.2, sketch.color(60, 180))
    bowed = mood == "negative"
    head_x, head_y = (x + head * 0.9, neck - head * 0.3) if bowed else (x, top + head)
    sketch.disc(head_x, head_y, head + 1.2, DARK)
    sketch.disc(head_x, head_y, head, skin)
    if mood == "positive":
        sketch.arc(head_x, head_y, head * 0.6, (10, 170), DARK, 1.8)
        return "a person with raised arms among confetti"
    if mood == "negative":
        sketch.arc(head_x, head_y + head * 0.8, head * 0.55, (200, 340), DARK, 1.8)
        return "a person with a bowed head in the rain"
    sketch.line([(head_x - head * 0.5, head_y + head * 0.4), (head_x + head * 0.5, head_y + head * 0.4)], DARK, 1.6)
    return "a person standing with a bag"


def _flower(sketch: Sketch, mood: str) -> str:
    choices = sketch.choices
    x, foot = choices.uniform(32, sketch.width - 32), sketch.height - choices.uniform(4, 12)
    tall = choices.uniform(45, 58)
    petal, pot, earth = sketch.color(90, 255), sketch.color(60, 190), foot - 18
    head = earth - tall
    sketch.polygon([(x - 13, earth), (x + 13, earth), (x + 9, foot), (x - 9, foot)], pot)
    if mood == "negative":
        side = choices.pick([-1, 1])
        stem = [(x, earth), (x, earth - tall * 0.6), (x + side * 9, earth - tall * 0.75), (x + side * 19, earth - 22)]
        brown = (120, 85, 50)
        sketch.line(stem, brown, 3.5)
        for turn in (-0.6, 0, 0.6):
            tip = (x + side * 19 + 12 * math.sin(turn), earth - 22 + 13 * math.cos(turn))
            sketch.line([stem[-1], tip], brown, 5)
        for _ in range(choices.integer(6, 10)):
            sketch.disc(x + choices.uniform(-28, 28), foot + choices.uniform(-8, 2), 3, petal, tall=0.6)
        return "a wilted flower with fallen petals"
    sketch.line([(x, earth), (x, head)], LEAF, 3.5)
    for side in (-1, 1):
        for level in (0.3, 0.55) if mood == "positive" else (0.25, 0.5, 0.75, 0.95):
            y = earth - tall * level
            sketch.polygon([(x, y + 3), (x + side * 9, y - 6), (x + side * 17, y - 7), (x + side * 9, y + 2)], LEAF)
    if mood == "neutral":
        return choices.pick(["a green plant with leaves", "a leafy plant in a pot"])
    petals = choices.integer(6, 9)
    r = choices.uniform(8, 10)
    for number in range(petals):
        angle = 2 * math.pi * number / petals
        sketch.disc(x + r * 1.3 * math.cos(angle), head + r * 1.3 * math.sin(angle), r * 0.75, petal)
    sketch.disc(x, head, r * 0.8, (255, 215, 60))
    return "a flower in full bloom"


_SUBJECTS: tuple[tuple[str, Callable[[Sketch, str], str]], ...] = (
    ("a face", _face),
    ("a face", _face),
    ("the weather", _weather),
    ("a person", _figure),
    ("a plant in a pot", _flower),
)


def _caption(sketch: Sketch, words: str) -> None:
    choices = sketch.choices
    # The built-in font and the basic layout engine need no system font and no text-shaping library.
    font = ImageFont.load_default(size=round(choices.uniform(8, 11) * sketch.unit))
    font = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    top = choices.pick([0.0, sketch.height - 13])
    sketch.box(0, top, sketch.width, top + 13, choices.pick([DARK, WHITE]))
    ink = sketch.color(100, 160)
    sketch.pen.text(sketch._pixels(4, top), words, fill=ink, font=font)


def _noise(image: Image.Image, choices: SeededChoices) -> None:
    for _ in range(choices.integer(40, 220)):
        spot = (choices.integer(0, image.width - 1), choices.integer(0, image.height - 1))
        image.putpixel(spot, (choices.integer(0, 255), choices.integer(0, 255), choices.integer(0, 255)))
