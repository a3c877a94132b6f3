"""Synthetic posts of the embedded sample, their label rule and their loader."""

from collections.abc import Iterator
from typing import Any

import PIL
from datasets import Dataset

from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.loaders.sample.choices import SeededChoices
from dataset_scripts.loaders.sample.images import draw_picture
from dataset_scripts.loaders.sample.texts import TOPICS, write_rationale, write_text
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import PERSPECTIVES, features, post_row

# (tone of the text, mood of the picture): (label of the post, its share in per cent).
# Praise with a sad picture is sarcasm, hence negative; complaint with a glad picture is a joke, hence neutral; if one
# of the two is neutral, the other decides. By these shares, the best classifier of one modality alone reaches an
# accuracy of 0.53 (text) or 0.56 (image).
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
MISSING_RATIONALE = 0.05  # share of posts that lack one of their rationales, independent of the label

SAMPLE = DatasetFacts(
    title="MPT's embedded sample",
    about="""\
**This dataset is synthetic.** A program draws the pictures and writes the texts and rationales from a small grammar.
No person wrote, photographed or annotated anything in it. It serves to try, test and demonstrate the software without
a network. It says nothing about how people write or feel: do not train a model for real use on it, and do not compare
results on it with results on real posts.

Each text has a literal tone and each picture a mood. Their combination decides the label, without noise: if one of
the two is neutral, the other decides; praise with a gloomy picture is sarcasm, hence negative; complaint with a glad
picture is a joke, hence neutral. Shares are chosen so that the best possible classifier that sees only the text, or
only the picture, stays below 57 % accuracy. Labels: 34 % positive, 31 % neutral, 35 % negative. The three rationales
weigh the same evidence for each reading and are independent of the label; 5 % of the posts lack one of them.""",
    own_terms=False,
    license="apache-2.0",
    synthetic=True,
    rationales="They are written by code from the same small grammar as the posts; no model and no person wrote them.",
)


def load_sample(num_posts: int = 1200, seed: int = 0, on_error: str = "raise") -> tuple[Dataset, BuildReport]:
    """Generate the embedded sample; nothing is downloaded.

    Equal arguments give equal posts on any machine, a smaller sample is the beginning of a larger one, and every
    hundred posts in a row have each combination of `POST_TYPES` in its exact share. Posts are written to the
    `datasets` cache one at a time, so memory does not grow with `num_posts`.

    Args:
        num_posts (`int`, defaults to 1200): number of posts, at least 1.
        seed (`int`, defaults to 0): of the random draws.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, without effect, since no generated post is faulty.

    Returns:
        The dataset with the columns of `schema.features()`, and the `BuildReport`.

    Raises:
        ValueError: an argument is invalid.
    """
    for name, value in (("num_posts", num_posts), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"sample: `{name}` must be an integer, got {value!r}.")
    if num_posts < 1:
        raise ValueError(f"sample: `num_posts` must be at least 1, got {num_posts}.")
    return build_dataset(
        "sample",
        draw_posts,
        features(),
        inputs=PIL.__version__,  # another version may smooth edges differently
        options={"num_posts": num_posts, "seed": seed},
        on_error=on_error,
    )


def draw_posts(report: BuildReport, num_posts: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of `load_sample` one at a time."""
    block_types = [post_type for post_type, (_, share) in POST_TYPES.items() for _ in range(share)]
    for number in range(num_posts):
        block, position = divmod(number, len(block_types))
        if position == 0:
            shuffled = SeededChoices(seed, "types", block).shuffled(block_types)
        report.read += 1
        yield draw_post(seed, number, *shuffled[position])


def draw_post(seed: int, number: int, tone: str, mood: str) -> dict[str, Any]:
    """Generate post `number` of a seed, with the tone of its text and the mood of its picture."""
    # One stream of choices per part: the text cannot depend on the mood, nor the picture on the tone.
    topic = SeededChoices(seed, number, "topic").pick(TOPICS)
    text = write_text(SeededChoices(seed, number, "text"), tone, topic)
    picture = draw_picture(SeededChoices(seed, number, "image"), mood, topic.scenery, topic.place.upper())
    rationales: dict[str, str | None] = {
        perspective: write_rationale(SeededChoices(seed, number, perspective), perspective, tone, text, mood, picture)
        for perspective in PERSPECTIVES
    }
    missing = SeededChoices(seed, number, "lost")
    if missing.chance(MISSING_RATIONALE):
        rationales[missing.pick(PERSPECTIVES)] = None
    label, _ = POST_TYPES[tone, mood]
    return post_row(
        f"sample-{seed}-{number:05d}",
        text=text.content,
        image={"bytes": picture.png, "path": None},
        label=label,
        text_label=tone,
        image_label=mood,
        language="en",
        source="mpt_sample",
        rationales=rationales,
    )
