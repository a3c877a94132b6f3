"""Encoders of MPT: token states without padding, text = SKNet ∥ LSTM, image = CNN ∥ ViT."""

import torch
from torch import nn
from transformers import PreTrainedModel

# A length bucket holds sequences down to this share of its longest, or this many tokens shorter: at most about a
# quarter of an encoder call is padding, and a batch makes few calls.
BUCKET_RATIO = 0.75
BUCKET_SLACK = 8


def compact(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Move the real tokens of each row to its front, in order, so that neither the side nor the amount of padding can
    change a position or a result.

    Args:
        input_ids (`torch.LongTensor` of shape `(rows, seq_len)`)
        attention_mask (`torch.Tensor` of shape `(rows, seq_len)`): 1 for real tokens.

    Returns:
        The moved ids and mask, and the order `(rows, seq_len)` with which `torch.gather` moved them.
    """
    order = attention_mask.bool().int().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order), order


def compact_rationales(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, perspectives: list[str], dropout: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`compact` of the rationales of a batch, as `batch · num_perspectives` rows.

    Args:
        input_ids, attention_mask (`torch.Tensor` of shape `(batch, num_perspectives, rationale_len)`)
        perspectives (`list[str]`): their names.
        dropout (`float`): probability that a post loses all its rationales.

    Raises:
        ValueError: where there is not one row for each perspective.
    """
    if input_ids.dim() != 3 or input_ids.shape[1] != len(perspectives):
        raise ValueError(
            f"`rationale_input_ids` of shape {tuple(input_ids.shape)}: write (batch, {len(perspectives)}, "
            f"rationale_len), one row for each of {perspectives}."
        )
    mask = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).bool()
    if dropout > 0:
        kept = torch.rand(len(mask), device=mask.device) >= dropout
        mask = mask & kept.view(-1, 1, 1)
    return compact(input_ids.flatten(0, 1), mask.flatten(0, 1))


