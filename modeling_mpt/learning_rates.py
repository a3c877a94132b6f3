"""Learning rates of the parts of a network: encoders, static words, and new layers."""

from torch import nn
from transformers import PreTrainedModel

from .training_arguments import MPTTrainingArguments

# Modules with an encoder, by their name in a parameter's dotted name. All other parameters are of new layers.
TEXT_ENCODERS = ("text_encoder", "rationale_encoder")
VISION_ENCODERS = ("vision_encoder", "cnn")
WORDS = ("text_words", "rationale_words")


def kinds_of_parameters(model: nn.Module, random_encoders: list[str]) -> dict[str, str]:
    """Map the name of each parameter to the kind of its layer.

    Args:
        model (`nn.Module`): the network, with or without wrappers for distribution or adapters.
        random_encoders (`list[str]`): of `"text"`, `"vision"`, `"cnn"` and `"scene"`, see [`SentimentConfig`].

    Returns:
        `"text"` or `"vision"` for a pretrained encoder, `"words"` for word embeddings without an encoder, and `"head"`
        for all else that starts at random: new layers, the plain CNNs, and the `random_encoders`.
    """
    modules = dict(model.named_modules())
    return {name: _kind(name.split("."), modules, random_encoders) for name, _ in model.named_parameters()}


def rates_of_kinds(args: MPTTrainingArguments) -> dict[str, float]:
    """Map each kind of [`kinds_of_parameters`] to its learning rate."""
    head = args.head_learning_rate or args.learning_rate
    return {
        "text": args.learning_rate,
        "vision": args.vision_learning_rate or args.learning_rate,
        "words": args.word_learning_rate or head,
        "head": head,
    }


def _kind(path: list[str], modules: dict[str, nn.Module], random_encoders: list[str]) -> str:
    position = next((i for i, part in enumerate(path) if part in (*TEXT_ENCODERS, *VISION_ENCODERS)), None)
    if position is None:
        return "words" if {*WORDS} & {*path} else "head"
    is_text = path[position] in TEXT_ENCODERS
    inner = (modules.get(".".join(path[:end])) for end in range(position + 1, len(path)))
    if not any(isinstance(module, PreTrainedModel) for module in inner):
        return "words" if is_text else "head"
    if is_text:
        part = "text"
    elif "scene" in path[:position]:
        part = "scene"
    else:
        part = "cnn" if path[position] == "cnn" else "vision"
    if part in random_encoders:
        return "head"
    return "text" if is_text else "vision"
