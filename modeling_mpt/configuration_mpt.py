"""Configuration of MPT: modalities, branches, and weights of the joint loss."""

from typing import Any

from transformers import AutoConfig, AutoModel

from .configuration_base_mpt import MODALITIES, SentimentConfig, as_list, check_choice, check_subset
from .pretrained_mpt import MPTOutput, ignored_at_inference

TEXT_BRANCHES = ("sknet", "lstm", "mean")
IMAGE_BRANCHES = ("cnn", "vit")
FUSIONS = ("laff", "literal", "concat")
CNN_VARIANTS = ("pooled", "authors")
CONTRASTIVE_VIEWS = ("cross_modal", "fused")
CONTRASTIVE_REDUCTIONS = ("mean", "sum")


class MPTConfig(SentimentConfig):
    r"""
    Configuration of [`MPTModel`] and [`MPTForSentimentClassification`].

    Args:
        modalities (`list[str]`, defaults to text, image, rationales):
            Modalities that the network reads. A modality that is left out is not built, nor are its encoders.
        text_branches (`list[str]`, defaults to sknet, lstm):
            Parallel feature extractors on the token states (paper, Eq. 1): one or more of sknet, lstm and mean. The
            third, not in the paper, is a linear layer on the mean of the states.
        image_branches (`list[str]`, defaults to cnn, vit):
            Parallel feature extractors on the image (paper, Eq. 3). One or both. `["cnn"]` needs no vision encoder.
        sknet_kernel_sizes (`list[int]`, defaults to 3, 5):
            Odd widths of SKNet's convolutions over tokens.
        sknet_reduction (`int`, defaults to 16):
            SKNet squeezes E channels to `max(E // sknet_reduction, 32)`.
        cnn_variant (`str`, defaults to `"pooled"`):
            Plain CNN, if `cnn_config` is `None`. `"pooled"`: strides, group normalization, global average pooling.
            `"authors"`: as in the authors' code, stride 1, no normalization, the whole map through one linear layer;
            their `cnn_channels` are 16, 32, 64.
        grid_size (`int`, defaults to 28):
            Height and width of the map that the authors' CNN flattens: an eighth of the image's, e.g. 8 for 64 pixels.
        fusion (`str`, defaults to `"laff"`):
            `"laff"` sums tanh(W f) of the modalities, as the paper's source does. `"literal"` sums f, as the paper's
            Eq. 6 is written. `"concat"`, not in the paper, concatenates α GELU(f) of the modalities, and the weighted
            perspectives of the rationales likewise, so that the classifier can tell them apart.
        word_size (`int`, defaults to 0):
            Size of word embeddings that are learned from the posts alone, one table for the texts and one for each
            perspective; their sum over a text is added to what its encoder gives. 0: none, as in the paper.
        normalize_features (`bool`, defaults to `False`):
            Scale what new layers read as one vector (means of texts and rationales, vectors of images) to mean 0 and
            variance 1 over its entries, so that they learn from all of them at one rate.
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
        contrastive_reduction (`str`, defaults to `"mean"`):
            `"mean"` or `"sum"` over the posts of an optimizer step. Algorithm 2 sums, so that λ2 grows with the batch.
        kwargs:
            Fields of [`SentimentConfig`], e.g. `text_config`, `hidden_size`, `perspectives`, `dropout`, `id2label`.

    Raises:
        ValueError: For a misspelt field, or a value outside the documented range.
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
    counts = (*SentimentConfig.counts, "sknet_reduction", "grid_size", "word_size")
    switches = (*SentimentConfig.switches, "normalize_features")
    without_rationales = "leave 'rationales' out of `modalities`"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig, "cnn_config": AutoConfig}
    keys_to_ignore_at_inference = ignored_at_inference(MPTOutput)

    def __init__(
        self,
        modalities: list[str] | tuple[str, ...] = MODALITIES,
        text_branches: list[str] | tuple[str, ...] = ("sknet", "lstm"),
        image_branches: list[str] | tuple[str, ...] = IMAGE_BRANCHES,
        sknet_kernel_sizes: list[int] | tuple[int, ...] = (3, 5),
        sknet_reduction: int = 16,
        cnn_variant: str = "pooled",
        grid_size: int = 28,
        fusion: str = "laff",
        word_size: int = 0,
        normalize_features: bool = False,
        loss_weight_ce: float = 1.0,
        loss_weight_mlcl: float = 0.1,
        contrastive_view: str = "cross_modal",
        contrastive_temperature: float = 0.1,
        contrastive_epsilon: float = 1e-8,
        contrastive_reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        self.modalities = as_list("modalities", modalities)
        self.text_branches = as_list("text_branches", text_branches)
        self.image_branches = as_list("image_branches", image_branches)
        self.sknet_kernel_sizes = as_list("sknet_kernel_sizes", sknet_kernel_sizes)
        self.sknet_reduction = sknet_reduction
        self.cnn_variant = cnn_variant
        self.grid_size = grid_size
        self.fusion = fusion
        self.word_size = word_size
        self.normalize_features = normalize_features
        self.loss_weight_ce = loss_weight_ce
        self.loss_weight_mlcl = loss_weight_mlcl
        self.contrastive_view = contrastive_view
        self.contrastive_temperature = contrastive_temperature
        self.contrastive_epsilon = contrastive_epsilon
        self.contrastive_reduction = contrastive_reduction
        super().__init__(**kwargs)

    def encoder_classes(self) -> dict[str, type]:
        read = {
            "text_config": "text" in self.modalities or "rationales" in self.modalities,
            "vision_config": "image" in self.modalities and "vit" in self.image_branches,
            "cnn_config": "image" in self.modalities and "cnn" in self.image_branches,
        }
        return {field: AutoModel for field, is_read in read.items() if is_read}

    @property
    def weights_returned(self) -> list[str]:
        return ["modality_weights"] + ["perspective_weights"] * ("rationales" in self.modalities)

    def own_auto_map(self) -> dict[str, str]:
        return {
            "AutoConfig": "configuration_mpt.MPTConfig",
            "AutoModel": "modeling_mpt.MPTModel",
            "AutoModelForSequenceClassification": "modeling_mpt.MPTForSentimentClassification",
        }

    def check(self) -> None:
        super().check()
        check_subset("modalities", self.modalities, MODALITIES)
        check_subset("text_branches", self.text_branches, TEXT_BRANCHES)
        check_subset("image_branches", self.image_branches, IMAGE_BRANCHES)
        check_choice("cnn_variant", self.cnn_variant, CNN_VARIANTS)
        check_choice("fusion", self.fusion, FUSIONS)
        check_choice("contrastive_view", self.contrastive_view, CONTRASTIVE_VIEWS)
        check_choice("contrastive_reduction", self.contrastive_reduction, CONTRASTIVE_REDUCTIONS)
        if self.cnn_variant == "authors" and self.cnn_config is not None:
            raise ValueError("`cnn_variant='authors'` is a plain CNN and excludes a timm CNN: leave one of both out.")
        branches = len(self.text_branches)
        if self.hidden_size < 1 or self.hidden_size % branches:
            multiple = max(round(self.hidden_size / branches), 1) * branches
            raise ValueError(
                f"`hidden_size` must be a multiple of {branches}, the number of `text_branches`, e.g. {multiple}, got "
                f"{self.hidden_size}."
            )
        if not self.sknet_kernel_sizes or any(k < 1 or k % 2 == 0 for k in self.sknet_kernel_sizes):
            raise ValueError(f"`sknet_kernel_sizes` must be odd numbers, e.g. [3, 5], got {self.sknet_kernel_sizes}.")
        for name in ("sknet_reduction", "grid_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.word_size < 0:
            raise ValueError(f"`word_size` must be 0 (no word embeddings) or positive, got {self.word_size}.")
        if not 0.0 < self.loss_weight_ce <= 1.0 or not 0.0 <= self.loss_weight_mlcl < self.loss_weight_ce:
            raise ValueError(
                "`loss_weight_ce` (λ1) and `loss_weight_mlcl` (λ2) must satisfy 0 < λ2 < λ1 ≤ 1, got "
                f"{self.loss_weight_ce} and {self.loss_weight_mlcl}. `loss_weight_mlcl=0` switches the contrastive "
                "loss off."
            )
        for name in ("contrastive_temperature", "contrastive_epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if self.loss_weight_mlcl > 0 and self.contrastive_view == "cross_modal":
            missing = [name for name in ("text", "image") if name not in self.modalities]
            if missing:
                raise ValueError(
                    f"`contrastive_view='cross_modal'` compares text with images, but `modalities` lacks {missing}: "
                    f"got {self.modalities}. Set `contrastive_view='fused'`, or `loss_weight_mlcl=0` to switch the "
                    "contrastive loss off."
                )
