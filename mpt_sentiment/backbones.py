"""Processor and model of a training run, from its arguments."""

import collections
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from modeling_mpt import SYSTEMS
from modeling_mpt.pretrained_mpt import SentimentPreTrainedModel
from mpt_sentiment.encoder_sources import check_encoder, check_source, config_of_type, first_sentence
from mpt_sentiment.training_arguments import ModelArguments
from processing_mpt import MPTProcessor

# The encoders of the paper (§4.2), for a run that names none.
TEXT_ENCODER = "google-bert/bert-base-uncased"
VISION_ENCODER = "google/vit-base-patch16-224-in21k"


def build(model: ModelArguments, train: Dataset) -> tuple[MPTProcessor, SentimentPreTrainedModel]:
    """Create processor and network of a run.

    Raises:
        ValueError: an encoder cannot be loaded.
    """
    try:
        processor = build_processor(model, train)
        return processor, build_model(model, processor, train.features["label"].names, train)
    except (OSError, SafetensorError) as error:
        names = [source for source in encoder_sources(model).values() if isinstance(source, str)]
        raise ValueError(
            f"An encoder ({', '.join(names)}) cannot be loaded: {first_sentence(error)}. Check the connection, or "
            "fetch it again with `hf download`."
        ) from error


def build_processor(model: ModelArguments, train: Dataset) -> MPTProcessor:
    """Create the processor of a run; a text encoder that starts at random gets a new vocabulary."""
    sources = encoder_sources(model)
    # Without a vision encoder, a CNN decides the size of the images; the plain ConvNet reads any size.
    return MPTProcessor.from_backbones(
        sources["text"],
        sources["vision"],
        sources["cnn"],
        tokenizer=model.tokenizer_name_or_path,
        posts=train,
        modalities=planned_config(model).modalities,
        max_length=model.max_length,
        rationale_max_length=model.rationale_max_length,
        text_preprocessing=model.text_preprocessing,
    )


def weight_power(class_weights: Any) -> float | None:
    """Return the power of the inverse frequency by which classes are weighed.

    It is `None` for a list of weights, or for none.

    Raises:
        ValueError: it is another word, or no number from 0 to 1.
    """
    if class_weights is None or isinstance(class_weights, list | tuple):
        return None
    power = {"balanced": 1.0}.get(class_weights, class_weights)
    if isinstance(power, bool) or not isinstance(power, int | float) or not 0 <= power <= 1:
        raise ValueError(
            "`class_weights` must be 'balanced' (inverse frequency in train), the power of it from 0 (equal weights) "
            f"to 1 (balanced), or a list of one weight per label, got {class_weights!r}."
        )
    return float(power)


def weights_of_classes(class_weights: Any, train: Dataset) -> list[float] | None:
    """Return the weight of each label that the setting `class_weights` has on these posts.

    A label without a post weighs 0 if weights depend on frequencies.

    Raises:
        ValueError: see [`weight_power`].
    """
    power = weight_power(class_weights)
    if power is None:
        return class_weights
    counts = collections.Counter(train["label"][:])
    labels = range(train.features["label"].num_classes)
    return [(len(train) / (len(labels) * counts[i])) ** power if counts[i] else 0.0 for i in labels]


def build_model(
    model: ModelArguments, processor: MPTProcessor, label_names: list[str], train: Dataset
) -> SentimentPreTrainedModel:
    """Create the network of a run, with the labels and perspectives of the posts."""
    fields = model.config_fields()
    if "class_weights" in fields:
        fields["class_weights"] = weights_of_classes(fields["class_weights"], train)
    return SYSTEMS[model.model][1].from_backbones(
        **encoder_sources(model), processor=processor, labels=label_names, **fields
    )


def encoder_sources(model: ModelArguments) -> dict[str, str | PreTrainedConfig | None]:
    """Find the source of each encoder that the system reads; `None` for the others.

    The default is the paper's encoder.
    """
    read = encoders_read(model)
    defaults = {"text": TEXT_ENCODER, "vision": VISION_ENCODER}
    sources: dict[str, str | PreTrainedConfig | None] = {}
    for part in ("text", "vision", "cnn", "scene"):
        fields = getattr(model, f"{part}_config", None)
        name = getattr(model, f"{part}_model_name_or_path") or defaults.get(part)
        source = name if fields is None else config_of_type(fields, f"{part}_config")
        sources[part] = source if f"{part}_config" in read else None
    return sources


def check_encoders(model: ModelArguments) -> None:
    """Check that every encoder can be reached and is of the right kind; load no weights.

    Raises:
        ValueError: see [`check_encoder`].
    """
    for part, source in encoder_sources(model).items():
        check_encoder(source, part, f"{part}_model_name_or_path" if isinstance(source, str) else f"{part}_config")
    if model.tokenizer_name_or_path and not Path(model.tokenizer_name_or_path).is_dir():
        check_source(model.tokenizer_name_or_path, "tokenizer_name_or_path")


def encoders_read(model: ModelArguments) -> set[str]:
    """List the encoders that the system reads, by the names of their configuration fields."""
    return set(planned_config(model).encoder_classes())


def planned_config(model: ModelArguments) -> Any:
    """Build the configuration with default encoders, to see what the system reads."""
    fields = {name: value for name, value in model.config_fields().items() if name != "class_weights"}
    return model.config_class(**fields)
