"""Faults of servers: classes, reasons, waiting times, and options that help."""

import asyncio
import os
from email.utils import formatdate

import pytest

from dataset_scripts.rationales.engines.address import Address
from dataset_scripts.rationales.engines.endpoint import Endpoint
from dataset_scripts.rationales.engines.faults import status_error, status_of_code
from dataset_scripts.rationales.engines.profiles import PROFILES, request_body
from dataset_scripts.rationales.errors import (
    MisconfiguredError,
    OutageError,
    PermanentError,
    QuotaError,
    RetryableError,
)
from dataset_scripts.rationales.spec import RationaleSpec
from helpers.faulty_server import FaultyServer

SPEC = RationaleSpec(model="qwen", prompt_hash="0")
BODY = request_body(SPEC, PROFILES["vllm"], [{"role": "user", "content": "a"}])
ADDRESS = Address("http://h:8000")


def error_of_status(status, body="", headers=None, request=BODY):
    return status_error(ADDRESS, status, body, headers or {}, request=request, has_key=False)


def post(server, times=1, timeout=60.0):
    """Return the results of several requests to one endpoint."""

    async def post_all():
        endpoint = Endpoint(server.url, "qwen", timeout=timeout)
        results = [(await asyncio.gather(endpoint.chat(BODY), return_exceptions=True))[0] for _ in range(times)]
        await endpoint.close()
        return results

    return asyncio.run(post_all())


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, "bad", PermanentError, "status 400"),
        (413, "large", PermanentError, "status 413"),
        (451, "law", PermanentError, "status 451"),
        (401, "key", MisconfiguredError, "status 401"),
        (403, "blocked", MisconfiguredError, "status 403"),
        (404, "no page", MisconfiguredError, "status 404"),
        (404, "model 'a' not found", MisconfiguredError, "unknown model"),
        (404, "No endpoints found that support image input", MisconfiguredError, "no images"),
        (500, "image input is not supported - hint: mmproj", MisconfiguredError, "no images"),
        (400, "At most 0 image(s) may be provided in one prompt.", MisconfiguredError, "no images"),
        (422, "unknown variant `image_url`, expected `text`", MisconfiguredError, "no images"),
        (400, "At most 1 image(s) may be provided in one prompt.", PermanentError, "status 400"),
        (400, "The plain HTTP request was sent to HTTPS port", MisconfiguredError, "status 400"),
        (402, "", QuotaError, "status 402"),
        (403, "Your credit balance is too low", QuotaError, "status 403"),
        (429, "insufficient_quota", QuotaError, "status 429"),
        (429, "Rate limit reached", RetryableError, "status 429"),
        (500, "later", RetryableError, "status 500"),
        (529, "overloaded", RetryableError, "status 529"),
        (301, "", MisconfiguredError, "redirect"),
    ],
)
def test_a_status_has_a_class_and_a_reason(status, body, kind, reason):
    error = error_of_status(status, body)
    assert (type(error), error.reason, error.status) == (kind, reason, status)
    assert len(str(error)) <= 400


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'", "openai_reasoning"),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", "{'temperature': None}"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "{'seed': None}"),
        ("Unrecognized request argument supplied: repetition_penalty", "{'repetition_penalty': None}"),
        ("property 'chat_template_kwargs' is unsupported, additional properties", "{'chat_template_kwargs': None}"),
        ("Conversation roles must alternate user/assistant/user/assistant", "minimal"),
        ("System message is not supported by this model", "minimal"),
        ("Extra inputs are not permitted", "Choose another profile: vllm"),
    ],
)
def test_a_field_that_the_server_refuses_is_named_with_the_option_that_helps(words, advice):
    for status in (400, 422):
        error = error_of_status(status, words)
        assert type(error) is MisconfiguredError and advice in str(error)


