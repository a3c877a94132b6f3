"""Fixtures of prediction: posts of which some cannot be read."""

import json
import logging
from pathlib import Path

import pytest

from helpers import tiny_processor

NUM_POSTS = 50
WORDS = "what a good day at the sea nothing but rain and a missed train the bus leaves at ten".split()


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Working directory of the test, with images in it."""
    logger = logging.getLogger("dataset_scripts")
    monkeypatch.setattr(logger, "level", logger.level)  # the command sets it for its process
    monkeypatch.chdir(tmp_path)
    for colour in ("red", "blue"):
        tiny_processor.image(colour).save(f"{colour}.png")
    Path("broken.png").write_bytes(b"<html>")
    return tmp_path


def post(number: int) -> dict:
    """Build a post; of ten, one has no image and one no rationale."""
    return {
        "id": f"p{number}",
        "text": " ".join(WORDS[: 1 + number % 17]),
        "image": [None, "red.png", "blue.png"][min(number % 10, 2)],
        "rationale_positive": None if number % 10 == 3 else WORDS[number % len(WORDS)],
        "label": ["positive", "neutral", "negative", None][number % 4],
        "author": f"author {number % 3}",
    }


@pytest.fixture
def rows():
    return [post(number) for number in range(NUM_POSTS)]


@pytest.fixture
def faulty_rows(rows):
    """Return JSON lines of which six are faulty: four by the image, one blank, one no object."""
    changes = {3: {"image": "gone.png"}, 11: {"image": "broken.png"}, 12: {"image": ["red.png", "blue.png"]}}
    changes |= {30: {"image": "broken.png"}, 41: {"text": None, "image": None, "rationale_positive": " "}}
    lines = [json.dumps(row | changes.get(number, {})) for number, row in enumerate(rows)]
    lines[20] = '{"id": "p20", "text": '
    return "".join(line + "\n" for line in lines)
