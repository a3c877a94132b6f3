"""From a recipe to a processor and a model."""

import collections
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
)

from modeling_mpt import SYSTEMS, MPTConfig
from modeling_mpt.pretrained_mpt import SentimentPreTrainedModel
from mpt_sentiment.arguments import ModelArguments
from processing_mpt import MPTProcessor

# The encoders of the paper (§4.2), where a recipe names none.
TEXT_ENCODER = "google-bert/bert-base-uncased"
VISION_ENCODER = "google/vit-base-patch16-224-in21k"
SPECIAL_TOKENS = {
    name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
}


def build_processor(model: ModelArguments, train: Dataset) -> MPTProcessor:
    """The encoders' tokenizer and image processor; for a text encoder from scratch, a tokenizer learnt on `train`."""
    perspectives = [name.removeprefix("rationale_") for name in train.features if name.startswith("rationale_")]
    name = model.tokenizer_name_or_path or (
        None if model.text_config else model.text_model_name_or_path or TEXT_ENCODER
    )
    if name is not None:
        tokenizer = AutoTokenizer.from_pretrained(name)
        encoder = _encoder_config(model.text_config) or AutoConfig.from_pretrained(
            model.text_model_name_or_path or TEXT_ENCODER
        )
        # A tokenizer of another encoder, or one saved without its limit, may allow more than this one can read.
        tokenizer.model_max_length = min(tokenizer.model_max_length, encoder.max_position_embeddings)
    else:
        tokenizer = train_tokenizer(train, perspectives, _encoder_config(model.text_config))
    if model.vision_config is None:
        image_processor = _image_processor(model)
    else:
        side = _encoder_config(model.vision_config).image_size
        image_processor = ViTImageProcessor(size={"height": side, "width": side})
    return MPTProcessor(
        image_processor,
        tokenizer,
        perspectives=perspectives,
        max_length=model.max_length,
        rationale_max_length=model.rationale_max_length,
    )


def _image_processor(model: ModelArguments) -> Any:
    """That of the vision encoder; the plain one of ViT for a baseline that has none."""
    name = model.vision_model_name_or_path
    if name is None and not _has_vision_encoder(model):
        return ViTImageProcessor()
    options = {}
    if model.visual_provider == "detector":  # one size for all: images padded to the largest of a batch would vary
        options = {"size": {"height": 512, "width": 512}, "do_pad": False}
    return AutoImageProcessor.from_pretrained(name or VISION_ENCODER, **options)


def _has_vision_encoder(model: ModelArguments) -> bool:
    if model.config_class is MPTConfig:
        return True
    fields = {name: value for name, value in model.config_fields().items() if name != "class_weights"}
    return "vision_config" in model.config_class(**fields).encoder_classes()


def train_tokenizer(posts: Dataset, perspectives: list[str], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer with at most `config.vocab_size` entries: the characters of texts and
    rationales, and their most frequent words.

    The trainers of `tokenizers` break ties by chance, and another vocabulary is another model at the same seed.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: collections.Counter[str] = collections.Counter()
    for column in ("text", *(f"rationale_{perspective}" for perspective in perspectives)):
        for text in filter(None, posts[column]):
            words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in words for character in word})
    frequent = sorted(words, key=lambda word: (-words[word], word))
    entries = [*SPECIAL_TOKENS.values(), *characters, *(f"##{character}" for character in characters), *frequent]
    vocabulary = {entry: index for index, entry in enumerate(list(dict.fromkeys(entries))[: config.vocab_size])}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(token, vocabulary[token]) for token in (cls, sep)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=config.max_position_embeddings, **SPECIAL_TOKENS
    )


def build_model(
    model: ModelArguments, processor: MPTProcessor, label_names: list[str], train: Dataset
) -> SentimentPreTrainedModel:
    """The network of the recipe, with the labels and perspectives of the posts."""
    fields = model.config_fields()
    if fields.get("class_weights") == "balanced":
        counts = collections.Counter(train["label"])
        fields["class_weights"] = [len(train) / (len(label_names) * counts[i]) for i in range(len(label_names))]
    text = _encoder_config(model.text_config) or model.text_model_name_or_path or TEXT_ENCODER
    if isinstance(text, PreTrainedConfig):
        text.pad_token_id = processor.tokenizer.pad_token_id
        text.vocab_size = max(text.vocab_size, len(processor.tokenizer))
    if model.scene_model_name_or_path is not None:
        fields["scene"] = model.scene_model_name_or_path
    return SYSTEMS[model.model][1].from_backbones(
        text,
        _encoder_config(model.vision_config) or model.vision_model_name_or_path or VISION_ENCODER,
        _encoder_config(model.cnn_config) or model.cnn_model_name_or_path,
        perspectives=processor.perspectives,
        id2label=dict(enumerate(label_names)),
        pixel_mean=list(processor.image_processor.image_mean),
        pixel_std=list(processor.image_processor.image_std),
        **fields,
    )


def _encoder_config(fields: dict[str, Any] | None) -> PreTrainedConfig | None:
    if fields is None:
        return None
    if "model_type" not in fields:
        raise ValueError(f'The encoder configuration {fields} needs a \'model_type\', e.g. "bert" or "vit".')
    return AutoConfig.for_model(**fields)
