"""Tests of MPTProcessor: incomplete posts, image modes, truncation, tokenizers, and saving."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from helpers import tiny
from helpers.tiny_processor import image, image_processor, processor, tokenizer
from processing_mpt import MPTProcessor
from processing_mpt.images_mpt import to_rgb
from processing_mpt.processing_mpt import MODEL_INPUTS
from processing_mpt.texts_mpt import checked_text

TEXTS = ["what a good day", "rain"]


def decoded(processor, batch, row=0):
    ids, mask = batch["input_ids"][row], batch["attention_mask"][row]
    return processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)


# --- shapes and absences ---------------------------------------------------------------------------------------------


def test_a_whole_batch_has_the_documented_names_shapes_and_types():
    rationales = [{"positive": "good", "neutral": "a day", "negative": "what"}] * 2
    batch = processor()(images=[image(), image()], text=TEXTS, rationales=rationales)
    assert set(batch) == set(MODEL_INPUTS)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 6)
    assert batch["pixel_values"].shape == (2, 3, 32, 32) and batch["pixel_values"].dtype == torch.float32
    assert batch["image_mask"].tolist() == [True, True]
    assert batch["rationale_input_ids"].shape == batch["rationale_attention_mask"].shape == (2, 3, 4)
    assert batch["input_ids"].dtype == batch["rationale_attention_mask"].dtype == torch.long


def test_absent_parts_are_masked_and_do_not_shift_the_others():
    make = processor()
    batch = make(
        images=[None, image("red"), image("blue")],
        text=["rain", None, "  \n "],
        rationales=[None, {"negative": "missed train"}, {"positive": " ", "neutral": None, "negative": "rain"}],
    )
    assert batch["image_mask"].tolist() == [False, True, True]
    assert batch["pixel_values"][0].eq(0).all()
    assert batch["pixel_values"][1, :, 0, 0].tolist() == [1, -1, -1]
    assert batch["pixel_values"][2, :, 0, 0].tolist() == [-1, -1, 1]
    assert batch["attention_mask"].any(dim=1).tolist() == [True, False, False]
    has_rationale = batch["rationale_attention_mask"].any(dim=2)
    assert has_rationale.tolist() == [[False] * 3, [False, False, True], [False, False, True]]
    ids = batch["rationale_input_ids"][1, 2]
    assert make.tokenizer.decode(ids, skip_special_tokens=True) == "missed train"


def test_what_no_post_of_the_batch_has_is_left_out():
    assert set(processor()(text=TEXTS)) == {"input_ids", "attention_mask"}
    assert set(processor()(images=[image()], text=[None])) == {"pixel_values", "image_mask"}
    only = processor()(rationales=[{"positive": "good"}])
    assert set(only) == {"rationale_input_ids", "rationale_attention_mask"}


def test_single_values_are_lists_of_one():
    make = processor()
    single = make(images=image(), text="rain", rationales={"positive": "good"})
    listed = make(images=[image()], text=["rain"], rationales=[{"positive": "good"}])
    assert set(single) == set(listed)
    assert all(single[name].equal(listed[name]) for name in single)


def test_padding_is_to_the_longest_or_to_the_limits():
    make = processor(max_length=9, rationale_max_length=7)
    longest = make(text=TEXTS, rationales=[{"positive": "rain"}, None])
    assert longest["input_ids"].shape == (2, 6) and longest["rationale_input_ids"].shape == (2, 3, 3)
    limits = make(text=TEXTS, rationales=[{"positive": "rain"}, None], padding="max_length")
    assert limits["input_ids"].shape == (2, 9) and limits["rationale_input_ids"].shape == (2, 3, 7)
    assert limits["attention_mask"].sum() == longest["attention_mask"].sum()


def test_perspectives_keep_the_order_they_were_given_in():
    make = processor(perspectives=["irony", "literal"])
    batch = make(rationales=[{"literal": "rain"}])
    assert batch["rationale_attention_mask"].any(dim=2).tolist() == [[False, True]]


def test_halves_of_a_surrogate_pair_are_joined_and_a_single_half_is_read_as_u_fffd():
    assert checked_text("rain \ud83d\ude00", "A text") == "rain \U0001f600"
    assert checked_text("rain \ud83d x\ude00", "A text") == "rain \ufffd x\ufffd"
    assert checked_text("\ufeffrain", "A text") == "\ufeffrain"


# --- truncation ------------------------------------------------------------------------------------------------------


def test_truncated_texts_are_counted_and_logged_once(caplog):
    make = processor(max_length=4, rationale_max_length=5)
    with caplog.at_level(logging.WARNING):
        batch = make(
            text=["what a good day", "rain and"], rationales=[{"positive": "nothing but rain and a train"}] * 2
        )
        make(text=["nothing but rain", "rain and"])  # the second has 4 tokens and is whole
    assert batch["input_ids"].shape == (2, 4) and batch["rationale_input_ids"].shape == (2, 3, 5)
    assert make.truncated == {"text": 2, "rationale": 2}
    messages = [record.getMessage() for record in caplog.records if "truncated" in record.getMessage()]
    assert len(messages) == 2
    assert "4 tokens" in messages[0] and "max_length" in messages[0]
    assert "rationale_max_length" in messages[1]


def test_the_tokenizer_s_own_limit_holds_too():
    batch = processor()(text=["rain " * 500], padding="max_length")
    assert batch["input_ids"].shape == (1, tiny.TEXT["max_position_embeddings"])


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "pixel"),
    [
        (image("red"), (255, 0, 0)),
        (image(100, "L"), (100, 100, 100)),
        (image(1, "1"), (255, 255, 255)),
        (image((100, 255), "LA"), (100, 100, 100)),
        (image((100, 0), "LA"), (255, 255, 255)),
        (image((255, 0, 0, 255), "RGBA"), (255, 0, 0)),
        (image((255, 0, 0, 0), "RGBA"), (255, 255, 255)),
        (image((0, 255, 255, 0), "CMYK"), (255, 0, 0)),
        (image("red").quantize(4), (255, 0, 0)),
        (image(257 * 100, "I;16"), (100, 100, 100)),
        (image(257 * 100, "I"), (100, 100, 100)),
        (image(100, "I"), (100, 100, 100)),
    ],
    ids="RGB L 1 LA transparent-LA RGBA transparent-RGBA CMYK P I;16 16-bit-I 8-bit-I".split(),
)
def test_every_image_mode_is_read_as_it_looks(picture, pixel):
    rgb = to_rgb(picture)
    assert rgb.mode == "RGB" and rgb.getpixel((5, 5)) == pixel


def test_the_transparent_colour_of_a_palette_is_white(tmp_path):
    picture = image("red")
    picture.paste("blue", (0, 0, 20, 30))
    picture = picture.quantize(2)
    picture.save(tmp_path / "p.png", transparency=picture.getpixel((0, 0)))
    rgb = to_rgb(Image.open(tmp_path / "p.png"))
    assert rgb.getpixel((0, 0)) == (255, 255, 255) and rgb.getpixel((39, 0)) == (255, 0, 0)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    image("red").save(tmp_path / "a.gif", save_all=True, append_images=[image("blue")])
    batch = processor()(images=[Image.open(tmp_path / "a.gif")])
    red, _, blue = batch["pixel_values"][0, :, 5, 5].tolist()
    assert red > 0.9 and blue < -0.9


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    picture = image("red", size=(40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # stored on its side
    picture.save(tmp_path / "e.jpg", exif=exif)
    assert to_rgb(Image.open(tmp_path / "e.jpg")).size == (20, 40)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (5, 40), (4, 40), (3, 40), (3, 3), (1, 1)], ids=str)
def test_pixels_are_those_of_the_image_processor_alone(size, caplog):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    expected = image_processor()([picture], return_tensors="pt")["pixel_values"]
    assert processor()(images=[picture])["pixel_values"].equal(expected) and not caplog.records


def test_arrays_and_tensors_give_what_their_image_gives():
    make, array = processor(), np.array(image((200, 10, 90)))
    expected = make(images=[image((200, 10, 90))])["pixel_values"]
    channels_first = np.ascontiguousarray(array.transpose(2, 0, 1))
    for given in (array, channels_first, torch.from_numpy(channels_first)):
        assert torch.allclose(make(images=[given])["pixel_values"], expected, atol=1e-6)
        assert torch.allclose(make(images=given)["pixel_values"], expected, atol=1e-6)
    stacked = make(images=np.stack([array, array]))["pixel_values"]
    assert torch.allclose(stacked, expected.expand(2, -1, -1, -1), atol=1e-6)


def test_images_of_all_sizes_and_kinds_share_a_batch():
    images = [image(90, "L", (7, 90)), None, np.zeros((9, 12, 3), np.uint8), image((1, 2, 3, 4), "RGBA", (50, 5))]
    batch = processor()(images=images, text=["rain"] * 4)
    assert batch["pixel_values"].shape == (4, 3, 32, 32)
    assert batch["image_mask"].tolist() == [True, False, True, True]


# --- errors ----------------------------------------------------------------------------------------------------------


def truncated_image(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "half.jpg")
    content = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    return Image.open(tmp_path / "half.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "At least one of `images`, `text`, `rationales`"),
        ({"text": ["a", "b"], "images": [None]}, r"\{'images': 1, 'text': 2\}"),
        (
            {"text": ["rain", None], "images": [None, None]},
            "Post 1 of the batch",
        ),
        ({"text": ["rain", " "]}, "Post 1 of the batch"),
        ({"text": ["rain", float("nan")]}, "text of post 1.*nan.*float"),
        ({"rationales": [{"positive": 3}]}, "positive rationale of post 0.*3.*int"),
        ({"rationales": [{"positiv": "good"}]}, r"Post 0.*\['positiv'\].*\['positive'"),
        ({"rationales": ["good"]}, "rationales of post 0.*'good'"),
        ({"images": ["photo.jpg"]}, r"image of post 0 \(photo.jpg\).*No such file"),
        ({"images": [7]}, "image of post 0.*PIL image, a path.*int: '7'"),
        ({"images": [np.zeros((10, 12))]}, r"image of post 0.*\(10, 12\).*PIL.Image.fromarray"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)
def test_inputs_that_cannot_be_processed_raise_an_error_with_the_post(arguments, message):
    with pytest.raises(ValueError, match=message):
        processor()(**arguments)


def test_an_image_that_does_not_decode_names_post_and_file(tmp_path):
    with pytest.raises(ValueError, match=r"The image of post 1 \(.*half.jpg\) cannot be decoded .*truncated"):
        processor()(images=[image(), truncated_image(tmp_path)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perspectives": []}, "`perspectives`.*distinct"),
        ({"perspectives": "positive"}, "`perspectives`.*list.*'positive'"),
        ({"perspectives": ["a", "a"]}, "distinct"),
        ({"modalities": ["sound"]}, "`modalities`.*'image'.*'sound'"),
        ({"max_length": 0}, "`max_length`.*0"),
        ({"rationale_max_length": "320"}, "`rationale_max_length`.*'320'"),
    ],
)
def test_a_wrong_option_raises_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        processor(**options)


# --- other tokenizers ------------------------------------------------------------------------------------------------


def roberta_style_tokenizer() -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe.train_from_iterator(TEXTS, vocab_size=400, min_frequency=1, special_tokens=special, show_progress=False)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, model_input_names=["input_ids"], **names)


def test_a_byte_level_tokenizer_without_token_types_and_without_a_limit_works():
    make = MPTProcessor(image_processor(), roberta_style_tokenizer(), max_length=8)
    batch = make(text=[*TEXTS, "naïve 🙂 text of many bytes"])
    assert set(batch) == {"input_ids", "attention_mask"} and batch["input_ids"].shape == (3, 8)
    assert decoded(make, batch) == "what a good day"
    assert batch["input_ids"][1][~batch["attention_mask"][1].bool()].unique().tolist() == [make.tokenizer.pad_token_id]


def test_a_tokenizer_that_pads_on_the_left_does_so():
    left = tokenizer()
    left.padding_side = "left"
    expected = left(TEXTS, padding=True, return_tensors="pt")
    batch = MPTProcessor(image_processor(), left)(text=TEXTS, rationales=[{"positive": "rain"}, None])
    assert all(batch[name].equal(expected[name]) for name in ("input_ids", "attention_mask"))
    assert MPTProcessor(image_processor(), left)(text=TEXTS, padding_side="right")["attention_mask"][1, 0] == 1


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_end():
    left = tokenizer()
    left.truncation_side = "left"
    make = MPTProcessor(image_processor(), left, max_length=4)
    assert decoded(make, make(text=["what a good day"])) == "good day"


# --- saved and loaded ------------------------------------------------------------------------------------------------


def test_parts_of_a_saved_processor_open_by_themselves(tmp_path):
    processor().save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).size == {"height": 32, "width": 32}
    assert AutoTokenizer.from_pretrained(tmp_path).decode(processor()(text="rain")["input_ids"][0][1:-1]) == "rain"
    # transformers writes the processor's class into the entry of the image processor too.
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert set(saved["image_processor"].pop("auto_map", {})) <= {"AutoProcessor"}


def test_options_can_be_changed_while_loading(tmp_path):
    processor().save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True, max_length=4)
    assert loaded(text=["what a good day"])["input_ids"].shape == (1, 4)
