"""Tests of the choice among several answers for one perspective."""

import pytest

from dataset_scripts.rationales.engines.base import Answer, FakeEngine
from dataset_scripts.rationales.errors import PermanentError
from dataset_scripts.rationales.quality.gate import Verdict
from helpers.rationale_runs import PERSPECTIVES, ScriptedEngine, contents, make_posts, run_engines


def flags_in_answer(answer, **_):
    """Judge an answer that names its own hard flags: "text|flag,flag"."""
    text, _, flags = answer.partition("|")
    return Verdict(text or None, tuple(flags.split(",")) if flags else (), ("newline",))


@pytest.mark.parametrize(
    ("texts", "kept", "status", "flags"),
    [
        (["good"], "good", "ok", ["newline"]),
        (["a|short", "good"], "good", "ok", ["newline"]),
        (["a|short,loop", "b|short", "c|loop"], "b", "flagged", ["short", "newline"]),
        (["|empty", "b|short,loop", "|empty"], "b", "flagged", ["short", "loop", "newline"]),
        (["|empty", "|empty", "|empty"], None, "failed", ["empty", "newline"]),
    ],
)
def test_the_first_answer_with_the_fewest_hard_flags_is_kept(store, texts, kept, status, flags):
    engine = ScriptedEngine(
        lambda number, post, perspective, attempt: Answer(
            texts[attempt] if post.post_id == "p0" else "good", prompt_tokens=10
        )
    )
    report = run_engines(make_posts(2), store, engine, gate=flags_in_answer)
    (row,) = [row for row in store.rows() if row["id"] == "p0"]
    assert (row["rationale_neutral"], row["status_neutral"], row["flags_neutral"]) == (kept, status, flags)
    assert row["attempts_neutral"] == len(texts) and row["prompt_tokens_neutral"] == 10 * len(texts)
    assert (row["error_neutral"] is None) == (kept is not None) and row["cached_tokens_neutral"] is None
    assert row["raw_neutral"] == next(text for text in texts if text.startswith(kept or "|"))
    assert report.re_asked == 3 * (len(texts) - 1)


def test_an_earlier_usable_answer_is_kept_when_the_next_request_fails(store):
    def script(number, post, perspective, attempt):
        if attempt:
            raise PermanentError("too long now")
        return Answer("a|short")

    report = run_engines(make_posts(1), store, ScriptedEngine(script), gate=flags_in_answer)
    assert report.flagged == 3 and contents(store)["p0"]["neutral"] == ("a", "flagged")


def test_the_gate_gets_the_post_and_its_other_rationales_but_no_label(store):
    calls = []

    def gate(answer, **arguments):
        calls.append(arguments | {"siblings": dict(arguments["siblings"])})
        return Verdict(f"{arguments['perspective']}!")

    run_engines([make_posts(1)[0] | {"label": 2}], store, FakeEngine(), gate=gate)
    texts = {name: f"{name}!" for name in PERSPECTIVES}
    assert [call["perspective"] for call in calls] == list(PERSPECTIVES)
    assert [call["siblings"] for call in calls] == [dict(list(texts.items())[:count]) for count in range(3)]
    assert all(call.keys() == {"perspective", "language", "finish_reason", "post_text", "siblings"} for call in calls)
    assert calls[0]["post_text"] == "what happened on day 0" and calls[0]["language"] == "en"


def test_rejected_answers_are_kept_across_a_restart(store):
    def script(number, post, perspective, attempt):
        if attempt == 1:
            raise KeyError("the process ends here")
        return Answer("a|short")

    with pytest.raises(KeyError):
        run_engines(make_posts(1), store, ScriptedEngine(script), gate=flags_in_answer)
    engine = ScriptedEngine(lambda number, post, perspective, attempt: Answer(f"{attempt}|short,loop"))
    run_engines(make_posts(1), store, engine, gate=flags_in_answer)
    assert [attempt for _, _, attempt in engine.asked] == [1, 1, 1, 2, 2, 2]
    (row,) = store.rows()
    assert (row["rationale_neutral"], row["flags_neutral"]) == ("a", ["short", "newline"])
    assert row["attempts_neutral"] == 3


def test_stored_rationales_are_siblings_of_those_asked_later(store):
    def script(number, post, perspective, attempt):
        if perspective == "neutral":
            raise PermanentError("no")

    def gate(answer, **arguments):
        siblings.append(set(arguments["siblings"]))
        return Verdict(answer)

    siblings = []
    run_engines(make_posts(1), store, ScriptedEngine(script), gate=gate)
    run_engines(make_posts(1), store, FakeEngine(), gate=gate, retry_failed=True)
    assert siblings[-1] == {"positive", "negative"} and contents(store)["p0"]["neutral"][1] == "ok"
