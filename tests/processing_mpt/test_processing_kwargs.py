"""Tests of the arguments of a call of MPTProcessor, as transformers' processors take them."""

import base64
import copy
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor

from helpers import tiny
from helpers.tiny_processor import SENTENCES, image, image_processor, processor, tokenizer
from processing_mpt import MPTProcessor

TEXTS = ["what a good day", "rain"]


def equal(batch, other):
    return set(batch) == set(other) and all(torch.equal(batch[name], other[name]) for name in batch)


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 4},
        {"max_length": 4, "padding": "max_length"},
        {"padding": "longest", "padding_side": "left"},
        {"padding": True, "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 12, "pad_to_multiple_of": 4},
        {"add_special_tokens": False},
        {"truncation": "longest_first", "max_length": 3},
        {"truncation": False, "padding": True},
    ],
    ids=str,
)
def test_arguments_of_texts_do_what_they_do_in_the_tokenizer(options):
    expected = tokenizer()(TEXTS, **{"padding": True, "truncation": True, "return_tensors": "pt"} | options)
    make = processor()
    for given in (options, {"text_kwargs": options}):
        batch = make(text=TEXTS, **given)
        assert all(batch[name].equal(expected[name]) for name in ("input_ids", "attention_mask"))


def test_a_group_and_a_flat_argument_can_be_mixed_but_not_contradict():
    batch = processor()(text=TEXTS, text_kwargs={"max_length": 3}, padding="max_length", return_tensors="np")
    assert batch["input_ids"].shape == (2, 3)
    with pytest.raises(ValueError, match="max_length was passed two times"):
        processor()(text=TEXTS, text_kwargs={"max_length": 3}, max_length=4)


def test_a_call_changes_neither_its_arguments_nor_later_calls():
    make, options = processor(), {"text_kwargs": {"max_length": 3}, "common_kwargs": {"return_tensors": "np"}}
    given = copy.deepcopy(options)
    make(text=TEXTS, **given)
    assert given == options
    assert make(text=TEXTS)["input_ids"].shape == (2, 6) and torch.is_tensor(make(text=TEXTS)["input_ids"])


def test_none_asks_for_the_default():
    expected = processor()(text=TEXTS)
    assert equal(processor()(text=TEXTS, padding=None, truncation=None, max_length=None), expected)
    assert equal(processor()(text=TEXTS, text_kwargs={"padding": None, "truncation": None}), expected)


def test_arguments_of_images_reach_the_image_processor():
    expected = image_processor()([image()], do_normalize=False, return_tensors="pt")["pixel_values"]
    for given in ({"do_normalize": False}, {"images_kwargs": {"do_normalize": False}}):
        assert processor()(images=[image()], **given)["pixel_values"].equal(expected)
    assert processor()(images=image(), size={"height": 16, "width": 8})["pixel_values"].shape == (1, 3, 16, 8)


def test_rationales_have_their_own_limit_and_otherwise_the_arguments_of_texts():
    make, rationales = processor(rationale_max_length=5), [{"positive": "nothing but rain and a train"}, None]
    batch = make(text=TEXTS, rationales=rationales, max_length=3)
    assert batch["input_ids"].shape == (2, 3) and batch["rationale_input_ids"].shape == (2, 3, 5)
    batch = make(text=TEXTS, rationales=rationales, rationales_kwargs={"max_length": 4, "padding_side": "left"})
    assert batch["input_ids"].shape == (2, 6) and batch["rationale_input_ids"].shape == (2, 3, 4)
    batch = make(rationales=[{"positive": "rain"}], padding="max_length", padding_side="left")
    assert batch["rationale_attention_mask"][0, 0].tolist() == [0, 0, 1, 1, 1]


# --- forms -----------------------------------------------------------------------------------------------------------

WHOLE = dict(images=[image(), None], text=TEXTS, rationales=[{"positive": "good"}, None])


def test_arrays_hold_what_tensors_hold():
    tensors, arrays = processor()(**WHOLE), processor()(**WHOLE, return_tensors="np")
    assert set(arrays) == set(tensors)
    for name, array in arrays.items():
        assert isinstance(array, np.ndarray) and torch.from_numpy(array).equal(tensors[name])


def test_lists_hold_what_tensors_hold():
    tensors, lists = processor()(**WHOLE), processor()(**WHOLE, return_tensors=None)
    assert lists["input_ids"] == tensors["input_ids"].tolist() and lists["image_mask"] == [True, False]
    assert torch.stack(lists["pixel_values"]).equal(tensors["pixel_values"])
    assert lists["rationale_attention_mask"] == tensors["rationale_attention_mask"].tolist()


def test_without_padding_lists_have_their_own_lengths():
    make = processor()
    expected = tokenizer()(TEXTS)["input_ids"]
    lists = make(text=[TEXTS[0], None, TEXTS[1]], images=[image()] * 3, padding=False, return_tensors=None)
    assert lists["input_ids"] == [expected[0], [], expected[1]] and lists["attention_mask"][1] == []
    assert make(text=TEXTS[:1], padding=False)["input_ids"].tolist() == expected[:1]


