"""Bodies of requests: fields of each kind of server, and fields of the user."""

import dataclasses

import pytest

from dataset_scripts.rationales.engines.profiles import PROFILES, merged, request_body
from dataset_scripts.rationales.spec import RationaleSpec

SPEC = RationaleSpec(model="qwen", prompt_hash="0")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
]


def body(profile="vllm", **changes):
    return request_body(dataclasses.replace(SPEC, **changes), PROFILES[profile], MESSAGES)


def test_reasoning_models_of_openai_get_another_token_limit_and_no_temperature():
    fields = body("openai_reasoning")
    assert fields["max_completion_tokens"] == SPEC.max_tokens
    assert not fields.keys() & {"max_tokens", "temperature", "seed"}


def test_without_a_system_role_its_text_begins_the_message_of_the_user():
    (message,) = body("minimal")["messages"]
    assert message["role"] == "user"
    assert "".join(part["text"] for part in message["content"]) == "Be brief.\n\nWhy?"
    assert body("openai")["messages"] == MESSAGES


def test_extra_fields_are_merged_at_last_and_null_removes_a_field():
    fields = body(extra_body={"top_p": 0.9, "seed": None, "chat_template_kwargs": {"enable_thinking": True, "a": 1}})
    assert fields["top_p"] == 0.9 and "seed" not in fields
    assert fields["chat_template_kwargs"] == {"enable_thinking": True, "a": 1}
    assert merged({"a": 1}, {"a": {"b": None, "c": 2}}) == {"a": {"c": 2}}


def test_extra_fields_are_part_of_the_specification_and_stores_without_them_stay_readable():
    changed = dataclasses.replace(SPEC, extra_body={"top_p": 0.9})
    assert changed.spec_hash != SPEC.spec_hash and RationaleSpec.from_dict(changed.to_dict()) == changed
    assert "extra_body" not in SPEC.to_dict() and RationaleSpec.from_dict(SPEC.to_dict()) == SPEC
    assert dataclasses.replace(SPEC, extra_body={}).spec_hash == SPEC.spec_hash
    assert (
        SPEC.differences(changed)
        == ["extra_body: None, not {'top_p': 0.9}"]
        == [line.replace("{'top_p': 0.9}, not None", "None, not {'top_p': 0.9}") for line in changed.differences(SPEC)]
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([1], "must be a JSON object"),
        ({"messages": []}, "cannot change 'messages'"),
        ({"max_tokens": 9}, "max_tokens=9"),
        ({"top_p": float("nan")}, "JSON values"),
        ({"top_p": {1, 2}}, "JSON values"),
    ],
)
def test_unusable_extra_fields_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SPEC, extra_body=fields)
