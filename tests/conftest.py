"""Fixtures of all tests: a datasets cache, small images, and the folder of the real posts."""

import os
from pathlib import Path

import datasets
import huggingface_hub
import PIL.Image
import pytest


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """Use a datasets cache of this run instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("datasets_cache")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def feature_store(tmp_path_factory):
    """Keep the feature store of this run out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hf_home")
        patch.setattr(huggingface_hub.constants, "HF_HOME", str(folder))
        patch.setenv("HF_HOME", str(folder))
        yield folder / "mpt_sentiment" / "features"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real posts, or skip the test."""
    folder = os.environ.get("MPT_REAL_DATA")
    if not folder:
        pytest.skip("MPT_REAL_DATA is unset: it names the folder with the real posts")
    return Path(folder)


@pytest.fixture
def draw():
    """Return `draw(path, shade)`, which writes a small image; another shade gives other bytes."""

    def write(path: Path, shade: int = 0, size: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (size, size), (shade % 256, shade // 256, 90)).save(path)
        return path

    return write
