"""Tests of MPTPipeline: incomplete posts, containers, batches, and saved folders."""

import base64
import json
import math

import pytest
import torch
from datasets import Dataset, Image
from transformers import BertForSequenceClassification
from transformers import pipeline as auto_pipeline

from dataset_scripts.schema import features
from helpers import tiny
from helpers.odd_images import with_malformed_exif
from helpers.tiny_processor import SENTENCES, image, pipeline, processor
from processing_mpt import MPTPipeline

POSTS = [
    {"text": SENTENCES[0], "image": image("red"), "rationales": {"positive": "a good day", "negative": "rain"}},
    {"text": "rain"},
    {"text": None, "image": image("blue")},
    {"text": " ", "image": None, "rationales": {"neutral": SENTENCES[2], "positive": None}},
    {"text": SENTENCES[1], "image": image("green"), "rationales": None},
]


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def numbers(result):
    """Return a result as a flat dictionary."""
    flat = {}
    for name, value in result.items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def assert_same(results, expected):
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert numbers(result) == pytest.approx(numbers(wanted), abs=1e-5)


# --- results ---------------------------------------------------------------------------------------------------------


def test_a_post_comes_back_with_label_scores_and_weights(pipe):
    result = pipe(POSTS[0])
    assert list(result) == ["label", "score", "scores", "modality_weights", "perspective_weights"]
    assert list(result["scores"]) == ["positive", "neutral", "negative"]
    assert result["score"] == result["scores"][result["label"]] == max(result["scores"].values())
    assert list(result["modality_weights"]) == ["text", "image", "rationales"]
    for part in ("scores", "modality_weights", "perspective_weights"):
        assert math.isclose(sum(result[part].values()), 1, abs_tol=1e-5)
    assert result["perspective_weights"]["neutral"] == 0
    json.dumps(result)  # plain numbers and strings


def test_results_are_those_of_the_model(pipe):
    batch = pipe.processor(images=[POSTS[0]["image"]], text=[POSTS[0]["text"]], rationales=[POSTS[0]["rationales"]])
    with torch.no_grad():
        output = pipe.model(**batch)
    result = pipe(POSTS[0])
    assert list(result["scores"].values()) == pytest.approx(output.logits.softmax(-1)[0].tolist(), abs=1e-6)
    assert list(result["modality_weights"].values()) == pytest.approx(output.modality_weights[0].tolist(), abs=1e-6)


def test_the_temperature_changes_probabilities_and_no_label_and_can_be_left_out():
    pipe = pipeline(calibration_temperature=4.0)
    posts = [{"text": text} for text in SENTENCES]
    batch = pipe.processor(text=SENTENCES)
    with torch.no_grad():
        logits = pipe.model(**batch).logits  # raw
    for temperature, results in ((4.0, pipe(posts)), (1.0, pipe(posts, calibrated=False))):
        expected = (logits / temperature).softmax(-1)
        for result, row in zip(results, expected.tolist(), strict=True):
            assert list(result["scores"].values()) == pytest.approx(row, abs=1e-5)
            assert result["score"] == max(result["scores"].values()) == result["scores"][result["label"]]
    assert [result["label"] for result in pipe(posts)] == [
        pipe.model.config.id2label[i] for i in logits.argmax(-1).tolist()
    ]
    chosen = MPTPipeline(model=pipe.model, processor=pipe.processor, device="cpu", calibrated=False)
    assert chosen(posts[0]) == pipe(posts[0], calibrated=False) != pipe(posts[0])
    uncalibrated = pipe(posts[0], calibrated=False)
    del pipe.model.config.calibration_temperature  # a folder saved before the field existed
    assert pipe(posts[0]) == uncalibrated


def test_absent_parts_get_no_weight(pipe):
    text, picture, rationale = pipe(POSTS[1:4])
    assert list(text["modality_weights"].values()) == [1, 0, 0]
    assert list(picture["modality_weights"].values()) == [0, 1, 0]
    assert list(rationale["modality_weights"].values()) == [0, 0, 1]
    assert text["perspective_weights"] is None and picture["perspective_weights"] is None
    assert rationale["perspective_weights"] == {"positive": 0, "neutral": 1, "negative": 0}


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_batch_of_mixed_posts_gives_what_each_gives_alone(pipe, batch_size):
    assert_same(pipe(POSTS, batch_size=batch_size), [pipe(post) for post in POSTS])


def test_any_number_of_labels_and_perspectives():
    pipe = pipeline(perspectives=["irony"], id2label={0: "no", 1: "yes"})
    result = pipe({"text": "rain", "rationale_irony": "good"})
    assert set(result["scores"]) == {"no", "yes"} and result["perspective_weights"] == {"irony": 1}


def test_a_model_is_asked_only_for_what_it_reads():
    pipe = pipeline(modalities=["text"], contrastive_view="fused")
    results = pipe([POSTS[0] | {"image": "no such file.jpg"}, POSTS[4]], batch_size=2)
    assert_same(results, [pipe({"text": SENTENCES[0]}), pipe({"text": SENTENCES[1]})])
    with pytest.raises(ValueError, match=r"\['text'\], which this model reads"):
        pipe(POSTS[2])


def test_a_model_in_training_mode_is_put_into_inference_mode():
    pipe = MPTPipeline(model=tiny.model(dropout=0.5).train(), processor=processor(), device="cpu")
    assert pipe(POSTS[0]) == pipe(POSTS[0])


