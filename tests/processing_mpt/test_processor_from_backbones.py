"""Tests of `MPTProcessor.from_backbones`."""

import json

import pytest
from datasets import Dataset, DatasetDict
from transformers import DetrImageProcessor, ViTConfig, ViTImageProcessor

from dataset_scripts.schema import features
from helpers import tiny, tiny_processor
from processing_mpt import MPTProcessor

from_backbones = MPTProcessor.from_backbones


def posts(text: str = "Rain, rain and a train") -> Dataset:
    """Return one post without image, with rationales on irony."""
    return Dataset.from_list([{"text": text, "image": None, "rationale_irony": "so rain", "rationale_literal": None}])


def test_a_vocabulary_is_learned_on_the_posts():
    processor = from_backbones(tiny.text_config(vocab_size=30), posts=posts())
    words = processor.tokenizer.get_vocab()
    assert len(words) <= 30 and {"[PAD]", "r", "##r", "rain"} <= set(words)
    assert processor.tokenizer.model_max_length == tiny.TEXT["max_position_embeddings"]
    again = from_backbones(tiny.text_config(vocab_size=30), posts=posts())
    assert again.tokenizer.get_vocab() == words
    splits = DatasetDict(train=posts(), test=posts("never seen"))
    assert from_backbones(tiny.text_config(vocab_size=30), posts=splits).tokenizer.get_vocab() == words


def test_perspectives_and_modalities_follow_from_the_posts():
    processor = from_backbones(tiny.text_config(), posts=posts())
    assert (processor.perspectives, processor.modalities) == (["irony", "literal"], ["text", "rationales"])
    named = from_backbones(tiny.text_config(), posts=posts(), perspectives=["irony"], modalities=["text"])
    assert (named.perspectives, named.modalities) == (["irony"], ["text"])
    whole = Dataset.from_list([{"text": "rain", "image": tiny_processor.image()}]).cast_column(
        "image", features()["image"]
    )
    processor = from_backbones(tiny.text_config(), posts=whole)
    assert (processor.perspectives, processor.modalities) == (["positive", "neutral", "negative"], ["text", "image"])


def test_without_posts_all_modalities_or_the_image_alone():
    tokenizer = tiny_processor.tokenizer()
    assert from_backbones(tokenizer=tokenizer).modalities == ["text", "image", "rationales"]
    images = from_backbones(vision=tiny.vision_config())
    assert images.modalities == ["image"]
    assert set(images.data_collator()([{"image": tiny_processor.image(), "text": "rain"}])) == {
        "pixel_values",
        "image_mask",
    }


@pytest.mark.parametrize(("limit", "expected"), [(10**30, 64), (500, 64), (9, 9)])
def test_a_tokenizer_allows_no_more_than_its_encoder_reads(tmp_path, limit, expected):
    tokenizer = tiny_processor.tokenizer()
    tokenizer.model_max_length = limit
    tokenizer.save_pretrained(tmp_path)
    tiny.text_config().save_pretrained(tmp_path)
    assert from_backbones(str(tmp_path)).tokenizer.model_max_length == expected
    assert from_backbones(tiny.text_config(), tokenizer=str(tmp_path)).tokenizer.model_max_length == expected


def test_images_are_processed_for_the_vision_encoder_or_else_for_the_cnn(tmp_path):
    cnn = tiny.timm_config()
    cnn.pretrained_cfg = {"input_size": [3, 48, 40], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    ViTImageProcessor(size={"height": 20, "width": 20}, image_mean=[0.2] * 3).save_pretrained(tmp_path)
    text = tiny_processor.tokenizer()
    saved = from_backbones(vision=str(tmp_path), cnn=cnn, tokenizer=text)
    assert saved.image_size == (20, 20) and list(saved.image_processor.image_mean) == [0.2] * 3
    assert from_backbones(vision=ViTConfig(image_size=28), cnn=cnn, tokenizer=text).image_size == (28, 28)
    alone = from_backbones(cnn=cnn, tokenizer=text)
    assert alone.image_size == (48, 40)
    assert list(alone.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert list(alone.image_processor.image_std) == [0.4, 0.5, 0.6]
    assert from_backbones(tokenizer=text).image_size == from_backbones(cnn=tiny.timm_config()).image_size == (224, 224)


def test_a_detector_reads_images_of_one_size(tmp_path):
    DetrImageProcessor().save_pretrained(tmp_path)
    processor = from_backbones(vision=str(tmp_path))
    batch = processor(images=[tiny_processor.image(size=(40, 30)), tiny_processor.image(size=(10, 90))])
    assert batch["pixel_values"].shape == (2, 3, 512, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": tiny.text_config()}, "`posts` or a `tokenizer`"),
        ({"posts": DatasetDict(test=posts())}, r"'train'.*\['test'\]"),
        ({"posts": posts(), "modalities": ["sound"]}, r"`modalities`.*\['sound'\]"),
    ],
)
def test_arguments_that_cannot_be_used_raise_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_backbones(**arguments)


def test_modalities_are_saved_and_default_to_all_in_older_folders(tmp_path):
    tiny_processor.processor(modalities=["text", "image"]).save_pretrained(tmp_path)
    assert MPTProcessor.from_pretrained(tmp_path).modalities == ["text", "image"]
    file = tmp_path / "processor_config.json"
    fields = json.loads(file.read_text())
    del fields["modalities"]
    file.write_text(json.dumps(fields))
    assert MPTProcessor.from_pretrained(tmp_path).modalities == ["text", "image", "rationales"]
