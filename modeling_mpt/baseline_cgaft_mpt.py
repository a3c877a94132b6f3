"""CGAFT baseline: per-post mixing of tuned and frozen image layers (Xiao et al., 2023)."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_configuration_mpt import BaselineOutput
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts, Tokens
from .baselines_visual_mpt import CnnGrid, VitPatches, as_tokens
from .packing_mpt import EncoderLayers, masked_mean
from .pretrained_mpt import ignored_at_inference

MIXABLE = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model")


@dataclass
class CGAFTOutput(BaselineOutput):
    """Output of CGAFT.

    Args:
        policy_weights (`torch.Tensor` of shape `(batch, layers)`): share of the tuned network in each layer of the
            vision encoder, or stage of the CNN; 0 for a post without an image.
    """

    policy_weights: torch.Tensor | None = None


class CGAFTSentimentConfig(BaselineConfig):
    r"""Configuration of the CGAFT baseline.

    Args:
        policy_size (`int`, defaults to 256): hidden size of the policy network.
        head_size (`int`, defaults to 64): size of an attention head; divides `hidden_size`.
        visual_provider (`str`, defaults to `"vit_patches"`): `"vit_patches"`, or `"cnn_grid"` with a timm CNN, whose
            stages are mixed and whose cells are the patches. The policy needs an encoder that is pretrained and not
            frozen: otherwise both networks are equal, or the copy has learned nothing.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "cgaft_sentiment"
    title = "CGAFT"
    source = (
        "Xiao et al., *Image-Text Sentiment Analysis Via Context Guided Adaptive Fine-Tuning Transformer*, Neural "
        "Processing Letters 2023"
    )
    remark = "a reconstruction from its abstract"
    visual_providers = ("vit_patches", "cnn_grid")
    keys_to_ignore_at_inference = ignored_at_inference(CGAFTOutput)
    counts = (*BaselineConfig.counts, "policy_size", "head_size")

    def __init__(self, policy_size: int = 256, head_size: int = 64, **kwargs: Any) -> None:
        self.policy_size = policy_size
        self.head_size = head_size
        super().__init__(**kwargs)

    def check(self) -> None:
        super().check()
        check_heads(self.hidden_size, self.head_size)


class FrozenSource:
    """Part of an image encoder that keeps `source`, a copy from before training, frozen."""

    source: nn.Module
    reads_pixels_alone = False  # but the weights of the policy too

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.source.eval()  # the frozen copy has no dropout
        return self

    def freeze(self, config: CGAFTSentimentConfig) -> None:
        super().freeze(config)
        self.source.requires_grad_(False)


