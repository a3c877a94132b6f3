"""Command `serve` as a process: refusals, the end by a signal, thousands of requests."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from helpers.http_client import FORM, JSON, encoded, form, picture, served, serving
from mpt_sentiment import commands

# MPT_LOAD_REQUESTS=10000 repeats the measurement of docs/how_to/serve.md.
REQUESTS = int(os.environ.get("MPT_LOAD_REQUESTS", "2000"))


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_sigterm_answers_the_request_in_work_and_ends_with_code_0(model, pipe):
    post = json.dumps({"text": "rain"}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    with served("serve", model) as (process, client):
        assert client.predict({"text": "rain"})[0] == 200
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as connection:
            connection.sendall(head.format(len(post)).encode() + post[:5])
            while "mpt_queue_posts 1.0" not in client.request("GET", "/metrics")[1]:
                pass
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                while True:  # until no new connection is accepted
                    socket.create_connection(("127.0.0.1", client.port), timeout=60).close()
            connection.sendall(post[5:])
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        assert answer.startswith("HTTP/1.1 200")
        assert json.loads(answer.partition("\r\n\r\n")[2])["label"] == pipe({"text": "rain"})["label"]
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err and "Stopped" in out


def test_the_command_refuses_in_one_line(model, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MPT_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            ([str(model), "--host", "0.0.0.0"], "MPT_API_KEY"),
            ([str(model), "--port", port], "--port"),
            ([str(tmp_path / "absent"), "--port", "0"], "does not exist"),
            ([str(model), "--port", "0", "--device", "cuda:99"], "cuda:99"),
        ):
            assert commands.main(["serve", *arguments]) == 1
            error = capsys.readouterr().err.strip()
            assert error.startswith("error: ") and words in error and "\n" not in error


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpt_sentiment.serving.running", None)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("mpt_sentiment.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    assert commands.main(["serve", "folder"]) == 1
    assert "mpt-sentiment[serve]" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_documented_requests_are_answered(pipe, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "how_to" / "serve.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if block.startswith("curl")]
    (tmp_path / "beach.jpg").write_bytes(picture(form="JPEG"))
    assert len(blocks) == 3
    with serving(pipe) as client:
        for block in blocks:
            command = block.replace(":8000", f":{client.port}").replace("curl", "curl --silent --show-error")
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
            answer = json.loads(done.stdout)
            assert all("label" in result for result in (answer if isinstance(answer, list) else [answer]))


def requests_with_answers(pipe):
    """Return good and broken requests: body, headers, status, and label or field."""
    good, broken = [], []
    for index, text in enumerate(["rain", "what a good day at the sea", "the bus leaves at ten", "a missed train"]):
        content = picture((60 * index, 90, 200), (200, 150), ("PNG", "JPEG")[index % 2])
        post = {"text": text, "rationales": {"negative": text}}
        label = pipe(post | {"image": content})["label"]
        good.append((json.dumps(post | {"image": encoded(content)}), JSON, 200, label))
        parts = [("text", text), ("image", content), ("rationale_negative", text)]
        good.append((form(*parts), FORM, 200, label))
        good.append((json.dumps({"text": text}), JSON, 200, pipe({"text": text})["label"]))
    for value, field in (
        ({"image": encoded(picture("red", (300, 300), "JPEG")[:700])}, "image"),
        ({"image": "/etc/passwd"}, "image"),
        ({"text": 5}, "text"),
        ({"txet": "rain"}, "txet"),
        ({"text": "x" * 30_000}, "text"),
        ({}, "post"),
    ):
        broken.append((json.dumps(value), JSON, 422, field))
    broken += [
        (b"{", JSON, 422, "body"),
        (b"x" * 2_000_000, JSON, 413, "body"),
        (b"a=b", {"Content-Type": "text/plain"}, 415, "content-type"),
        (form(("image", b"no image")), FORM, 422, "image"),
    ]
    return good, broken


@pytest.mark.timeout(900)
def test_of_thousands_of_requests_with_broken_ones_none_is_lost_and_memory_stays(model, pipe):
    good, broken = requests_with_answers(pipe)
    rng = random.Random(5)
    work = [rng.choice(broken if index % 5 == 0 else good) for index in range(REQUESTS)]
    seen, memory, lock = Counter(), [], threading.Lock()
    with served("serve", model, "--max_body_mb", "1", "--max_queue", "64") as (process, client):
        server = psutil.Process(process.pid)

        def send(index):
            body, headers, status, expected = work[index]
            got, answer, _ = client.request("POST", "/predict", body, headers)
            found = answer["label"] if got == 200 else answer["error"]["field"]
            with lock:
                seen[got] += 1
                if index % (REQUESTS // 20) == 0:
                    memory.append(server.memory_info().rss)
            return (got, found) == (status, expected)

        with ThreadPoolExecutor(16) as clients:
            assert all(clients.map(send, range(REQUESTS)))
        metrics = client.request("GET", "/metrics")[1].splitlines()
    assert seen == Counter(status for _, _, status, _ in work) and seen.total() == REQUESTS
    for status, count in seen.items():
        assert f'mpt_requests_total{{status="{status}"}} {count:.1f}' in metrics
    assert "mpt_queue_posts 0.0" in metrics
    warm = memory[len(memory) // 4 :]
    assert max(warm) - warm[0] < 64 * 2**20, [size >> 20 for size in memory]
