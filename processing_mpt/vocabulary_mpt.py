"""Tokenizers of text encoders: loaded with the encoder's limit, or learned on posts."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

SPECIAL_TOKENS = {
    name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
}


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
    limit = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=config.max_position_embeddings, **SPECIAL_TOKENS
    )
