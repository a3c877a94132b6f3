"""Encoders on the Hub: every way in which one cannot be fetched is named."""

from unittest.mock import Mock

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from transformers import BertConfig, GPT2Config, ViTConfig

from mpt_sentiment import encoder_sources
from mpt_sentiment.encoder_sources import check_encoder, check_source

FIELD = "text_model_name_or_path"


@pytest.fixture
def hub(monkeypatch):
    """Return a function that sets the Hub's answer: an exception, or `None` for a model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    encoder_sources._check_hub.cache_clear()

    def answer(error: Exception | None, cached: bool = False) -> None:
        monkeypatch.setattr(encoder_sources, "get_hf_file_metadata", Mock(side_effect=error))
        found = "config.json" if cached else None
        monkeypatch.setattr(encoder_sources, "try_to_load_from_cache", lambda *args: found)

    yield answer
    encoder_sources._check_hub.cache_clear()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError("404", response=Mock(headers={})), "no model 'owner/model', or it is private"),
        (GatedRepoError("403", response=Mock(headers={})), "needs a permission.*owner/model.*hf auth login"),
        (RemoteEntryNotFoundError("404", response=Mock(headers={})), "has no config.json"),
        (HTTPError("no route"), "cannot be reached.*no route"),
        (PermissionError(13, "Permission denied"), "cannot be reached.*Permission denied"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_cannot_be_fetched_is_named_with_its_argument(hub, error, words):
    hub(error)
    with pytest.raises(ValueError, match=f"`{FIELD}`.*{words}"):
        check_source("owner/model", FIELD)


def test_a_cached_model_is_used_without_connection(hub, caplog):
    hub(HTTPError("no route"), cached=True)
    check_source("owner/model", FIELD)
    assert "HF_HUB_OFFLINE=1 avoids the wait" in caplog.text


def test_a_model_is_asked_for_once(hub):
    hub(None)
    check_source("owner/model", FIELD)
    check_source("owner/model", FIELD)
    assert encoder_sources.get_hf_file_metadata.call_count == 1


def test_offline_the_message_names_the_variable(hub, monkeypatch):
    hub(None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="not in the cache.*HF_HUB_OFFLINE is set.*hf download"):
        check_source("owner/model", FIELD)
    encoder_sources.get_hf_file_metadata.assert_not_called()


def test_a_language_model_is_used_with_a_warning(caplog):
    check_encoder(GPT2Config(), "text", FIELD)
    assert "reads each token without the later ones" in caplog.text
    caplog.clear()
    check_encoder(BertConfig(), "text", FIELD)
    check_encoder(ViTConfig(), "vision", "vision_model_name_or_path")
    check_encoder(None, "cnn", "cnn_model_name_or_path")
    assert not caplog.text
