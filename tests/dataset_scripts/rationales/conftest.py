"""An empty store, the checkpoint of a tiny multimodal model, and a server with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_scripts.rationales.store.store import RationaleStore
from helpers import tiny_lmm
from helpers.rationale_runs import new_store


@pytest.fixture
def store(tmp_path) -> RationaleStore:
    return new_store(tmp_path / "store")


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
