"""Fixtures of all commands: the tiny pipeline, and its saved folder."""

from pathlib import Path

import pytest

from helpers import tiny_processor
from processing_mpt import MPTPipeline


@pytest.fixture(scope="module")
def pipe() -> MPTPipeline:
    return tiny_processor.pipeline()


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "trained"
    pipe.save_pretrained(folder)
    return folder
