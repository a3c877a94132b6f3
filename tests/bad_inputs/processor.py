"""Inputs of the processor and of the pipeline."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from datasets import Dataset, DatasetDict

from bad_inputs.case import BadInput, Call
from helpers import tiny_processor
from processing_mpt import MPTProcessor

PNG = "a photo.png"
URL = "http://169.254.169.254/secret"
LONG = "iVBORw0KGgo" * 400


@functools.cache
def pipe() -> Any:
    return tiny_processor.pipeline()


def processed(**inputs: Any) -> Call:
    return lambda folder: tiny_processor.processor()(**inputs)


def classified(posts: Any) -> Call:
    return lambda folder: list(pipe()(posts)) if not isinstance(posts, dict) else pipe()(posts)


def with_options(**options: Any) -> Call:
    return lambda folder: tiny_processor.processor(**options)


def row(name: str, run: Call, *words: str, **fields: Any) -> BadInput:
    return BadInput(f"processor_{name}", run, words, **fields)


def without_pad_token(folder: Path) -> None:
    tokenizer = tiny_processor.tokenizer()
    tokenizer.pad_token = None
    batch = MPTProcessor(tiny_processor.image_processor(), tokenizer)(text=["rain", "what a good day"])
    assert batch["attention_mask"].sum(-1).tolist() == [3, 6]


def broken_image(folder: Path) -> Any:
    (folder / PNG).write_bytes(b"<html>not found</html>")


FRAME = pandas.DataFrame({"text": ["rain", "what a good day"]})
COLUMNS = {"text": ["rain", "what a good day"]}
TEXT_ROWS = [
    row("text_nan", processed(text=["rain", math.nan]), "The text of post 1", "nan", "float", "Pass None"),
    row("text_one_number", processed(text=3.5), "The text of post 0", "3.5 of type float"),
    row("text_bytes", processed(text=b"rain"), "The text of post 0", "b'rain' of type bytes"),
    row("text_long_bytes", processed(text=[b"rain" * 999]), "The text of post 0", "type bytes"),
    row("text_words", processed(text=[["what", "a", "day"]]), "The text of post 0", "of type list"),
    row("text_pandas_missing", processed(text=["rain", pandas.NA]), "The text of post 1", "NAType", "Pass None"),
    row("text_mapping", processed(text={"text": "rain"}), "The text of post 0", "of type dict"),
    row("unequal_lists", processed(text=["rain"], images=[None, None]), "{'images': 2, 'text': 1}", "None for"),
    row("nothing_to_read", processed(text=["rain", " \n"]), "Post 1 of the batch", "a text or a rationale"),
    row("no_input", processed(), "At least one of `images`, `text`, `rationales`"),
    row("empty_lists", processed(text=[], images=[]), "At least one of"),
    row("rationale_perspective", processed(rationales={"positiv": "good"}), "['positiv']", "'positive', 'neutral'"),
    row("rationale_string", processed(rationales=["good"]), "The rationales of post 0", "must be a mapping", "'good'"),
    row("rationale_number", processed(rationales={"neutral": 3}), "The neutral rationale of post 0", "3 of type int"),
]
IMAGE_ROWS = [
    row("image_missing_file", processed(images=["no such.png"]), "The image of post 0", "no such.png", "No such file"),
    row("image_html", lambda folder: processed(images=[folder / PNG])(folder), "HTML page", files=broken_image),
    row("image_several", processed(images=[[tiny_processor.image()] * 2]), "Post 0", "2 images; a post has one"),
    row("image_grey_array", processed(images=[np.zeros((9, 9))]), "image of post 0", "(9, 9)", "PIL.Image.fromarray"),
    row("image_float_array", processed(images=[np.full((9, 9, 3), -1.0)]), "image of post 0", "floats from 0 to 1"),
    row("image_number", processed(images=[7]), "The image of post 0", "got a int"),
    row("image_sizes", processed(images=[tiny_processor.image(), tiny_processor.image(size=(9, 9))], do_resize=False),
        "images of one size", "do_resize"),
]  # fmt: skip
ARGUMENT_ROWS = [
    row("argument_unknown", processed(text="rain", max_lenght=4), "'max_lenght'", "Did you mean 'max_length'?",
        advice=processed(text="rain", max_length=4)),
    row("argument_of_texts_in_images", processed(text="rain", images_kwargs={"padding": True}), "`images_kwargs`",
        "Pass it in `text_kwargs`", advice=processed(text="rain", text_kwargs={"padding": True})),
    row("argument_of_pairs", processed(text="rain", text_pair="train"), "no argument 'text_pair'"),
    row("argument_group_no_mapping", processed(text="rain", text_kwargs=4), "`text_kwargs` must be a mapping", "4"),
    row("argument_twice", processed(text="rain", max_length=4, text_kwargs={"max_length": 5}), "passed two times"),
    row("argument_of_rationales", processed(rationales={"neutral": "a"}, rationales_kwargs={"return_tensors": "np"}),
        "`rationales_kwargs` has no argument 'return_tensors'"),
    row("padding_unknown", processed(text="rain", padding="longests"), "longests", "max_length", "do_not_pad"),
    row("padding_side_unknown", processed(text="rain", padding_side="centre"), "`padding_side`", "'centre'"),
    row("padding_none_of_unequal", processed(text=["rain", "what a day"], padding=False), "unequal length",
        "return_tensors=None", advice=processed(text=["rain", "what a day"], padding=False, return_tensors=None)),
    row("tensors_unknown", processed(text="rain", return_tensors="tf"), "`return_tensors`", "'np'", "'tf'"),
    row("tensors_two_forms", processed(text="rain", text_kwargs={"return_tensors": "np"},
        images_kwargs={"return_tensors": "pt"}), "the same for all inputs"),
    row("max_length_zero", processed(text="rain", max_length=0), "`max_length` must be a positive number", "got 0"),
    row("max_length_true", with_options(max_length=True), "`max_length` must be a positive number", "got True"),
    row("max_length_above_encoder", processed(text="rain", max_length=65), "`model_max_length`, 64", "got 65"),
    row("rationale_max_length_float", with_options(rationale_max_length=3.5), "`rationale_max_length`", "got 3.5"),
    row("image_argument_type", processed(images=[tiny_processor.image()], do_resize="yes"), "do_resize"),
    row("text_preprocessing_unknown", with_options(text_preprocessing="tweets"), "'none', 'tweet'", "'tweets'"),
    row("perspectives_string", with_options(perspectives="positive"), "list of distinct names", "'positive'"),
    row("no_pad_token", without_pad_token, exit_code=0),
    row("half_emoji", processed(text="rain \ud83d"), "half an emoji", "U+FFFD", exit_code=0),
]  # fmt: skip
PIPELINE_ROWS = [
    row("pipeline_data_frame", classified(FRAME), "pandas DataFrame", 'posts.to_dict("records")',
        advice=classified(FRAME.to_dict("records"))),
    row("pipeline_series", classified(FRAME["text"]), "pandas Series", "dictionaries"),
    row("pipeline_arrow", classified(Dataset.from_dict(COLUMNS).data.table), "pyarrow Table", "posts.to_pylist()",
        advice=classified(Dataset.from_dict(COLUMNS).data.table.to_pylist())),
    row("pipeline_columns", classified(COLUMNS), "a list as 'text'", "Dataset.from_dict(posts).to_list()",
        advice=classified(Dataset.from_dict(COLUMNS).to_list())),
    row("pipeline_splits", classified(DatasetDict(test=Dataset.from_dict(COLUMNS))), "['test']", "posts['test']",
        advice=classified(DatasetDict(test=Dataset.from_dict(COLUMNS))["test"])),
    row("pipeline_bytes", classified(b"rain"), "A post must be a dictionary", "type bytes"),
    row("pipeline_texts", classified(["rain", "train"]), "A post must be a dictionary", "'rain'"),
    row("pipeline_tuples", classified([("rain", None)]), "A post must be a dictionary", "type tuple"),
    row("pipeline_generator", classified(text for text in ["rain"]), "A post must be a dictionary", "'rain'"),
    row("pipeline_tensor", classified(torch.zeros(3, 9, 9)), "A post must be a dictionary", "type Tensor"),
    row("pipeline_key", classified({"txt": "rain"}), "unknown key 'txt'", "Did you mean 'text'?"),
    row("pipeline_url", classified({"image": URL}), "must be a file", URL, "Download it"),
    row("pipeline_url_in_mapping", classified({"image": {"bytes": b"", "path": URL}}), "must be a file", URL),
    row("pipeline_url_in_list", classified({"id": "7", "image": [URL]}), "Post '7'", "a list as 'image'"),
    row("pipeline_base64", classified({"image": LONG}), "too long for a path"),
    row("pipeline_missing_file", classified({"id": "7", "image": "no such.jpg"}), "Post '7'", "does not exist"),
    row("pipeline_image_nan", classified({"id": "7", "image": math.nan}), "Post '7'", "float"),
]  # fmt: skip
ROWS: list[BadInput] = [*TEXT_ROWS, *IMAGE_ROWS, *ARGUMENT_ROWS, *PIPELINE_ROWS]
