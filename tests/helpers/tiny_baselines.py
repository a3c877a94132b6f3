"""Tiny baselines and a batch of random posts that each of them can memorize."""

from typing import Any

import torch
from transformers import DetrConfig

from helpers import tiny
from modeling_mpt import SYSTEMS
from modeling_mpt.baselines_modeling_mpt import Posts
from modeling_mpt.baselines_visual_mpt import Tokens
from modeling_mpt.systems import BASELINES

NAMES = tuple(BASELINES)
# Fields that make a system tiny or its training deterministic, in addition to those of `config`.
CHANGES: dict[str, dict[str, Any]] = {
    "text_cnn": {"num_filters": 8},
    "clstm": {"num_filters": 8},
    "image_cnn": {"grid_size": 8},
    "pemnet": {"grid_size": 8},
    "clmlf": {"head_size": 4, "image_layers": 1, "fusion_layers": 1, "view_deletion": 0.0},
    "cgaft": {"policy_size": 8, "head_size": 4},
    "mgnns": {"max_pairs": 50, "num_objects": 5, "num_scenes": 7, "gcn_size": 16},
    "citenet": {"head_size": 4, "integration_layers": 1, "alignment_size": 8, "distribution_size": 4},
}


def config(name: str, **changes: Any):
    """Build a tiny configuration. Without dropout, passes in training mode are equal."""
    fields = dict(
        text_config=tiny.text_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        vision_config=tiny.vision_config(),
        hidden_size=16,
        cnn_channels=[4, 8],
        dropout=0.0,
    )
    return SYSTEMS[name][0](**(fields | CHANGES.get(name, {}) | changes))


def model(name: str, seed: int = 0, **changes: Any):
    torch.manual_seed(seed)
    return SYSTEMS[name][1](config(name, **changes)).eval()


def detector_config(**changes: Any) -> DetrConfig:
    """Build a tiny DETR with 7 queries and 5 classes."""
    fields = dict(
        use_timm_backbone=False,
        backbone_config=tiny.vision_config("resnet"),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        num_queries=7,
        num_labels=5,
    )
    return DetrConfig(**(fields | changes))


def posts(count: int = 16) -> dict[str, torch.Tensor]:
    """Draw random posts with text, image, rationales and a label."""
    draw = torch.Generator().manual_seed(1)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(3, tiny.VOCABULARY, shape, generator=draw)

    mask = torch.arange(8) < torch.randint(3, 9, (count, 1), generator=draw)
    return {
        "input_ids": ids(count, 8) * mask,
        "attention_mask": mask.long(),
        "pixel_values": torch.randn(count, 3, 32, 32, generator=draw),
        "image_mask": torch.ones(count, dtype=torch.bool),
        "rationale_input_ids": ids(count, 3, 6),
        "rationale_attention_mask": torch.ones(count, 3, 6, dtype=torch.long),
        "labels": torch.arange(count) % 3,
    }


def as_posts(batch: dict[str, torch.Tensor]) -> Posts:
    return Posts(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], batch["image_mask"])


def encode(model, batch: dict[str, torch.Tensor]) -> dict[str, Tokens]:
    """Encode a batch as the model does before it pools."""
    return model.encode(as_posts(batch))


def words(model, batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    """Look up the word embeddings `(length, size)` of one post without its padding."""
    ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
    return model.text_encoder.get_input_embeddings()(ids)
