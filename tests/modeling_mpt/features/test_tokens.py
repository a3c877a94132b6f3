"""Tests of token ids that a process keeps: one tokenization of each text and setting."""

import numpy as np
import pytest

from helpers import tiny_processor
from helpers.feature_runs import posts
from modeling_mpt.features import tokens
from modeling_mpt.features.contents import read_contents
from modeling_mpt.features.tokens import TokenPool
from processing_mpt import MPTProcessor

MODALITIES = ["text", "image", "rationales"]


@pytest.fixture(autouse=True)
def new_process():
    tokens._pool.cache_clear()


def processor(max_length: int = 64) -> MPTProcessor:
    return MPTProcessor(tiny_processor.image_processor(), tiny_processor.tokenizer(), max_length=max_length)


def expected(rows, using) -> list[list[int]]:
    return [ids for row in rows for ids in using.token_ids([row["text"]])]


def texts_of(contents) -> list[list[int]]:
    return [contents.texts.ids(row).tolist() for row in range(len(contents.ids))]


def test_a_text_is_tokenized_once_for_all_datasets_and_processors_of_a_process(monkeypatch):
    rows, seen = posts(40), []
    tokenize = MPTProcessor.token_ids

    def counted(self, texts, kind="text"):
        seen.extend((kind, text) for text in texts)
        return tokenize(self, texts, kind)

    monkeypatch.setattr(MPTProcessor, "token_ids", counted)
    first = [read_contents(part, processor(), MODALITIES) for part in (rows[:30], rows[20:])]
    assert len(seen) == len(set(seen)) > 100
    again = read_contents(rows, processor(), MODALITIES)
    assert len(seen) == len(set(seen))
    monkeypatch.undo()
    assert texts_of(again) == expected(rows, processor())
    assert texts_of(first[0]) == texts_of(again)[:30]  # rows of an earlier dataset stay as the pool grows
    assert (first[1].rationales.keys == again.rationales.keys[60:]).all()


@pytest.mark.parametrize("change", ["max_length", "vocabulary"])
def test_other_settings_of_a_tokenizer_give_other_ids(change):
    rows = posts(6)
    read_contents(rows, processor(), MODALITIES)
    other = processor(max_length=3 if change == "max_length" else 64)
    if change == "vocabulary":
        other.tokenizer.add_tokens(["sea", "rain", "good", "day", "bus"])
    found = texts_of(read_contents(rows, other, MODALITIES))
    assert found == expected(rows, other) != expected(rows, processor())


def test_a_text_without_tokens_is_a_missing_one_and_a_post_without_anything_is_refused():
    rows = [{"id": "a", "text": " ", "image": posts()[0]["image"], "label": 0}, {"id": "b", "text": "sea", "label": 1}]
    contents = read_contents(rows, processor(), ["text", "image"])
    assert contents.texts.lengths.tolist()[0] == 0 and contents.texts.keys[0] == b""
    assert contents.present().all() and contents.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="'a' must have an image, a text or a rationale"):
        read_contents(rows, processor(), ["text"])


def test_ids_beyond_two_bytes_are_kept():
    pool = TokenPool(np.int32)
    rows = pool.rows(["a", None, "b", "a"], lambda texts: [[70_000, 3] for _ in texts])
    pool.join()
    assert rows[0] == rows[3] != rows[2] and rows[1] == 0
    assert pool.ids.tolist() == [70_000, 3, 70_000, 3] and pool.offsets.tolist() == [0, 0, 2, 4]
