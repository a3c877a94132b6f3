"""MPTTrainingArguments: the Trainer's arguments with the paper's defaults."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_xla_available

from .features.shards import check_dtype


@dataclass
class MPTTrainingArguments(TrainingArguments):
    r"""
    Arguments of [`MPTTrainer`] with the defaults of the paper.

    AdamW, cosine annealing, 20 epochs of batches of 16 at a learning rate of 1e-5 (paper, Table 2, MVSA-Single). Each
    epoch is evaluated and saved, and the one with the best weighted F1 is kept. Other fields are those of
    [`TrainingArguments`].

    Args:
        head_learning_rate (`float`, *optional*):
            Learning rate of what starts at random: all layers outside the encoders, the plain CNNs, and encoders that
            were built from a configuration (`random_encoders` of the model's configuration). They usually need 10 to
            100 times the rate of a pretrained encoder. Defaults to `learning_rate`.
        vision_learning_rate (`float`, *optional*):
            Learning rate of a pretrained vision encoder and timm CNN. Defaults to `learning_rate`.
        word_learning_rate (`float`, *optional*):
            Learning rate of word embeddings without an encoder: static ones (`text_provider="embeddings"` of a
            baseline), whether they start at random or from an encoder's, and those of MPT's `word_size`. Defaults to
            `head_learning_rate`.
        early_stopping_patience (`int`, *optional*):
            Number of evaluations without a better value of `metric_for_best_model` after which training ends.
        bf16 (`bool`, *optional*):
            Whether to compute in bf16 under autocast, with weights in fp32. Default: on hardware that multiplies
            matrices in bf16 (recent GPUs; CPUs with AMX), unless `fp16` is on.
        use_cpu (`bool`, defaults to `False`):
            Whether to train on the CPU. Set automatically on a machine without accelerator, where `torchrun` would
            otherwise start independent processes.
        data_seed (`int`, *optional*):
            Seed of the order of the posts. Defaults to `seed`.
        ddp_find_unused_parameters (`bool`, *optional*, defaults to `True`):
            Must be on if all posts of a batch may lack a modality, whose weights then get no gradient.
        save_total_limit (`int`, *optional*, defaults to 1):
            Number of checkpoints to keep; the best and the last are always kept until training ends.
        feature_store (`str`, defaults to `"auto"`):
            Folder in which the outputs of frozen encoders are kept, computed once for each distinct text and image.
            `"auto"` is `mpt_sentiment/features` in the folder of Hugging Face's caches (`HF_HOME`); `"none"` computes
            them anew in every step.
        feature_store_dtype (`str`, defaults to `"bfloat16"`):
            Type of the stored numbers; or `"float16"`, `"float32"`.

    Raises:
        ValueError: For a learning rate that is not positive, a patience below 1, a `label_smoothing_factor`, or
            another type of stored numbers.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the pretrained encoders."})
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of what starts at random. Defaults to `learning_rate`."}
    )
    vision_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of pretrained vision encoder and CNN. Defaults to `learning_rate`."},
    )
    word_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of words without an encoder. Defaults to `head_learning_rate`."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "The learning rate's schedule."})
    num_train_epochs: float = field(default=20.0, metadata={"help": "Number of passes over the training posts."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Posts per batch and device in training."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Posts per batch and device elsewhere."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps, epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch, best."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: no, steps, epoch."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Whether to end with the best checkpoint."})
    metric_for_best_model: str | None = field(
        default="f1_weighted", metadata={"help": "Metric that the best checkpoint is chosen by."}
    )
    save_total_limit: int | None = field(
        default=1, metadata={"help": "Checkpoints to keep, in addition to best and last."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without improvement after which training ends."}
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bf16. Default: on hardware that multiplies matrices in bf16."}
    )
    feature_store: str = field(
        default="auto", metadata={"help": "Outputs of frozen encoders are kept in: auto (in HF_HOME), none, a folder."}
    )
    feature_store_dtype: str = field(
        default="bfloat16", metadata={"help": "Type of the stored outputs: bfloat16, float16, float32."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator reads the dataset's columns."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Needed if all posts of a batch may lack a modality."}
    )

    def __post_init__(self) -> None:
        for name in ("head_learning_rate", "vision_learning_rate", "word_learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(
                    f"`{name}` must be positive, got {value}. To freeze encoders, set `freeze_text_layers`, "
                    "`freeze_vision_layers` and `freeze_cnn` in the model's configuration."
                )
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"`early_stopping_patience` must be at least 1, got {self.early_stopping_patience}.")
        if self.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor` must be 0, got {self.label_smoothing_factor}. Set `label_smoothing` in the "
                "model's configuration."
            )
        check_dtype(self.feature_store_dtype)
        if not torch.accelerator.is_available() and not is_torch_xla_available():
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = not self.fp16 and _multiplies_in_bf16(self.use_cpu)
        if self.data_seed is None:
            self.data_seed = self.seed
        super().__post_init__()


def _multiplies_in_bf16(use_cpu: bool) -> bool:
    """Return whether the hardware has matrix multiplication in bf16."""
    if use_cpu:
        return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
