"""Tests of MPTDataCollator."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from dataset_scripts.schema import PERSPECTIVES, features, rationale_column
from helpers.odd_images import with_malformed_exif
from helpers.tiny_processor import image, processor
from processing_mpt import MPTDataCollator
from processing_mpt.collator_mpt import MODALITIES
from processing_mpt.pipeline_mpt import IGNORED_COLUMNS
from processing_mpt.processing_mpt import MODEL_INPUTS


def row(**changes):
    whole = {column: None for column in features()}
    return whole | {"id": "7", "text": "what a good day", "label": 1, "rationale_positive": "good"} | changes


ROWS = [row(image=image()), row(id="8", text="rain", rationale_positive=None, rationale_negative="rain", label=2)]


def same(batch, other):
    return set(batch) == set(other) and all(batch[name].equal(other[name]) for name in batch)


def test_an_image_as_datasets_stores_it_is_decoded_and_named_by_its_post():
    collate = MPTDataCollator(processor())
    stored = {"bytes": with_malformed_exif(), "path": None}
    upright = collate([row(image=image("red", size=(20, 30)))])
    assert torch.allclose(collate([row(image=stored)])["pixel_values"], upright["pixel_values"], atol=0.02)
    with pytest.raises(ValueError, match="The image of post '8' cannot be decoded .it is an HTML page"):
        collate([row(image=stored), row(id="8", image={"bytes": b"<html>", "path": None})])


def test_columns_are_those_of_the_schema():
    # The packages do not import each other and must agree on names.
    collate = MPTDataCollator(processor())
    assert collate.processor.perspectives == list(PERSPECTIVES)
    read = {"image", "text", *(rationale_column(name) for name in collate.processor.perspectives)}
    assert read | set(IGNORED_COLUMNS) == set(features())
    filled = Dataset.from_list([row(image=image(), **{rationale_column(name): name for name in PERSPECTIVES})])
    batch = collate(list(filled.cast(features())))
    assert set(batch) == {*MODEL_INPUTS, "labels"}
    assert batch["rationale_attention_mask"].any(dim=2).all()


def test_a_batch_is_what_the_processor_makes_of_its_rows_and_the_labels():
    batch = MPTDataCollator(processor())(ROWS)
    labels = batch.pop("labels")
    assert labels.tolist() == [1, 2] and labels.dtype == torch.long
    expected = processor()(
        images=[image(), None],
        text=["what a good day", "rain"],
        rationales=[{"positive": "good"}, {"negative": "rain"}],
    )
    assert same(batch, expected)


def test_rows_may_lack_columns():
    assert set(MPTDataCollator(processor())([{"text": "rain"}])) == {"input_ids", "attention_mask"}


def test_posts_without_labels_make_a_batch_without_labels():
    assert "labels" not in MPTDataCollator(processor())([row(label=None), row(label=None)])


def test_labels_may_be_numpy_integers():
    assert MPTDataCollator(processor())([row(label=np.int64(2))])["labels"].tolist() == [2]


@pytest.mark.parametrize("left_out", MODALITIES)
def test_what_the_model_does_not_read_is_not_processed(left_out):
    kept = [name for name in MODALITIES if name != left_out]
    whole, batch = MPTDataCollator(processor())(ROWS), MPTDataCollator(processor(), kept)(ROWS)
    prefixes = {"text": ("input_ids", "attention_mask"), "image": ("pixel", "image"), "rationales": "rationale"}
    assert set(whole) - set(batch) == {name for name in whole if name.startswith(prefixes[left_out])}
    assert same(batch, {name: whole[name] for name in batch})


def test_perspectives_of_one_s_own_are_read_from_their_columns():
    batch = MPTDataCollator(processor(perspectives=["irony"]))([{"text": "rain", "rationale_irony": "good"}])
    assert batch["rationale_input_ids"].shape[:2] == (1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(id="8", label=None)], "label.*'8'"),
        ([row(label="positive")], "label of post '7'.*'positive'"),
        ([row(text=3.5)], "text of post '7' must be a string.*3.5"),
        ([row(rationale_positive=["good"])], "positive rationale of post '7' must be a string"),
        ([row(), row(id="8", text=None, rationale_positive=None)], "Post '8'.*'text', 'image'"),
        ([{"labels": 1}], "Post 0 of the batch.*remove_unused_columns=False"),
    ],
)
def test_rows_that_cannot_be_collated_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        MPTDataCollator(processor())(rows)


def test_an_unknown_modality_is_refused():
    with pytest.raises(ValueError, match=r"`modalities`.*\['texts'\]"):
        MPTDataCollator(processor(), ["texts"])


def test_a_worker_process_makes_the_same_batches():
    rows = Dataset.from_list([row(image=image(), id=str(n), text=f"rain {n}") for n in range(4)]).cast(features())
    collate = pickle.loads(pickle.dumps(MPTDataCollator(processor())))  # some systems pickle it for their workers
    local = list(DataLoader(rows, batch_size=3, collate_fn=collate))
    remote = list(DataLoader(rows, batch_size=3, collate_fn=collate, num_workers=1))
    assert len(local) == len(remote) == 2
    assert all(same(*pair) for pair in zip(local, remote, strict=True))
