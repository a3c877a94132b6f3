"""Tokenizers of text encoders: loaded with the encoder's limit, or learned on posts."""

import collections
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

SPECIAL_TOKENS = {
    name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
}


def encoder_limit(config: PreTrainedConfig, pad_token_id: int | None = None) -> int | None:
    """Return the largest number of tokens that a text encoder reads, `None` without a limit.

    The limit is `max_position_embeddings`, to which encoders with relative or rotary positions were trained. RoBERTa
    and its relatives number their positions from the one after the padding token's id, and read fewer tokens.

    Args:
        config ([`PreTrainedConfig`]): configuration of the encoder.
        pad_token_id (`int`, *optional*): id of the padding token in its place.
    """
    limit = getattr(config, "max_position_embeddings", None) or 0
    if limit < 1:  # XLNet has -1
        return None
    config = copy.deepcopy(config)
    if pad_token_id is not None:
        config.pad_token_id = pad_token_id
    with torch.device("meta"):  # without memory for weights
        encoder = AutoModel.from_config(config)
    tables = [module for name, module in encoder.named_modules() if "position" in name]
    paddings = [each.padding_idx for each in tables if getattr(each, "padding_idx", None) is not None]
    return limit - max((padding + 1 for padding in paddings), default=0)


def tokenizer_for(
    text: str | PreTrainedConfig,
    tokenizer: str | PreTrainedTokenizerBase | None,
    posts: Mapping[str, Sequence[str | None]] | None,
    perspectives: Sequence[str],
    prepare: Callable[[str], str] = str,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a text encoder, limited to the tokens that the encoder can read.

    The vocabulary of an encoder given by its configuration is learned on `posts`. See
    [`~MPTProcessor.from_backbones`].
    """
    config = AutoConfig.from_pretrained(text) if isinstance(text, str) else text
    if tokenizer is None and not isinstance(text, str):
        return train_tokenizer(posts or {}, perspectives, config, prepare)
    if tokenizer is None or isinstance(tokenizer, str):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer or text)
    # The tokenizer of another encoder, or one saved without its limit, may allow more.
    limit = encoder_limit(config, None if isinstance(text, str) else tokenizer.pad_token_id)
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit or tokenizer.model_max_length)
    return tokenizer


def train_tokenizer(
    posts: Mapping[str, Any],
    perspectives: Sequence[str],
    config: PreTrainedConfig,
    prepare: Callable[[str], str] = str,
) -> PreTrainedTokenizerFast:
    """Learn a lower-casing WordPiece vocabulary of at most `config.vocab_size` entries.

    The entries are the characters of texts, after `prepare`, and of rationales, and their most frequent words. Unlike
    the trainers of `tokenizers`, which break ties at random, this always gives the same vocabulary.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: collections.Counter[str] = collections.Counter()
    columns = getattr(posts, "column_names", posts)
    for column in ("text", *(f"rationale_{perspective}" for perspective in perspectives)):
        for text in filter(None, posts[column] if column in columns else ()):
            text = prepare(text) if column == "text" else text
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
    limit = encoder_limit(config, vocabulary[SPECIAL_TOKENS["pad_token"]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **SPECIAL_TOKENS)