def undo_compact(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Put what an encoder said about compacted tokens back to their places.

    Args:
        states (`torch.Tensor` of shape `(rows, seq_len, dim)` or attentions `(rows, heads, seq_len, seq_len)`)
        order (`torch.LongTensor` of shape `(rows, seq_len)`): from `compact`.
    """
    back = order.argsort(dim=1)
    if states.dim() == 4:
        states = states.gather(2, back[:, None, :, None].expand_as(states))
        return states.gather(3, back[:, None, None, :].expand_as(states))
    return states.gather(1, back.unsqueeze(-1).expand_as(states))


def readable(mask: torch.Tensor) -> torch.Tensor:
    """The mask `(rows, seq_len)` with one token in rows that have none: attention over nothing is NaN."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return (mask | (first & ~mask.any(dim=1, keepdim=True))).long()


def length_buckets(lengths: list[int]) -> list[list[int]]:
    """Row numbers of non-empty sequences, grouped with others of about their length, longest first."""
    buckets: list[list[int]] = []
    longest = 0
    for row in sorted((r for r, length in enumerate(lengths) if length > 0), key=lambda r: -lengths[r]):
        if not buckets or lengths[row] < min(longest * BUCKET_RATIO, longest - BUCKET_SLACK):
            buckets.append([])
            longest = lengths[row]
        buckets[-1].append(row)
    return buckets


def token_states(encoder: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states of sequences that stand at the front of their rows (see `compact`), by one encoder call per
    length bucket. Empty sequences are not encoded.

    Args:
        input_ids (`torch.LongTensor` of shape `(rows, seq_len)`)
        attention_mask (`torch.Tensor` of shape `(rows, seq_len)`)

    Returns:
        `torch.Tensor` of shape `(rows, seq_len, encoder_hidden)`, zero at the padding.
    """
    mask = attention_mask.bool()
    if torch.compiler.is_compiling():  # the lengths are not known: one call, in which an empty row reads one token
        states = encoder(input_ids=input_ids, attention_mask=readable(mask)).last_hidden_state
        return states * mask.unsqueeze(-1)
    lengths = mask.sum(dim=1).tolist()
    states = None
    for bucket in length_buckets(lengths):
        rows, width = torch.tensor(bucket, device=mask.device), lengths[bucket[0]]
        part = encoder(
            input_ids=input_ids[rows, :width], attention_mask=attention_mask[rows, :width]
        ).last_hidden_state * mask[rows, :width].unsqueeze(-1)
        if states is None:
            states = part.new_zeros(*input_ids.shape, part.shape[-1])
        states[rows, :width] = part
    if states is None:
        states = next(encoder.parameters()).new_zeros(*input_ids.shape, encoder.config.hidden_size)
    return states


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(rows, seq_len, dim)` and `(rows, seq_len)` -> `(rows, dim)`; zero for a row without tokens."""
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class SelectiveKernel(nn.Module):
    """SKNet over tokens: convolutions of several widths, of which each channel selects its mix by the content of the
    whole text (Li et al., *Selective Kernel Networks*; h1 of the paper's Eq. 1).

    Args:
        input_size (`int`): size E of a token's state.
        output_size (`int`): size of h1.
        kernel_sizes (`list[int]`): odd widths in tokens.
        reduction (`int`): E is squeezed to `max(E // reduction, 32)`.
    """

    def __init__(self, input_size: int, output_size: int, kernel_sizes: list[int], reduction: int) -> None:
        super().__init__()
        squeezed = max(input_size // reduction, 32)
        self.convolutions = nn.ModuleList(nn.Conv1d(input_size, input_size, k, padding=k // 2) for k in kernel_sizes)
        self.squeeze = nn.Sequential(nn.Linear(input_size, squeezed), nn.ReLU())
        self.excitations = nn.ModuleList(nn.Linear(squeezed, input_size) for _ in kernel_sizes)
        self.projection = nn.Linear(input_size, output_size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch, seq_len, input_size)`): zero at the padding.
            mask (`torch.BoolTensor` of shape `(batch, seq_len)`)

        Returns:
            h1, `torch.Tensor` of shape `(batch, output_size)`.
        """
        branches = [torch.relu(conv(states.transpose(1, 2))).transpose(1, 2) for conv in self.convolutions]
        # Pooling is linear: the mean of the weighted sum is the weighted sum of the means.
        pooled = torch.stack([masked_mean(branch, mask) for branch in branches], dim=1)  # (batch, branch, channel)
        squeezed = self.squeeze(pooled.sum(dim=1))
        selection = torch.stack([excite(squeezed) for excite in self.excitations], dim=1).softmax(dim=1)
        return self.projection((selection * pooled).sum(dim=1))


class TextBranches(nn.Module):
    """t' = [h1; h2] from token states: SKNet ∥ LSTM (paper, Eq. 1 and 2).

    Args:
        config ([`MPTConfig`])
        input_size (`int`): size E of a token's state.
    """

    def __init__(self, config, input_size: int) -> None:
        super().__init__()
        size = config.hidden_size // len(config.text_branches)
        self.sknet = self.lstm = None
        if "sknet" in config.text_branches:
            self.sknet = SelectiveKernel(input_size, size, config.sknet_kernel_sizes, config.sknet_reduction)
        if "lstm" in config.text_branches:
            self.lstm = nn.LSTM(input_size, size, batch_first=True)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch, seq_len, input_size)`): real tokens first, zero at the padding.
            mask (`torch.BoolTensor` of shape `(batch, seq_len)`)

        Returns:
            t', `torch.Tensor` of shape `(batch, hidden)`.
        """
        features = []
        if self.sknet is not None:
            features.append(self.sknet(states, mask))
        if self.lstm is not None:
            outputs, _ = self.lstm(states)
            last = (mask.sum(dim=1) - 1).clamp(min=0)  # the last real token, not the last padding
            features.append(outputs[torch.arange(outputs.shape[0], device=outputs.device), last])
        return torch.cat(features, dim=-1)


class ConvNet(nn.Module):
    """The plain CNN: per channel width one 3×3 convolution, group normalisation (no batch statistics), ReLU and a
    halving; then global average pooling.

    Args:
        channels (`list[int]`): widths of the layers; the last one is the size of the result.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in zip([3, *channels], channels, strict=False):
            groups = next(g for g in (8, 4, 2, 1) if width_out % g == 0)
            layers += [
                nn.Conv2d(width_in, width_out, 3, stride=2, padding=1),
                nn.GroupNorm(groups, width_out),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(batch, 3, height, width)` -> `(batch, channels[-1])`."""
        return self.layers(pixel_values).mean(dim=(2, 3))


class ImageBranches(nn.Module):
    """v' = W_p [h3; h4] + b_p: CNN ∥ ViT and the projection (paper, Eq. 3 and 4).

    Args:
        config ([`MPTConfig`])
        vision_encoder ([`PreTrainedModel`], *optional*): `None` where `image_branches` lacks "vit".
        cnn ([`PreTrainedModel`], *optional*): a [`TimmWrapperModel`]; `None` for the plain ConvNet or no CNN.
    """

    def __init__(self, config, vision_encoder: PreTrainedModel | None, cnn: PreTrainedModel | None) -> None:
        super().__init__()
        self.pooling = config.vision_pooling
        self.freeze_batch_norm = config.freeze_batch_norm
        self.vision_encoder = vision_encoder
        self.cnn = cnn
        self.scale, self.shift = [1.0] * 3, [0.0] * 3
        size = 0
        if vision_encoder is not None:
            self.natural_pooling = natural_pooling(vision_encoder, self.pooling)
            size += vision_hidden_size(vision_encoder)
        if cnn is not None:
            self.scale, self.shift = renormalisation(cnn, config)
            size += cnn.timm_model.num_features
        elif "cnn" in config.image_branches:
            self.cnn = ConvNet(config.cnn_channels)
            size += config.cnn_channels[-1]
        self.projection = nn.Linear(size, config.hidden_size)

    def train(self, mode: bool = True) -> "ImageBranches":
        super().train(mode)
        if self.freeze_batch_norm and self.cnn is not None:
            freeze_batch_statistics(self.cnn)
        return self

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> tuple[torch.Tensor, dict]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`)
            kwargs: `output_attentions`, `output_hidden_states`, handed to the vision encoder.

        Returns:
            v', `torch.Tensor` of shape `(batch, hidden)`, and the vision encoder's output (empty without one).
        """
        features, output = [], {}
        if self.cnn is not None:
            maps = self.cnn(renormalised(pixel_values, self.scale, self.shift))
            features.append(maps if isinstance(maps, torch.Tensor) else pool_map(maps.last_hidden_state))
        if self.vision_encoder is not None:
            output = self.vision_encoder(pixel_values=pixel_values, **kwargs)
            features.append(vision_vector(output, self.pooling, self.natural_pooling))
        return self.projection(torch.cat(features, dim=-1)), output


def freeze_batch_statistics(cnn: nn.Module) -> None:
    """Make batch normalisation use its running statistics, and keep them."""
    for module in cnn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def renormalisation(cnn: PreTrainedModel, config) -> tuple[list[float], list[float]]:
    """Scale and shift that take pixels normalised by `config.pixel_mean` and `config.pixel_std` to the statistics that
    a timm CNN was trained with."""
    statistics = getattr(cnn.config, "pretrained_cfg", None) or {}
    mean, std = statistics.get("mean", config.pixel_mean), statistics.get("std", config.pixel_std)
    scale = [have / want for have, want in zip(config.pixel_std, std, strict=True)]
    return scale, [(m - want) / s for m, want, s in zip(config.pixel_mean, mean, std, strict=True)]


def renormalised(pixel_values: torch.Tensor, scale: list[float], shift: list[float]) -> torch.Tensor:
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


def drop_unread(encoder: PreTrainedModel) -> None:
    """Take a trained pooler off an encoder: MPT reads its states, and no weight is saved or waited for in vain."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):  # a ResNet's average pooling has none, and stays
        encoder.pooler = None
    if getattr(encoder, "use_head", False):  # SigLIP's attention pooling
        encoder.use_head, encoder.head = False, None
