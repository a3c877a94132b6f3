"""Fake engine: deterministic answers that pass the gate."""

import asyncio

import pytest

from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.quality import gate

PERSPECTIVES = ("positive", "neutral", "negative")
TEXTS = {"en": "an ordinary post number {}", "zh": "普通的一条微博，第{}条"}


def ask(number, language, attempt=0):
    row = {"id": str(number), "text": TEXTS[language].format(number), "image": None}
    post = prepare_post(row, 784, language)
    answers = [asyncio.run(FakeEngine().generate(post, perspective, attempt)).text for perspective in PERSPECTIVES]
    return post, dict(zip(PERSPECTIVES, answers, strict=True))


def test_answers_depend_on_post_perspective_and_attempt():
    assert ask(1, "en") == ask(1, "en")
    assert ask(1, "en")[1] != ask(1, "en", attempt=1)[1] != ask(2, "en", attempt=1)[1]
    assert len(set(ask(1, "en")[1].values())) == 3


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_pass_the_gate(language):
    codes = []
    for number in range(150):
        post, answers = ask(number, language)
        for perspective, text in answers.items():
            options = dict(perspective=perspective, language=language, post_text=post.text, siblings=answers)
            codes += gate.check(text, finish_reason="stop", **options).hard
    # Few answers, or both sentences of one, are similar by chance.
    assert set(codes) <= {"sibling_same", "loop"} and len(codes) < 15
