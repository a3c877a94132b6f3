"""Uniform access to encoders of transformers and timm: pooling, sizes, pixels."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import cached_file, logging

logger = logging.get_logger(__name__)


def freeze_batch_statistics(cnn: nn.Module) -> None:
    """Let batch normalization use its running statistics without updating them."""
    for module in cnn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def pixel_conversion(cnn: PreTrainedModel, config) -> tuple[list[float], list[float]]:
    """Return scale and shift that convert the processor's pixels to those of a timm CNN.

    The processor normalizes with `config.pixel_mean` and `config.pixel_std`; the CNN has statistics of its own.
    """
    statistics = getattr(cnn.config, "pretrained_cfg", None) or {}
    mean, std = statistics.get("mean", config.pixel_mean), statistics.get("std", config.pixel_std)
    scale = [current / target for current, target in zip(config.pixel_std, std, strict=True)]
    shift = [(current - target) / s for current, target, s in zip(config.pixel_mean, mean, std, strict=True)]
    return scale, shift


def convert_pixels(pixel_values: torch.Tensor, scale: list[float], shift: list[float]) -> torch.Tensor:
    """Apply the scale and shift of [`pixel_conversion`] to pixels `(batch, 3, height, width)`."""
    scale, shift = (pixel_values.new_tensor(values).view(1, 3, 1, 1) for values in (scale, shift))
    return pixel_values * scale + shift


def natural_pooling(encoder: PreTrainedModel, pooling: str) -> str:
    """Return the pooling that a vision encoder was trained with, `"cls"` or `"mean"`.

    Raises:
        ValueError: For `pooling="cls"` and an encoder without a class token.
    """
    natural = "cls" if has_class_token(encoder) else "mean"
    if pooling == "cls" != natural:
        raise ValueError(
            f"A {type(encoder).__name__} has no class token for `vision_pooling='cls'`. Use `vision_pooling='mean'`."
        )
    return natural


def sentence_pooling(source: str) -> str | None:
    """Return the pooling that a saved text encoder was trained with, `"cls"` or `"mean"`.

    sentence-transformers saves it as `1_Pooling/config.json`. `None` without that file, or for another pooling.
    """
    path = cached_file(
        source,
        "config.json",
        subfolder="1_Pooling",
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    fields = json.loads(Path(path).read_text(encoding="utf-8"))
    # One field, or in files of earlier versions a switch for each pooling, e.g. `pooling_mode_mean_tokens`.
    modes = fields.get("pooling_mode") or [
        name.removeprefix("pooling_mode_").split("_token")[0]
        for name, active in fields.items()
        if name.startswith("pooling_mode_") and active
    ]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if modes in (["cls"], ["mean"]):
        return modes[0]
    logger.warning(f"{source} was trained with the pooling {modes}, which is not offered: `text_pooling` is 'cls'.")
    return None


def vision_vector(output, pooling: str, natural: str) -> torch.Tensor:
    """Pool the output of a vision encoder to `(batch, dim)`."""
    # An encoder that normalizes its pooled features (CLIP, ConvNeXt) was trained for those.
    pooled = output.get("pooler_output") if pooling == natural else None
    if pooled is not None:
        return pooled.flatten(1)
    states = output.last_hidden_state
    return states[:, 0] if pooling == "cls" else pool_map(states)


def pool_map(states: torch.Tensor) -> torch.Tensor:
    """Average states `(batch, dim, height, width)` or `(batch, patches, dim)` over space."""
    return states.mean(dim=(2, 3)) if states.dim() == 4 else states.mean(dim=1)


def has_class_token(encoder: PreTrainedModel) -> bool:
    """Return whether the first state of a vision encoder is a class token."""
    return any(name.split(".")[-1] in ("cls_token", "class_embedding") for name, _ in encoder.named_parameters())


def vision_hidden_size(encoder: PreTrainedModel) -> int:
    """Return the size of a vision encoder's states, whose field has several names."""
    if hasattr(encoder, "timm_model"):
        return encoder.timm_model.num_features
    for name in ("neck_hidden_sizes", "hidden_size", "hidden_sizes", "hidden_dim"):
        size = getattr(encoder.config, name, None)
        if size:
            return size[-1] if isinstance(size, list | tuple) else size  # hierarchical encoders list one per stage
    raise ValueError(
        f"The configuration of a {type(encoder).__name__} has no size of its states. Use another vision encoder, or "
        "pass a timm model as `cnn_config`."
    )


def remove_pooler(encoder: PreTrainedModel) -> None:
    """Remove the encoder's trained pooler. It is unused, and unused parameters stall DDP."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):  # the average pooling of a ResNet has none
        encoder.pooler = None
    if getattr(encoder, "use_head", False):  # SigLIP's attention pooling
        encoder.use_head, encoder.head = False, None
