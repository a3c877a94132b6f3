"""Tests of the models' `from_backbones`: fields from the processor, and contradictions."""

import json

import pytest
import torch
from transformers import BertModel, CLIPConfig, CLIPImageProcessor, CLIPModel

from helpers import tiny, tiny_processor
from modeling_mpt import SYSTEMS, MPTForSentimentClassification
from processing_mpt import MPTProcessor

from_backbones = MPTForSentimentClassification.from_backbones
TINY = dict(text=tiny.text_config(), vision=tiny.vision_config(), hidden_size=16)


def test_fields_follow_from_processor_and_labels():
    processor = tiny_processor.processor(perspectives=["irony", "literal"], modalities=["text", "image"])
    processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    text = tiny.text_config(vocab_size=3, pad_token_id=2)
    model = from_backbones(
        text, tiny.vision_config(), tiny.timm_config(), processor=processor, labels=["no", "yes"], hidden_size=16
    )
    config = model.config
    assert (config.perspectives, config.modalities) == (["irony", "literal"], ["text", "image"])
    assert (config.pixel_mean, config.pixel_std) == ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    assert config.id2label == {0: "no", 1: "yes"} and config.label2id == {"no": 0, "yes": 1}
    assert config.text_config.vocab_size == len(processor.tokenizer) and config.text_config.pad_token_id == 0
    assert text.vocab_size == 3  # the caller's configuration is unchanged
    batch = processor(images=[tiny_processor.image()], text=["rain"], rationales=[{"irony": "good"}])
    assert model(**batch).logits.shape == (1, 2)


def test_a_timm_cnn_next_to_clip_reads_pixels_with_its_own_statistics(tmp_path):
    clip = CLIPConfig(text_config=dict(tiny.TEXT), vision_config=dict(tiny.VISION), projection_dim=8)
    CLIPModel(clip).save_pretrained(tmp_path)
    side = {"height": 32, "width": 32}
    CLIPImageProcessor(size=side, crop_size=side).save_pretrained(tmp_path)
    cnn = tiny.timm_config()
    cnn.pretrained_cfg = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    processor = MPTProcessor.from_backbones(
        tiny.text_config(), str(tmp_path), cnn, tokenizer=tiny_processor.tokenizer()
    )
    model = from_backbones(tiny.text_config(), str(tmp_path), cnn, processor=processor, hidden_size=16)
    seen = tiny.pixels_seen_by(model.mpt.image_branches.cnn)
    model(**processor(images=[tiny_processor.image((200, 10, 90), size=(32, 32))]))
    pixels = (torch.tensor([200.0, 10.0, 90.0]) / 255).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(seen[0], tiny.normalized(pixels, **cnn.pretrained_cfg), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"perspectives": ["a", "b", "c"]}, ["`perspectives`", "['a', 'b', 'c']", "['positive'"]),
        ({"pixel_mean": [0.1, 0.1, 0.1]}, ["`pixel_mean`", "0.1", "0.5"]),
        ({"modalities": ["rationales"], "loss_weight_mlcl": 0}, ["rationales", "['text', 'image']"]),
        ({"id2label": {0: "no", 1: "yes"}}, ["`id2label`", "'no'", "'positive'"]),
        ({"num_labels": 2}, ["`num_labels`", "2", "3"]),
        ({"vision": tiny.vision_config(image_size=64)}, ["64×64", "32×32", "image_branches=['cnn']"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_value_that_contradicts_processor_or_labels_raises_an_error_with_both(changes, named):
    processor = tiny_processor.processor(modalities=["text", "image"])
    with pytest.raises(ValueError) as error:
        from_backbones(**(TINY | changes), processor=processor, labels=["positive", "neutral", "negative"])
    assert all(part in str(error.value) for part in named), error.value


def test_a_tokenizer_with_more_tokens_than_the_encoder_has_embeddings_raises_an_error(tmp_path):
    torch.manual_seed(0)
    tiny.model(text_config=tiny.text_config(vocab_size=7)).mpt.text_encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="56 tokens.*embeddings of 7"):
        from_backbones(**(TINY | {"text": str(tmp_path)}), processor=tiny_processor.processor())


def test_an_encoder_that_interpolates_its_positions_reads_images_of_another_size():
    vision = tiny.vision_config("dinov2", image_size=64)
    model = from_backbones(**(TINY | {"vision": vision}), processor=tiny_processor.processor())
    assert not model.training and model(**tiny.batch()).logits.shape == (5, 3)


def test_a_cnn_alone_needs_no_vision_encoder():
    cnn = tiny.timm_config()
    cnn.pretrained_cfg = {"input_size": [3, 48, 40], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    processor = MPTProcessor.from_backbones(tiny.text_config(), cnn=cnn, tokenizer=tiny_processor.tokenizer())
    model = from_backbones(
        tiny.text_config(), "no/such-model", cnn, processor=processor, image_branches=["cnn"], hidden_size=16
    )
    assert model.config.vision_config is None and model.mpt.image_branches.vision_encoder is None
    seen = tiny.pixels_seen_by(model.mpt.image_branches.cnn)
    batch = processor(images=[tiny_processor.image()])
    model(**batch)
    assert seen[0].shape == (1, 3, 48, 40) and seen[0].allclose(batch["pixel_values"])


@pytest.mark.parametrize("name", ["late_fusion", "bert", "mgnns"])
def test_baselines_take_their_fields_from_the_processor_too(name):
    processor = tiny_processor.processor(perspectives=["irony"], modalities=["text", "image"])
    model = SYSTEMS[name][1].from_backbones(**TINY, processor=processor, labels=["no", "yes"])
    assert model.config.perspectives == ["irony"] and model.config.num_labels == 2
    with pytest.raises(ValueError, match="rationales.*the processor makes"):
        SYSTEMS[name][1].from_backbones(**TINY, processor=processor, use_rationales=True)


POOLINGS = {
    "none": (None, "cls"),
    "mean": (
        {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 32},
        "mean",
    ),
    "cls": ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
    "new file": ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, "mean"),
    "maximum": ({"pooling_mode": ["max", "mean"]}, "cls"),
}


@pytest.mark.parametrize(("saved", "expected"), POOLINGS.values(), ids=POOLINGS)
def test_a_text_is_pooled_as_its_encoder_was_trained(saved, expected, tmp_path, caplog):
    folder, model_folder = tmp_path / "text", tmp_path / "model"
    BertModel(tiny.text_config()).save_pretrained(folder)
    if saved is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(saved))
    network = SYSTEMS["bert"][1]
    with caplog.at_level("WARNING"):
        network.from_backbones(str(folder)).save_pretrained(model_folder)
    assert ("['max', 'mean'], which is not offered" in caplog.text) is ("max" in str(saved))
    assert network.from_pretrained(model_folder).config.text_pooling == expected
    assert network.from_backbones(str(folder), text_pooling="cls").config.text_pooling == "cls"
