"""Vectors of frozen encoders: standardized, and shared between folds and with networks."""

import dataclasses

import numpy as np
import pytest
from transformers import AutoConfig, BertModel

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS, TINY_TEXT
from modeling_mpt.features import store as feature_store
from mpt_sentiment.cells import base_setups
from mpt_sentiment.frozen_features import frozen_features, standardized
from mpt_sentiment.protocol import Protocol

ALL = ["text", "image", "rationales"]
CNN = {"model_type": "timm_wrapper", "architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 48, 48]}}


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


@pytest.fixture(scope="module")
def encoder(posts, tmp_path_factory):
    """Folder of a text encoder, whose weights are the same in every network."""
    folder = tmp_path_factory.mktemp("encoder")
    config = AutoConfig.for_model(**TINY_TEXT)
    BertModel(config).save_pretrained(folder)
    mpt.MPTProcessor.from_backbones(config, posts=posts["train"]).tokenizer.save_pretrained(folder)
    return str(folder)


def setup_of(folder, **fields):
    fields = {"num_train_epochs": 1, "feature_store": str(folder), "output_dir": str(folder / "out")} | fields
    return base_setups(Protocol.of_fields("sample", "sample", TINY_FIELDS | fields), "sample")("mpt")


@pytest.fixture
def encoded(monkeypatch):
    """Count of contents that encoders compute."""
    counts = []
    encode = feature_store.encode

    def counted(encoders, source, places, *args):
        if len(places) > 1:  # one content is encoded to announce the size
            counts.append(len(places))
        return encode(encoders, source, places, *args)

    monkeypatch.setattr(feature_store, "encode", counted)
    return counts


def test_train_has_mean_0_and_variance_1_and_a_missing_content_is_0():
    generator = np.random.default_rng(0)
    pooled = {}
    for split, size in (("train", 20), ("test", 5)):
        pooled[split] = {
            "text": generator.normal(3, 2, (size, 4)),
            "rationales": generator.normal(-1, 5, (size, 2, 3)),
            "cnn": np.ones((size, 2)),  # a constant dimension
            "text_mask": np.arange(size) != 1,
            "rationales_mask": np.ones((size, 2), dtype=bool),
            "image_mask": np.ones(size, dtype=bool),
        }
        pooled[split]["text"][1] = 0
    vectors = standardized(pooled)
    train = vectors["train"]
    assert train.shape == (20, 4 + 6 + 2) and vectors["test"].shape == (5, 12) and train.dtype == np.float32
    assert (train[1, :4] == 0).all() and (vectors["test"][1, :4] == 0).all()
    present = np.delete(train[:, :4], 1, axis=0)
    assert present.mean(axis=0) == pytest.approx(0, abs=1e-6) and present.std(axis=0) == pytest.approx(1, abs=1e-5)
    assert train[:, 4:10].std(axis=0) == pytest.approx(1, abs=1e-5) and (train[:, 10:] == 0).all()


def test_modalities_are_read_side_by_side_and_computed_once_for_all_splits(posts, tmp_path, encoder, encoded):
    setup = setup_of(
        tmp_path, text_config=None, text_model_name_or_path=encoder, image_branches=["cnn"], cnn_config=CNN
    )
    features = frozen_features(posts, ALL, setup)
    assert sum(encoded) > 0 and features.untrained_images
    sizes = {name: frozen_features(posts, [name], setup).vectors["test"].shape[1] for name in ALL}
    assert sizes["text"] == 16 and sizes["rationales"] == 48 and sizes["image"] > 0
    assert features.vectors["test"].shape == (len(posts["test"]), sum(sizes.values()))
    text = frozen_features(posts, ["text"], setup).vectors["test"]
    assert text == pytest.approx(features.vectors["test"][:, :16])


def test_folds_and_networks_share_what_is_stored(posts, tmp_path, encoder, encoded):
    fields = {"text_config": None, "text_model_name_or_path": encoder, "modalities": ["text", "rationales"]}
    fields |= {"contrastive_view": "fused", "freeze_text_layers": -1, "feature_store": str(tmp_path / "store")}
    mpt.train(posts, tmp_path / "run", "sample", **TINY_FIELDS | fields | {"num_train_epochs": 1})
    assert sum(encoded) > 0
    encoded.clear()
    setup = setup_of(tmp_path, **fields)
    frozen_features(posts, ["text", "rationales"], setup)
    moved = posts.__class__(dict(zip(posts, [posts["train"], posts["test"], posts["validation"]], strict=True)))
    frozen_features(moved, ["text"], setup)
    assert encoded == []


def test_without_a_store_nothing_stays_on_disk(posts, tmp_path, encoder):
    setup = setup_of(tmp_path, text_config=None, text_model_name_or_path=encoder, feature_store="none")
    with_store = setup_of(tmp_path / "store", text_config=None, text_model_name_or_path=encoder)
    vectors = frozen_features(posts, ["text"], setup).vectors
    assert (vectors["test"] == frozen_features(posts, ["text"], with_store).vectors["test"]).all()
    assert not (tmp_path / "none").exists()


def test_posts_without_what_is_read_and_missing_encoders_are_one_line(posts, tmp_path):
    setup = setup_of(tmp_path)
    untexted = posts.map(lambda row, index: {"text": row["text"] if index else None}, with_indices=True)
    with pytest.raises(ValueError, match=r"posts have no text, all that this run reads; the first has the id"):
        frozen_features(untexted, ["text"], setup)
    missing = dataclasses.replace(setup, model=dataclasses.replace(setup.model, text_config=None))
    missing.model.text_model_name_or_path = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match="text_model_name_or_path"):
        frozen_features(posts, ["text"], missing)
