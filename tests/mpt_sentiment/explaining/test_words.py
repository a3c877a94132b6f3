"""Tokens merged to words, for English, Chinese, and tokens that cross words."""

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers import tiny, tiny_processor
from mpt_sentiment.explaining.words import split_words, words_of
from processing_mpt.vocabulary_mpt import train_tokenizer


def words_in(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What a day, don't go!!", ["What", "a", "day", ",", "don't", "go", "!!"]),
        ("#sea @anna http://t.co/a?b=1 ok", ["#sea", "@anna", "http://t.co/a?b=1", "ok"]),
        ("今天天气很好,ok吗", ["今", "天", "天", "气", "很", "好", ",", "ok", "吗"]),
        ("naïve café 😀😀", ["naïve", "café", "😀😀"]),
        (" \n ", []),
    ],
)
def test_words_links_and_signs_are_split_and_each_ideograph_is_a_word(text, words):
    assert words_in(text) == words


@pytest.mark.parametrize("text", ["nothing but a missed train, goodness!", "unknownword at ten"])
def test_each_token_of_an_english_text_belongs_to_one_word(text):
    tokenizer = tiny_processor.tokenizer()
    ids = tokenizer(text)["input_ids"]
    words = words_of(tokenizer, text, len(ids))
    assert [position for tokens in words.tokens for position in tokens] == list(range(1, len(ids) - 1))
    assert [words[index] for index in range(len(words.spans))] == words_in(text)
    pieces = tokenizer.convert_ids_to_tokens([ids[position] for position in words.tokens[0]])
    assert pieces == tokenizer.tokenize(text.split()[0])


def test_a_chinese_text_has_one_token_per_word():
    tokenizer = train_tokenizer(Dataset.from_dict({"text": ["今天天气很好"]}), [], tiny.text_config())
    words = words_of(tokenizer, "天气好!", len(tokenizer("天气好!")["input_ids"]))
    assert words.tokens == [[1], [2], [3], [4]] and words[1] == "气"


def test_words_that_share_a_token_become_one_word():
    vocabulary = [("<unk>", -9.0), ("▁", -2.0), ("今天", -1.0), ("天气", -1.0), ("好", -1.0)]
    tokens = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>")
    text = "今天天气 好"
    words = words_of(tokenizer, text, len(tokenizer(text)["input_ids"]))
    assert [words[index] for index in range(len(words.spans))] == ["今天", "天气", "好"]
    assert sorted(sum(words.tokens, [])) == list(range(len(tokenizer(text)["input_ids"])))


def test_words_after_the_limit_have_no_tokens():
    words = words_of(tiny_processor.tokenizer(), "what a good day at the sea", 5)
    assert words.read == [0, 1, 2] and words.tokens[3:] == [[], [], [], []]
