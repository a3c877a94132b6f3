"""Addresses of servers, as users write them."""

import pytest

from dataset_scripts.rationales.engines.address import Address
from dataset_scripts.reading.option_names import written_for

CHAT = "/chat/completions"


@pytest.mark.parametrize(
    ("given", "chat"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1", "http://h:8000/v1"),
        (" http://h:8000/v1/\n", "http://h:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/chat/completions/", "http://h/v1"),
        ("http://h/v1/models", "http://h/v1"),
        ("http://h/chat/completions", "http://h"),
        ("http://h/qwen", "http://h/qwen/v1"),
        ("http://h/v2", "http://h/v2"),
        ("https://h/api/v3", "https://h/api/v3"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/client/v4/accounts/7/ai/v1", "https://h/client/v4/accounts/7/ai/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("http://h/v1#part", "http://h/v1"),
    ],
)
def test_an_address_is_used_as_given_if_it_is_whole(given, chat):
    assert Address(given).url(CHAT) == chat + CHAT


def test_a_query_stays_in_every_request():
    azure = Address("https://r.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21")
    assert azure.url(CHAT).endswith("/openai/deployments/gpt/chat/completions?api-version=2024-10-21")
    assert azure.url("/models").endswith("/gpt/models?api-version=2024-10-21") and azure.is_azure


@pytest.mark.parametrize(
    ("given", "health"),
    [("http://h", "http://h/health"), ("http://h/a/v3", "http://h/a/health"), ("http://h/q", "http://h/q/health")],
)
def test_the_health_path_is_beside_the_version(given, health):
    assert Address(given).server_url("/health") == health


def test_credentials_and_queries_are_not_part_of_a_message():
    address = Address("https://user:secret@h:8/v1?key=secret")
    assert address.name == "https://h:8" and "user:secret" in address.url(CHAT)
    assert "secret" not in address.other_scheme() + address.url_without_query(CHAT)
    with pytest.raises(ValueError) as raised:
        Address("ftp://user:secret@h/?key=secret")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("//h/v1", "http://h/v1"),
        ("http:h:8000", "http://localhost:8000"),
        ("http://", "http://localhost:8000"),
        ("http://h:99999", "http://localhost:8000"),
        ("http://ho st:1", "http://localhost:8000"),
        ("", "http://localhost:8000"),
    ],
)
def test_another_address_is_refused_with_one_that_is_accepted(given, advice):
    with written_for("generate-rationales"), pytest.raises(ValueError, match=rf"--endpoint {advice}\.$"):
        Address(given)
    Address(advice)


@pytest.mark.parametrize(
    ("location", "endpoint"),
    [
        ("https://h/v1/models", 'endpoint="https://h/v1"'),
        ("/api/v2/models?x=1", 'endpoint="http://h/api/v2"'),
        ("https://login.example/?next=models", None),
    ],
)
def test_a_redirection_gives_the_address_to_use(location, endpoint):
    assert Address("http://h").redirected("/models", location) == endpoint


def test_the_proxy_of_the_environment_is_named_unless_it_is_bypassed(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = Address("http://localhost:8000")
    assert address.proxy_hint() == ""
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "internal")
    assert "HTTP_PROXY" in address.proxy_hint() and "NO_PROXY=internal,localhost" in address.proxy_hint()
    assert "secret" not in address.proxy_hint()
    monkeypatch.setenv("NO_PROXY", "internal,localhost")
    assert address.proxy_hint() == ""
