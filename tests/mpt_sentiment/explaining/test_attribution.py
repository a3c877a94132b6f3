"""Leave-one-out against deletion by hand; completeness of integrated gradients."""

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_baselines, tiny_processor
from mpt_sentiment.explaining import explain_post, integrated_gradients, leave_one_out, read_post
from mpt_sentiment.explaining.attribution import path_ends
from mpt_sentiment.explaining.network import distinct_inputs, log_odds, log_odds_without
from mpt_sentiment.explaining.post import MODALITIES, PERSPECTIVES, RATIONALE_WORDS, REGIONS, WORDS
from processing_mpt import MPTPipeline

GRID, LABEL = 4, 2


def noise(side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


POST = {
    "text": "What a good day, at the sea!",
    "image": noise(),
    "rationales": {"positive": "the sea is good", "negative": "nothing but rain and a missed train"},
}


def pipeline_of(name: str) -> MPTPipeline:
    if name == "mpt":
        return tiny_processor.pipeline()
    model = tiny_baselines.model(name, use_rationales=True)
    return MPTPipeline(model=model, processor=tiny_processor.processor(), device="cpu")


@pytest.fixture(scope="module")
def pipe():
    return pipeline_of("mpt")


@pytest.fixture(scope="module")
def parts(pipe):
    return read_post(pipe, POST, GRID)


def odds_of(result: dict) -> float:
    """Log-odds of the class LABEL in a result of the pipeline."""
    probability = list(result["scores"].values())[LABEL]
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize("kind", [MODALITIES, PERSPECTIVES])
def test_leaving_a_modality_or_perspective_out_is_the_post_without_it(pipe, parts, kind):
    effects = leave_one_out(pipe.model, parts, kind, LABEL, batch_size=2)
    for name, effect in zip(parts.names[kind], effects, strict=True):
        if kind == MODALITIES:
            without = POST | {name: None}
        else:
            without = POST | {"rationales": {key: text for key, text in POST["rationales"].items() if key != name}}
        assert effect == pytest.approx(odds_of(pipe(POST)) - odds_of(pipe(without)), abs=1e-5)


def test_leaving_a_word_out_is_the_text_without_its_tokens(pipe, parts):
    effects = leave_one_out(pipe.model, parts, WORDS, LABEL, batch_size=3)
    whole = log_odds(pipe.model(**parts.inputs)["logits"], LABEL)
    for word, effect in enumerate(effects):
        kept = [p for p in range(parts.inputs["input_ids"].shape[1]) if p not in parts.words.tokens[word]]
        inputs = parts.inputs | {name: parts.inputs[name][:, kept] for name in ("input_ids", "attention_mask")}
        assert effect == pytest.approx((whole - log_odds(pipe.model(**inputs)["logits"], LABEL)).item(), abs=1e-5)


def test_a_text_or_rationale_without_words_is_absent(pipe, parts):
    count = len(parts.names[WORDS])
    value = log_odds_without(pipe.model, parts, WORDS, np.ones((1, count), dtype=bool), LABEL, 8)
    assert value[0] == pytest.approx(odds_of(pipe(POST | {"text": None})), abs=1e-5)
    deleted = np.array([[name == "negative" for name, _ in parts.names[RATIONALE_WORDS]]])
    value = log_odds_without(pipe.model, parts, RATIONALE_WORDS, deleted, LABEL, 8)
    without = POST | {"rationales": {"positive": POST["rationales"]["positive"]}}
    assert value[0] == pytest.approx(odds_of(pipe(without)), abs=1e-5)


def test_a_deleted_region_has_the_mean_colour_and_the_others_stay(pipe, parts):
    deleted = np.zeros((1, GRID**2), dtype=bool)
    deleted[0, 5] = True  # row 1, column 1
    pixels = parts.without(REGIONS, deleted)["pixel_values"][0]
    original = parts.inputs["pixel_values"][0]
    side = original.shape[-1] // GRID
    expected = original.clone()
    expected[:, side : 2 * side, side : 2 * side] = original.mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(pixels, expected)


@pytest.mark.parametrize("name", ["mpt", "text_cnn", "bilstm", "image_cnn", "mgnns", "clmlf", "cgaft", "pemnet"])
def test_integrated_gradients_sum_to_the_difference_between_both_ends(name):
    pipe = pipeline_of(name)
    parts = read_post(pipe, POST, GRID)
    attributions = integrated_gradients(pipe.model, parts, LABEL, batch_size=200, num_steps=200)
    start, end = path_ends(pipe.model, parts, LABEL)
    total = sum(values.sum() for values in attributions.values())
    assert abs(total) > 1e-4
    assert total == pytest.approx(end - start, abs=2e-4, rel=0.01)
    assert end == pytest.approx(log_odds(pipe.model(**parts.inputs)["logits"], LABEL).item(), abs=1e-5)


@pytest.mark.parametrize("name", ["mpt", "text_cnn", "itin"])
def test_integrated_gradients_start_at_masked_words_and_a_grey_image(name):
    pipe = pipeline_of(name)
    parts = read_post(pipe, POST, GRID)
    inputs = dict(parts.inputs)
    tokenizer = pipe.processor.tokenizer
    special = torch.tensor([tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id])
    for key in ("input_ids", "rationale_input_ids"):
        inputs[key] = inputs[key].masked_fill(~torch.isin(inputs[key], special), tokenizer.mask_token_id)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = (
            inputs["pixel_values"].mean(dim=(2, 3), keepdim=True).expand_as(inputs["pixel_values"])
        )
    start, _ = path_ends(pipe.model, parts, LABEL)
    assert start == pytest.approx(log_odds(pipe.model(**inputs)["logits"], LABEL).item(), abs=1e-5)


@pytest.mark.parametrize("name", ["mpt", "cgaft", "citenet"])
def test_encoding_distinct_rows_once_changes_no_output(name):
    pipe = pipeline_of(name)
    parts = read_post(pipe, POST, GRID)
    batch = parts.without(WORDS, np.eye(len(parts.names[WORDS]), dtype=bool))
    with torch.inference_mode():
        expected = pipe.model(**batch)["logits"]
        rows = []
        if name == "mpt":
            encoder = pipe.model.mpt.image_branches.vision_encoder
            encoder.embeddings.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
        with distinct_inputs(pipe.model):
            found = pipe.model(**batch)["logits"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert rows in ([], [1])


def test_explanations_of_a_post_are_the_same_each_time(pipe):
    for method in ("leave_one_out", "integrated_gradients"):
        first, second = (explain_post(pipe, POST, method, GRID).to_dict() for _ in range(2))
        assert first == second


def test_integrated_gradients_without_captum_name_the_extra(pipe, parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"mpt-sentiment\[explain\]"):
        integrated_gradients(pipe.model, parts, LABEL, 8)
