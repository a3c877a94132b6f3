"""Endpoint engine: request fields by profile, and the class of each failure."""

import asyncio
import dataclasses
import json
import socket
from email.utils import formatdate

import PIL.Image
import pytest

from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.errors import MisconfiguredError, OutageError, PermanentError, RetryableError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from helpers.faulty_server import FaultyServer

PROMPT = load_prompt("default", "en")
SPEC = RationaleSpec(model="qwen", prompt_hash=PROMPT.hash, language="en", max_tokens=16, max_pixels=28 * 28 * 64)
POST = prepare_post(
    {"id": "7", "text": "so it goes <|im_end|>", "image": PIL.Image.new("RGB", (90, 60), "red")}, SPEC.max_pixels
)
USAGE = {"prompt_tokens": 90, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}}
GOOD = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is."}, "finish_reason": "stop"}],
    "usage": USAGE,
    "system_fingerprint": "build-1",
}


def serve(reply=(200, {}, GOOD), healthy=True):
    """Start a server with one reply: (status, headers, body), `"reset"` or `"hang"`."""
    server = FaultyServer(lambda number, body: reply)
    server.healthy = healthy
    return server


def ask(url, profile="vllm", attempt=0, spec=SPEC, **options):
    async def generate_once():
        engine = EndpointEngine(url, spec, PROMPT, profile=profile, **options)
        try:
            return await engine.generate(POST, "negative", attempt)
        finally:
            await engine.close()

    return asyncio.run(generate_once())


def failure(reply, healthy=True, **options):
    with serve(reply, healthy) as server, pytest.raises(Exception) as raised:
        ask(server.url, **options)
    assert len(server.requests) == 1  # no retry
    return raised.value


def test_an_answer_has_its_token_counts_if_the_server_reports_them():
    with serve() as server:
        assert dataclasses.astuple(ask(server.url)) == ("It is.", "stop", 90, 64, 5, "build-1")
    with serve((200, {}, {"choices": GOOD["choices"]})) as server:
        assert dataclasses.astuple(ask(server.url)) == ("It is.", "stop", None, None, None, None)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_prompt_is_sent_to_an_address_with_or_without_v1(suffix):
    with serve() as server:
        ask(server.url + suffix)
    assert server.paths == ["/v1/chat/completions"]
    body = server.requests[0]
    assert body["messages"] == PROMPT.messages(POST, "negative")
    assert body["model"] == "qwen" and body["max_tokens"] == 16


def test_the_hub_token_of_the_user_is_never_sent(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve() as server:
        ask(server.url)
        ask(server.url, api_key="key-of-this-server")
    tokens = [{name.lower(): value for name, value in headers.items()} for headers in server.headers]
    assert "authorization" not in tokens[0] and tokens[1]["authorization"] == "Bearer key-of-this-server"


EXTRA = {
    "vllm": {"repetition_penalty", "chat_template_kwargs"},
    "sglang": {"repetition_penalty", "chat_template_kwargs"},
    "transformers": {"generation_config"},
    "openai": set(),
    "openai_reasoning": set(),
    "minimal": set(),
}


@pytest.mark.parametrize("profile", EXTRA)
def test_each_kind_of_server_gets_only_supported_fields(profile):
    with serve() as server:
        ask(server.url, profile)
    limit = "max_completion_tokens" if profile == "openai_reasoning" else "max_tokens"
    seed = set() if profile in ("openai_reasoning", "minimal") else {"seed"}
    temperature = {"temperature"} if seed and profile != "transformers" else set()
    assert server.requests[0].keys() == {"model", "messages", "stream", limit} | seed | temperature | EXTRA[profile]


def test_later_attempts_sample_with_another_seed():
    with serve() as server:
        for profile in ("vllm", "transformers"):
            for attempt in (0, 2):
                ask(server.url, profile, attempt, dataclasses.replace(SPEC, seed=5))
    greedy, sampled = server.requests[:2]
    assert (greedy["temperature"], greedy["seed"]) == (0.0, 5)
    assert (sampled["temperature"], sampled["seed"]) == (0.7, 7)
    greedy, sampled = (json.loads(body["generation_config"]) for body in server.requests[2:])
    assert not greedy["do_sample"] and sampled["do_sample"] and sampled["temperature"] == 0.7
    assert sampled["repetition_penalty"] == SPEC.repetition_penalty


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_an_error_of_the_request_is_permanent(status):
    error = failure((status, {}, {"error": "maximum context length is 4096 tokens, however you requested 9000"}))
    assert type(error) is PermanentError and str(status) in str(error) and "4096 tokens" in str(error)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_temporary_error_is_retryable(status):
    error = failure((status, {}, "later"))
    assert type(error) is RetryableError and error.retry_after is None
    assert error.overloaded == (status in (429, 503))


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0.5", 0.5), (formatdate(0), 0), ("soon", None)])
def test_retry_after_is_parsed(value, seconds):
    assert failure((429, {"Retry-After": value}, "")).retry_after == seconds


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        *((status, "no") for status in (401, 403, 404, 405, 501)),
        (400, "Server is pinned to 'a'; requested 'b'."),
        (400, "The model `Qwen/Qwen2.5-VL-7B` does not exist."),
        (422, "Unexpected fields in the request: {'repetition_penalty'}"),
        (400, "Extra inputs are not permitted"),
    ],
)
def test_an_error_of_every_request_is_misconfigured(status, detail):
    assert type(failure((status, {}, {"detail": detail}))) is MisconfiguredError


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(GOOD)[:-20],
        "",
        "<html><body>Bad gateway</body></html>",
        "null",
        "[]",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "stop"}], "usage": USAGE},
        {"choices": [{"message": {"content": 7}}]},
    ],
)
def test_an_unreadable_answer_is_retryable(body):
    assert type(failure((200, {}, body))) is RetryableError


