"""Configuration of MPT: which encoders, which branches, which modalities, how they are fused and trained."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .configuration_base_mpt import (
    MODALITIES,
    SENTIMENTS,
    SentimentConfig,
    as_list,
    check_choice,
    check_subset,
    sub_config,
)

TEXT_BRANCHES = ("sknet", "lstm")
IMAGE_BRANCHES = ("cnn", "vit")
CONTRASTIVE_VIEWS = ("cross_modal", "fused")

AUTO_MAP = {
    "AutoConfig": "configuration_mpt.MPTConfig",
    "AutoModel": "modeling_mpt.MPTModel",
    "AutoModelForSequenceClassification": "modeling_mpt.MPTForSentimentClassification",
}


class MPTConfig(SentimentConfig):
    r"""
    Configuration of [`MPTModel`] and [`MPTForSentimentClassification`].

    Args:
        text_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to BERT-base):
            The text encoder: any encoder of `AutoModel` that takes `input_ids` and returns token states.
        vision_config (`dict` or [`PreTrainedConfig`], *optional*, defaults to ViT-B/16):
            The vision encoder: any of `AutoModel` that takes `pixel_values`; of a dual encoder such as CLIP, its
            vision part.
        cnn_config (`dict` or [`TimmWrapperConfig`], *optional*):
            The CNN: any timm model. `None` builds the plain three-layer ConvNet of the paper's authors.
        hidden_size (`int`, defaults to 768):
            Size H of each modality's vector and of the fused one (paper, Table 2: "Embedding Size"). Even, because
            SKNet and LSTM give half of it each.
        perspectives (`list[str]`, defaults to positive, neutral, negative):
            Names of the rationales of a post, in the order of the rationale axis. Any number, at least one.
        modalities (`list[str]`, defaults to text, image, rationales):
            The modalities the network reads. A modality that is left out is not built.
        text_branches (`list[str]`, defaults to sknet, lstm):
            Parallel feature extractors on the token states (paper, Eq. 1). One or both.
        image_branches (`list[str]`, defaults to cnn, vit):
            Parallel feature extractors on the image (paper, Eq. 3). One or both.
        share_text_encoder (`bool`, defaults to `True`):
            Whether rationales go through the same text encoder as the post. `False` doubles its parameters.
        sknet_kernel_sizes (`list[int]`, defaults to 3, 5):
            Odd widths of SKNet's convolutions over tokens.
        sknet_reduction (`int`, defaults to 16):
            SKNet squeezes E channels to `max(E // sknet_reduction, 32)`.
        cnn_channels (`list[int]`, defaults to 64, 128, 256):
            Channels of the plain ConvNet. Read only when `cnn_config` is `None`.
        vision_pooling (`str`, defaults to `"cls"`):
            `"cls"` takes the class token of the vision encoder, `"mean"` averages its states (encoders without a class
            token, such as SigLIP or ConvNeXt, need `"mean"`).
        pixel_mean, pixel_std (`list[float]`, default 0.5 each):
            Statistics with which the processor normalised `pixel_values`. A timm CNN that was trained with others gets
            the pixels renormalised to its own.
        dropout (`float`, defaults to 0.1):
            Dropout on the modality vectors before fusion and in the classifier.
        rationale_dropout (`float`, defaults to 0.0):
            Probability that a training post loses all its rationales, which makes a model that also serves without
            a language model behind it.
        freeze_text_layers, freeze_vision_layers (`int`, default 0):
            Freeze the embeddings and the first k layers of the encoder; -1 freezes all of it.
        freeze_cnn (`bool`, defaults to `False`):
            Freeze the CNN.
        freeze_batch_norm (`bool`, defaults to `True`):
            Keep the running statistics of the CNN's batch normalisation, so that a post's features do not depend on
            its batch. Set it to `False` for a timm CNN that is trained from scratch.
        loss_weight_ce (`float`, defaults to 1.0):
            λ1, the weight of the cross-entropy (paper, Eq. 7).
        loss_weight_mlcl (`float`, defaults to 0.1):
            λ2, the weight of the contrastive loss, 0 < λ2 < λ1 ≤ 1 (paper, Eq. 7; Fig. 7 finds 0.05 to 0.10 best). 0
            switches it off.
        contrastive_view (`str`, defaults to `"cross_modal"`):
            `"cross_modal"`: Algorithm 2, between text and image vectors. `"fused"`: the supervised contrastive loss
            (Khosla et al., *Supervised Contrastive Learning*) on the fused vectors.
        contrastive_temperature (`float`, defaults to 0.1):
            Divides the cosines. Lower values weigh the hardest pairs more. The paper's Algorithm 2 has none, i.e. 1.0.
        contrastive_epsilon (`float`, defaults to 1e-8):
            ε of Algorithm 2's denominator. The fused view has none.
        class_weights (`list[float]`, *optional*):
            Weight of each label in the cross-entropy, for imbalanced data. `None`: all equal.
        label_smoothing (`float`, defaults to 0.0):
            Label smoothing of the cross-entropy.
        kwargs:
            `id2label`, `label2id`, `num_labels` and what [`PreTrainedConfig`] takes. The labels default to positive,
            neutral, negative; with `num_labels` other than 3, to LABEL_0, LABEL_1, … One of `id2label` and `label2id`
            is enough.

    Raises:
        ValueError: where a value is outside what is documented above; the message says what to write instead.
    """

    model_type = "mpt_sentiment"  # "mpt" is MosaicML's
    title = "MPT"
    source = "Ma et al., *Multimodal Sentiment Analysis with Multi-Perspective Thinking via Large Multimodal Models*"
    numbers = (
        *SentimentConfig.numbers,
        "loss_weight_ce",
        "loss_weight_mlcl",
        "contrastive_temperature",
        "contrastive_epsilon",
    )
    counts = (*SentimentConfig.counts, "sknet_reduction")
    without_rationales = "leave 'rationales' out of `modalities`"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig, "cnn_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "loss_ce",
        "loss_mlcl",
        "fused_embeds",
        "text_embeds",
        "image_embeds",
        "rationale_embeds",
        "modality_mask",
        "modality_weights",
        "perspective_weights",
        "text_hidden_states",
        "text_attentions",
        "vision_hidden_states",
        "vision_attentions",
    ]

    def __init__(
        self,
        text_config: dict[str, Any] | PreTrainedConfig | None = None,
        vision_config: dict[str, Any] | PreTrainedConfig | None = None,
        cnn_config: dict[str, Any] | PreTrainedConfig | None = None,
        hidden_size: int = 768,
        perspectives: list[str] | tuple[str, ...] = SENTIMENTS,
        modalities: list[str] | tuple[str, ...] = MODALITIES,
        text_branches: list[str] | tuple[str, ...] = TEXT_BRANCHES,
        image_branches: list[str] | tuple[str, ...] = IMAGE_BRANCHES,
        share_text_encoder: bool = True,
        sknet_kernel_sizes: list[int] | tuple[int, ...] = (3, 5),
        sknet_reduction: int = 16,
        cnn_channels: list[int] | tuple[int, ...] = (64, 128, 256),
        vision_pooling: str = "cls",
        pixel_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
        pixel_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5),
        dropout: float = 0.1,
        rationale_dropout: float = 0.0,
        freeze_text_layers: int = 0,
        freeze_vision_layers: int = 0,
        freeze_cnn: bool = False,
        freeze_batch_norm: bool = True,
        loss_weight_ce: float = 1.0,
        loss_weight_mlcl: float = 0.1,
        contrastive_view: str = "cross_modal",
        contrastive_temperature: float = 0.1,
        contrastive_epsilon: float = 1e-8,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.text_config = sub_config("text_config", text_config, default="bert")
        vision_config = sub_config("vision_config", vision_config, default="vit")
        self.vision_config = getattr(vision_config, "vision_config", vision_config)
        self.cnn_config = sub_config("cnn_config", cnn_config, default=None)
        self.hidden_size = hidden_size
        self.perspectives = as_list("perspectives", perspectives)
        self.modalities = as_list("modalities", modalities)
        self.text_branches = as_list("text_branches", text_branches)
        self.image_branches = as_list("image_branches", image_branches)
        self.share_text_encoder = share_text_encoder
        self.sknet_kernel_sizes = as_list("sknet_kernel_sizes", sknet_kernel_sizes)
        self.sknet_reduction = sknet_reduction
        self.cnn_channels = as_list("cnn_channels", cnn_channels)
        self.vision_pooling = vision_pooling
        self.pixel_mean = as_list("pixel_mean", pixel_mean)
        self.pixel_std = as_list("pixel_std", pixel_std)
        self.dropout = dropout
        self.rationale_dropout = rationale_dropout
        self.freeze_text_layers = freeze_text_layers
        self.freeze_vision_layers = freeze_vision_layers
        self.freeze_cnn = freeze_cnn
        self.freeze_batch_norm = freeze_batch_norm
        self.loss_weight_ce = loss_weight_ce
        self.loss_weight_mlcl = loss_weight_mlcl
        self.contrastive_view = contrastive_view
        self.contrastive_temperature = contrastive_temperature
        self.contrastive_epsilon = contrastive_epsilon
        self.class_weights = class_weights if class_weights is None else as_list("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        super().__init__(**kwargs)

    @property
    def weights_returned(self) -> list[str]:
        return ["modality_weights"] + ["perspective_weights"] * ("rationales" in self.modalities)

    def own_auto_map(self) -> dict[str, str]:
        return dict(AUTO_MAP)

    def check(self) -> None:
        super().check()
        check_subset("modalities", self.modalities, MODALITIES)
        check_subset("text_branches", self.text_branches, TEXT_BRANCHES)
        check_subset("image_branches", self.image_branches, IMAGE_BRANCHES)
        check_choice("contrastive_view", self.contrastive_view, CONTRASTIVE_VIEWS)
        if self.hidden_size < 2 or self.hidden_size % 2:
            raise ValueError(f"hidden_size={self.hidden_size}: write an even number, e.g. 768.")
        if not self.sknet_kernel_sizes or any(k < 1 or k % 2 == 0 for k in self.sknet_kernel_sizes):
            raise ValueError(f"sknet_kernel_sizes={self.sknet_kernel_sizes}: write odd numbers, e.g. [3, 5].")
        if self.sknet_reduction < 1:
            raise ValueError(f"sknet_reduction={self.sknet_reduction}: write a positive number, e.g. 16.")
        if not 0.0 < self.loss_weight_ce <= 1.0 or not 0.0 <= self.loss_weight_mlcl < self.loss_weight_ce:
            raise ValueError(
                f"loss_weight_ce={self.loss_weight_ce}, loss_weight_mlcl={self.loss_weight_mlcl}: Eq. 7 requires "
                "0 < λ2 < λ1 ≤ 1. Write e.g. loss_weight_ce=1.0 and loss_weight_mlcl=0.1, or loss_weight_mlcl=0 to "
                "switch the contrastive loss off."
            )
        if self.contrastive_temperature <= 0 or self.contrastive_epsilon <= 0:
            raise ValueError(
                f"contrastive_temperature={self.contrastive_temperature}, contrastive_epsilon="
                f"{self.contrastive_epsilon}: write positive numbers, e.g. 0.1 and 1e-8."
            )
        if self.loss_weight_mlcl > 0 and self.contrastive_view == "cross_modal":
            missing = [name for name in ("text", "image") if name not in self.modalities]
            if missing:
                raise ValueError(
                    f"contrastive_view='cross_modal' compares text with images, but modalities={self.modalities} "
                    f"lacks {missing}. Write contrastive_view='fused', or loss_weight_mlcl=0 to switch the "
                    "contrastive loss off."
                )
