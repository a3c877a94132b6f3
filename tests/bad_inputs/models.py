"""Configurations, weights and inputs of the networks."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from bad_inputs.case import BadInput, Call
from helpers import tiny, tiny_baselines, tiny_processor
from modeling_mpt import SYSTEMS, MPTConfig, MPTForSentimentClassification

load = MPTForSentimentClassification.from_pretrained


@functools.cache
def network(name: str = "mpt", **changes: Any) -> torch.nn.Module:
    return tiny.model(**changes) if name == "mpt" else tiny_baselines.model(name, **changes)


def given(name: str = "mpt", **inputs: Any) -> Call:
    """Call a network with a sound batch in which some inputs are replaced."""
    return lambda folder: network(name)(**tiny.batch(labels=True) | inputs)


def configured(**fields: Any) -> Call:
    return lambda folder: MPTConfig(**fields)


def baseline(name: str, **fields: Any) -> Call:
    return lambda folder: SYSTEMS[name][0](**fields)


def saved(folder: Path) -> None:
    network().save_pretrained(folder / "model")


def damaged(change: Call) -> Call:
    """Return a writer of a saved model that `change` damages."""

    def write(folder: Path) -> None:
        saved(folder)
        change(folder / "model")

    return write


def edited(**fields: Any) -> Call:
    """Return a writer of a saved model whose `config.json` has other values."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damaged(change)


def shortened(name: str, count: int) -> Call:
    return damaged(lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:count]))


def opened(**changes: Any) -> Call:
    return lambda folder: load(folder / "model", **changes)


def save_bert(folder: Path) -> None:
    BertModel(BertConfig(**tiny.TEXT)).save_pretrained(folder / "model")


def matched(model: dict[str, Any] | None = None, **processor: Any) -> Call:
    """Create a model from configurations and a processor."""
    encoders = {"text": tiny.text_config(), "vision": tiny.vision_config()} | (model or {})
    create = MPTForSentimentClassification.from_backbones
    return lambda folder: create(processor=tiny_processor.processor(**processor), hidden_size=16, **encoders)


BATCH = tiny.batch()
IDS, RATIONALES, PIXELS = BATCH["input_ids"], BATCH["rationale_input_ids"], BATCH["pixel_values"]
WITHOUT_MASK = {"attention_mask": None}
WEIGHTS = "model.safetensors"

