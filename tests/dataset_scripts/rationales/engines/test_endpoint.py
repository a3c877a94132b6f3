"""What is sent to a server, and into which of the four classes each of its failures falls."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import struct
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import PIL.Image
import pytest

from dataset_scripts.rationales.engines.endpoint import PROFILES, EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.errors import MisconfiguredError, OutageError, PermanentError, RetryableError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from helpers import tiny_lmm

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


class Server:
    """One scripted reply to chat requests: (status, headers, body), or what breaks the connection."""

    def __init__(self, reply=(200, {}, GOOD), healthy=True):
        self.reply, self.healthy, self.requests = reply, healthy, []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.requests.append((self.path, dict(self.headers), None))
                self.send(200 if owner.healthy else 503, {}, "{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append((self.path, dict(self.headers), body))
                if owner.reply == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                elif owner.reply == "hang":
                    owner.released.wait()
                else:
                    self.send(*owner.reply)

            def send(self, status, headers, body):
                body = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def handle(self):
                with contextlib.suppress(OSError, ValueError):
                    super().handle()

            def finish(self):
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

        self.released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


def ask(url, profile="vllm", attempt=0, spec=SPEC, **options):
    async def once():
        engine = EndpointEngine(url, spec, PROMPT, profile=profile, **options)
        try:
            return await engine.generate(POST, "negative", attempt)
        finally:
            await engine.close()

    return asyncio.run(once())


def failure(reply, healthy=True, **options):
    with Server(reply, healthy) as server, pytest.raises(Exception) as raised:
        ask(server.url, **options)
    return raised.value


def test_an_answer_comes_with_what_it_cost():
    with Server() as server:
        answer = ask(server.url)
    assert dataclasses.astuple(answer) == ("It is.", "stop", 90, 64, 5, "build-1")


def test_an_answer_without_usage_is_an_answer():
    with Server((200, {}, {"choices": GOOD["choices"]})) as server:
        assert dataclasses.astuple(ask(server.url)) == ("It is.", "stop", None, None, None, None)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_written_with_and_without_v1(suffix):
    with Server() as server:
        ask(server.url + suffix)
    assert server.requests[0][0] == "/v1/chat/completions"


def test_the_request_is_the_prompt_and_the_model():
    with Server() as server:
        ask(server.url)
    body = server.requests[0][2]
    assert body["messages"] == PROMPT.messages(POST, "negative")
    assert body["model"] == "qwen" and body["max_tokens"] == 16


def test_the_users_hub_token_goes_to_no_server_unasked(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Server() as server:
        ask(server.url)
        ask(server.url, api_key="key-of-this-server")
    sent = [
        next(value for name, value in headers.items() if name.lower() == "authorization")
        for _, headers, _ in server.requests
    ]
    assert "hf_secret" not in sent[0] and sent[1] == "Bearer key-of-this-server"


EXTRA = {
    "vllm": {"repetition_penalty", "chat_template_kwargs"},
    "sglang": {"repetition_penalty", "chat_template_kwargs"},
    "transformers": {"generation_config"},
    "openai": set(),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_each_kind_of_server_is_sent_only_what_it_takes(profile):
    with Server() as server:
        ask(server.url, profile)
    temperature = set() if profile == "transformers" else {"temperature"}
    assert (
        server.requests[0][2].keys()
        == {"model", "messages", "max_tokens", "seed", "stream"} | temperature | EXTRA[profile]
    )


def test_a_re_ask_samples_with_another_seed():
    with Server() as server:
        for profile in ("vllm", "transformers"):
            for attempt in (0, 2):
                ask(server.url, profile, attempt, dataclasses.replace(SPEC, seed=5))
    plain, warm, plain_config, warm_config = [body for _, _, body in server.requests]
    assert (plain["temperature"], plain["seed"]) == (0.0, 5) and (warm["temperature"], warm["seed"]) == (0.7, 7)
    plain_config, warm_config = (json.loads(body["generation_config"]) for body in (plain_config, warm_config))
    assert not plain_config["do_sample"] and warm_config["do_sample"] and warm_config["temperature"] == 0.7
    assert warm_config["repetition_penalty"] == SPEC.repetition_penalty


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_wrong_with_the_item_is_permanent(status):
    error = failure((status, {}, {"error": "maximum context length is 4096 tokens, however you requested 9000"}))
    assert type(error) is PermanentError and str(status) in str(error) and "4096 tokens" in str(error)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_retryable(status):
    error = failure((status, {}, "later"))
    assert type(error) is RetryableError and error.retry_after is None
    assert error.overloaded == (status in (429, 503))


@pytest.mark.parametrize(
    ("value", "low", "high"), [("7", 7, 7), ("0.5", 0.5, 0.5), (formatdate(0), 0, 0), ("soon", None, None)]
)
def test_the_server_says_how_long_to_wait(value, low, high):
    error = failure((429, {"Retry-After": value}, ""))
    assert error.retry_after is None if low is None else low <= error.retry_after <= high


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405])
def test_what_fails_alike_for_every_item_is_misconfigured(status):
    assert type(failure((status, {}, "no"))) is MisconfiguredError


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "Server is pinned to 'a'; requested 'b'."),
        (400, "The model `Qwen/Qwen2.5-VL-7B` does not exist."),
        (422, "Unexpected fields in the request: {'repetition_penalty'}"),
        (400, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_model_or_profile_is_misconfigured_and_not_the_items_fault(status, detail):
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
        {"choices": [{"message": {"content": ["x"]}}]},
    ],
    ids=[
        "cut",
        "empty",
        "html",
        "null",
        "list",
        "object",
        "no-choices",
        "null-choices",
        "no-message",
        "null-content",
        "parts",
    ],
)
def test_an_unreadable_answer_is_retryable(body):
    assert type(failure((200, {}, body))) is RetryableError


def test_a_body_shorter_than_announced_is_retryable():
    assert type(failure((200, {"Content-Length": "5000", "Connection": "close"}, GOOD), timeout=1)) is RetryableError


def test_a_reset_connection_of_a_healthy_server_is_retryable_and_of_a_sick_one_an_outage():
    assert type(failure("reset")) is RetryableError
    assert type(failure("reset", healthy=False)) is OutageError


def test_a_server_that_does_not_answer_in_time_is_overloaded_or_gone():
    error = failure("hang", timeout=0.2)
    assert type(error) is RetryableError and error.overloaded
    assert type(failure("hang", healthy=False, timeout=0.2)) is OutageError


def test_a_500_of_a_dying_server_is_an_outage():
    assert type(failure((500, {}, "EngineDeadError"), healthy=False)) is OutageError


def test_a_closed_port_is_an_outage():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(OutageError, match="health check fails too"):
            ask(f"http://127.0.0.1:{free.getsockname()[1]}")


def test_an_error_message_does_not_repeat_the_image():
    error = failure((400, {}, {"detail": f"cannot load {POST.image_url} at all"}))
    assert "cannot load data:image/jpeg;base64,... at all" in str(error)


def test_one_call_is_one_request():
    for reply in ((500, {}, ""), (429, {}, ""), "reset"):
        with Server(reply) as server, pytest.raises(RetryableError):
            ask(server.url)
        assert [path for path, _, _ in server.requests].count("/v1/chat/completions") == 1


def test_hosted_endpoints_are_healthy_if_they_list_models():
    for profile, path in (("vllm", "/health"), ("openai", "/v1/models")):
        with Server(healthy=True) as server:
            engine = EndpointEngine(server.url, SPEC, PROMPT, profile=profile)
            assert asyncio.run(engine.healthy())
            assert server.requests[0][0] == path
            server.healthy = False
            assert not asyncio.run(engine.healthy())


def test_impossible_engines_are_refused():
    with pytest.raises(ValueError, match="no profile 'vlm'; choose one of vllm, sglang"):
        EndpointEngine("http://localhost:1", SPEC, PROMPT, profile="vlm")
    with pytest.raises(ValueError, match="'localhost:8000' is not the address of a server"):
        EndpointEngine("localhost:8000", SPEC, PROMPT)
    with pytest.raises(ValueError, match="has the hash .* asks for"):
        EndpointEngine("http://localhost:1", SPEC, load_prompt("paper", "en"))
    with pytest.raises(ValueError, match="no reading for ironic"):
        EndpointEngine("http://localhost:1", dataclasses.replace(SPEC, perspectives=("ironic",)), PROMPT)


def test_a_real_server_gives_the_tokens_that_the_model_gives_in_this_process(tmp_path):
    reason = tiny_lmm.missing_for_serve()
    if reason:
        pytest.skip(reason)
    folder = tiny_lmm.build(tmp_path / "lmm")
    spec = dataclasses.replace(SPEC, model=str(folder))
    here = TransformersEngine.from_pretrained(spec, PROMPT, device="cpu")

    async def compare(url):
        engine = EndpointEngine(url, spec, PROMPT, profile="transformers")
        assert await engine.healthy()
        for perspective in spec.perspectives:
            for attempt in (0, 1):  # the second samples: seed and temperature arrive
                there, local = [await one.generate(POST, perspective, attempt) for one in (engine, here)]
                assert (there.text, there.prompt_tokens) == (local.text, local.prompt_tokens)
                assert there.completion_tokens == local.completion_tokens
        wrong = EndpointEngine(url, dataclasses.replace(spec, model="other"), PROMPT, profile="transformers")
        with pytest.raises(MisconfiguredError, match="pinned to"):
            await wrong.generate(POST, "positive", 0)
        with pytest.raises(MisconfiguredError, match="Choose another profile"):
            await EndpointEngine(url, spec, PROMPT, profile="vllm").generate(POST, "positive", 0)
        broken = dataclasses.replace(POST, image=b"no image")
        with pytest.raises(RetryableError, match="500"):
            await engine.generate(broken, "positive", 0)

    with tiny_lmm.serve(folder, tmp_path / "home") as url:
        asyncio.run(compare(url))
