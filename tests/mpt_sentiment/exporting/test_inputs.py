"""Inputs of a graph without torch are those of the processor."""

import numpy as np
import pytest

from helpers import tiny_processor
from mpt_sentiment.exporting.folder import write_settings
from mpt_sentiment.exporting.inputs import PostInputs, prepared_text
from processing_mpt.texts_mpt import TEXT_PREPROCESSING, checked_text

TEXTS = ["a day", "@you see https://x.org/a &amp; more", "\ud83d\ude00 \ud83d", " \n", "", None, "a@b http"]
POSTS = [
    {"id": "1", "text": "what a good day", "image": tiny_processor.image(), "label": "positive"},
    {"text": "the bus leaves at ten " * 9, "rationales": {"neutral": "a bus", "negative": " "}},
    {"image": tiny_processor.image("blue"), "rationale_positive": "the sea", "rationale_negative": "rain " * 20},
]


@pytest.fixture
def pipe():
    processor = {"max_length": 9, "rationale_max_length": 5, "text_preprocessing": "tweet"}
    pipe = tiny_processor.pipeline()
    pipe.processor = tiny_processor.processor(**processor)
    return pipe


@pytest.fixture
def inputs(pipe, tmp_path):
    write_settings(pipe, tmp_path)
    return PostInputs(tmp_path, pipe.model.config.modalities)


@pytest.mark.parametrize("preprocessing", TEXT_PREPROCESSING)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_prepared_as_by_the_processor(text, preprocessing):
    expected = checked_text(text, "The text", TEXT_PREPROCESSING[preprocessing])
    assert prepared_text(text, "The text", preprocessing) == expected


def test_inputs_are_those_of_the_processor(pipe, inputs, caplog):
    parts = [pipe.preprocess(post)["post"] for post in POSTS]
    expected = pipe.processor(
        images=[post["image"] for post in parts],
        text=[post["text"] for post in parts],
        rationales=[post["rationales"] for post in parts],
    )
    arrays = inputs(POSTS)
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(arrays[name], value.numpy(), atol=1e-6)
    assert inputs.truncated == pipe.processor.truncated == {"text": 1, "rationale": 1}
    assert "A text was truncated to 9 tokens." in caplog.messages


def test_absent_parts_are_zeros(inputs):
    arrays = inputs([{"text": "a"}])
    assert not arrays["image_mask"].any() and not arrays["pixel_values"].any()
    assert arrays["rationale_attention_mask"].shape[:2] == (1, 3) and not arrays["rationale_attention_mask"].any()
    assert not inputs([{"image": tiny_processor.image()}])["attention_mask"].any()


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ({"txt": "a"}, "Post 0 has the unknown key 'txt'.*Did you mean 'text'"),
        ({"id": "p7", "text": " "}, "Post 'p7' must have at least one of"),
        ({"text": 5}, "the text must be a string or None, got a int"),
        ({"text": "a", "rationales": {"happy": "b"}}, r"rationales for \['happy'\]"),
        ({"rationales": {"neutral": "b"}, "rationale_neutral": "b"}, "got both"),
        ({"image": b"%PDF-1"}, "the image cannot be decoded.*PDF"),
    ],
)
def test_a_faulty_post_is_refused_in_one_line(inputs, post, message):
    with pytest.raises(ValueError, match=message) as error:
        inputs([post])
    assert len(str(error.value)) <= 400
