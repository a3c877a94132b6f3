"""LoRA adapters on the encoders: creation, merging and loading with peft."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from modeling_mpt import SYSTEMS
from modeling_mpt.learning_rates import TEXT_ENCODERS
from modeling_mpt.pretrained_mpt import ENCODERS, SentimentPreTrainedModel
from mpt_sentiment.backbones import encoders_read
from mpt_sentiment.training_arguments import LoraArguments, ModelArguments

# Projections of query and value by their names in the encoders of transformers.
QUERY_AND_VALUE = r".*encoder.*\.(query|value|q_proj|v_proj|q_lin|v_lin|Wqkv)"
ADAPTED = (*TEXT_ENCODERS, "vision_encoder")


def check_adapters(model: ModelArguments, lora: LoraArguments) -> None:
    """Check that saved adapters can be loaded again.

    Raises:
        ValueError: adapters alone are to be saved, but an encoder starts at random, and its weights are saved nowhere.
    """
    read = encoders_read(model)
    at_random = [
        part
        for part in ("text", "vision", "cnn")
        if f"{part}_config" in read and getattr(model, f"{part}_config") is not None
    ]
    if lora.lora and not lora.lora_merge and at_random:
        raise ValueError(
            f"`lora_merge` must be true: the {at_random[0]} encoder starts at random, so adapters alone cannot be "
            "loaded again. Name a pretrained encoder, or leave out --lora_merge."
        )


def add_adapters(model: SentimentPreTrainedModel, args: LoraArguments) -> PeftModel:
    """Add LoRA adapters to the encoders of a model; train and save all other layers in full.

    Source: Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*.

    Raises:
        ValueError: no module has a name that `lora_target_modules` matches.
    """
    pattern = args.lora_target_modules or QUERY_AND_VALUE
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=pattern,
        modules_to_save=modules_without_encoders(model),
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(
            f"LoRA found nothing to adapt: no module of the encoders matches {pattern!r} ({error}). Set "
            "--lora_target_modules to a regular expression of their attention projections."
        ) from None
    model.base_model.freeze()  # of the configuration: a frozen CNN stays frozen
    return adapted


def modules_without_encoders(model: nn.Module) -> list[str]:
    """List the outermost modules without an adapted encoder, by unambiguous dotted names.

    peft finds a module by the end of its name, and cannot wrap a list of modules: in both cases the children of the
    module are listed instead.
    """
    all_names = [name for name, _ in model.named_modules()]
    names = []

    def is_adapted(name: str, module: nn.Module) -> bool:
        return name in ADAPTED and isinstance(module, PreTrainedModel)  # static word embeddings are none

    def visit(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if is_adapted(name, child) or not any(True for _ in child.parameters()):
                continue
            has_encoder = any(is_adapted(inner.split(".")[-1], module) for inner, module in child.named_modules())
            ambiguous = sum(other.endswith(path) for other in all_names) > 1
            if has_encoder or ambiguous or isinstance(child, nn.ModuleList | nn.ModuleDict):
                visit(child, f"{path}.")
            else:
                names.append(path)

    visit(model, "")
    return names


def adapter_facts(args: LoraArguments) -> dict[str, Any]:
    """Describe the adapters for results and card."""
    return {
        "r": args.lora_r,
        "alpha": args.lora_alpha,
        "dropout": args.lora_dropout,
        "target_modules": args.lora_target_modules or QUERY_AND_VALUE,
        "merged": args.lora_merge,
    }


def is_adapter(folder: str | Path) -> bool:
    """Return whether a folder holds adapters instead of a complete model."""
    return (Path(folder) / "adapter_config.json").is_file()


def load_adapter(folder: str | Path, **encoders: Any) -> SentimentPreTrainedModel:
    """Load a model from its saved adapters and the encoders they adapt, merged.

    Args:
        folder (`str` or `Path`): output folder of a run with `lora_merge=False`.
        encoders: `text`, `vision`, `cnn` of `from_backbones`, for encoders that the saved configuration does not
            name because they were read from a local folder.

    Raises:
        ValueError: an encoder is unknown.
    """
    config = AutoConfig.from_pretrained(folder)
    model_class = next(model for config_class, model in SYSTEMS.values() if config_class is type(config))
    loaded = {}
    for field, auto_class in config.encoder_classes().items():
        part, encoder_config = field.removesuffix("_config"), getattr(config, field)
        if encoder_config is None:  # the plain ConvNet, one of the layers that were saved
            continue
        name = encoders.get(part) or getattr(encoder_config, "_name_or_path", "")
        if not name:
            raise ValueError(
                f"{folder} holds adapters of a {part} encoder that was read from a local folder; name it: "
                f"load_adapter(folder, {part}=…)."
            )
        loaded[ENCODERS[field]] = auto_class.from_pretrained(name, config=encoder_config, dtype=torch.float32)
    return PeftModel.from_pretrained(model_class(config, **loaded), folder).merge_and_unload().eval()
