"""Tests of the bags of words: embeddings of tokens that the posts alone train."""

import torch

from helpers import tiny
from modeling_mpt.learning_rates import kinds_of_parameters
from modeling_mpt.words_mpt import WordBags


def test_a_bag_is_the_sum_of_its_words_over_the_root_of_their_number_with_a_table_for_each_text():
    bags = WordBags(2, 10, 3)
    torch.nn.init.normal_(bags.weight)
    ids = torch.tensor([[[4, 7, 4, 0], [4, 9, 1, 2]], [[5, 0, 0, 0], [3, 3, 0, 0]]])
    mask = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]], [[0, 0, 0, 0], [1, 1, 0, 0]]])
    first, second = bags.weight.split(10)
    output = bags(ids, mask)
    torch.testing.assert_close(output[0, 0], (2 * first[4] + first[7]) / 3**0.5)
    torch.testing.assert_close(output[0, 1], second[[4, 9, 1, 2]].sum(dim=0) / 2)
    torch.testing.assert_close(output[1, 1], 2 * second[3] / 2**0.5)
    assert not output[1, 0].any()


def test_words_that_no_train_post_has_add_nothing():
    model, batch = tiny.model(word_size=4), tiny.batch(labels=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    words = model.mpt.text_words.weight
    seen = torch.zeros(len(words), dtype=torch.bool)
    seen[batch["input_ids"][batch["attention_mask"].bool()]] = True
    assert words[~seen].count_nonzero() == 0 < words[seen].count_nonzero()


def test_a_network_without_them_has_no_further_weights():
    plain, words = (set(tiny.model(word_size=size).state_dict()) for size in (0, 4))
    added = {"mpt.text_words.weight", "mpt.rationale_words.weight", "mpt.word_projection.weight"}
    assert words - plain == added and plain < words


def test_they_have_the_learning_rate_of_words():
    kinds = kinds_of_parameters(tiny.model(word_size=4), [])
    assert {name for name, kind in kinds.items() if kind == "words"} == {
        "mpt.text_words.weight",
        "mpt.rationale_words.weight",
    }
