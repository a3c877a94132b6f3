"""CGAFT: each layer of a tuned ViT mixed with its frozen original, as text and image ask for (Xiao et al., 2023)."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .baselines_attention_mpt import TransformerLayer, check_heads
from .baselines_configuration_mpt import BaselineOutput, ignored_at_inference
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts, Tokens
from .baselines_visual_mpt import VitPatches, as_tokens
from .packing_mpt import masked_mean

MIXABLE = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model")


@dataclass
class CGAFTOutput(BaselineOutput):
    """
    Args:
        policy_weights (`torch.Tensor` of shape `(batch, layers)`): the tuned network's share in each layer of the
            vision encoder; 0 where a post has no image.
    """

    policy_weights: torch.Tensor | None = None


class CGAFTSentimentConfig(BaselineConfig):
    r"""
    Args:
        policy_size (`int`, defaults to 256): inner size of the policy network.
        head_size (`int`, defaults to 64): size of a head of the attention between words and patches.
        kwargs: see [`BaselineConfig`].
    """

    model_type = "cgaft_sentiment"
    title = "CGAFT"
    source = (
        "Xiao et al., *Image-Text Sentiment Analysis Via Context Guided Adaptive Fine-Tuning Transformer*, Neural "
        "Processing Letters 2023; a reconstruction from its abstract"
    )
    keys_to_ignore_at_inference = ignored_at_inference(CGAFTOutput)
    counts = (*BaselineConfig.counts, "policy_size", "head_size")

    def __init__(self, policy_size: int = 256, head_size: int = 64, **kwargs: Any) -> None:
        self.policy_size = policy_size
        self.head_size = head_size
        super().__init__(**kwargs)

    def check(self) -> None:
        super().check()
        check_heads(self.hidden_size, self.head_size)
        if self.policy_size < 1:
            raise ValueError(f"policy_size={self.policy_size}: write a positive number, e.g. 256.")
        if self.visual_provider != "vit_patches":
            raise ValueError(
                f"visual_provider={self.visual_provider!r}: CGAFT mixes the layers of a vision Transformer. Write "
                "visual_provider='vit_patches'."
            )


class AdaptiveVit(VitPatches):
    r"""A vision Transformer that is tuned, and a frozen copy of it from before, layer by layer:

    $$x_{l+1} = w_l\, \Phi^{\mathrm{tuned}}_l(x_l) + (1 - w_l)\, \Phi^{\mathrm{frozen}}_l(x_l)$$

    What stands before the first layer and behind the last is the tuned network's.

    Args:
        encoder ([`PreTrainedModel`]): with the weights that the copy is to keep.
        config ([`CGAFTSentimentConfig`])
    """

    def __init__(self, encoder: PreTrainedModel, config: CGAFTSentimentConfig) -> None:
        super().__init__(encoder, config)
        self.num_layers = len(transformer_layers(encoder))
        self.source = VitPatches(copy.deepcopy(encoder), config)

    def train(self, mode: bool = True) -> "AdaptiveVit":
        super().train(mode)
        self.source.eval()  # what is frozen has no dropout
        return self

    def freeze(self, config: CGAFTSentimentConfig) -> None:
        super().freeze(config)
        self.source.requires_grad_(False)

    def encode_images(
        self, pixel_values: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """`(images, 3, height, width)` and `(images, layers)` to states of the patches and summary."""
        tuned, source = self.vision_encoder, self.source.vision_encoder
        dual = hasattr(tuned, "post_layernorm")  # the image's half of CLIP and SigLIP: its layers ask for a mask
        mask = (None,) if dual else ()
        states = tuned.embeddings(pixel_values)
        if hasattr(tuned, "pre_layrnorm"):
            states = tuned.pre_layrnorm(states)
        layers = zip(transformer_layers(tuned), transformer_layers(source), weights.unbind(dim=1), strict=True)
        for tuned_layer, source_layer, weight in layers:
            weight = weight[:, None, None]
            states = weight * tuned_layer(states, *mask) + (1 - weight) * source_layer(states, *mask)
        states = tuned.post_layernorm(states) if dual else tuned.layernorm(states)
        summary = states[:, 0] if self.pooling == "cls" else states.mean(dim=1)
        return as_tokens(states, self.first_patch), summary, None


def transformer_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """The layers of a vision Transformer.

    Raises:
        ValueError: where the encoder is of a kind whose layers may do more than map states to states.
    """
    if encoder.config.model_type not in MIXABLE:
        raise ValueError(
            f"CGAFT cannot mix the layers of a {type(encoder).__name__}. Give a vision encoder of one of the kinds "
            f"{', '.join(MIXABLE)}."
        )
    depth = encoder.config.num_hidden_layers
    return next(m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


class CGAFTForSentimentClassification(BaselineForSentimentClassification):
    """A reconstruction. Known of the paper, whose code was not published, is what its abstract says: a Context Guided
    Policy Network weighs for each post how much to take from each layer of the image network of the source domain and
    of a parallel one tuned on the target domain; a Sentiment Analysis Network then reads post and weights. That text
    and image meet as words and patches is from MPT's description of it.

    All layers of the vision encoder have the parallel copy (12 of ViT-B/16), which doubles its weights and its time;
    one more frozen pass gives the policy its view of the image. The source domain is whatever the vision encoder was
    pretrained on. Soft weights of a sigmoid, the policy's two layers and the two blocks of attention are assumptions,
    after Guo et al., *SpotTune: Transfer Learning Through Adaptive Fine-Tuning*, whose routing is hard.
    """

    config_class = CGAFTSentimentConfig
    output_class = CGAFTOutput

    def __init__(self, config: CGAFTSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
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
        """w = σ(policy([text's first state; frozen image vector])), then `pool` of words and mixed patches."""
        text = self.encode_text(posts.input_ids, posts.attention_mask)
        context = torch.cat([text.summary, self.visual.source(posts.pixel_values, posts.image_mask).summary], dim=-1)
        weights = torch.sigmoid(self.policy(context)) * posts.image_mask.unsqueeze(-1)
        image = self.visual(posts.pixel_values, posts.image_mask, weights=weights)
        pooled, fields = self.pool(text, image)
        return pooled, fields | {"policy_weights": weights}

    def pool(self, text: Tokens, image: Tokens) -> tuple[torch.Tensor, dict]:
        """Words attend to patches and patches to words; the means of both, beside one another."""
        words, patches = self.word_projection(text.states), self.patch_projection(image.states)
        of_words = self.words_to_patches(words, patches, image.mask)
        of_patches = self.patches_to_words(patches, words, text.mask)
        return torch.cat([masked_mean(of_words, text.mask), masked_mean(of_patches, image.mask)], dim=-1), {}
