"""Output files of batches with any content: each line is read, counted or refused."""

import asyncio
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts.rationales.batches import BatchAnswers, custom_id
from dataset_scripts.rationales.errors import MisconfiguredError, PermanentError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.run.server import Postponed
from dataset_scripts.reading.report import BuildReport
from helpers.rationale_runs import SPEC, make_posts

POST = prepare_post(make_posts(1)[0], SPEC.max_pixels)
IDENTIFIER = custom_id(SPEC, POST, "positive", 0)
WORDS = st.sampled_from(["", "stop", "length", "content_filter", "m", "choices", "error", IDENTIFIER, "batch_expired"])
FIELDS = st.sampled_from(
    ["message", "content", "choices", "error", "code", "status_code", "body", "finish_reason", "usage", "model"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": VALUES, "finish_reason": VALUES}) | VALUES, max_size=2)},
    optional={"usage": VALUES, "model": VALUES, "error": VALUES},
)
RESPONSES = VALUES | st.fixed_dictionaries({"status_code": st.integers(100, 600) | VALUES, "body": BODIES | VALUES})
LINES = st.fixed_dictionaries(
    {"custom_id": st.sampled_from([IDENTIFIER, "other-0"]) | VALUES, "response": RESPONSES}, optional={"error": VALUES}
)


def read(content):
    report = BuildReport("batch", on_error="skip")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out.jsonl"
        file.write_bytes(content)
        answers = BatchAnswers([file], SPEC, report)
        try:
            answer = asyncio.run(answers.generate(POST, "positive", 0))
        except (Postponed, PermanentError, MisconfiguredError) as error:
            answer = error
    return answers, report, answer


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(LINES | VALUES, min_size=1, max_size=4))
def test_each_line_is_read_counted_or_skipped(lines):
    answers, report, answer = read("".join(json.dumps(line) + "\n" for line in lines).encode())
    assert report.read == len(lines)
    assert report.read == report.kept + sum(report.skipped.values()) + sum(report.notes.values())
    assert len(answers) == report.kept
    assert len(str(answer)) <= 400 or not isinstance(answer, Exception)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(min_size=1, max_size=60))
def test_bytes_that_are_no_output_are_skipped_or_refused(content):
    try:
        answers, report, _ = read(content)
    except ValueError as error:
        assert "out.jsonl" in str(error)
    else:
        assert len(answers) == 0 and report.read == sum(report.skipped.values())
