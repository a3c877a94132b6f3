"""Uniform access to encoders of transformers and timm: pooling, sizes, pixels, freezing."""

import torch
from torch import nn
from transformers import PreTrainedModel


def freeze_batch_statistics(cnn: nn.Module) -> None:
    """Make batch normalisation use its running statistics, and keep them."""
    for module in cnn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def pixel_conversion(cnn: PreTrainedModel, config) -> tuple[list[float], list[float]]:
    """Scale and shift that take pixels normalised by `config.pixel_mean` and `config.pixel_std` to the statistics that
    a timm CNN was trained with."""
    statistics = getattr(cnn.config, "pretrained_cfg", None) or {}
    mean, std = statistics.get("mean", config.pixel_mean), statistics.get("std", config.pixel_std)
    scale = [have / want for have, want in zip(config.pixel_std, std, strict=True)]
    return scale, [(m - want) / s for m, want, s in zip(config.pixel_mean, mean, std, strict=True)]


def convert_pixels(pixel_values: torch.Tensor, scale: list[float], shift: list[float]) -> torch.Tensor:
    return pixel_values * pixel_values.new_tensor(scale).view(1, 3, 1, 1) + pixel_values.new_tensor(shift).view(
        1, 3, 1, 1
    )


def natural_pooling(encoder: PreTrainedModel, wanted: str) -> str:
    """What a vision encoder itself pools by: `"cls"` or `"mean"`.

    Raises:
        ValueError: where a class token is wanted of an encoder without one.
    """
    natural = "cls" if has_class_token(encoder) else "mean"
    if wanted == "cls" != natural:
        raise ValueError(
            f"vision_pooling='cls', but a {type(encoder).__name__} has no class token. Write vision_pooling='mean'."
        )
    return natural


def vision_vector(output, pooling: str, natural: str) -> torch.Tensor:
    """A vision encoder's output to `(batch, dim)`."""
    # Where the encoder normalises what it pools itself (CLIP, ConvNeXt), it was trained for those features.
    pooled = output.get("pooler_output") if pooling == natural else None
    if pooled is not None:
        return pooled.flatten(1)
    states = output.last_hidden_state
    return states[:, 0] if pooling == "cls" else pool_map(states)


def pool_map(states: torch.Tensor) -> torch.Tensor:
    """Global average pooling: `(batch, dim, height, width)` or `(batch, patches, dim)` -> `(batch, dim)`."""
    return states.mean(dim=(2, 3)) if states.dim() == 4 else states.mean(dim=1)


def has_class_token(encoder: PreTrainedModel) -> bool:
    """Whether the first state of a vision encoder is a class token."""
    return any(name.split(".")[-1] in ("cls_token", "class_embedding") for name, _ in encoder.named_parameters())


def vision_hidden_size(encoder: PreTrainedModel) -> int:
    """Size of a vision encoder's states, which configurations call by several names."""
    if hasattr(encoder, "timm_model"):
        return encoder.timm_model.num_features
    for name in ("neck_hidden_sizes", "hidden_size", "hidden_sizes", "hidden_dim"):
        size = getattr(encoder.config, name, None)
        if size:
            return size[-1] if isinstance(size, list | tuple) else size  # hierarchical ones list one a stage
    raise ValueError(
        f"The size of the states of a {type(encoder).__name__} is not in its configuration. Give another vision "
        "encoder, or make this one the CNN (`cnn_config`) if it is a timm model."
    )


def freeze_first_layers(encoder: PreTrainedModel, count: int) -> None:
    """Stop the gradients of the embeddings and of the first `count` layers of an encoder, or of all of it for -1.

    Raises:
        ValueError: where the encoder has no such list of layers, or fewer of them.
    """
    for name, parameter in encoder.named_parameters():
        if name.split(".")[-1] == "mask_token":  # DINOv2's and BEiT's, which only their pretraining reads
            parameter.requires_grad_(False)
    if count == 0:
        return
    if count == -1:
        encoder.requires_grad_(False)
        return
    # A ConvNeXt counts its stages.
    depth = getattr(encoder.config, "num_hidden_layers", None) or getattr(encoder.config, "num_stages", None)
    layers = next((m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)
    if layers is None or count > depth:
        raise ValueError(
            f"Freezing the first {count} layers of a {type(encoder).__name__} with {depth} layers is not possible. "
            "Write a number up to its layers, or -1 to freeze all of it."
        )
    embeddings = [module for name, module in encoder.named_modules() if name.split(".")[-1] == "embeddings"]
    for module in (*embeddings, *layers[:count]):
        module.requires_grad_(False)


def remove_pooler(encoder: PreTrainedModel) -> None:
    """Take a trained pooler off an encoder: MPT reads its states, and no weight is saved or waited for in vain."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):  # a ResNet's average pooling has none, and stays
        encoder.pooler = None
    if getattr(encoder, "use_head", False):  # SigLIP's attention pooling
        encoder.use_head, encoder.head = False, None
