"""Words of a text, and the tokens of each."""

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

# Ideographs, kana and the scripts of South-East Asia, which are written without spaces: one character is one word.
_ONE_CHARACTER = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(
    rf"https?://\S+|[{_ONE_CHARACTER}\U00020000-\U0003ffff]|[#@]?(?:(?![{_ONE_CHARACTER}])\w)+"
    rf"(?:['’-](?:(?![{_ONE_CHARACTER}])\w)+)*|[^\w\s]+"
)


@dataclass(frozen=True)
class Words:
    """Words of a text as the tokenizer reads it.

    Attributes:
        text (`str`): the text.
        spans (`list[tuple[int, int]]`): start and end of each word in it.
        tokens (`list[list[int]]`): positions of each word's tokens in the sequence; none for a word after the
            tokenizer's limit, which the network does not read.
    """

    text: str
    spans: list[tuple[int, int]]
    tokens: list[list[int]]

    def __getitem__(self, index: int) -> str:
        start, end = self.spans[index]
        return self.text[start:end]

    @property
    def read(self) -> list[int]:
        """Return the indices of the words that the network reads."""
        return [index for index, positions in enumerate(self.tokens) if positions]


def split_words(text: str) -> list[tuple[int, int]]:
    """Split a text into words, hashtags, links and signs: start and end of each.

    A character of a script that is written without spaces, such as Chinese, is one word.
    """
    return [match.span() for match in _WORD.finditer(text)]


def words_of(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> Words:
    """Merge the tokens of a text to words.

    Words that share a token become one.

    Args:
        tokenizer: a fast tokenizer, which knows the characters of a token.
        text (`str`): text as the processor tokenizes it.
        length (`int`): number of tokens of the truncated text.

    Raises:
        ValueError: a tokenizer that does not know the characters of its tokens.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"Words cannot be explained with a {type(tokenizer).__name__}, which does not know the characters of a "
            "token. Train with a tokenizer that has a `tokenizer.json`."
        )
    encoded = tokenizer(
        text, truncation=True, max_length=length, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    spans = split_words(text)
    tokens: list[list[int]] = [[] for _ in spans]
    word = 0
    for position, (start, end) in enumerate(encoded["offset_mapping"]):
        if start == end or encoded["special_tokens_mask"][position] or not spans:
            continue
        while word + 1 < len(spans) and spans[word][1] <= start:
            word += 1
        while word + 1 < len(spans) and spans[word + 1][0] < end:
            spans[word : word + 2] = [(spans[word][0], spans[word + 1][1])]
            tokens[word : word + 2] = [tokens[word] + tokens[word + 1]]
        tokens[word].append(position)
    return Words(text, spans, tokens)
