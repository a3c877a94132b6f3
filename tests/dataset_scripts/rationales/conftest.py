"""Checkpoint of a tiny multimodal model, and one server for all tests that need it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import tiny_lmm


@pytest.fixture(scope="session")
def lmm_folder(tmp_path_factory) -> Path:
    return tiny_lmm.build(tmp_path_factory.mktemp("lmm"))


@pytest.fixture(scope="session")
def lmm_server(lmm_folder, tmp_path_factory) -> Iterator[str]:
    """Address of `transformers serve` with the model of `lmm_folder`."""
    if reason := tiny_lmm.missing_for_serve():
        pytest.skip(reason)
    with tiny_lmm.serve(lmm_folder, tmp_path_factory.mktemp("home")) as url:
        yield url
