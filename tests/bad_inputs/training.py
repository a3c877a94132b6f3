"""Training: classes, modalities, encoders, steps, and faults of the machine."""

import errno
import json
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import SafetensorError
from transformers import BertConfig, CLIPConfig, T5Config, ViTConfig

import mpt_sentiment as mpt
from bad_inputs.case import FOLDER, BadInput, Call
from dataset_scripts.schema import features
from helpers.train_command import TINY_FIELDS
from mpt_sentiment.recipe import training_setup
from mpt_sentiment.training_checks import check_posts

TEXT, IMAGE = "a post", {"bytes": b"never decoded", "path": None}


def posts(train: str = "abab", validation: str = "ab", test: str = "ab", **columns: Any) -> datasets.DatasetDict:
    """Build posts, one per letter of labels; `columns` holds values, also as `split_column`."""
    schema, splits = features(["a", "b", "c"]), {}
    for split, labels in (("train", train), ("validation", validation), ("test", test)):
        values = {"text": TEXT, "image": IMAGE, "source": "mpt_sample", "language": "en"} | columns
        values |= {name.removeprefix(f"{split}_"): value for name, value in columns.items()}
        rows = {name: [values.get(name)] * len(labels) for name in schema}
        rows |= {"id": [f"{split}{index}" for index in range(len(labels))], "label": list(labels)}
        splits[split] = datasets.Dataset.from_dict(rows, features=schema)
    return datasets.DatasetDict(splits)


def refused(name: str, splits: Any, *words: str, advice: dict | None = None, **fields: Any) -> BadInput:
    """Build a row of `train` on posts; `advice` holds the fields that the message gives."""

    def train(folder: Path) -> None:
        mpt.train(splits, folder / "run", **TINY_FIELDS | fields)

    return BadInput(name, train, words, advice=None if advice is None else checked(splits, fields | advice))


def checked(splits: datasets.DatasetDict, fields: dict[str, Any]) -> Call:
    """Return a call of the checks that precede a training."""

    def check(folder: Path) -> None:
        check_posts(training_setup(["sample"], TINY_FIELDS | {"output_dir": str(folder / "run")} | fields), splits)

    return check


def warned(name: str, splits: datasets.DatasetDict, *words: str, **fields: Any) -> BadInput:
    """Build a row of posts that are trained on with a warning."""
    both = {"modalities": ["text", "image"]} | fields
    return BadInput(name, checked(splits, both), words, exit_code=0)


def encoder(name: str, source: str, *words: str, config: Any = None, part: str = "text", files: Any = ()) -> BadInput:
    """Build a row of `train` with an encoder; `config` is saved as a folder without weights."""
    content = {} if config is None else {"encoder/config.json": json.dumps(config.to_dict(), default=str)}
    field = f"{part}_model_name_or_path"
    command = ["train", f"--{field}", source, "--output_dir", f"{FOLDER}/run"]
    return BadInput(name, command, (f"`{field}`", *words), files or content)


def fault(name: str, error: Exception, *words: str) -> BadInput:
    """Build a row of an exception of a library."""

    def fail(folder: Path) -> None:
        raise error

    return BadInput(name, fail, words)


def disk_full(path: str) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", path)


NO_IMAGE, NO_TEXT, PLAIN = posts(image=None), posts(text="  "), posts()
NAMED = {"modalities": ["text", "image"]}
ENCODER = f"{FOLDER}/encoder"
CLIP = {"text_config": {"vocab_size": 9}, "vision_config": {"image_size": 8, "patch_size": 4}}

