"""Tests of the feature store: keys, shards, interruption, several processes, space."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from helpers import feature_runs, tiny_processor
from helpers.feature_runs import build, files, network, posts
from modeling_mpt.features import FeatureStore, FeatureStoreError
from processing_mpt import MPTProcessor


def started(folder: Path, kill_after: int | None = None) -> multiprocessing.Process:
    """Start a process that builds a store of 60 posts, and kills itself after some shards."""
    process = multiprocessing.get_context("fork").Process(target=feature_runs.build_many, args=(folder, kill_after))
    process.start()
    return process


def ended(process: multiprocessing.Process) -> int:
    process.join()
    return process.exitcode


def encoders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_entries_are_the_outputs_of_the_encoders_in_evaluation_mode(tmp_path):
    model, processor, rows = network(), tiny_processor.processor(), posts()
    batch = build(tmp_path).collate(range(len(rows)))
    expected = processor.data_collator()(rows)
    states = model.mpt.text_encoder(
        input_ids=expected["input_ids"], attention_mask=expected["attention_mask"]
    ).last_hidden_state * expected["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(batch["encoder_outputs"]["text_states"], states, atol=1e-5, rtol=1e-5)
    present = batch["image_mask"]
    assert torch.equal(present, expected["image_mask"])
    vectors = model.mpt.image_branches.cnn_vectors(expected["pixel_values"][present])
    torch.testing.assert_close(batch["encoder_outputs"]["cnn"][present], vectors, atol=1e-5, rtol=1e-5)
    assert not batch["encoder_outputs"]["cnn"][~present].any()
    for name in ("attention_mask", "rationale_attention_mask", "labels"):
        assert torch.equal(batch[name], expected[name]), name


def test_repeated_contents_are_stored_once_and_without_padding(tmp_path):
    features = build(tmp_path)
    stored = {each.name: each.shards for each in features.stored}
    texts = {row["text"] for row in posts() if row["text"]}
    with safe_open(next(stored["text"].folder.glob("*.safetensors")), "pt") as file:
        assert len(file.get_tensor("keys")) == len(texts)
        assert file.get_tensor("text_states").shape[0] == file.get_tensor("offsets")[-1]
    assert sum(len(keys) for keys in stored["cnn"]._keys) == len({row["image"] for row in posts() if row["image"]})


def test_nothing_is_computed_for_known_posts(tmp_path, monkeypatch):
    build(tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr("modeling_mpt.features.store.encode", None)
    build(tmp_path, posts()[3:7])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "processor",
    [
        MPTProcessor(tiny_processor.image_processor(), tiny_processor.tokenizer(), max_length=4),
        MPTProcessor(tiny_processor.image_processor(64), tiny_processor.tokenizer(), rationale_max_length=4),
    ],
    ids=["max_length", "image size and rationale_max_length"],
)
def test_other_inputs_of_the_same_encoders_get_their_own_entries(processor, tmp_path):
    config = {"image_branches": ["cnn"]}
    model, rows = network(**config), posts()
    build(tmp_path, **config)
    batch = FeatureStore(tmp_path, "float32").build(model, processor, rows, progress=False).collate(range(len(rows)))
    with torch.no_grad():
        expected = model(**processor.data_collator()(rows)).logits
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["weight", "pooling", "pixels", "dtype", "autocast"])
def test_another_encoder_or_type_gets_a_folder_of_its_own(change, tmp_path):
    build(tmp_path)
    before = encoders(tmp_path)
    config, dtype, autocast = {}, "float32", None
    if change == "pooling":
        config = {"vision_pooling": "mean"}
    elif change == "pixels":
        config = {"pixel_mean": [0.1, 0.2, 0.3]}
    elif change == "dtype":
        dtype = "bfloat16"
    elif change == "autocast":
        autocast = torch.bfloat16
    model = network(**config)
    if change == "weight":
        with torch.no_grad():
            model.mpt.text_encoder.embeddings.word_embeddings.weight[7, 3] += 0.5
    store = FeatureStore(tmp_path, dtype)
    batch = store.build(model, tiny_processor.processor(), posts(), autocast=autocast, progress=False).collate([0, 1])
    new = encoders(tmp_path) - before
    assert len(new) == {"weight": 2, "pooling": 1, "pixels": 0, "dtype": 4, "autocast": 4}[change]
    assert batch["encoder_outputs"]["text_states"].dtype == torch.float32


def test_a_killed_build_is_resumed_and_its_torn_file_is_not_read(tmp_path):
    assert ended(started(tmp_path / "killed", kill_after=5)) == -9
    partial = files(tmp_path / "killed")
    assert len(partial) == 5 and list((tmp_path / "killed").rglob("*.tmp"))
    whole = started(tmp_path / "whole")
    assert ended(started(tmp_path / "killed")) == ended(whole) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".lock")]


def test_two_processes_build_the_store_of_one(tmp_path):
    both = [started(tmp_path / "two"), started(tmp_path / "two")]
    one = started(tmp_path / "one")
    assert [ended(process) for process in (*both, one)] == [0, 0, 0]
    assert len(files(tmp_path / "one")) > 20
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_folds_of_the_same_posts_share_their_files(tmp_path):
    store, rows = FeatureStore(tmp_path), posts(20)
    for fold in range(3):
        splits = [rows[fold::3], rows[(fold + 1) % 3 :: 3], rows[(fold + 2) % 3 :: 3]]
        store.build(network(), tiny_processor.processor(), *splits, progress=False)
        shards = files(tmp_path)
        assert len(shards) == 4
    assert fold == 2


def test_the_size_is_announced_before_anything_is_written(tmp_path):
    lines = []

    def announce(line):
        lines.append(line)
        assert files(tmp_path) == {}

    store = FeatureStore(tmp_path, "float32")
    features = store.build(network(), tiny_processor.processor(), posts(), progress=False, announce=announce)
    (line,) = lines
    size = sum(tensor.nbytes for each in features.stored for tensor in each.shards.outputs(0).values())
    assert line.endswith(f"{size / 1024:,.0f} kB") and "text_states of " in line


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureStoreError, match="file.*cannot be written"):
        build(tmp_path / "file")


def test_a_number_beyond_float16_is_refused(tmp_path):
    model = network()
    with torch.no_grad():
        model.mpt.image_branches.cnn.layers[0].weight.mul_(1e9)
        model.mpt.image_branches.cnn.layers[5].weight.mul_(1e9)
    with pytest.raises(FeatureStoreError, match="bfloat16"):
        FeatureStore(tmp_path, "float16").build(model, tiny_processor.processor(), posts(), progress=False)


def test_an_unreadable_image_is_named_by_its_post(tmp_path):
    rows = posts()
    rows[3]["image"] = b"GIF8 no image"
    with pytest.raises(ValueError, match="post 'post-3' cannot be decoded"):
        build(tmp_path, rows)


def test_a_post_with_nothing_to_read_is_named(tmp_path):
    rows = [*posts(), {"id": "empty", "text": " \n", "image": None, "label": 0}]
    with pytest.raises(ValueError, match="Post 'empty' must have"):
        build(tmp_path, rows)


def test_pooled_vectors_are_means_with_zeros_for_what_is_missing(tmp_path):
    rows = posts()
    features = build(tmp_path)
    vectors = features.pooled()
    assert vectors["text"].shape == (12, 32) and vectors["rationales"].shape == (12, 3, 32)
    assert vectors["cnn"].shape == (12, 8) and vectors["vision"].shape == (12, 32)
    assert vectors["text_mask"].tolist() == [bool(row["text"]) for row in rows]
    assert not vectors["text"][~vectors["text_mask"]].any() and not vectors["vision"][~vectors["image_mask"]].any()
    batch = features.collate([5])
    mean = batch["encoder_outputs"]["text_states"].mean(dim=1)
    np.testing.assert_allclose(vectors["text"][5], mean[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(vectors["rationales"][0], batch_of(features, 0)["rationale_means"][0])


def batch_of(features, index: int) -> dict[str, torch.Tensor]:
    return features.collate([index])["encoder_outputs"]


def test_the_record_of_an_encoder_says_what_it_is(tmp_path):
    build(tmp_path)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*/encoder.json")]
    assert sorted(record["name"] for record in records) == ["cnn", "rationales", "text", "vision"]
