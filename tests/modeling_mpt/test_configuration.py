"""Tests of MPTConfig: documentation, validation and JSON round trips of its fields."""

import inspect
import json
import re

import pytest
from transformers import AutoConfig, BertConfig, CLIPConfig, TimmWrapperConfig, ViTConfig

from helpers import tiny
from modeling_mpt import MPTConfig, MPTModel
from modeling_mpt.configuration_base_mpt import SentimentConfig


def test_defaults_are_the_papers():
    config = MPTConfig()
    assert (config.text_config.model_type, config.vision_config.model_type, config.cnn_config) == ("bert", "vit", None)
    assert config.hidden_size == config.text_config.hidden_size == config.vision_config.hidden_size == 768
    assert config.perspectives == ["positive", "neutral", "negative"]
    assert config.id2label == {0: "positive", 1: "neutral", 2: "negative"}
    assert 0.05 <= config.loss_weight_mlcl <= 0.10 and config.loss_weight_ce == 1.0


def test_every_field_is_documented():
    text = "\n".join(inspect.cleandoc(each.__doc__) for each in (MPTConfig, SentimentConfig))
    documented = {name for group in re.findall(r"^ {4}([\w, ]+) \(", text, re.M) for name in group.split(", ")}
    assert set(MPTConfig.field_names()) <= documented


