"""Replies of servers in the forms in which they come."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.rationales.engines.replies import error_of, error_words, parse_reply, read_answer, reply_words
from dataset_scripts.rationales.errors import EngineError, MisconfiguredError, PermanentError, RetryableError

REQUEST = {"model": "qwen"}


def completion(content="It is.", finish_reason="stop", **fields):
    choice = {"message": {"content": content} | fields.pop("message", {}), "finish_reason": finish_reason}
    return {"choices": [choice]} | fields


@pytest.mark.parametrize(
    "content",
    [
        "It is.",
        [{"type": "text", "text": "It "}, {"type": "text", "text": "is."}],
        [{"type": "thinking", "thinking": "Hm"}, {"type": "output_text", "text": "It is."}],
        ["It is."],
        {"type": "text", "text": "It is."},
    ],
)
def test_the_text_is_read_from_a_string_or_from_parts(content):
    assert read_answer(completion(content), REQUEST).text == "It is."


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (completion(None, message={"refusal": "No."}), PermanentError, "refusal"),
        (completion([{"type": "refusal", "refusal": "No."}]), PermanentError, "refusal"),
        (completion("It is.", "content_filter"), PermanentError, "content_filter"),
        (completion(None, "content_filter"), PermanentError, "content_filter"),
        (completion(None, "length", message={"reasoning_content": "Hm"}), PermanentError, "only thinking"),
        (completion("", "stop", message={"reasoning": "Hm"}), PermanentError, "only thinking"),
        (completion("It is.", "abort"), RetryableError, "abort"),
        (completion("It is.", "error"), RetryableError, "error"),
        (completion(None), RetryableError, "no content"),
        ({"choices": []}, RetryableError, "no choices"),
        (completion(model="llama"), MisconfiguredError, "another model"),
    ],
)
def test_a_reply_without_a_usable_answer_has_a_class_and_a_reason(reply, kind, reason):
    with pytest.raises(kind) as raised:
        read_answer(reply, REQUEST)
    assert type(raised.value) is kind and raised.value.reason == reason


def test_thinking_without_an_answer_names_the_options_that_help():
    reply = completion(None, "length", message={"reasoning": "Hm"})
    with pytest.raises(PermanentError, match=r"Raise --max_tokens, .* extra_body=\{'reasoning_effort': 'low'\}"):
        read_answer(reply, REQUEST)
    with pytest.raises(PermanentError, match="choose a model without thinking"):
        read_answer(reply, REQUEST | {"chat_template_kwargs": {"enable_thinking": False}})


@pytest.mark.parametrize("finish_reason", [None, "", 3])
def test_an_unknown_finish_reason_is_not_stop(finish_reason):
    assert read_answer(completion(finish_reason=finish_reason), REQUEST).finish_reason == "unknown"


@pytest.mark.parametrize(
    ("answered", "requested"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("Qwen/Qwen2.5-VL-7B", "qwen2.5-vl-7b"),
        ("Qwen2.5-VL-7B-AWQ", "Qwen/Qwen2.5-VL-7B"),
        ("qwen2.5-vl-7b-instruct-q4_k_m.gguf", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("/models/qwen/", "qwen"),
        ("org/qwen@main", "org/qwen"),
        ("", "qwen"),
        (None, "qwen"),
    ],
)
def test_a_more_exact_name_is_the_same_model(answered, requested):
    assert read_answer(completion(model=answered), {"model": requested}).text == "It is."


@pytest.mark.parametrize("answered", ["gpt-4o-mini", "o", "gpt-4", "my-gpt-4o"])
def test_another_size_is_another_model(answered):
    with pytest.raises(MisconfiguredError):
        read_answer(completion(model=answered), {"model": "gpt-4o"})


def test_another_model_is_named_with_the_option_to_accept_it():
    with pytest.raises(MisconfiguredError, match="'llama-3' answered instead of 'qwen'.*model=\"llama-3\""):
        read_answer(completion(model="llama-3"), REQUEST)


def test_counts_of_another_form_are_unknown_and_text_can_be_written_to_a_file():
    answer = read_answer(completion("a\ud83d b", usage={"prompt_tokens": "9", "completion_tokens": True}), REQUEST)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("a\ufffd b", None, None)
    assert read_answer(completion(usage=[1], system_fingerprint=7), REQUEST).system_fingerprint is None
    assert read_answer(completion("\U0001f622"), REQUEST).text == "\U0001f622"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "a b"}}', "a b"),
        ('{"error": "a"}', "a"),
        ('{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}, {"msg": "b"}]}', "seed: not permitted; b"),
        ('[{"error": {"message": "a"}}]', "a"),
        ('"a"', "a"),
        ("a\n  b", "a b"),
        ("<html><head><title>502\nBad</title></head></html>", "502 Bad"),
        ("<html></html>", "a web page"),
        ("", ""),
        ('{"x": 1}', '{"x": 1}'),
        ("{" * 9, "{" * 9),
    ],
)
def test_the_words_of_an_error_are_found(body, words):
    assert reply_words(body) == words


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"<html>", b"[" * 100_000, b"data: {}"])
def test_a_body_that_is_no_json_is_a_temporary_failure(body):
    with pytest.raises(RetryableError):
        parse_reply(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from("choices message content finish_reason error usage model refusal loc detail code".split()),
            values,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(reply=JSON)
def test_no_json_breaks_the_reader(reply):
    reply_words(json.dumps(reply))
    assert isinstance(error_words(reply), str)
    error_of(reply)
    try:
        answer = read_answer(reply, REQUEST)
    except EngineError as error:
        assert len(str(error)) <= 400
    else:
        answer.text.encode()