# --- inputs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def address():
    """Serve a small image; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/red.png"
    server.shutdown()
    server.server_close()


def png() -> bytes:
    file = io.BytesIO()
    image().save(file, "PNG")
    return file.getvalue()


def test_an_image_is_read_from_path_url_data_uri_and_bytes(tmp_path, address):
    (tmp_path / "red.png").write_bytes(png())
    path = str(tmp_path / "red.png")
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    expected = processor()(images=image())
    for given in (path, tmp_path / "red.png", address, uri, png(), {"bytes": png(), "path": None}):
        assert equal(processor()(images=given), expected)
        assert equal(processor()(images=[given]), expected)


def test_columns_of_a_dataset_are_lists():
    rows = Dataset.from_dict({"text": TEXTS})
    assert equal(processor()(text=rows["text"]), processor()(text=TEXTS))


def test_nested_lists_hold_at_most_one_image():
    expected = processor()(images=[None, image()], text=TEXTS)
    assert equal(processor()(images=[[], [image()]], text=TEXTS), expected)


# --- settings of the tokenizer ---------------------------------------------------------------------------------------


def test_the_tokenizer_s_own_settings_are_the_defaults(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    settings = {"max_length": 5, "padding": "max_length", "padding_side": "left", "truncation_side": "left"}
    settings |= {"pad_to_multiple_of": None, "truncation": None}
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    own = type(tokenizer()).from_pretrained(tmp_path)
    make = MPTProcessor(image_processor(), own)
    batch = make(text=["what a good day", "rain"])
    expected = own(["what a good day", "rain"], padding="max_length", truncation=True, max_length=5)
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert MPTProcessor(image_processor(), own, max_length=9)(text="rain")["input_ids"].shape == (1, 9)
    assert make(text="rain", padding=True)["input_ids"].shape == (1, 3)
    make.save_pretrained(tmp_path / "saved")
    assert equal(MPTProcessor.from_pretrained(tmp_path / "saved")(text=TEXTS), make(text=TEXTS))


# --- tweets ----------------------------------------------------------------------------------------------------------


def tweet_eval(text: str) -> str:
    """Mask as the models of TweetEval document it."""
    words = ["@user" if word.startswith("@") and len(word) > 1 else word for word in text.split(" ")]
    return " ".join("http" if word.startswith("http") else word for word in words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@ann good day https://t.co/abc", "@user good day http"),
        ("Rain &amp; train &lt;3", "Rain & train <3"),
        ("a@b.c @ 5 (http://x) @ann: #day", "a@b.c @ 5 (http://x) @user #day"),
        ("nothing  but rain", "nothing  but rain"),
        ("rain\n@ann\thttp://x", "rain\n@user\thttp"),
    ],
)
def test_tweets_are_masked_as_tweet_eval_masks_them(text, expected):
    make, plain = processor(text_preprocessing="tweet"), processor()
    assert equal(make(text=text), plain(text=expected))
    if "&" not in text and "\n" not in text:
        assert tweet_eval(text) == expected


def test_rationales_are_not_masked_and_an_entity_of_blanks_is_no_text():
    make, plain = processor(text_preprocessing="tweet"), processor()
    rationales = [{"positive": "@ann &amp; rain"}]
    assert equal(make(rationales=rationales), plain(rationales=rationales))
    assert "input_ids" not in make(text=["&nbsp; &#32;"], images=[image()])


def test_the_preprocessing_is_saved_and_used_for_the_vocabulary(tmp_path):
    posts = Dataset.from_dict({"text": ["@ann &amp; rain", *SENTENCES]})
    make = MPTProcessor.from_backbones(tiny.text_config(vocab_size=200), posts=posts, text_preprocessing="tweet")
    assert {"user", "&"} <= set(make.tokenizer.get_vocab()) and "ann" not in make.tokenizer.get_vocab()
    make.save_pretrained(tmp_path)
    assert MPTProcessor.from_pretrained(tmp_path).text_preprocessing == "tweet"


# --- saved and loaded ------------------------------------------------------------------------------------------------


def test_saving_and_loading_again_and_again_changes_nothing(tmp_path):
    make = processor(max_length=7, perspectives=["irony"], text_preprocessing="tweet")
    before, files = make.to_dict(), []
    for turn in range(3):
        make.save_pretrained(tmp_path / str(turn))
        assert make.to_dict() == before
        files.append((tmp_path / str(turn) / "processor_config.json").read_text())
        make = AutoProcessor.from_pretrained(tmp_path / str(turn))  # the package's own code, without consent
        assert type(make) is MPTProcessor and make.to_dict() == before
    assert files[0] == files[1] == files[2]
    saved = json.loads(files[0])
    assert saved["auto_map"] == {"AutoProcessor": "processing_mpt.MPTProcessor"}
    assert saved["processor_class"] == "MPTProcessor" and "auto_map" not in saved["image_processor"]
