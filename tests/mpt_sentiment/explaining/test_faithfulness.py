"""The faithfulness test on a network that was trained on one informative word per post."""

import numpy as np
import pytest
import torch

from helpers import tiny_baselines, tiny_processor
from mpt_sentiment.explaining import deletion_areas, explain_post, read_post, summarize
from mpt_sentiment.explaining.post import WORDS
from processing_mpt import MPTPipeline

PLANTED = {"good": 0, "bus": 1, "rain": 2}
FILLERS = ["a", "day", "at", "the", "sea", "and", "train", "leaves", "ten"]


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Draw texts of fillers with one planted word, and that word."""
    random = np.random.default_rng(seed)
    drawn = []
    for index in range(count):
        words = list(random.choice(FILLERS, size=7))
        planted = list(PLANTED)[index % 3]
        words.insert(int(random.integers(8)), planted)
        drawn.append((" ".join(words), planted))
    return drawn


@pytest.fixture(scope="module")
def pipe():
    model = tiny_baselines.model("text_cnn").train()
    pipe = MPTPipeline(model=model, processor=tiny_processor.processor(), device="cpu")
    posts = texts(60, seed=0)
    batch = pipe.processor(text=[text for text, _ in posts])
    labels = torch.tensor([PLANTED[word] for _, word in posts])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        loss = model(**batch, labels=labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return pipe


@pytest.mark.parametrize("method", ["leave_one_out", "integrated_gradients"])
def test_a_planted_word_has_the_highest_attribution_and_passes_the_test(pipe, method):
    areas, found = [], 0
    for index, (text, planted) in enumerate(texts(12, seed=1)):
        explanation = explain_post(pipe, {"text": text}, method)
        label = pipe.model.config.label2id[explanation.result["label"]]
        values = explanation.attributions[WORDS]
        found += explanation.parts.words[int(values.argmax())] == planted
        areas.append(deletion_areas(pipe.model, explanation.parts, WORDS, values, label, seed=(0, index)))
    assert found >= 11
    (result,) = summarize({WORDS: areas})
    assert result.trusted and result.num_posts == 12
    assert result.difference == pytest.approx(result.area - result.random_area)
    assert result.interval[0] < result.difference < result.interval[1]


def test_random_attributions_fail_the_test(pipe):
    random, areas = np.random.default_rng(3), []
    for index, (text, _) in enumerate(texts(15, seed=2)):
        parts = read_post(pipe, {"text": text}, grid=4)
        label = int(pipe.model(**parts.inputs)["logits"].argmax())
        values = random.normal(size=len(parts.names[WORDS]))
        areas.append(deletion_areas(pipe.model, parts, WORDS, values, label, seed=(0, index)))
    (result,) = summarize({WORDS: areas})
    assert result.trusted is False and result.interval[0] <= 0


def test_the_area_is_the_mean_fall_over_the_deleted_shares(pipe):
    parts = read_post(pipe, {"text": "what a good day at the sea and rain at ten"}, grid=4)
    values = np.arange(len(parts.names[WORDS]))[::-1]  # deletes from the first word on
    area, _ = deletion_areas(pipe.model, parts, WORDS, values, label=0, num_draws=1)
    words, falls = parts.words, []
    whole = pipe.model(**parts.inputs)["logits"].softmax(dim=-1)[0, 0]
    for count in (1, 2, 3, 4, 6):  # 10 to 50 % of 11 words
        mask = parts.inputs["attention_mask"].clone()
        for word in range(count):
            mask[0, words.tokens[word]] = 0
        falls.append(whole - pipe.model(**parts.inputs | {"attention_mask": mask})["logits"].softmax(dim=-1)[0, 0])
    assert area == pytest.approx(torch.stack(falls).mean().item(), abs=1e-5)


def test_few_posts_have_no_verdict_and_single_parts_no_area(pipe):
    (result,) = summarize({WORDS: [(0.2, 0.1)] * 9})
    assert result.trusted is None and result.interval is None
    parts = read_post(pipe, {"text": "rain"}, grid=4)
    assert deletion_areas(pipe.model, parts, WORDS, np.ones(1), label=0) is None
