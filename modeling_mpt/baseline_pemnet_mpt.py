"""PEMNet baseline: two feature extractors per modality, fused by LAFF (CIKM 2024)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .baseline_image_cnn_mpt import FlattenedCnn
from .baselines_attention_mpt import SingleHeadAttention
from .baselines_modeling_mpt import BaselineConfig, BaselineForSentimentClassification, Posts
from .baselines_words_mpt import final_states, run_rnn
from .branches_mpt import SelectiveKernel
from .configuration_base_mpt import as_list
from .frozen_mpt import FrozenEncoder
from .fusion_mpt import LightweightAttentionFusion


class PEMNetSentimentConfig(BaselineConfig):
    r"""Configuration of the PEMNet baseline.

    Args:
        sknet_kernel_sizes (`list[int]`, defaults to 3, 5): odd widths of SKNet's convolutions in tokens.
        sknet_reduction (`int`, defaults to 24): SKNet squeezes E channels to `max(E // sknet_reduction, 32)`.
        cnn_channels (`list[int]`, defaults to 16, 32, 64): channels of the plain CNN.
        grid_size (`int`, defaults to 28): height and width of the feature map that the plain CNN flattens: an eighth
            of the image's, e.g. 8 for 64 pixels.
        hidden_size (`int`, defaults to 768): output size of each extractor. Text, image and post have twice that size.
        dropout (`float`, defaults to 0.5): dropout in the classifier.
        kwargs: other fields of [`BaselineConfig`].
    """

    model_type = "pemnet_sentiment"
    title = "PEMNet"
    source = (
        "Ma et al., *CH-Mits: A Cross-Modal Dataset for User Sentiment Analysis on Chinese Social Media*, CIKM 2024"
    )
    remark = "reconstructed as one network, its code trains three in turn"
    reads = ("text", "image")
    counts = (*BaselineConfig.counts, "sknet_reduction", "grid_size")

    def __init__(
        self,
        sknet_kernel_sizes: list[int] | tuple[int, ...] = (3, 5),
        sknet_reduction: int = 24,
        cnn_channels: list[int] | tuple[int, ...] = (16, 32, 64),
        grid_size: int = 28,
        hidden_size: int = 768,
        dropout: float = 0.5,
        **kwargs: Any,
    ) -> None:
        self.sknet_kernel_sizes = as_list("sknet_kernel_sizes", sknet_kernel_sizes)
        self.sknet_reduction = sknet_reduction
        self.grid_size = grid_size
        super().__init__(cnn_channels=cnn_channels, hidden_size=hidden_size, dropout=dropout, **kwargs)

    def check(self) -> None:
        super().check()
        if not self.sknet_kernel_sizes or any(width < 1 or width % 2 == 0 for width in self.sknet_kernel_sizes):
            raise ValueError(f"`sknet_kernel_sizes` must be odd numbers, e.g. [3, 5], got {self.sknet_kernel_sizes}.")


class PEMNetForSentimentClassification(BaselineForSentimentClassification):
    """PEMNet as one network, trained end to end.

    The released code trains a text classifier and an image classifier, stores their vectors of size 1536 and trains a
    third network on them. Each of the three draws its own split, so that most test posts of the last were training
    posts of the first two. Other differences:

    - The released SKNet has a 3×3 and a 5×5 convolution with one channel over the plane of tokens and features,
      although features have no order, batch normalization without ReLU, and one scalar that selects between them. Here
      it is that of *Selective Kernel Networks* without batch normalization, as in MPT.
    - The released SKNet and LSTM return their last position, which is padding in most posts. Here they return the mean
      over tokens and the last token.
    - The released LAFF has a scorer that is reinitialized at each call and never trained, and it averages. Here the
      scorer is trained, each modality has its own layer, and the vectors are summed.
    - The released classifier has four linear layers and a softmax in addition to that of the loss. Here it has two
      layers with a GELU between them.
    """

    config_class = PEMNetSentimentConfig
    reads_regions = False

    def __init__(self, config: PEMNetSentimentConfig, **encoders: Any) -> None:
        super().__init__(config, **encoders)
        size = config.hidden_size
        self.attention = SingleHeadAttention(self.text_size, project_values=True)
        self.sknet = SelectiveKernel(self.text_size, size, config.sknet_kernel_sizes, config.sknet_reduction)
        self.lstm = nn.LSTM(self.text_size, size, batch_first=True)
        self.flattened = FlattenedCnn(config)
        self.image_projection = nn.Linear(size + self.image_size, 2 * size)
        self.fusion = LightweightAttentionFusion(2, 2 * size)
        dropout = nn.Dropout(config.dropout)
        layers = [dropout, nn.Linear(2 * size, size), nn.GELU(), dropout, nn.Linear(size, config.num_labels)]
        self.add_head(2 * size, classifier=nn.Sequential(*layers))

    def freeze(self) -> None:
        super().freeze()
        self.flattened.freeze(self.config)

    def encoders(self) -> dict[str, FrozenEncoder | None]:
        return super().encoders() | {"flattened": None}  # it ends with a layer that no field freezes

    def represent(self, posts: Posts) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Fuse the text vector [SKNet; LSTM] and the image vector W [CNN; ViT].

        The result is `(batch, 2 · hidden)`.
        """
        tokens = self.encode(posts)
        text, image = tokens["text"], tokens["image"]
        states = self.attention(text.states, text.states, text.mask) * text.mask.unsqueeze(-1)
        lstm_state = final_states(run_rnn(self.lstm, states, text.mask), text.mask, bidirectional=False)
        text_embeds = torch.cat([self.sknet(states, text.mask), lstm_state], dim=-1)
        cnn_vector = self.flattened(posts.pixel_values, posts.image_mask).summary
        image_embeds = self.image_projection(torch.cat([cnn_vector, image.summary], dim=-1))
        present = torch.stack([text.mask.any(dim=1), posts.image_mask], dim=1)
        fused, _ = self.fusion([text_embeds, image_embeds], present)
        return fused, {"text_embeds": text_embeds * present[:, :1], "image_embeds": image_embeds * present[:, 1:]}