class AdaptiveVit(FrozenSource, VitPatches):
    r"""Vision Transformer that mixes each layer with a frozen copy from before training.

    $$x_{l+1} = w_l\, \Phi^{\mathrm{tuned}}_l(x_l) + (1 - w_l)\, \Phi^{\mathrm{frozen}}_l(x_l)$$

    Embeddings and final normalization are those of the tuned network.
    """

    def __init__(self, encoder: PreTrainedModel, config: CGAFTSentimentConfig) -> None:
        super().__init__(encoder, config)
        self.num_layers = len(transformer_layers(encoder))
        self.source = VitPatches(copy.deepcopy(encoder), config)

    def encode_images(
        self, pixel_values: torch.Tensor, layers: EncoderLayers, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Encode images with the weights w, `(images, layers)`, of the tuned network."""
        tuned, source = self.vision_encoder, self.source.vision_encoder
        dual = hasattr(tuned, "post_layernorm")  # layers of CLIP and SigLIP take a mask
        mask = (None,) if dual else ()
        states = tuned.embeddings(pixel_values)
        if hasattr(tuned, "pre_layrnorm"):
            states = tuned.pre_layrnorm(states)
        hidden_states = [states]
        pairs = zip(transformer_layers(tuned), transformer_layers(source), weights.unbind(dim=1), strict=True)
        for tuned_layer, source_layer, weight in pairs:
            weight = weight[:, None, None]
            states = weight * tuned_layer(states, *mask) + (1 - weight) * source_layer(states, *mask)
            hidden_states.append(states)
        layers.add("vision", {"hidden_states": hidden_states})
        states = tuned.post_layernorm(states) if dual else tuned.layernorm(states)
        summary = states[:, 0] if self.pooling == "cls" else states.mean(dim=1)
        return as_tokens(states, self.first_patch), summary, None


class AdaptiveCnn(FrozenSource, CnnGrid):
    """CNN that mixes each stage with a frozen copy from before training.

    The mixture is that of [`AdaptiveVit`]. Stem and final layers are those of the tuned network.
    """

    def __init__(self, encoder: PreTrainedModel, config: CGAFTSentimentConfig) -> None:
        num_layers = len(stages(encoder))
        super().__init__(encoder, config)
        self.num_layers = num_layers
        self.source = CnnGrid(copy.deepcopy(encoder), config)

    def encode_images(
        self, pixel_values: torch.Tensor, layers: EncoderLayers, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Encode images with the weights w, `(images, stages)`, of the tuned network."""

        def mixing(source: nn.Module, weight: torch.Tensor):
            weight = weight[:, None, None, None]
            return lambda tuned, inputs, output: weight * output + (1 - weight) * source(*inputs)

        pairs = zip(stages(self.cnn), stages(self.source.cnn), weights.unbind(dim=1), strict=True)
        hooks = [tuned.register_forward_hook(mixing(source, weight)) for tuned, source, weight in pairs]
        try:
            return super().encode_images(pixel_values, layers)
        finally:
            for hook in hooks:
                hook.remove()


def stages(cnn: nn.Module) -> list[nn.Module]:
    """Return the stages of a timm CNN.

    Raises:
        ValueError: For the plain ConvNet, and for a CNN whose stages have other names.
    """
    network = getattr(cnn, "timm_model", nn.Module())
    for name in ("blocks", "stages"):
        if isinstance(getattr(network, name, None), nn.Sequential):
            return list(getattr(network, name))
    found = [module for name, module in network.named_children() if name[:-1] in ("layer", "s")]
    if not found:
        raise ValueError(
            "`visual_provider='cnn_grid'` of CGAFT needs a timm CNN with stages as `cnn_config`, e.g. a ResNet or "
            f"EfficientNet, got a {type(network).__name__ if hasattr(cnn, 'timm_model') else 'plain ConvNet'}."
        )
    return found


def transformer_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """Return the layers of a vision Transformer.

    Raises:
        ValueError: If the layers of this model type may do more than map states to states.
    """
    if encoder.config.model_type not in MIXABLE:
        raise ValueError(
            f"The vision encoder of CGAFT must be of one of the model types {', '.join(MIXABLE)}, got a "
            f"{type(encoder).__name__}."
        )
    depth = encoder.config.num_hidden_layers
    return next(m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


class CGAFTForSentimentClassification(BaselineForSentimentClassification):
    """Context-guided adaptive fine-tuning, reconstructed from the abstract.

    The code was not published. From the abstract: a Context Guided Policy Network computes, for each post, the share
    of each layer of the source domain's image network and of a parallel one tuned on the target domain; a Sentiment
    Analysis Network then reads the post and the shares. From its description in the MPT paper: text and image interact
    as words and patches.

    All layers of the vision encoder (12 of ViT-B/16) or stages of the CNN have a frozen copy, which doubles its
    parameters and its time; the policy reads the image through one more frozen pass. The source domain is the
    pretraining of the vision encoder. Sigmoid weights, the two layers of the policy and the two attention blocks are
    assumptions, after Guo et al., *SpotTune: Transfer Learning Through Adaptive Fine-Tuning*, whose routing is hard.
    """

    config_class = CGAFTSentimentConfig
    output_class = CGAFTOutput

    def __init__(self, config: CGAFTSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        if config.visual_provider == "cnn_grid":
            self.visual = AdaptiveCnn(self.visual.cnn, config)
        else:
            self.visual = AdaptiveVit(self.visual.vision_encoder, config)
        self.policy = nn.Sequential(
            nn.Linear(self.text_size + self.image_size, config.policy_size),
            nn.GELU(),
            nn.Linear(config.policy_size, self.visual.num_layers),
        )
        self.word_projection = nn.Linear(self.text_size, size)
        self.patch_projection = nn.Linear(self.image_size, size)
        self.words_to_patches = TransformerLayer(size, config.head_size, config.dropout)
        self.patches_to_words = TransformerLayer(size, config.head_size, config.dropout)
        classifier = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(2 * size, size), nn.GELU(), nn.Linear(size, config.num_labels)
        )
        self.add_head(2 * size, classifier)

    def represent(self, posts: Posts) -> tuple[torch.Tensor, dict]:
        """Compute the policy weights, mix the layers, and pool words and patches.

        w = σ(policy([vector of the text; image vector of the frozen copy])).
        """
        text = self.encode_text(posts.texts, posts.attention_mask, posts.layers)
        context = torch.cat([text.summary, self.visual.source(posts.pixel_values, posts.image_mask).summary], dim=-1)
        weights = torch.sigmoid(self.policy(context)) * posts.image_mask.unsqueeze(-1)
        image = self.visual(posts.pixel_values, posts.image_mask, posts.layers, weights=weights)
        pooled, fields = self.pool(text, image)
        return pooled, fields | {"policy_weights": weights}

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Let words and patches attend to each other; return both means, `(batch, 2 · hidden)`."""
        words, patches = self.word_projection(text.states), self.patch_projection(image.states)
        attended_words = self.words_to_patches(words, patches, image.mask)
        attended_patches = self.patches_to_words(patches, words, text.mask)
        means = [masked_mean(attended_words, text.mask), masked_mean(attended_patches, image.mask)]
        return torch.cat(means, dim=-1), {}
