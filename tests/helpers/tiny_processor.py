"""Processor of the models of `tiny`, pipeline, and a block of imports of our packages."""

from typing import Any

from datasets import Dataset
from PIL import Image
from transformers import ViTImageProcessor

from helpers import tiny
from processing_mpt import MPTPipeline, MPTProcessor
from processing_mpt.vocabulary_mpt import train_tokenizer

SENTENCES = ["what a good day at the sea", "nothing but rain and a missed train", "the bus leaves at ten"]


def tokenizer():
    return train_tokenizer(Dataset.from_dict({"text": SENTENCES}), [], tiny.text_config())


def image_processor(side: int = 32) -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": side, "width": side})


def processor(**changes: Any) -> MPTProcessor:
    return MPTProcessor(image_processor(), tokenizer(), **changes)


def image(colour: Any = "red", mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, colour)


def pipeline(**config: Any) -> MPTPipeline:
    changes = {"perspectives": config["perspectives"]} if "perspectives" in config else {}
    return MPTPipeline(model=tiny.model(**config), processor=processor(**changes), device="cpu")


BLOCK = """
import sys


class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mpt", "processing_mpt", "dataset_scripts", "mpt_sentiment"):
            raise ModuleNotFoundError(f"{name} is blocked")


sys.meta_path.insert(0, Block())
"""
