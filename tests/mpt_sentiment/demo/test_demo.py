"""Demo without a browser: rationales from a server, the folder of a Space, and refusals."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from helpers import tiny_processor
from helpers.faulty_server import FaultyServer
from helpers.http_client import picture, served
from mpt_sentiment import commands
from mpt_sentiment.demo.running import rationale_writer
from mpt_sentiment.demo.space import make_space
from mpt_sentiment.serving_arguments import DemoArguments

PERSPECTIVES = ["positive", "neutral", "negative"]


def test_rationales_of_one_post_come_from_a_server(monkeypatch):
    monkeypatch.setenv("SERVER_KEY", "secret")
    with FaultyServer() as server:
        options = {"endpoint": server.url, "rationale_model": "lmm", "api_key_env": "SERVER_KEY"}
        write = rationale_writer(DemoArguments(**options), PERSPECTIVES)
        written = asyncio.run(write("rain at the station", picture("red", (60, 60))))
    assert written.keys() == set(PERSPECTIVES) and all(text.startswith("It shows") for text in written.values())
    assert [body["model"] for body in server.requests] == ["lmm"] * 3
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)


@pytest.mark.parametrize(
    ("script", "post", "words"),
    [
        (lambda number, body: (500, {}, "broken"), ("rain", None), "500"),
        (lambda number, body: (401, {}, "no key"), ("rain", None), "401"),
        (lambda number, body: None, ("rain", b"no image"), "image"),
        (lambda number, body: None, (" ", None), "neither"),
    ],
)
def test_a_server_or_post_that_fails_is_one_reason(script, post, words):
    with FaultyServer(script) as server:
        write = rationale_writer(DemoArguments(endpoint=server.url), PERSPECTIVES)
        with pytest.raises(ValueError, match=words):
            asyncio.run(write(*post))


def test_a_space_has_the_page_the_model_and_a_card_that_names_its_version(pipe, model, tmp_path):
    make_space(model, tmp_path / "space")
    names = {path.name for path in (tmp_path / "space").iterdir()}
    assert names == {"README.md", "app.py", "requirements.txt", "model"}
    card = (tmp_path / "space" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "sdk: gradio" in card and "app_file: app.py" in card
    assert re.search(r"^sdk_version: \d+\.\d+\.\d+$", card, re.MULTILINE)
    lines = (tmp_path / "space" / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", line) for line in lines)
    # The page and the model alone: our packages cannot be imported.
    code = tiny_processor.BLOCK + (
        "import json, runpy\n"
        "space = runpy.run_path('app.py')\n"
        "pipe = space['pipeline']('multimodal-sentiment', model='model', trust_remote_code=True)\n"
        "page = space['create_page'](pipe)\n"
        "(function,) = (each.fn for each in page.fns.values() if each.api_name == 'classify')\n"
        "print(json.dumps(function(None, 'rain', '', '', '')[0]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "space", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(pipe({"text": "rain"})["scores"], abs=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
def test_the_command_shows_the_page_until_sigterm(model):
    with served("demo", model) as (process, client):
        status, page, _ = client.request("GET", "/")
        assert status == 200 and "Sentiment of a post" in page
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Stopped" in out and "Traceback" not in err


def test_the_command_refuses_in_one_line(model, capsys):
    for arguments, words in (
        (["--space", str(model)], "has files"),
        (["--rationale_model", "lmm"], "--endpoint"),
        (["--port", "70000"], "--port"),
        (["--port", "0", "--endpoint", "http://127.0.0.1:9", "--api_key_env", "UNSET_KEY"], "UNSET_KEY"),
    ):
        assert commands.main(["demo", str(model), "--device", "cpu", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith("error: ") and words in error[0]


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("mpt_sentiment.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    assert commands.main(["demo", "folder"]) == 1
    assert "mpt-sentiment[demo]" in capsys.readouterr().err
