"""Demo in a headless Chromium."""

import contextlib
import json
import re
import shutil
import threading

import pytest
import uvicorn
from playwright.sync_api import Error, expect, sync_playwright

from helpers.http_client import JSON, Client, picture
from mpt_sentiment.demo.running import create_app
from mpt_sentiment.serving.sockets import listening_socket

PERSPECTIVES = ["positive", "neutral", "negative"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def address(pipe):
    """Return the address of a demo whose rationales repeat the text."""

    async def write(text, image):
        if text == "nothing":
            raise ValueError("The server is <b>down</b>.")
        return {name: f"{name} {text}" for name in PERSPECTIVES}

    with listening_socket("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(create_app(pipe, write), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no Chromium: install Debian's chromium, or `playwright install chromium` ({error})"[:200])
        with contextlib.closing(browser):
            yield browser


@pytest.fixture
def open_page(browser, address):
    """Return a function that opens the demo in a window of a width."""
    with contextlib.ExitStack() as stack:

        def open_window(width=1000):
            page = stack.enter_context(contextlib.closing(browser.new_page(viewport={"width": width, "height": 800})))
            page.set_default_timeout(60_000)
            page.requested = []
            page.on("request", lambda request: page.requested.append(request.url))
            page.goto(address)
            page.get_by_role("button", name="Classify").wait_for()
            return page

        yield open_window


def upload(page, content, name="picture.png"):
    with page.expect_response(re.compile("/upload")):
        page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.wait_for()


def expect_result(page, result):
    scores = page.locator("#scores")
    expect(scores).to_contain_text(re.compile(result["label"]), timeout=60_000)
    for part, values in (("scores", result["scores"]), ("modalities", result["modality_weights"])):
        for name, value in values.items():
            expect(page.locator(f"#{part}")).to_contain_text(re.compile(rf"{name}\s*{value:.0%}"), timeout=60_000)


@pytest.mark.parametrize("width", [1000, 400])
def test_an_uploaded_image_and_a_text_are_classified_in_a_wide_and_a_narrow_window(pipe, open_page, width):
    page = open_page(width)
    upload(page, picture("blue", (300, 200)))
    page.get_by_label("Text", exact=True).fill("what a good day")
    page.get_by_role("button", name="Classify").click()
    expect_result(page, pipe({"text": "what a good day", "image": picture("blue", (300, 200))}))
    assert page.locator("#perspectives").count() == 0 or not page.locator("#perspectives").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.get_by_role("button", name="Classify").bounding_box()
    assert 0 <= box["x"] and box["x"] + box["width"] <= width
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in page.requested), page.requested


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "it is no image"),
        (picture("red", (300, 300), "JPEG")[:900], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "the format EPS"),  # for Ghostscript
    ],
    ids=["text", "truncated", "EPS"],
)
def test_a_corrupt_file_is_answered_with_the_reason(open_page, content, reason):
    page = open_page(400)
    upload(page, content)
    page.get_by_role("button", name="Classify").click()
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text(reason, timeout=60_000)
    assert "/" not in toast.inner_text()  # no path of the server


def test_an_empty_post_is_answered_with_what_the_model_reads(open_page):
    page = open_page()
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("at least one of", timeout=60_000)


def test_the_button_writes_rationales_that_the_model_reads(pipe, open_page):
    page = open_page()
    page.get_by_label("Text", exact=True).fill("rain")
    page.get_by_text("Rationales (optional)").click()
    page.get_by_role("button", name="Write them").click()
    expect(page.get_by_label("negative", exact=True)).to_have_value("negative rain", timeout=60_000)
    page.get_by_label("neutral", exact=True).fill("the bus leaves at ten")
    page.get_by_role("button", name="Classify").click()
    rationales = {"positive": "positive rain", "neutral": "the bus leaves at ten", "negative": "negative rain"}
    result = pipe({"text": "rain", "rationales": rationales})
    expect_result(page, result)
    for name, weight in result["perspective_weights"].items():
        expect(page.locator("#perspectives")).to_contain_text(re.compile(rf"{name}\s*{weight:.0%}"))
    page.get_by_label("Text", exact=True).fill("nothing")
    page.get_by_role("button", name="Write them").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("<b>down</b>", timeout=60_000)


def test_the_button_explains_a_post(open_page):
    page = open_page(400)
    page.get_by_label("Text", exact=True).fill("what a good <b>day</b>")
    page.get_by_role("button", name="Explain").click()
    frame = page.frame_locator("iframe[title=Explanation]")
    expect(frame.locator("body")).to_contain_text("<b>day</b>", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_no_path_or_url_of_a_client_is_opened(address):
    client = Client(int(address.rstrip("/").rpartition(":")[2]))
    for path in (__file__, "http://127.0.0.1:9/picture.png"):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "rain", "", "", ""]
        body = json.dumps({"data": data})
        status, call, _ = client.request("POST", "/gradio_api/call/classify", body, JSON)
        if status == 200:
            status, events, _ = client.request("GET", f"/gradio_api/call/classify/{call['event_id']}")
            assert "event: error" in events and "event: complete" not in events
            assert "cannot be decoded" not in events
