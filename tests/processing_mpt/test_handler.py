"""Handler of Inference Endpoints in a saved folder, and the permissions of saved files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import tiny_processor
from helpers.http_client import encoded, picture
from processing_mpt.handler import EndpointHandler, image_content

POST = {"text": "what a good day", "rationales": {"positive": "rain"}}

# How the server of Inference Endpoints loads it: as the module `handler`, from the folder alone.
SERVER = (
    tiny_processor.BLOCK
    + """
import importlib.util, json
folder, data = sys.argv[1], json.loads(sys.argv[2])
spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
print(json.dumps(handler.EndpointHandler(folder)(data)))
"""
)


@pytest.fixture(scope="module")
def pipe():
    return tiny_processor.pipeline()


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "trained"
    before = os.umask(0o022)
    try:
        pipe.save_pretrained(folder)
    finally:
        os.umask(before)
    return folder


@pytest.fixture(scope="module")
def handler(folder):
    return EndpointHandler(str(folder))


def test_a_process_without_our_packages_calls_the_handler_of_a_saved_folder(folder, pipe, tmp_path):
    data = {"inputs": [POST | {"image": encoded(picture("red"))}, {"text": "rain"}, {"image": "/etc/passwd"}]}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(folder), json.dumps(data)],
        cwd=tmp_path,
        env=environment | {"HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *results, refused = json.loads(done.stdout)
    expected = pipe([POST | {"image": picture("red")}, {"text": "rain"}])
    for result, each in zip(results, expected, strict=True):
        assert result["label"] == each["label"] and result["scores"] == pytest.approx(each["scores"], abs=1e-5)
    assert "no path or URL" in refused["error"]


def test_the_handler_takes_one_post_a_text_or_an_image(handler, pipe):
    assert handler({"inputs": POST})["scores"] == pytest.approx(pipe(POST)["scores"], abs=1e-6)
    assert handler(POST) == handler({"inputs": POST, "parameters": {}})
    assert handler({"inputs": "rain"}) == handler({"inputs": {"text": "rain"}})
    image = tiny_processor.image("red")
    assert handler({"inputs": image}) == handler({"inputs": {"image": encoded(picture("red"))}})
    assert handler({"inputs": []}) == []


@pytest.mark.parametrize(
    "post",
    [{"image": "http://127.0.0.1/x.png"}, {"image": 5}, {"image": encoded(b"no image")}, {}, 5, {"txet": "rain"}],
)
def test_the_handler_refuses_a_single_post_and_lets_the_others_of_a_list_pass(handler, post):
    with pytest.raises(ValueError):
        handler({"inputs": post})
    good, bad, again = handler({"inputs": [{"text": "rain"}, post, {"text": "rain"}]})
    assert good == again and good["label"] and bad.keys() == {"error"}


def test_an_image_with_too_many_pixels_or_another_format_is_refused():
    assert image_content(picture(size=(10, 10)), max_pixels=100)
    with pytest.raises(ValueError, match="11 x 10 pixels"):
        image_content(picture(size=(11, 10)), max_pixels=100)
    with pytest.raises(ValueError, match="format PCX"):
        image_content(picture(form="PCX"))


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_every_file_of_a_saved_folder_is_readable_under_the_umask(folder):
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "handler.py", "config.json"} <= modes.keys()
    assert set(modes.values()) == {0o644}, modes
