"""Attention of the last layer: the paper's figure, labelled as no attribution."""

import numpy as np
import pytest
import torch

from helpers import tiny_baselines, tiny_processor
from mpt_sentiment.explaining import explain, read_post
from mpt_sentiment.explaining.attention import last_attention
from mpt_sentiment.explaining.page import page_html
from mpt_sentiment.explaining.post import RATIONALE_WORDS, REGIONS, WORDS
from processing_mpt import MPTPipeline

POST = {
    "text": "What a good day, at the sea!",
    "image": tiny_processor.image(),
    "rationales": {"positive": "the sea is good", "negative": "nothing but rain and a missed train"},
}
PATCHES = 4  # in a row of the tiny ViT


@pytest.fixture(scope="module")
def pipe():
    return tiny_processor.pipeline()


def test_attention_is_that_of_the_encoders_alone(pipe):
    parts = read_post(pipe, POST, PATCHES)
    shares = last_attention(pipe.model, parts)
    network = pipe.model.mpt
    encoder, vision = network.text_encoder, network.image_branches.vision_encoder
    ids = parts.inputs["rationale_input_ids"][0, pipe.processor.perspectives.index("negative")]
    length = len([token for token in ids.tolist() if token != pipe.processor.tokenizer.pad_token_id])
    for each in (encoder, vision):
        each.set_attn_implementation("eager")
    with torch.no_grad():
        of_words = encoder(parts.inputs["input_ids"], output_attentions=True).attentions[-1][0]
        of_rationale = encoder(ids[None, :length], output_attentions=True).attentions[-1][0]
        of_patches = vision(parts.inputs["pixel_values"], output_attentions=True).attentions[-1][0]
    for each in (encoder, vision):
        each.set_attn_implementation("sdpa")
    received = of_words.mean(dim=(0, 1))
    expected = [received[parts.words.tokens[word]].sum().item() for word in parts.names[WORDS]]
    assert shares[WORDS] == pytest.approx(expected, abs=1e-5)
    received = of_rationale.mean(dim=(0, 1))
    words = parts.rationales["negative"]
    expected = [received[words.tokens[word]].sum().item() for word in words.read]
    assert shares[RATIONALE_WORDS][-len(expected) :] == pytest.approx(expected, abs=1e-5)
    assert shares[REGIONS] == pytest.approx(of_patches.mean(dim=(0, 1))[1:].numpy(), abs=1e-5)


def test_the_network_is_as_before(pipe):
    before = pipe(POST)["scores"]
    last_attention(pipe.model, read_post(pipe, POST, PATCHES))
    assert pipe(POST)["scores"] == before
    assert pipe.model.mpt.text_encoder.config._attn_implementation == "sdpa"


def test_a_network_without_attention_says_what_it_lacks():
    model = tiny_baselines.model("text_cnn", use_rationales=False)
    pipe = MPTPipeline(model=model, processor=tiny_processor.processor(), device="cpu")
    result = explain(pipe, POST, method="attention")
    assert result.notes == [
        "No attention of words of the text: their encoder has none, or the network does not use it."
    ]
    page = page_html(result)
    assert "What a good day, at the sea!" in page and "<b class" not in page and "<s " not in page


def test_the_page_says_that_attention_is_no_attribution(pipe):
    result = explain(pipe, [POST] * 10, method="attention", limit=10, num_draws=1, progress=False)
    assert {test.kind for test in result.faithfulness} == {WORDS, RATIONALE_WORDS, REGIONS}
    assert result.to_dict()["unit"] == "share of attention"
    page = " ".join(page_html(result).split())
    assert "That is no attribution" in page and "log-odds" not in page
    (first, *_) = result.posts
    assert np.all(first.attributions[WORDS] >= 0) and first.attributions[WORDS].sum() < 1
