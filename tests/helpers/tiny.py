"""Tiny encoders and models, and a batch with every kind of missing input."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    ResNetConfig,
    SiglipVisionConfig,
    TimmWrapperConfig,
    ViTConfig,
    XLMRobertaConfig,
)

from modeling_mpt import MPTConfig, MPTForSentimentClassification

VOCABULARY = 99
TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=37,
    max_position_embeddings=64,
)
VISION = dict(
    image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37
)
SPECIAL_TOKENS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
STAGES = dict(hidden_sizes=[8, 16], depths=[1, 1])

TEXT_ENCODERS = ("bert", "xlm_roberta", "distilbert", "modernbert")
VISION_ENCODERS = ("vit", "dinov2", "clip", "siglip", "convnext", "resnet")
WITH_CLASS_TOKEN = ("vit", "dinov2", "clip")
# Each encoder once, with BERT or ViT as its partner.
ENCODER_PAIRS = [(text, "vit") for text in TEXT_ENCODERS] + [("bert", vision) for vision in VISION_ENCODERS[1:]]


def text_config(kind: str = "bert", **changes: Any) -> PreTrainedConfig:
    if kind == "distilbert":
        return DistilBertConfig(
            vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=37, max_position_embeddings=64
        )
    if kind == "modernbert":
        return ModernBertConfig(**(TEXT | SPECIAL_TOKENS | changes))
    return {"bert": BertConfig, "xlm_roberta": XLMRobertaConfig}[kind](**(TEXT | changes))


def vision_config(kind: str = "vit", **changes: Any) -> PreTrainedConfig:
    if kind == "convnext":
        return ConvNextConfig(num_stages=2, **STAGES)
    if kind == "resnet":
        return ResNetConfig(embedding_size=8, **STAGES)
    if kind == "dinov2":
        return Dinov2Config(**({k: v for k, v in VISION.items() if k != "intermediate_size"} | changes), mlp_ratio=1)
    return {"vit": ViTConfig, "clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[kind](**(VISION | changes))


def timm_config(architecture: str = "test_resnet") -> TimmWrapperConfig:
    return TimmWrapperConfig(architecture=architecture)


def config(text: str = "bert", vision: str = "vit", **changes: Any) -> MPTConfig:
    """Build a tiny configuration without dropout, so that two training passes can be compared."""
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if text == "bert" else {}
    fields = dict(
        text_config=text_config(text, **without_dropout),
        vision_config=vision_config(vision),
        hidden_size=16,
        cnn_channels=[4, 8],
        vision_pooling="cls" if vision in WITH_CLASS_TOKEN else "mean",
        dropout=0.0,
    )
    return MPTConfig(**(fields | changes))


def model(seed: int = 0, **changes: Any) -> MPTForSentimentClassification:
    torch.manual_seed(seed)
    return MPTForSentimentClassification(config(**changes)).eval()


def batch(labels: bool = False, perspectives: int = 3) -> dict[str, torch.Tensor]:
    """Return five posts.

    0 lacks a rationale, 1 has short ones, 2 lacks image and rationales, 3 lacks text, 4 has one token.
    """
    random = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, VOCABULARY, (5, 12), generator=random)
    rationale_input_ids = torch.randint(3, VOCABULARY, (5, perspectives, 20), generator=random)
    attention_mask = torch.arange(12) < torch.tensor([12, 3, 7, 0, 1]).unsqueeze(1)
    rationale_attention_mask = torch.ones(5, perspectives, 20, dtype=torch.long)
    rationale_attention_mask[0, -1] = 0
    rationale_attention_mask[1, :, 9:] = 0
    rationale_attention_mask[2] = 0
    result = {
        "input_ids": input_ids.masked_fill(~attention_mask, 0),
        "attention_mask": attention_mask.long(),
        "pixel_values": torch.randn(5, 3, 32, 32, generator=random),
        "image_mask": torch.tensor([True, True, False, True, True]),
        "rationale_input_ids": rationale_input_ids * rationale_attention_mask,
        "rationale_attention_mask": rationale_attention_mask,
    }
    if labels:
        result["labels"] = torch.tensor([0, 1, 2, 0, 1])
    return result


def rows(batch: dict[str, torch.Tensor], *indices: int) -> dict[str, torch.Tensor]:
    """Return some rows of a batch as a batch."""
    return {name: value[list(indices)] for name, value in batch.items()}


def padded_left(ids: torch.Tensor, mask: torch.Tensor, extra: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Move the padding of sequences to the left and add `extra` columns of it."""
    order = mask.argsort(dim=-1, stable=True)
    widen = torch.nn.functional.pad
    return widen(ids.gather(-1, order), (extra, 0)), widen(mask.gather(-1, order), (extra, 0))


def normalized(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """Normalize pixels between 0 and 1 as an image processor does."""
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def pixels_seen_by(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return a list that collects the input of each later call of `module`."""
    seen = []
    module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    return seen
