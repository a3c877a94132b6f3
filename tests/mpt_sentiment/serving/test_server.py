"""Answers of the server: results, refusals and limits, through uvicorn."""

import io
import json
import socket
import threading

import pytest
from PIL import Image

from helpers.http_client import FORM, JSON, encoded, form, picture, serving
from mpt_sentiment.serving_arguments import ServeArguments

RATIONALES = {"positive": "a good day", "negative": "rain"}
POSTS = [
    {"text": "what a good day", "image": picture("red"), "rationales": RATIONALES},
    {"text": "rain"},
    {"image": picture("blue", form="JPEG")},
    {"rationales": {"neutral": "the bus leaves"}},
    {"text": "a missed train at the sea and nothing but rain", "image": picture("green"), "rationales": None},
]


@pytest.fixture(scope="module")
def client(pipe):
    with serving(pipe, max_queue=128, max_text_length=100, max_megapixels=0.01, max_body_mb=0.5) as client:
        yield client


def in_json(post):
    return post | ({"image": encoded(post["image"])} if "image" in post else {})


def assert_same(result, expected):
    assert result["label"] == expected["label"] and result.keys() == expected.keys()
    for part in ("scores", "modality_weights", "perspective_weights"):
        assert result[part] == pytest.approx(expected[part], abs=1e-6) if expected[part] else result[part] is None


def test_results_are_those_of_the_pipeline_for_one_post_and_for_lists(client, pipe):
    expected = pipe(POSTS)
    for post, each in zip(POSTS, expected, strict=True):
        status, result = client.predict(in_json(post))
        assert status == 200
        assert_same(result, each)
    status, results = client.predict([in_json(post) for post in POSTS])
    assert status == 200
    for result, each in zip(results, expected, strict=True):
        assert_same(result, each)


def test_a_form_and_a_data_uri_give_the_same_result(client, pipe):
    expected = pipe(POSTS[0])
    rationales = [(f"rationale_{name}", text) for name, text in RATIONALES.items()]
    body = form(("text", POSTS[0]["text"]), ("image", POSTS[0]["image"]), *rationales)
    assert_same(client.request("POST", "/predict", body, FORM)[1], expected)
    uri = f"data:image/png;base64,{encoded(POSTS[0]['image'])}"
    assert_same(client.predict(POSTS[0] | {"image": uri})[1], expected)


def test_the_values_of_a_form_are_posts_in_their_order(client, pipe):
    body = form(("text", "rain"), ("text", ""), ("image", picture("red")), ("image", picture("blue")))
    status, results, _ = client.request("POST", "/predict", body, FORM)
    assert status == 200
    for result, each in zip(
        results, pipe([{"text": "rain", "image": picture("red")}, {"image": picture("blue")}]), strict=True
    ):
        assert_same(result, each)


def test_a_bad_post_in_a_list_fails_alone(client, pipe):
    truncated = encoded(picture("red", (60, 60), "JPEG")[:300])
    status, results = client.predict([{"text": "rain"}, {"image": truncated}, {"text": 5}, {"text": "rain"}])
    assert status == 200
    for index in (0, 3):
        assert_same(results[index], pipe({"text": "rain"}))
    assert [results[index]["error"]["field"] for index in (1, 2)] == ["[1].image", "[2].text"]


