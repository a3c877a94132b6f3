"""Baselines so small that a test builds one in a moment, and posts that any of them can learn by heart."""

from typing import Any

import torch

from helpers import tiny
from modeling_mpt import SYSTEMS
from modeling_mpt.systems import BASELINES

NAMES = tuple(BASELINES)
# What makes a system tiny, or takes chance out of its training, beside the common fields.
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
    """Dropout is off, so that two forward passes of a training model can be compared."""
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


def posts(count: int = 16) -> dict[str, torch.Tensor]:
    """Posts with text, image, rationales and a label, all of which is chance."""
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