ROWS = [
    # Classes.
    refused("one class", posts("aaaa", "a", "a"), "All train posts have the label 'a'", "two classes"),
    refused("one class in train", posts("aaaa", "ab", "ab"), "All train posts have the label 'a'"),
    refused(
        "weights of an absent class",
        PLAIN,
        "`class_weights`",
        "no train post has the label 'c'",
        class_weights="balanced",
        advice={"class_weights": None, **NAMED},
    ),
    refused("too few class weights", PLAIN, "`class_weights`", "3 labels", class_weights=[1, 2], **NAMED),
    refused("no test posts", posts(test=""), "'test'", "no posts"),
    refused("five posts in one set", posts("abaab")["train"], "label 'b' has 2 posts", "at least 3"),
    warned("class without train posts", posts("abab", "abc", "abc"), "No train post has the label 'c'", "1 in test"),
    warned("class without test posts", posts("abab", "ab", "aa"), "No test post has the label 'b'"),
    # Modalities.
    refused(
        "no images",
        NO_IMAGE,
        "No train post has an image",
        "contrastive_view",
        **NAMED,
        advice={"modalities": ["text"], "contrastive_view": "fused"},
    ),
    refused(
        "blank texts",
        NO_TEXT,
        "No train post has a text",
        "modalities=['image'] with",
        **NAMED,
        advice={"modalities": ["image"], "contrastive_view": "fused"},
    ),
    refused(
        "no rationales",
        PLAIN,
        "No train post has a rationale",
        "rationales=…",
        modalities=["text", "image", "rationales"],
        advice=NAMED,
    ),
    refused(
        "no rationales for a baseline",
        PLAIN,
        "No train post has a rationale",
        "use_rationales=False",
        model="bert",
        use_rationales=True,
        advice={"use_rationales": False},
    ),
    refused(
        "no images for a baseline",
        NO_IMAGE,
        "No train post has an image",
        "bert",
        model="vit",
        advice={"model": "bert"},
    ),
    refused(
        "test posts without images for a baseline",
        posts(test_image=None),
        "2 of 2 test posts have no image",
        "'test0'",
        'model="mpt"',
        model="vit",
    ),
    warned("no test post with an image", posts(test_image=None), "No test post has an image"),
    # Steps.
    refused(
        "contrastive loss over one post",
        PLAIN,
        "contrastive loss",
        "gradient_accumulation_steps=16",
        **NAMED,
        per_device_train_batch_size=1,
        loss_weight_mlcl=0.1,
        advice={"gradient_accumulation_steps": 16},
    ),
    warned("a step larger than the posts", PLAIN, "larger than the 4 train posts", per_device_train_batch_size=64),
    warned("warmup longer than the run", PLAIN, "`warmup_steps` is 100, but the run has 2 steps", warmup_steps=100),
    # Encoders.
    encoder(
        "encoder folder that does not exist",
        f"{FOLDER}/encodr",
        "does not exist",
        "Did you mean 'encoder'",
        files={"encoder/config.json": "{}"},
    ),
    encoder("encoder folder without a model", FOLDER, "has no config.json", "encoder", config=BertConfig()),
    encoder("encoder that is a file", f"{FOLDER}/encoder/config.json", "is a file", config=BertConfig()),
    encoder(
        "encoder with a broken configuration", ENCODER, "unusable config.json", files={"encoder/config.json": "{"}
    ),
    encoder(
        "mistyped encoder", "bert-base-uncasd", "'bert-base-uncasd'", "Did you mean 'google-bert/bert-base-uncased'"
    ),
    encoder("encoder with a name that no Hub has", "my model!", "neither a folder nor a Hub id OWNER/NAME"),
    encoder("CLIP for texts", ENCODER, "reads more than texts", config=CLIPConfig(**CLIP)),
    encoder("T5 for texts", ENCODER, "a t5 is no text encoder", config=T5Config()),
    encoder("ViT for texts", ENCODER, "a vit is no text encoder", config=ViTConfig()),
    encoder("BERT for images", ENCODER, "a bert is no encoder of images", config=BertConfig(), part="vision"),
    encoder("ViT for a CNN", ENCODER, "is no timm CNN", "timm/resnet50", config=ViTConfig(), part="cnn"),
    refused(
        "unknown CNN",
        PLAIN,
        "`cnn_config`",
        "Did you mean 'resnet50'",
        cnn_config={"model_type": "timm_wrapper", "architecture": "resnet5o"},
    ),
    # The machine.
    fault("full disk", disk_full("run/model.safetensors"), "The disk is full (run/model.safetensors)", "resumes"),
    fault(
        "full disk while saving weights", SafetensorError("I/O error: No space left on device (os error 28)"), "full"
    ),
    fault("damaged weights", SafetensorError("Error while deserializing header"), "deserializing header"),
    fault(
        "out of memory on a GPU",
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        "smaller batch",
    ),
    fault("out of memory on a CPU", RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Out of memory"),
    fault(
        "killed process of the data loader",
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error"),
        "--dataloader_num_workers",
    ),
    fault(
        "missing optional package", ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed"), "deepspeed"
    ),
]