def test_every_profile_in_an_advice_leaves_out_the_field_that_was_refused():
    for name, field in (("openai_reasoning", "max_tokens"), ("openai_reasoning", "temperature"), ("minimal", "seed")):
        assert field not in request_body(SPEC, PROFILES[name], BODY["messages"])


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "3600"}, '[{"error": "list"}]', 3600),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": formatdate(0)}, "", 0),
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 0.25),
        ({"retry-after": "soon"}, "", None),
        ({}, '[{"error": {"details": [{"retryDelay": "34s"}]}}]', 34),
        ({}, "", None),
    ],
)
def test_the_waiting_time_is_kept_whatever_the_body_is(headers, body, seconds):
    assert error_of_status(429, body, headers).retry_after == seconds


def test_a_quota_that_comes_back_is_waited_for():
    words = "You exceeded your current quota, please check your plan and billing details."
    assert type(error_of_status(429, words)) is QuotaError
    assert error_of_status(429, words, {"retry-after": "30"}).retry_after == 30


@pytest.mark.parametrize(
    ("code", "status"),
    [(429, 429), ("429", 429), ("insufficient_quota", 429), ("rate_limit_exceeded", 429), ("invalid_api_key", 401),
     ("RESOURCE_EXHAUSTED", 429), ("model_not_found", 404), ("invalid_request_error", 400), (None, 500), (7, 500)],
)  # fmt: skip
def test_the_status_of_an_error_inside_a_good_reply_is_that_of_its_code(code, status):
    assert status_of_code(code) == status


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"error": {"message": "Insufficient credits", "code": 402}}, QuotaError),
        ({"error": {"message": "no", "type": "insufficient_quota"}}, QuotaError),
        ({"error": {"message": "slow", "code": 429}}, RetryableError),
        ({"error": "EngineDeadError"}, RetryableError),
        ({"object": "error", "message": "too long", "code": 400}, PermanentError),
        ([{"error": {"code": 401, "message": "API key expired"}}], MisconfiguredError),
        ({"choices": [{"error": {"code": 502, "message": "upstream"}, "finish_reason": "error"}]}, RetryableError),
        ({"detail": "not here"}, RetryableError),
    ],
)
def test_an_error_inside_a_good_reply_is_that_error(reply, kind):
    with FaultyServer(lambda number, body: (200, {}, reply)) as server:
        (error,) = post(server)
    assert type(error) is kind or (kind is QuotaError and isinstance(error, QuotaError))


def test_a_fault_of_the_connection_after_an_answer_is_an_outage_and_not_a_wrong_address(monkeypatch):
    with FaultyServer(lambda number, body: None if number == 0 else "crash") as server:
        answer, *errors = post(server, times=3)
    assert "choices" in answer and [type(error) for error in errors] == [OutageError, OutageError]
    assert "health check fails" in str(errors[-1])


def test_too_few_file_descriptors_are_named():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with FaultyServer() as server:

        async def post_without_files():
            endpoint = Endpoint(server.url, "qwen")
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            try:
                return await asyncio.gather(endpoint.chat(BODY), return_exceptions=True)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        (error,) = asyncio.run(post_without_files())
    assert type(error) is MisconfiguredError and error.reason == "too many open files"
    assert "--concurrency" in str(error) and "ulimit -n" in str(error)


def test_a_timeout_says_how_long_it_waited():
    with FaultyServer(lambda number, body: "hang") as server:
        (error,) = post(server, timeout=0.1)
    assert type(error) is RetryableError and error.overloaded and "no answer within 0.1 s" in str(error)


def test_a_wrong_model_is_named_with_those_of_the_server():
    names = [{"id": f"model-{number}"} for number in range(7)]
    pages = {"/v1/models": (200, {}, {"data": names})}
    with FaultyServer(lambda number, body: (404, {}, "no such model"), pages=pages) as server:
        (error,) = post(server)
    assert "has model-0, model-1, model-2, model-3, model-4 and 2 more, not 'qwen'" in str(error)
