"""Cells of comparisons: arms of the systems, and rationales that are shuffled between posts."""

import collections

import pytest

import mpt_sentiment as mpt
from mpt_sentiment.cells import ARMS, KNOWN_SYSTEMS, STATIC_WORDS, arm_fields, has_arm, make_cells, shuffled_rationales
from mpt_sentiment.protocol import Protocol

POSTS = mpt.split_posts(mpt.load_posts("sample", num_posts=60, seed=3))
RATIONALES = [name for name in POSTS["train"].column_names if name.startswith("rationale_")]


def rationales(split):
    return list(zip(*(split[name] for name in RATIONALES), strict=True))


def test_shuffled_rationales_are_those_of_another_post_of_the_same_split():
    shuffled = shuffled_rationales(POSTS, seed=1)
    for name, split in POSTS.items():
        assert shuffled[name].features == split.features
        assert shuffled[name]["id"] == split["id"] and shuffled[name]["text"] == split["text"]
        assert shuffled[name]["image"] == split["image"] and shuffled[name]["label"] == split["label"]
        before, after = rationales(split), rationales(shuffled[name])
        assert collections.Counter(after) == collections.Counter(before)
        place = {row: {i for i, other in enumerate(before) if other == row} for row in before}
        assert all(place[row] != {i} for i, row in enumerate(after))


def test_the_seed_determines_the_order_of_shuffled_rationales():
    one, same, other = (rationales(shuffled_rationales(POSTS, seed)["train"]) for seed in (1, 1, 2))
    assert one == same != other


def test_every_system_that_reads_rationales_has_the_shuffled_arm():
    for name in KNOWN_SYSTEMS:
        assert has_arm(name, "without") and has_arm(name, "with") == has_arm(name, "shuffled")
    assert not has_arm("bert", "with") and has_arm("tfidf", "shuffled") and not has_arm("majority", "with")
    assert [name for name in KNOWN_SYSTEMS if has_arm(name, "words")] == list(STATIC_WORDS)


@pytest.mark.parametrize("system", STATIC_WORDS)
def test_a_memory_network_reads_encoder_states_in_all_arms_but_that_of_static_words(system, tmp_path):
    cells = make_cells([system], list(ARMS), [1], Protocol.of_fields("sample", "sample", {}), "sample", tmp_path)
    read = {cell.arm: (cell.setup.model.use_rationales, cell.setup.model.text_provider) for cell in cells}
    assert read == {
        "without": (False, "encoder"),
        "with": (True, "encoder"),
        "shuffled": (True, "encoder"),
        "words": (False, "embeddings"),
    }


def test_the_arm_decides_about_the_rationales_of_mpt_and_the_user_about_its_other_modalities():
    assert arm_fields("mpt", "without") == {"modalities": ["text", "image"]} and arm_fields("mpt", "with") == {}
    for modalities in (["image"], ["image", "rationales"]):
        assert arm_fields("mpt", "without", modalities) == {"modalities": ["image"]}
        assert arm_fields("mpt", "shuffled", modalities) == {"modalities": ["image", "rationales"]}