ROWS = [
    # --- inputs ---
    BadInput("model_id_above_vocabulary", given(input_ids=IDS + 99), ("`input_ids`", "0 to 98", "processor")),
    BadInput("model_id_below_zero", given(input_ids=IDS - 1), ("`input_ids`", "id -1", "0 to 98")),
    BadInput(
        "model_id_of_rationale", given(rationale_input_ids=RATIONALES + 99), ("`rationale_input_ids`", "0 to 98")
    ),
    BadInput("model_id_of_words", given("text_cnn", input_ids=IDS + 99), ("`input_ids`", "0 to 98")),
    BadInput("model_float_ids", given(input_ids=IDS.float()), ("`input_ids`", "integers", "float32")),
    BadInput("model_flat_ids", given(input_ids=IDS[0]), ("`input_ids`", "(batch, seq_len)")),
    BadInput("model_flat_rationales", given(rationale_input_ids=RATIONALES[:, 0]), ("num_perspectives", "(5, 20)")),
    BadInput(
        "model_fewer_perspectives",
        given(rationale_input_ids=RATIONALES[:, :2], rationale_attention_mask=None),
        ("(batch, 3, rationale_len)", "(5, 2, 20)"),
    ),
    BadInput(
        "model_mask_of_other_shape",
        given(attention_mask=BATCH["attention_mask"][:, :5]),
        ("`attention_mask`", "(5, 12)", "(5, 5)"),
    ),
    BadInput(
        "model_additive_mask",
        given(attention_mask=(BATCH["attention_mask"] - 1.0) * 1e9),
        ("`attention_mask`", "0 at padding"),
    ),
    BadInput(
        "model_rationale_mask_of_other_shape",
        given(rationale_attention_mask=BATCH["rationale_attention_mask"][..., 0]),
        ("`rationale_attention_mask`", "(5, 3, 20)", "(5, 3)"),
    ),
    BadInput(
        "model_image_mask_of_other_shape", given(image_mask=torch.ones(5, 17)), ("`image_mask`", "(batch,)", "(5, 17)")
    ),
    BadInput("model_unequal_posts", given(pixel_values=PIXELS[:3]), ("one row per post", "'pixel_values': 3")),
    BadInput("model_integer_pixels", given(pixel_values=PIXELS.byte()), ("`pixel_values`", "uint8", "processor")),
    BadInput("model_grey_pixels", given(pixel_values=PIXELS[:, :1]), ("(batch, 3, height, width)", "(5, 1, 32, 32)")),
    BadInput(
        "model_channels_last",
        given(pixel_values=PIXELS.permute(0, 2, 3, 1)),
        ("(batch, 3, height, width)", "(5, 32, 32, 3)"),
    ),
    BadInput("model_pixels_of_other_size", given(pixel_values=torch.zeros(5, 3, 40, 40)), ("40*40", "32*32")),
    BadInput(
        "model_longer_than_encoder",
        given(input_ids=torch.ones(5, 65, dtype=torch.long), **WITHOUT_MASK),
        ("65 tokens", "reads 64", "max_length=64"),
    ),
    BadInput(
        "model_label_out_of_range",
        given(labels=torch.tensor([0, 1, 2, 3, 0])),
        ("`labels` has 3", "3 labels", "id2label"),
    ),
    BadInput("model_label_ignored", given(labels=torch.tensor([0, 1, 2, -100, 0])), ("`labels` has -100", "0 to 2")),
    BadInput(
        "model_label_of_baseline",
        given("citenet", labels=torch.tensor([0, 1, 2, 3, 0])),
        ("`labels` has 3", "3 labels"),
    ),
    BadInput("model_float_labels", given(labels=torch.rand(5)), ("`labels`", "one integer per post", "float32")),
    BadInput(
        "model_one_hot_labels",
        given(labels=torch.eye(3)[[0, 1, 2, 0, 1]].long()),
        ("`labels`", "one integer per post", "(5, 3)"),
    ),
    BadInput("model_without_inputs", lambda folder: network()(), ("At least one of `input_ids`",)),
    BadInput("model_attentions_of_sdpa", given(output_attentions=True), ("'eager'", "set_attn_implementation")),
    BadInput(
        "model_attentions_of_a_cnn", given("image_cnn", output_attentions=True), ("needs an encoder with attention",)
    ),
    BadInput(
        "model_checkpointing_of_a_cnn",
        lambda folder: network("image_cnn").gradient_checkpointing_enable(),
        ("ImageCNN", "does not support activation checkpointing"),
    ),
    BadInput(
        "model_vocabulary_of_images",
        lambda folder: network("image_cnn").resize_token_embeddings(105),
        ("reads no text", "token embeddings"),
    ),
    # --- configurations ---
    BadInput("config_misspelt_field", configured(hiden_size=8), ("`hiden_size`", "Did you mean `hidden_size`")),
    BadInput(
        "config_unknown_modality", configured(modalities=["text", "video"]), ("`modalities`", "'image'", "'video'")
    ),
    BadInput("config_text_for_number", configured(contrastive_epsilon="1e-8"), ("`contrastive_epsilon`", "1.0e-8")),
    BadInput(
        "config_encoder_by_name", configured(text_config="bert-base-uncased"), ("`text_config`", "from_backbones")
    ),
    BadInput("config_class_weights", configured(class_weights=[1.0, 2.0]), ("`class_weights`", "3 labels")),
    BadInput(
        "config_labels_with_gap",
        configured(id2label={0: "a", 2: "b"}),
        ("`id2label`", "number distinct labels from 0"),
    ),
    BadInput("config_perspective_twice", configured(perspectives=["a", "a"]), ("`perspectives`", "distinct names")),
    BadInput("config_lambdas", configured(loss_weight_mlcl=2.0), ("λ2 < λ1", "loss_weight_mlcl=0")),
    BadInput(
        "config_unknown_encoder",
        configured(text_config={"model_type": "brt"}),
        ("`text_config`", "'brt'", "Did you mean 'bert'"),
    ),
    BadInput("config_heads", baseline("mgnns", hidden_size=16, num_heads=3), ("`num_heads`", "16", "3")),
    BadInput(
        "config_provider", baseline("clmlf", visual_provider="dino"), ("`visual_provider`", "'vit_patches'", "'dino'")
    ),
    # --- saved folders ---
    BadInput("weights_truncated", opened(), ("damaged", "download them again"), shortened(WEIGHTS, 5000)),
    BadInput("weights_empty", opened(), ("damaged", "download them again"), shortened(WEIGHTS, 0)),
    BadInput(
        "weights_missing", opened(), ("no file named", WEIGHTS), damaged(lambda folder: (folder / WEIGHTS).unlink())
    ),
    BadInput("config_json_truncated", opened(), ("config.json", "JSON"), shortened("config.json", 50)),
    BadInput("config_json_of_another_type", opened(), ("'bert'", "mpt_sentiment"), edited(model_type="bert")),
    BadInput("config_json_misspelt", opened(), ("`droput`", "Did you mean `dropout`"), edited(droput=0.5)),
    BadInput("folder_of_another_model", opened(), ("'bert'", "mpt_sentiment", "from_backbones"), save_bert),
    BadInput(
        "num_labels_of_another_model",
        opened(num_labels=5),
        ("num_labels", "ignore_mismatched_sizes=True"),
        saved,
        advice=opened(num_labels=5, ignore_mismatched_sizes=True),
    ),
    # --- processor and model ---
    BadInput("perspectives_mismatch", matched({"perspectives": ["a"]}), ("`perspectives`", "the processor has")),
    BadInput("modalities_mismatch", matched(modalities=["text"]), ("modalities",)),
    BadInput(
        "labels_contradict_count",
        matched({"labels": ["a", "b"], "num_labels": 3}),
        ("`num_labels` is 3", "`labels` has 2"),
    ),
]
