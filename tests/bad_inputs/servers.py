"""Bad servers: addresses, keys, certificates, proxies, error replies, odd answers."""

import asyncio
import contextlib
import gzip
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from bad_inputs.case import BadInput
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.open_files import ensure_open_files
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.quality.gate import check
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.reading.option_names import written_for
from helpers.certificates import server_certificate
from helpers.faulty_server import FaultyServer, answer
from mpt_sentiment.commands import generate_rationales

PROMPT = load_prompt("default", "en")
POST = prepare_post({"id": "7", "text": "so it goes", "image": None}, 28 * 28 * 64)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


def ask(url: str, *, spec: dict[str, Any] | None = None, **options: Any) -> None:
    """Check a server and request one rationale, as a run does; print the gate's verdict."""
    fields = {"model": "qwen", "prompt_hash": PROMPT.hash, "language": "en"} | (spec or {})

    async def request() -> None:
        engine = EndpointEngine(url, RationaleSpec(**fields), PROMPT, **options)
        try:
            await engine.check_health()
            reply = await engine.generate(POST, "negative", 0)
        finally:
            await engine.close()
        verdict = check(
            reply.text, perspective="negative", language="en", finish_reason=reply.finish_reason, post_text=POST.text
        )
        print(f"text: {verdict.text}, codes: {verdict.codes}, finish_reason: {reply.finish_reason}")

    with written_for("generate-rationales"):
        asyncio.run(request())


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables, and no other proxy; the package for SOCKS is not installed."""
    with mock.patch.dict(os.environ), mock.patch.dict(sys.modules, {"socksio": None}):
        for name in (*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
            os.environ.pop(name, None)
        os.environ.update(variables)
        yield


def asked(
    reply: Any = None,
    *,
    pages: dict[str, Any] | None = None,
    path: str = "",
    env: dict[str, str] | None = None,
    **options: Any,
) -> Callable[[Path], None]:
    """Ask a server that has one reply.

    It is `(status, body)`, `(status, headers, body)`, a body, `"reset"` or `"hang"`.
    """
    if isinstance(reply, tuple) and len(reply) == 2:
        reply = (reply[0], {}, reply[1])
    elif reply is not None and not isinstance(reply, tuple) and reply not in ("reset", "hang"):
        reply = (200, {}, reply)

    def run(folder: Path) -> None:
        with environment(**(env or {})), FaultyServer(lambda number, body: reply, pages=pages) as server:
            ask(server.url + path, **options)

    return run


def refused(name: str, status: int, words: Any, *expected: str, exit_code: int = 1, **options: Any) -> BadInput:
    """Row of an error status."""
    return BadInput(name, asked((status, words), **options), (f"status {status}", *expected), exit_code=exit_code)


def replied(name: str, *expected: str, exit_code: int = 1, finish: Any = "stop", **message: Any) -> BadInput:
    """Row of a completion with another message."""
    choice = {"message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    return BadInput(name, asked({"choices": [choice]}), expected, exit_code=exit_code)


def good(**changes: Any) -> dict[str, Any]:
    return answer({"messages": []}) | changes


GOOD = good()
TEXT = GOOD["choices"][0]["message"]["content"]
PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please</body></html>"


def refusing_proxy(folder: Path) -> None:
    with FaultyServer() as proxy, FaultyServer() as server:
        proxy.healthy = False
        with environment(HTTP_PROXY=proxy.url):
            ask(server.url)


def closed_port(folder: Path) -> None:
    with socket.socket() as free, environment():
        free.bind(("127.0.0.1", 0))
        ask(f"http://127.0.0.1:{free.getsockname()[1]}")


def with_certificate(scheme: str, host: str = "127.0.0.1", trusted: bool = False) -> Callable[[Path], None]:
    """Ask a server with a certificate of its own."""

    def run(folder: Path) -> None:
        certificate = server_certificate(folder)
        env = {"SSL_CERT_FILE": str(certificate)} if trusted else {}
        with environment(**env), FaultyServer(certificate=certificate) as server:
            port = server.url.rpartition(":")[2]
            ask(f"{scheme}://{host}:{port}")

    return run


def unknown_host(code: int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        error = socket.gaierror(code, "Name or service not known")
        with environment(), mock.patch.object(socket, "getaddrinfo", side_effect=error):
            ask("http://no-such-host.invalid")

    return run


def http_server_as_https(folder: Path) -> None:
    with environment(), FaultyServer() as server:
        ask(server.url.replace("http:", "https:"))


def too_few_files(folder: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        written_for("generate-rationales"),
        mock.patch.object(resource, "getrlimit", lambda _: (256, 256)),
        mock.patch.object(resource, "setrlimit", side_effect=ValueError("not allowed")),
    ):
        ensure_open_files(64, 8)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def enough_files(folder: Path) -> None:
    ensure_open_files(16, 8)


CHECK = ["generate-rationales", "check-server", "--endpoint"]
MODELS = (200, {}, {"data": [{"id": "qwen2"}]})


def run_command(*options: str, model: str = "qwen") -> Callable[[Path], None]:
    """Run the command in the case's folder, with a server that knows one model and no seed."""

    def reply(number: int, body: dict[str, Any]) -> Any:
        if body["model"] != "qwen2":
            return (404, {}, {"error": "no such model"})
        return (422, {}, {"error": "unknown field: seed"}) if "seed" in body else None

    def run(folder: Path) -> None:
        with environment(), FaultyServer(reply, pages={"/v1/models": MODELS}) as server:
            posts = ["--dataset", "sample", "--dataset_options", '{"num_posts": 3}']
            place = ["--output_dir", str(folder / "store"), "--endpoint", server.url, "--model", model]
            with written_for("generate-rationales"):
                generate_rationales.main(["run", *posts, *place, *options])

    return run