@pytest.mark.parametrize(
    ("post", "field"),
    [
        ({"image": "/etc/passwd"}, "image"),
        ({"image": "file:///etc/passwd"}, "image"),
        ({"image": "http://127.0.0.1/x.png"}, "image"),
        ({"image": {"path": "/etc/passwd"}}, "image"),
        ({"image": encoded(b"no image")}, "image"),
        ({"image": encoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")}, "image"),
        ({"image": encoded(picture("red", (101, 100)))}, "image"),
        ({"text": "x" * 101}, "text"),
        ({"rationales": {"positive": "x" * 101}}, "rationales.positive"),
        ({"rationales": {"ironic": "x"}}, "rationales.ironic"),
        ({"rationales": {"\ud800": "x"}}, "rationales.?"),
        ({"rationales": {"positive": 5}}, "rationales.positive"),
        ({"rationales": "good"}, "rationales"),
        ({"text": 5}, "text"),
        ({"txet": "rain"}, "txet"),
        ({"text": " "}, "post"),
        ({}, "post"),
        ("rain", "post"),
        (None, "post"),
        ([], "body"),
        ([{"text": "rain"}] * 65, "body"),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_a_refused_post_has_422_and_the_name_of_the_field(client, post, field):
    assert client.refusal(json.dumps(post)) == (422, field)


@pytest.mark.parametrize(
    ("body", "headers", "status", "field"),
    [
        (b"{", JSON, 422, "body"),
        (b"\xff\xfe\xfd", JSON, 422, "body"),
        (b"[" * 100_000, JSON, 422, "body"),
        (b"text=rain", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "content-type"),
        (b"{}", {}, 415, "content-type"),
        (b"x" * 600_000, JSON, 413, "body"),
        (iter([b"x" * 300_000] * 2), JSON, 413, "body"),
        (b"no form", FORM, 422, "body"),
        (form(("text", "rain")), {"Content-Type": "multipart/form-data"}, 422, "body"),
        (form(("text", "rain"), ("colour", "red")), FORM, 422, "colour"),
        (form(("text", "rain"), ("text", "bus"), ("image", picture())), FORM, 422, "image"),
        (form(("rationale_ironic", "rain")), FORM, 422, "rationales.ironic"),
        (form(("image", b"no image")), FORM, 422, "image"),
    ],
    ids=[
        "cut",
        "not utf-8",
        "deep",
        "urlencoded",
        "no type",
        "large",
        "large in chunks",
        "no form",
        "no boundary",
        "unknown field",
        "two texts",
        "unknown perspective",
        "no image",
    ],
)
def test_a_refused_body_has_its_status_and_the_name_of_the_field(client, body, headers, status, field):
    assert client.refusal(body, headers) == (status, field)


def test_half_an_emoji_in_a_text_is_read_as_the_pipeline_reads_it(client, pipe):
    status, result = client.predict({"text": "rain \ud800"})
    assert status == 200
    assert_same(result, pipe({"text": "rain \ud800"}))


def test_the_pixels_of_a_large_image_are_not_decoded(client, monkeypatch):
    def decode(*args):
        raise AssertionError("decoded")

    content = picture("red", (3000, 3000))
    monkeypatch.setattr(Image.Image, "load", decode)
    assert client.refusal(json.dumps({"image": encoded(content)})) == (422, "image")


def test_the_documented_examples_are_answered(client):
    status, page, _ = client.request("GET", "/openapi.json")
    assert status == 200
    operation = page["paths"]["/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 2 and {"413", "422", "408", "429"} <= operation["responses"].keys()
    for example in examples.values():
        status, answer = client.predict(example["value"])
        results = answer if isinstance(answer, list) else [answer]
        assert status == 200 and all("label" in result for result in results)
    assert client.request("GET", "/docs")[0] == 200


def test_health_names_labels_and_perspectives(client):
    status, health, _ = client.request("GET", "/health")
    assert status == 200 and health["status"] == "ok"
    assert health["labels"] == health["perspectives"] == ["positive", "neutral", "negative"]


def test_other_addresses_and_methods_have_errors_in_json(client):
    assert client.request("GET", "/other")[1]["error"]["field"] == "path"
    assert client.request("GET", "/predict")[1]["error"]["field"] == "method"


def test_metrics_count_requests_posts_and_refusals(pipe):
    with serving(pipe) as client:
        client.predict([{"text": "rain"}, {"text": 5}])
        client.predict({"text": "rain"})
        client.predict({})
        text = client.request("GET", "/metrics")[1]
    for line in (
        'mpt_requests_total{status="200"} 2.0',
        'mpt_requests_total{status="422"} 1.0',
        'mpt_refused_posts_total{status="422"} 2.0',
        "mpt_batch_size_sum 2.0",
        "mpt_queue_posts 0.0",
        "mpt_request_seconds_count 3.0",
    ):
        assert line in text.splitlines()


def test_a_post_that_fails_in_the_model_fails_alone(pipe, monkeypatch):
    forward = type(pipe.model).forward

    def fail(self, **batch):
        if (batch["input_ids"].shape[1]) > 8:
            raise RuntimeError("a text too many")
        return forward(self, **batch)

    monkeypatch.setattr(type(pipe.model), "forward", fail)
    with serving(pipe) as client:
        status, results = client.predict([{"text": "rain"}, {"text": "rain " * 20}, {"text": "rain"}])
        assert status == 200 and results[0] == results[2]
        assert results[1]["error"]["status"] == 500 and results[1]["error"]["field"] == "[1].post"
        assert "too many" not in results[1]["error"]["message"]
        assert client.predict({"text": "rain " * 20})[0] == 500


class Gate:
    """Forward pass that waits for a sign."""

    def __init__(self, pipe, monkeypatch):
        self.entered, self.opened, self.sizes = threading.Event(), threading.Event(), []
        forward = type(pipe.model).forward

        def wait(model, **batch):
            self.sizes.append(len(batch["input_ids"]))
            self.entered.set()
            assert self.opened.wait(60)
            return forward(model, **batch)

        monkeypatch.setattr(type(pipe.model), "forward", wait)


def in_thread(function, *args):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function(*args)))
    thread.start()
    return thread, answers


def test_a_full_queue_is_answered_429_and_posts_that_waited_are_one_batch(pipe, monkeypatch):
    gate = Gate(pipe, monkeypatch)
    with serving(pipe, max_queue=4, max_posts=4) as client:
        first, answers = in_thread(client.predict, {"text": "rain"})
        assert gate.entered.wait(60)
        second, more = in_thread(client.predict, [{"text": "rain"}] * 3)
        while "mpt_queue_posts 4.0" not in client.request("GET", "/metrics")[1]:
            pass
        status, answer, headers = client.request("POST", "/predict", json.dumps({"text": "rain"}), JSON)
        assert (status, answer["error"]["field"]) == (429, "queue") and int(headers["retry-after"]) >= 1
        assert client.request("GET", "/health")[0] == 200
        gate.opened.set()
        first.join()
        second.join()
        assert answers[0][0] == more[0][0] == 200
        assert sum(gate.sizes) == 4 and len(gate.sizes) <= 4
        assert client.predict({"text": "rain"})[0] == 200


def test_a_slow_model_and_a_slow_client_are_answered_408(pipe, monkeypatch):
    gate = Gate(pipe, monkeypatch)
    with serving(pipe, timeout=0.3) as client:
        assert client.refusal(json.dumps({"text": "rain"})) == (408, "time")
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            answer = io.BytesIO(b"".join(iter(lambda: slow.recv(4096), b"")))
        assert answer.readline().split()[1] == b"408" and b'"time"' in answer.read()
        gate.opened.set()
        assert 'mpt_requests_total{status="408"} 2.0' in client.request("GET", "/metrics")[1]


def test_a_client_that_leaves_frees_its_place(pipe):
    with serving(pipe, max_queue=1, max_posts=1) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as leaving:
            leaving.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            while "mpt_queue_posts 1.0" not in client.request("GET", "/metrics")[1]:
                pass
        while "mpt_queue_posts 0.0" not in client.request("GET", "/metrics")[1]:
            pass
        assert client.predict({"text": "rain"})[0] == 200


def test_with_a_key_in_the_environment_requests_need_it(pipe, monkeypatch):
    monkeypatch.setenv("MPT_API_KEY", "secret-ä")
    with serving(pipe) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            status, answer, _ = client.request("POST", "/predict", '{"text": "rain"}', JSON | headers)
            assert (status, answer["error"]["field"]) == (401, "authorization")
        assert client.request("GET", "/metrics")[0] == 401
        assert client.request("GET", "/health")[0] == 200
    monkeypatch.setenv("MPT_API_KEY", "secret")
    with serving(pipe) as client:
        assert client.predict({"text": "rain"}, Authorization="Bearer secret")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_for_other_machines_needs_a_key(host, monkeypatch):
    monkeypatch.delenv("MPT_API_KEY", raising=False)
    with pytest.raises(ValueError, match="MPT_API_KEY"):
        ServeArguments(host=host)
    monkeypatch.setenv("MPT_API_KEY", "secret")
    assert ServeArguments(host=host).host == host


@pytest.mark.parametrize("changes", [{"timeout": 0}, {"max_queue": 0}, {"port": 70_000}, {"max_queue": 8}])
def test_unusable_limits_are_refused(changes):
    with pytest.raises(ValueError, match=f"--{next(iter(changes))}"):
        ServeArguments(**changes)
