"""Folder of a Space of the Hub: the page, the model, and the card."""

import shutil
from importlib.metadata import version
from pathlib import Path

from dataset_scripts.output import check_writable
from mpt_sentiment.predicting import load_pipeline

PACKAGES = ("torch", "transformers", "timm", "pillow")
CARD = """\
---
title: Sentiment of a post
emoji: 🖼️
colorFrom: yellow
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
tags:
- sentiment-analysis
- multimodal
---

# Sentiment of a post

Classifies an image, a text, or both as {labels}, with a model of
[mpt-sentiment](https://pypi.org/project/mpt-sentiment/) in the folder `model`. Rationales may be written by hand.

Publish this folder: `hf upload OWNER/NAME . --repo-type space`.
"""


def make_space(folder: str | Path, output: str | Path) -> None:
    """Write the folder of a Space.

    Args:
        folder (`str` or `Path`): output folder of `train`, whose code is run.
        output (`str` or `Path`): folder to write.

    Raises:
        ValueError: a folder without a model, or an output that has files or cannot be written.
    """
    output = Path(output)
    check_writable(output, "space")
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"--space {output} has files. Choose a folder that is new or empty.")
    pipe = load_pipeline(folder, "cpu")
    pipe.save_pretrained(output / "model")
    shutil.copyfile(Path(__file__).with_name("app.py"), output / "app.py")
    lines = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]
    (output / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    id2label = pipe.model.config.id2label
    labels = ", ".join(id2label[index] for index in sorted(id2label))
    (output / "README.md").write_text(CARD.format(gradio=version("gradio"), labels=labels), encoding="utf-8")