ADDRESSES = [
    BadInput("address without a scheme", lambda _: ask("localhost:8000"), ("--endpoint http://localhost:8000",)),
    BadInput("address of another scheme", lambda _: ask("ftp://h/v1"), ("http(s) URL", "--endpoint")),
    BadInput("address with an impossible port", lambda _: ask("http://h:99999"), ("http(s) URL", "h:99999")),
    BadInput("address with /chat/completions", asked(path="/v1/chat/completions"), ("text: It shows",), exit_code=0),
    BadInput("address with another version", asked(path="/api/v3"), ("text: It shows",), exit_code=0),
    BadInput("address with a query", asked(path="/v1?api-version=1&key=s3cret"), ("text: It shows",), exit_code=0),
    BadInput("unknown host", unknown_host(socket.EAI_NONAME), ("cannot be resolved", "--endpoint")),
    BadInput("no name server", unknown_host(socket.EAI_AGAIN), ("cannot be resolved",), exit_code=75),
    BadInput("connection refused", closed_port, ("connection refused",), exit_code=75),
    BadInput(
        "check of a server that is down", [*CHECK, "http://127.0.0.1:9"],
        ("connection refused", "--wait_for_server SECONDS"), exit_code=75,
    ),
    BadInput("check of a server without a scheme", [*CHECK, "127.0.0.1:9"], ("--endpoint http://127.0.0.1:9",)),
    BadInput(
        "unknown profile", [*CHECK, "http://127.0.0.1:9", "--profile", "vlm"], ("Did you mean 'vllm'", "minimal"),
    ),
    BadInput(
        "variable of the key that is not set", [*CHECK, "http://127.0.0.1:9", "--api_key_env", "NO_SUCH_KEY"],
        ("--api_key_env NO_SUCH_KEY", "unset or empty"),
    ),
    BadInput("http server as https", http_server_as_https, ("uses http", "--endpoint http://127.0.0.1")),
    BadInput("https server as http", with_certificate("http"), ("--endpoint https://127.0.0.1",)),
    BadInput(
        "private certificate authority", with_certificate("https"), ("not trusted", "SSL_CERT_FILE"),
        advice=with_certificate("https", trusted=True),
    ),
    BadInput("certificate of another host", with_certificate("https", "localhost", True), ("Hostname mismatch",)),
    BadInput(
        "file of certificates that is missing",
        environment(SSL_CERT_FILE="none.pem")(lambda _: ask("https://127.0.0.1:1")),
        ("SSL_CERT_FILE=none.pem",),
    ),
    BadInput(
        "proxy for a local server", asked(env={"HTTP_PROXY": "http://127.0.0.1:9"}),
        ("HTTP_PROXY", "NO_PROXY=127.0.0.1"), exit_code=75,
        advice=asked(env={"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}),
    ),
    BadInput("proxy that refuses", refusing_proxy, ("status 503", "HTTP_PROXY", "NO_PROXY=127.0.0.1"), exit_code=75),
    BadInput(
        "proxy of an unknown kind", asked(env={"ALL_PROXY": "foo://127.0.0.1:9"}), ("ALL_PROXY", "NO_PROXY='*'"),
        advice=asked(env={"ALL_PROXY": "foo://127.0.0.1:9", "NO_PROXY": "*"}),
    ),
    BadInput("SOCKS proxy without its package", asked(env={"ALL_PROXY": "socks5://127.0.0.1:9"}), ("[socks]",)),
    BadInput(
        "key with a line break", asked(api_key="abc\n"), ("--api_key_env", "line break", "tr -d"),
        advice=asked(api_key="abc"),
    ),
    BadInput("key instead of its variable", run_command("--api_key_env", "sk-s3cret"), ("takes the name",)),
    BadInput("key with a letter that no header holds", asked(api_key="schlüssel"), ("--api_key_env",)),
    BadInput(
        "no health path", asked(pages={"/health": (404, {}, "")}), ("text: It shows",), exit_code=0,
    ),
    BadInput(
        "neither health nor models", asked(pages={"/health": (404, {}, ""), "/v1/models": (404, {}, "")}),
        ("text: It shows",), exit_code=0,
    ),
    BadInput(
        "server that is loading", asked(pages={"/health": (503, {}, {"message": "Loading model"})}),
        ("status 503", "Loading model"), exit_code=75,
    ),
    BadInput(
        "redirection to https",
        asked(
            pages={
                "/health": (301, {"Location": "https://h/health"}, ""),
                "/v1/models": (301, {"Location": "https://h/v1/models"}, ""),
            }
        ),
        ("redirects to https://h/v1/models", "Use --endpoint https://h/v1"),
    ),
    BadInput(
        "login page", asked(pages={"/health": (200, {}, PAGE), "/v1/models": (200, {}, PAGE)}),
        ("web page (Sign in)", "--endpoint"),
    ),
    BadInput("too few open files", too_few_files, ("--concurrency 16", "ulimit -n 640"), advice=enough_files),
]  # fmt: skip


ERRORS = [
    refused("missing key", 401, {"error": {"message": "You sent no key"}}, "You sent no key", "--api_key_env"),
    refused("wrong key", 401, {"error": "invalid key"}, "invalid key", "Check the key", api_key="x"),
    refused("no credit", 402, {"error": {"message": "Insufficient credits"}}, "Insufficient", "no credit left"),
    refused(
        "quota used up", 429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
        "no credit left",
    ),
    refused("moderation", 403, {"detail": "blocked by policy"}, "blocked by policy"),
    refused("wrong path", 404, "Not Found", "/a/v7/chat/completions", "path of --endpoint", path="/a/v7"),
    BadInput(
        "unknown model",
        asked((404, {"error": "model 'qwen' not found"}), pages={"/v1/models": MODELS}),
        ("The server has qwen2, not 'qwen'", "--model qwen2"),
        advice=asked(spec={"model": "qwen2"}),
    ),
    refused(
        "max_tokens is refused", 400,
        {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                   "'max_completion_tokens' instead."}}, "--profile openai_reasoning", profile="openai",
    ),
    refused(
        "field is refused", 422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        """--extra_body '{"seed": null}'""",
    ),
    refused("system role is refused", 400, {"message": "System role not supported"}, "--profile minimal"),
    refused("fields of transformers serve", 422, {"detail": "Unexpected fields in the request: {'seed'}"},
            "--profile transformers"),
    refused("model without images", 400, {"message": "qwen is not a multimodal model"}, "takes no images", "--model"),
    refused("request too large", 413, PAGE.replace("Sign in", "413 Request Entity Too Large"), "413 Request Entity"),
    refused("context too long", 400, {"message": "maximum context length is 4096 tokens"}, "--max_pixels"),
    refused("error body that is a list", 400, [{"error": {"message": "API key expired"}}], "API key expired"),
    refused("error body that is a string", 400, '"bad thing"', "bad thing"),
    refused("error body that quotes the image", 400, f"cannot load data:image/png;base64,{'A' * 5000} here", "here"),
    refused("error body without end", 400, "x" * 100_000, "status 400"),
    refused("rate limit", 429, {"error": {"message": "slow down"}}, "slow down"),
]  # fmt: skip

WITHOUT_SEED = ("--extra_body", '{"seed": null}')
RUNS = [
    BadInput("run with a wrong model", run_command(), ("--model qwen2",),
             advice=run_command(*WITHOUT_SEED, model="qwen2")),
    BadInput("run with a refused field", run_command(model="qwen2"), WITHOUT_SEED,
             advice=run_command(*WITHOUT_SEED, model="qwen2")),
    BadInput("field with an option of its own", run_command("--extra_body", '{"max_tokens": 9}'), ("--max_tokens 9",)),
    BadInput("field that is no object", run_command("--extra_body", "[1]"), ("must be a JSON object",)),
]  # fmt: skip
REPLIES = [
    BadInput("error object in a good reply", asked({"error": {"code": 402, "message": "no money"}}), ("no money",)),
    BadInput("error string in a good reply", asked({"error": "overloaded"}), ("overloaded",)),
    BadInput("web page in a good reply", asked(PAGE), ("web page: Sign in",)),
    BadInput("reply cut off", asked(json.dumps(GOOD)[:-30]), ("unreadable reply",)),
    BadInput("empty reply", asked(""), ("empty reply",)),
    BadInput("stream of events", asked('data: {"choices": []}\n\n'), ("unreadable reply", "data:")),
    BadInput("damaged gzip", asked((200, {"Content-Encoding": "gzip"}, b"\x1f\x8bxx")), ("DecodingError",)),
    BadInput("gzip", asked((200, {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(GOOD).encode()))), (TEXT,),
             exit_code=0),
    BadInput("another content type", asked((200, {"Content-Type": "text/plain"}, GOOD)), (TEXT,), exit_code=0),
    BadInput("damaged chunks", asked((200, {"Transfer-Encoding": "chunked"}, "zz\r\nno")), ("RemoteProtocolError",)),
    BadInput("connection lost", asked("reset"), ("ReadError",)),
    BadInput("no choices", asked({"choices": []}), ("without choices",)),
    BadInput("another model answers", asked(good(model="llama-3")), ("'llama-3'", "'qwen'", "--model llama-3"),
             advice=asked(good(model="llama-3"), spec={"model": "llama-3"})),
    BadInput("a more exact name of the model", asked(good(model="Qwen/qwen-7b")), (TEXT,), exit_code=0),
    BadInput("usage that is no object", asked(good(usage=["?"])), (TEXT,), exit_code=0),
    replied("refusal", "the model refuses: I won't", refusal="I won't"),
    replied("only thinking", "used all tokens for thinking", "--max_tokens", finish="length", reasoning_content="Hm"),
    replied("filtered answer", "withheld", content=TEXT, finish="content_filter"),
    replied("answer broken off by the server", "'abort'", content=TEXT, finish="abort"),
    replied("no finish reason", "'truncated'", content=TEXT, finish=None, exit_code=0),
    replied("content in parts", "text: It shows", "codes: []", content=[{"type": "text", "text": TEXT}], exit_code=0),
    replied("thinking in the answer", "codes: []", content=f"<think>I cannot</think>{TEXT}", exit_code=0),
    replied("half an emoji in the answer", "text: It shows", content=f"{TEXT[:-1]} \ud83d.", exit_code=0),
    replied("null content", "without content"),
]  # fmt: skip
ROWS = [*ADDRESSES, *ERRORS, *REPLIES, *RUNS]