def test_every_switch_comes_back_from_json(tmp_path):
    changes = dict(
        hidden_size=18,
        perspectives=["humour", "anger"],
        modalities=["text", "image"],
        text_branches=["lstm"],
        image_branches=["vit"],
        share_text_encoder=False,
        sknet_kernel_sizes=[1, 7],
        sknet_reduction=4,
        cnn_channels=[4],
        cnn_variant="authors",
        grid_size=5,
        fusion="literal",
        word_size=5,
        normalize_features=True,
        vision_pooling="mean",
        pixel_mean=[0.1, 0.2, 0.3],
        pixel_std=[0.4, 0.5, 0.6],
        dropout=0.2,
        rationale_dropout=0.3,
        freeze_text_layers=1,
        freeze_vision_layers=-1,
        freeze_cnn=True,
        freeze_batch_norm=False,
        loss_weight_ce=0.9,
        loss_weight_mlcl=0.05,
        contrastive_view="fused",
        contrastive_temperature=0.2,
        contrastive_epsilon=1e-6,
        contrastive_reduction="sum",
        class_weights=[1.0, 2.0],
        label_smoothing=0.1,
        random_encoders=["cnn"],
        calibration_temperature=1.7,
    )
    config = tiny.config(**changes, id2label={0: "no", 1: "yes"})
    assert set(MPTConfig.field_names()) - set(changes) == {"text_config", "vision_config", "cnn_config"}
    config.save_pretrained(tmp_path)
    for loaded in (MPTConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert isinstance(loaded, MPTConfig)
        assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
        assert {name: getattr(loaded, name) for name in changes} == changes


def test_an_encoder_is_a_dict_an_object_or_the_default():
    config = MPTConfig(text_config={"model_type": "bert", "hidden_size": 48}, vision_config=ViTConfig(hidden_size=96))
    assert isinstance(config.text_config, BertConfig) and config.text_config.hidden_size == 48
    assert config.vision_config.hidden_size == 96
    assert config.cnn_config is None
    config = MPTConfig(cnn_config={"model_type": "timm_wrapper", "architecture": "test_resnet"})
    assert isinstance(config.cnn_config, TimmWrapperConfig) and config.cnn_config.architecture == "test_resnet"


def test_timm_configuration_with_labels_of_its_own_comes_back(tmp_path):
    cnn = TimmWrapperConfig(
        architecture="test_resnet", num_labels=5, model_args={"in_chans": 3}, pretrained_cfg={"mean": [0.4, 0.4, 0.4]}
    )
    tiny.config(cnn_config=cnn).save_pretrained(tmp_path)
    loaded = MPTConfig.from_pretrained(tmp_path).cnn_config
    assert isinstance(loaded, TimmWrapperConfig)
    assert (loaded.architecture, loaded.num_labels, loaded.model_args) == ("test_resnet", 5, {"in_chans": 3})
    assert loaded.pretrained_cfg == {"mean": [0.4, 0.4, 0.4]}


def test_a_dual_encoder_contributes_its_vision_part():
    dual = CLIPConfig(vision_config=dict(tiny.VISION))
    assert MPTConfig(vision_config=dual).vision_config.model_type == "clip_vision_model"


def test_labels():
    assert MPTConfig(num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert MPTConfig(num_labels=None).num_labels == 3
    assert MPTConfig(num_labels=3).label2id == {"positive": 0, "neutral": 1, "negative": 2}
    assert MPTConfig(id2label={"0": "no", "1": "yes"}).label2id == {"no": 0, "yes": 1}
    config = MPTConfig(label2id={"no": 0, "yes": 1})
    assert config.id2label == {0: "no", 1: "yes"} and config.num_labels == 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_labels_comes_back(count, tmp_path):
    MPTConfig(num_labels=count).save_pretrained(tmp_path)
    loaded = MPTConfig.from_pretrained(tmp_path)
    assert loaded.id2label == MPTConfig(num_labels=count).id2label and len(loaded.label2id) == count


def test_the_number_of_labels_can_be_changed_on_loading(tmp_path):
    MPTConfig().save_pretrained(tmp_path)
    config = MPTConfig.from_pretrained(tmp_path, num_labels=7)
    assert config.num_labels == len(config.id2label) == len(config.label2id) == 7


def test_default_lists_are_not_shared_between_configurations():
    MPTConfig().perspectives.append("fourth")
    MPTConfig().auto_map.clear()
    assert MPTConfig().perspectives == ["positive", "neutral", "negative"] and MPTConfig().auto_map


WRONG = [
    (dict(hidden_size=15), "`hidden_size`", "multiple of 2, the number of `text_branches`, e.g. 16, got 15"),
    (dict(hidden_size=256, text_branches=["mean", "lstm", "sknet"]), "multiple of 3", "e.g. 255, got 256"),
    (dict(hidden_size=0), "`hidden_size`", "e.g. 2, got 0"),
    (dict(hidden_size="16"), "`hidden_size`", "integer, got '16'"),
    (dict(perspectives=[]), "`perspectives`", "leave 'rationales' out of `modalities`"),
    (dict(perspectives=["a", "a"]), "distinct", "got ['a', 'a']"),
    (dict(perspectives="positive"), "`perspectives`", "list"),
    (dict(modalities=["text", "sound"]), "got ['text', 'sound']", "['text', 'image', 'rationales']"),
    (dict(modalities=[]), "`modalities`", "one or more"),
    (dict(text_branches=["sknet", "sknet"]), "`text_branches`", "at most once"),
    (dict(image_branches=["resnet"]), "got ['resnet']", "['cnn', 'vit']"),
    (dict(sknet_kernel_sizes=[4]), "`sknet_kernel_sizes`", "odd"),
    (dict(sknet_reduction=0), "`sknet_reduction`", "positive"),
    (dict(grid_size=0), "`grid_size`", "positive"),
    (dict(fusion="mean"), "`fusion`", "['laff', 'literal', 'concat']"),
    (dict(word_size=-1), "`word_size`", "got -1"),
    (dict(normalize_features=1), "`normalize_features`", "true or false"),
    (dict(cnn_variant="resnet"), "`cnn_variant`", "['pooled', 'authors']"),
    (dict(cnn_variant="authors", cnn_config=tiny.timm_config()), "`cnn_variant='authors'`", "leave one of both out"),
    (dict(contrastive_reduction="none"), "`contrastive_reduction`", "['mean', 'sum']"),
    (dict(cnn_channels=[]), "`cnn_channels`", "[64, 128, 256]"),
    (dict(vision_pooling="max"), "`vision_pooling`", "['cls', 'mean']"),
    (dict(pixel_mean=[0.5]), "`pixel_mean`", "three numbers"),
    (dict(pixel_std=[0.5, 0.5, 0.0]), "[0.5, 0.5, 0.0]", "`image_std`"),
    (dict(dropout=1.0), "`dropout`", "below 1"),
    (dict(calibration_temperature=0.0), "`calibration_temperature`", "positive, got 0.0"),
    (dict(calibration_temperature=float("nan")), "`calibration_temperature`", "positive"),
    (dict(dropout="0.1"), "`dropout`", "number, got '0.1'"),
    (dict(freeze_text_layers=-2), "`freeze_text_layers`", "-1 (all)"),
    (dict(freeze_cnn="no"), "`freeze_cnn`", "true or false"),
    (dict(loss_weight_ce=1.5), "`loss_weight_ce`", "0 < λ2 < λ1 ≤ 1"),
    (dict(loss_weight_ce=0.1, loss_weight_mlcl=0.1), "got 0.1 and 0.1", "`loss_weight_mlcl=0` switches"),
    (dict(loss_weight_mlcl=-0.1), "`loss_weight_mlcl`", "-0.1"),
    (dict(contrastive_view="both"), "`contrastive_view`", "['cross_modal', 'fused']"),
    (dict(contrastive_temperature=0.0), "`contrastive_temperature`", "positive"),
    (dict(contrastive_epsilon="1e-8"), "`contrastive_epsilon`", "YAML"),
    (dict(modalities=["text"]), "lacks ['image']", "contrastive_view='fused'"),
    (dict(class_weights=[1.0, 2.0]), "`class_weights`", "each of the 3 labels"),
    (dict(class_weights=[1.0, 2.0, -1.0]), "`class_weights`", "non-negative"),
    (dict(id2label={1: "no", 2: "yes"}), "`id2label`", "from 0"),
    (dict(id2label={0: "no", 1: "no"}), "`id2label`", "distinct"),
    (dict(text_config="google-bert/bert-base-uncased"), "got 'google-bert", "from_backbones"),
    (dict(cnn_config={"architecture": "resnet18"}), "`cnn_config`", "'model_type'"),
    (dict(problem_type="regression"), "`problem_type`", "single_label_classification"),
    (dict(loss_weigth_mlcl=0.2), "`loss_weigth_mlcl`", "Did you mean `loss_weight_mlcl`?"),
]


@pytest.mark.parametrize("changes, field, remedy", WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_value_raises_an_error_that_names_field_and_remedy(changes, field, remedy):
    with pytest.raises(ValueError) as error:
        MPTConfig(**changes)
    assert field in str(error.value) and remedy in str(error.value)


def test_encoders_that_the_network_does_not_read_are_not_configured():
    cnn_only = MPTConfig(modalities=["image"], image_branches=["cnn"], loss_weight_mlcl=0)
    assert cnn_only.text_config is None and cnn_only.vision_config is None
    text_only = MPTConfig(modalities=["text"], vision_config=tiny.vision_config(), loss_weight_mlcl=0)
    assert text_only.text_config.model_type == "bert" and text_only.vision_config is None


def test_fields_set_after_construction_are_checked_by_the_model(tmp_path):
    tiny.config().save_pretrained(tmp_path)
    config = MPTConfig.from_pretrained(tmp_path, dropout=2)
    with pytest.raises(ValueError, match="`dropout`.*got 2"):
        MPTModel(config)


def test_fields_unknown_to_this_version_are_kept():
    assert MPTConfig(problem_type=None, added_by_a_later_version=3).added_by_a_later_version == 3


def test_saving_names_the_code_beside_the_file_also_after_loading_from_the_hub(tmp_path):
    config = tiny.config(
        auto_map={
            "AutoConfig": "org/repo--configuration_mpt.MPTConfig",
            "AutoModel": "org/repo--modeling_mpt.MPTModel",
            "AutoProcessor": "org/repo--processing_mpt.MPTProcessor",
        }
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_mpt.MPTConfig",
        "AutoModel": "modeling_mpt.MPTModel",
        "AutoModelForSequenceClassification": "modeling_mpt.MPTForSentimentClassification",
        "AutoProcessor": "processing_mpt.MPTProcessor",
    }


def test_folders_of_this_machine_are_not_saved(tmp_path):
    # The model card names the encoders by these entries.
    config = MPTConfig()
    config.text_config._name_or_path = "google-bert/bert-base-uncased"
    config.vision_config._name_or_path = str(tmp_path)
    config.save_pretrained(tmp_path / "saved")
    saved = (tmp_path / "saved" / "config.json").read_text()
    assert str(tmp_path) not in saved and "google-bert/bert-base-uncased" in saved
