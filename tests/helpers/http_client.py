"""Server of the tiny model in a thread or a process, and requests to it."""

import base64
import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from helpers import tiny_processor
from mpt_sentiment.serving.app import create_app
from mpt_sentiment.serving.sockets import listening_socket
from mpt_sentiment.serving_arguments import ServeArguments

SCRIPT = [sys.executable, "-c", "import sys; from mpt_sentiment.commands import main; sys.exit(main())"]
JSON = {"Content-Type": "application/json"}
BOUNDARY = "part-of-a-form"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Client:
    """Requests to one port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON or text, and headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(text) if is_json else text, dict(answer.headers)

    def predict(self, posts: Any, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the answer to posts."""
        return self.request("POST", "/predict", json.dumps(posts), JSON | headers)[:2]

    def refusal(self, body: Any, headers: dict[str, str] = JSON) -> tuple[int, str]:
        """Return status and field of the error that answers a body."""
        status, answer, _ = self.request("POST", "/predict", body, headers)
        assert answer["error"].keys() == {"status", "field", "message"} and answer["error"]["status"] == status
        assert 0 < len(answer["error"]["message"]) <= 400
        return status, answer["error"]["field"]


@contextlib.contextmanager
def serving(pipe: Any, **limits: Any) -> Iterator[Client]:
    """Serve a pipeline in a thread, at a port that the system chooses."""
    with listening_socket("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(create_app(pipe, ServeArguments(**limits)), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield Client(sock.getsockname()[1])  # a request waits in the socket until the server has started
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def served(name: str, model: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen, Client]]:
    """Run the command `serve` or `demo`, and return its process and a client."""
    command = [*SCRIPT, name, str(model), "--device", "cpu", "--port", "0", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "MPT_API_KEY"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            port = re.search(r"http://127.0.0.1:(\d+)", line)
            assert port, line + process.stderr.read()
            yield process, Client(int(port[1]))
        finally:
            process.kill()


def picture(colour: Any = "red", size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    """Return the content of an image file."""
    buffer = io.BytesIO()
    tiny_processor.image(colour, size=size).save(buffer, form)
    return buffer.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def form(*fields: tuple[str, str | bytes]) -> bytes:
    """Encode a form; bytes are a file."""
    parts = []
    for name, value in fields:
        is_file = isinstance(value, bytes)
        file = f'; filename="{name}"' if is_file else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + (value if is_file else value.encode()) + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