@pytest.mark.parametrize(
    ("reply", "timeout"),
    [
        ((200, {"Content-Length": "5000", "Connection": "close"}, GOOD), 1),
        ("reset", 60),
        ("hang", 0.2),
        ((500, {}, "EngineDeadError"), 60),
    ],
    ids=["short-body", "reset", "timeout", "500"],
)
def test_a_lost_answer_is_an_outage_only_if_the_health_check_fails(reply, timeout):
    error = failure(reply, timeout=timeout)
    assert type(error) is RetryableError and error.overloaded == (reply == "hang")
    if reply[0] != 200:
        assert type(failure(reply, healthy=False, timeout=timeout)) is OutageError


def test_a_closed_port_is_an_outage():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OutageError, match="health check fails"):
            ask(f"http://127.0.0.1:{free.getsockname()[1]}")


def test_an_error_message_does_not_repeat_the_image():
    error = failure((400, {}, {"detail": f"cannot load {POST.image_url} at all"}))
    assert "cannot load data:image/jpeg;base64,... at all" in str(error)


@pytest.mark.parametrize(("profile", "path"), [("vllm", "/health"), ("openai", "/v1/models")])
def test_the_health_check_depends_on_the_kind_of_server(profile, path):
    with serve() as server:
        engine = EndpointEngine(server.url, SPEC, PROMPT, profile=profile)
        asyncio.run(engine.check_health())
        assert server.paths == [path]
        server.healthy = False
        with pytest.raises(OutageError):
            asyncio.run(engine.check_health())


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="vllm, sglang, .* got 'vlm'. Did you mean 'vllm'"):
        EndpointEngine("http://localhost:1", SPEC, PROMPT, profile="vlm")
    with pytest.raises(ValueError, match="http.* got 'localhost:8000'"):
        EndpointEngine("localhost:8000", SPEC, PROMPT)
    with pytest.raises(ValueError, match="has the hash"):
        EndpointEngine("http://localhost:1", SPEC, load_prompt("paper", "en"))
    with pytest.raises(ValueError, match="ironic, only for positive.*`readings`"):
        EndpointEngine("http://localhost:1", dataclasses.replace(SPEC, perspectives=("ironic",)), PROMPT)


def test_transformers_serve_gives_the_same_tokens_as_the_local_engine(lmm_folder, lmm_server):
    spec = dataclasses.replace(SPEC, model=str(lmm_folder))
    local_engine = TransformersEngine.from_pretrained(spec, PROMPT, device="cpu")

    async def compare():
        engine = EndpointEngine(lmm_server, spec, PROMPT, profile="transformers")
        await engine.check_health()
        for perspective in spec.perspectives:
            for attempt in (0, 1):  # attempt 1 samples, so seed and temperature must arrive
                served = await engine.generate(POST, perspective, attempt)
                local = await local_engine.generate(POST, perspective, attempt)
                assert (served.text, served.prompt_tokens) == (local.text, local.prompt_tokens)
                assert served.completion_tokens == local.completion_tokens
        wrong = EndpointEngine(lmm_server, dataclasses.replace(spec, model="other"), PROMPT, profile="transformers")
        with pytest.raises(MisconfiguredError, match="The server has .*, not 'other'"):
            await wrong.generate(POST, "positive", 0)
        with pytest.raises(MisconfiguredError, match='Use profile="transformers"'):
            await EndpointEngine(lmm_server, spec, PROMPT, profile="vllm").generate(POST, "positive", 0)
        broken = dataclasses.replace(POST, image=b"no image")
        with pytest.raises(RetryableError, match="500"):
            await engine.generate(broken, "positive", 0)

    asyncio.run(compare())
