"""A server on loopback that answers lettered questions like vLLM: by log-probabilities that the post alone decides,
plus a liking for the letter A; or by words, or badly."""

import hashlib
import json
import math
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any

from helpers.faulty_server import BusyServer

FAULTS = (429, 500, "reset", "cut")


class ChoiceServer:
    """A context manager.

    Args:
        reply: the words of an answer, by the options of the question; by default log-probabilities.
        liking: what the letter A gets above the others.
        faults: what happens to the first requests: a status, `reset` or `cut`.
    """

    def __init__(
        self,
        reply: Callable[[list[str]], str] | None = None,
        liking: float = 3.0,
        faults: Sequence[int | str] = (),
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.up = True
        self._reply, self._liking, self._faults = reply, liking, list(faults)
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send(200 if owner.up else 503, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._lock:
                    owner.bodies.append(body)
                    fault = owner._faults.pop(0) if owner._faults else None
                answer = json.dumps(owner.answer(body)).encode()
                if fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                elif fault == "cut":
                    self.send(200, answer[:-20])
                else:
                    self.send(fault or 200, answer)

            def send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                try:
                    super().handle()
                except (OSError, ValueError):  # a connection that was reset
                    pass

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._http = BusyServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        *image, words = body["messages"][-1]["content"]
        post = "".join(part["image_url"]["url"] for part in image) + words["text"].rpartition("\n\n")[0]
        options = re.findall(r"^[A-Z]\. (\w+)", words["text"], re.MULTILINE)
        scores = [score(post, option) + self._liking * (place == 0) for place, option in enumerate(options)]
        total = math.log(sum(map(math.exp, scores)))
        entries = [
            {"token": "ABCDEFGH"[place], "logprob": value - total, "bytes": None, "top_logprobs": []}
            for place, value in enumerate(scores)
        ]
        # what the grammar rules out is listed all the same
        entries.append({"token": "The", "logprob": -9999.0, "bytes": None, "top_logprobs": []})
        best = max(entries, key=lambda entry: entry["logprob"])
        logprobs = {"content": [best | {"top_logprobs": entries}]}
        content = best["token"]
        if self._reply is not None:
            content, logprobs = self._reply(options), None
        message = {"role": "assistant", "content": content}
        return {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
            "usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301},
        }

    def __enter__(self) -> "ChoiceServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def score(post: str, option: str) -> float:
    """What the post says for an option, from 0 to 2: all of the post as it is sent, image before text."""
    return hashlib.sha256(f"{post}|{option}".encode()).digest()[0] / 128
