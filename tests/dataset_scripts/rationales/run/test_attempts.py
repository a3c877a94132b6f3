"""What of several answers is kept, and that this hangs on nothing but the answers."""

import pytest

from dataset_scripts.rationales.engines.base import Answer, FakeEngine
from dataset_scripts.rationales.errors import PermanentError
from dataset_scripts.rationales.quality.gate import Verdict
from helpers.rationale_runs import PERSPECTIVES, ScriptedEngine, contents, go, make_posts, new_store


def by_faults(answer, **_):
    """A gate for answers that name their own faults: "text|fault,fault"."""
    text, _, faults = answer.partition("|")
    return Verdict(text or None, tuple(faults.split(",")) if faults else (), ("newline",))


def answers(*texts):
    """An engine whose answers to one question are `texts`, in order."""
    return ScriptedEngine(lambda number, post, perspective, attempt: Answer(texts[attempt], prompt_tokens=10))


@pytest.mark.parametrize(
    ("texts", "kept", "status", "flags"),
    [
        (["good"], "good", "ok", ["newline"]),
        (["a|short", "good"], "good", "ok", ["newline"]),
        (["a|short,loop", "b|short", "c|loop"], "b", "flagged", ["short", "newline"]),
        (["a|short", "b|loop", "c|short"], "a", "flagged", ["short", "newline"]),
        (["|empty", "b|short,loop", "|empty"], "b", "flagged", ["short", "loop", "newline"]),
        (["|empty", "|empty", "|empty"], None, "failed", ["empty", "newline"]),
    ],
)
def test_the_answer_with_the_fewest_faults_is_kept_the_earliest_of_them(tmp_path, texts, kept, status, flags):
    store, engine = new_store(tmp_path), answers(*texts)
    report = go(make_posts(1), store, engine, gate=by_faults)
    (row,) = store.rows()
    assert (row["rationale_neutral"], row["status_neutral"], row["flags_neutral"]) == (kept, status, flags)
    assert row["attempts_neutral"] == len(texts) and row["prompt_tokens_neutral"] == 10 * len(texts)
    assert (row["error_neutral"] is None) == (kept is not None) and row["cached_tokens_neutral"] is None
    assert report.re_asked == 3 * (len(texts) - 1)


def test_how_often_the_gate_may_send_back_is_a_setting(tmp_path):
    engine = answers("a|short", "good")
    report = go(make_posts(1), new_store(tmp_path), engine, gate=by_faults, max_re_asks=0)
    assert (report.flagged, len(engine.asked)) == (3, 3)


def test_a_usable_answer_outlives_a_failing_re_ask(tmp_path):
    def script(number, post, perspective, attempt):
        if attempt:
            raise PermanentError("too long now")
        return Answer("a|short")

    store = new_store(tmp_path)
    report = go(make_posts(1), store, ScriptedEngine(script), gate=by_faults)
    assert report.flagged == 3 and contents(store)["p0"]["neutral"] == ("a", "flagged")


def test_the_gate_is_told_of_the_post_and_of_its_other_rationales_but_of_no_label(tmp_path):
    calls = []

    def gate(answer, **known):
        calls.append(known | {"siblings": dict(known["siblings"])})
        return Verdict(f"{known['perspective']}!")

    go([make_posts(1)[0] | {"label": 2}], new_store(tmp_path), FakeEngine(), gate=gate)
    first, second, third = PERSPECTIVES
    assert [call["perspective"] for call in calls] == [first, second, third]
    assert [call["siblings"] for call in calls] == [
        {},
        {first: f"{first}!"},
        {first: f"{first}!", second: f"{second}!"},
    ]
    keys = {"perspective", "language", "finish_reason", "post_text", "siblings"}
    assert all(call.keys() == keys for call in calls)
    assert calls[0]["post_text"] == "what happened on day 0" and calls[0]["language"] == "en"


def test_answers_that_were_sent_back_are_remembered_over_a_restart(tmp_path):
    def dies_at_the_second(number, post, perspective, attempt):
        if attempt == 1:
            raise KeyError("the process ends here")
        return Answer("a|short")

    store = new_store(tmp_path)
    with pytest.raises(KeyError):
        go(make_posts(1), store, ScriptedEngine(dies_at_the_second), gate=by_faults)
    engine = ScriptedEngine(lambda number, post, perspective, attempt: Answer(f"{attempt}|short,loop"))
    go(make_posts(1), store, engine, gate=by_faults)
    assert [attempt for _, _, attempt in engine.asked] == [1, 1, 1, 2, 2, 2]
    (row,) = store.rows()
    assert (row["rationale_neutral"], row["flags_neutral"]) == ("a", ["short", "newline"])
    assert row["attempts_neutral"] == 3


def test_a_perspective_that_is_done_is_a_sibling_of_those_asked_later(tmp_path):
    def one_fails(number, post, perspective, attempt):
        if perspective == "neutral":
            raise PermanentError("no")

    store, seen = new_store(tmp_path), []

    def gate(answer, **known):
        seen.append(dict(known["siblings"]))
        return Verdict(answer)

    go(make_posts(1), store, ScriptedEngine(one_fails), gate=gate)
    go(make_posts(1), store, FakeEngine(), gate=gate, retry_failed=True)
    assert seen[-1].keys() == {"positive", "negative"} and contents(store)["p0"]["neutral"][1] == "ok"