# --- containers ------------------------------------------------------------------------------------------------------


def test_posts_come_in_lists_tuples_generators_and_datasets(pipe):
    expected = pipe(POSTS)
    assert_same(pipe(tuple(POSTS)), expected)
    assert_same(list(pipe(post for post in POSTS)), expected)
    assert_same(list(pipe(iter(POSTS), batch_size=2)), expected)
    assert pipe([]) == [] and list(pipe(iter([]))) == []


def test_rows_of_our_datasets_are_posts(pipe):
    rows = [{"id": "7", "label": 0, "text": post["text"], "image": post.get("image")} for post in POSTS[:3]]
    rows[0] |= {"rationale_positive": "a good day", "rationale_negative": "rain"}
    blank = dict.fromkeys(features())
    dataset = Dataset.from_list([blank | row for row in rows]).cast(features())
    expected = [pipe(post) for post in POSTS[:3]]
    assert_same(list(pipe(dataset, batch_size=2)), expected)
    assert_same(list(pipe(dataset.to_iterable_dataset(), batch_size=2)), expected)
    assert_same(list(pipe(dataset, num_workers=1)), expected)


def test_a_generator_is_read_as_results_are_taken(pipe):
    taken = []

    def posts():
        for number in range(100):
            taken.append(number)
            yield {"text": f"rain {number}"}

    next(iter(pipe(posts(), batch_size=2)))
    assert len(taken) < 10


def test_images_are_opened_from_paths_bytes_and_data_uris(pipe, tmp_path):
    image("red").save(tmp_path / "red.png")
    content = (tmp_path / "red.png").read_bytes()
    expected = pipe({"image": image("red")})
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    for given in (str(tmp_path / "red.png"), tmp_path / "red.png", content, uri, {"bytes": content, "path": "x.png"}):
        assert pipe({"image": given}) == expected


def test_images_that_datasets_does_not_decode_are_read(pipe):
    posts = Dataset.from_dict({"image": [{"bytes": with_malformed_exif(), "path": None}]}).cast_column(
        "image", Image()
    )
    (result,) = pipe(posts)
    assert result["scores"] == pytest.approx(pipe({"image": with_malformed_exif()})["scores"])


def test_texts_are_prepared_as_the_processor_says(pipe):
    tweets = MPTPipeline(model=pipe.model, processor=processor(text_preprocessing="tweet"), device="cpu")
    assert_same([tweets({"text": "@ann &amp; rain https://t.co/x"})], [pipe({"text": "@user & rain http"})])
    assert tweets({"text": "@ann"}) != pipe({"text": "@ann"})


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ("rain", "dictionary.*'rain'"),
        ({}, "The post must have .*'text', 'image', 'rationales'"),
        ({"id": "7", "text": " ", "rationales": {"positive": ""}}, "Post '7' must have"),
        ({"text": "rain", "img": None}, r"unknown key 'img'.*Did you mean 'image'\?"),
        ({"text": "rain", "rationale_positiv": "a"}, r"Did you mean 'rationale_positive'\?"),
        ({"text": "rain", "rationales": {"irony": "a"}}, r"rationales for \['irony'\]"),
        ({"rationales": {"positive": "a"}, "rationale_neutral": "b"}, "got both"),
        ({"image": "https://host/a.jpg"}, "URL 'https://host/a.jpg'"),
        ({"id": "7", "image": "no such.jpg"}, "Post '7'.*'no such.jpg'.*does not exist"),
        ({"text": 3}, "text of post 0.*3 of type int"),
    ],
)
def test_a_post_that_cannot_be_read_raises_an_error_that_names_it(pipe, post, message):
    with pytest.raises(ValueError, match=message):
        pipe(post)


def test_a_file_that_is_no_image_is_named(pipe, tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(ValueError, match="a.jpg.*cannot be decoded"):
        pipe({"image": tmp_path / "a.jpg"})


def test_an_unknown_option_is_refused(pipe):
    with pytest.raises(ValueError, match=r"no options \['top_k'\]"):
        pipe(POSTS[1], top_k=2)


def test_model_and_processor_must_go_together():
    with pytest.raises(ValueError, match=r"positive.*irony|irony.*positive"):
        MPTPipeline(model=tiny.model(), processor=processor(perspectives=["irony"]), device="cpu")
    with pytest.raises(ValueError, match="NoneType"):
        MPTPipeline(model=tiny.model(), device="cpu")
    other = BertForSequenceClassification(tiny.text_config())
    with pytest.raises(ValueError, match="BertForSequenceClassification"):
        MPTPipeline(model=other, processor=processor(), device="cpu")


# --- saved and loaded ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(pipe, tmp_path):
    """Save a model and its processor in one folder, as the Trainer does."""
    pipe.model.save_pretrained(tmp_path / "saved")
    pipe.processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_the_task_is_known_in_a_process_that_imports_the_package(pipe, saved):
    again = auto_pipeline("multimodal-sentiment", model=pipe.model, processor=pipe.processor, device="cpu")
    assert type(again) is MPTPipeline and again(POSTS[0]) == pipe(POSTS[0])
    loaded = auto_pipeline("multimodal-sentiment", model=str(saved), trust_remote_code=True, device="cpu")
    assert_same([loaded(POSTS[0])], [pipe(POSTS[0])])


def test_a_folder_s_code_runs_only_with_consent(saved):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        auto_pipeline("multimodal-sentiment", model=str(saved), trust_remote_code=False, device="cpu")
