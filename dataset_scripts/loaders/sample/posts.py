"""The embedded sample: synthetic posts, drawn and written by code, whose label needs both the text and the picture."""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import PIL
from datasets import Dataset

from dataset_scripts.loaders.sample import images, texts
from dataset_scripts.loaders.sample.choices import Dice
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import PERSPECTIVES, features, rationale_column

# (tone of the text, mood of the picture): (label of the post, its share in per cent).
# A picture that contradicts praise makes it sarcasm; a grumble over a glad picture is half a joke, so neither; where
# one side is neutral, the other decides. The shares keep each modality alone uninformative: see `unimodal_bounds`.
POST_TYPES: dict[tuple[str, str], tuple[str, int]] = {
    ("positive", "positive"): ("positive", 9),
    ("positive", "neutral"): ("positive", 13),
    ("positive", "negative"): ("negative", 12),
    ("neutral", "positive"): ("positive", 12),
    ("neutral", "neutral"): ("neutral", 13),
    ("neutral", "negative"): ("negative", 6),
    ("negative", "positive"): ("neutral", 18),
    ("negative", "neutral"): ("negative", 13),
    ("negative", "negative"): ("negative", 4),
}
# One post in twenty lacks one of its rationales, whatever its label.
LOST_RATIONALE = 0.05

CARD_TEXT = """\
**This dataset is synthetic.** Every post is made up by a program: the pictures are drawn and the texts and rationales
are written by code from a small grammar. No person wrote, photographed or annotated anything in it. It exists to try,
test and demonstrate the software at once and without a network. It says nothing about how people write or feel: do
not train a model for real use on it, and do not compare results on it with results on real posts.

Each text has a literal tone and each picture a mood. Their combination decides the label, without noise: where one of
the two is neutral the other decides; praise over a gloomy picture is sarcasm, hence negative; a grumble over a glad
picture is half a joke, hence neutral. Shares are chosen so that the best possible classifier that sees only the text,
or only the picture, stays below 57 % accuracy. Labels: 34 % positive, 31 % neutral, 35 % negative. The three
rationales weigh the same evidence for each reading without knowing the label; 5 % of the posts lack one of them.
"""


def unimodal_bounds() -> dict[str, float]:
    """Accuracy of the best possible classifier that sees one modality alone: `{"text": …, "image": …}`.

    Exact: text and picture are drawn independently of each other once tone and mood are chosen, so a text tells no
    more about the label than its tone does, and a picture no more than its mood.
    """
    bounds = {}
    for place, modality in enumerate(("text", "image")):
        shares: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for seen, (label, share) in POST_TYPES.items():
            shares[seen[place]][label] += share
        total = sum(sum(by_label.values()) for by_label in shares.values())
        bounds[modality] = float(Fraction(sum(max(by_label.values()) for by_label in shares.values()), total))
    return bounds


def load_sample(num_posts: int = 1200, seed: int = 0, on_error: str = "raise") -> Dataset:
    """Draw the embedded sample: `num_posts` rows with the columns of `schema.features()`.

    Nothing is downloaded. The same `num_posts` and `seed` give the same posts on any machine, a smaller sample is the
    beginning of a larger one, and every hundred posts in a row hold each combination of `POST_TYPES` in its exact
    share. Posts are streamed to the `datasets` cache, so memory does not grow with `num_posts`.

    Args:
        num_posts: how many posts, at least 1.
        seed: any whole number; another seed gives other posts.
        on_error: "raise" or "skip" as for every dataset here. No drawn post can be faulty, so both do the same.

    Raises:
        ValueError: if an argument is out of range.
    """
    for name, value in (("num_posts", num_posts), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"sample: {name}={value!r} is not a whole number; give e.g. num_posts=1200, seed=0.")
    if num_posts < 1:
        raise ValueError(f"sample: num_posts={num_posts} is too small; ask for at least 1 post.")
    options = {"num_posts": num_posts, "seed": seed}
    # The version of Pillow is an input: another one may smooth an edge differently.
    posts, _ = build_dataset(
        "sample", draw_posts, features(), inputs=PIL.__version__, options=options, on_error=on_error
    )
    return posts


def draw_posts(report: BuildReport, num_posts: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of `load_sample` one by one; nothing ever goes to `report`."""
    deck = [post_type for post_type, (_, share) in POST_TYPES.items() for _ in range(share)]
    for number in range(num_posts):
        block, place = divmod(number, len(deck))
        if place == 0:
            dealt = Dice(seed, "types", block).shuffled(deck)
        yield draw_post(seed, number, *dealt[place])


def draw_post(seed: int, number: int, tone: str, mood: str) -> dict[str, Any]:
    """One row: post `number` of `seed`, with a text of this `tone` and a picture of this `mood`."""
    # One stream of choices per part: the text cannot depend on the mood, nor the picture on the tone.
    topic = Dice(seed, number, "topic").pick(texts.TOPICS)
    writing = texts.write_text(Dice(seed, number, "text"), tone, topic)
    picture = images.draw_picture(Dice(seed, number, "image"), mood, topic.scenery, topic.place.upper())
    rationales: dict[str, str | None] = {
        rationale_column(perspective): texts.write_rationale(
            Dice(seed, number, perspective), perspective, tone, writing.toned, mood, picture.shows, picture.subject
        )
        for perspective in PERSPECTIVES
    }
    losing = Dice(seed, number, "lost")
    if losing.chance(LOST_RATIONALE):
        rationales[rationale_column(losing.pick(PERSPECTIVES))] = None
    label, _ = POST_TYPES[tone, mood]
    return {
        "id": f"sample-{seed}-{number:05d}",
        "image": {"bytes": picture.png, "path": None},
        "text": writing.text,
        **rationales,
        "label": label,
        "text_label": tone,
        "image_label": mood,
        "language": "en",
        "source": "mpt_sample",
    }
