"""Runs in which every post, or one among many, fails in the same way."""

import PIL.Image
import pytest

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.errors import (
    MisconfiguredError,
    OutageError,
    PermanentError,
    QuotaError,
    RetryableError,
)
from helpers.rationale_runs import ScriptedEngine, contents, make_posts, new_store, run_engines, statuses

REFUSAL = Answer("I'm sorry, but I cannot help with that request.", "stop")


def failing(error, fails=lambda post, number: True):
    """Create an engine that raises an error, or answers with it, where `fails` says so."""

    def script(number, post, perspective, attempt):
        if fails(post, number):
            if isinstance(error, Answer):
                return error
            raise error
        return None

    return ScriptedEngine(script)


def is_number(number):
    return lambda post, _: post.post_id == f"p{number}"


def with_image(post, _):
    return post.image is not None


def posts_with_images(folder, count, size=(40, 40)):
    """Make posts of which every second one has an image, each of another content."""
    posts = make_posts(count)
    for number in range(0, count, 2):
        posts[number]["image"] = str(folder / f"{number}.png")
        PIL.Image.new("RGB", size, (number, 0, 0)).save(posts[number]["image"])
    return posts


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
def test_one_refused_post_among_answered_ones_is_its_own_failure(store, status):
    kind = PermanentError if status in (400, 422) else MisconfiguredError
    engine = failing(kind(f"status {status}: blocked", status=status), is_number(20))
    report = run_engines(make_posts(40), store, engine, concurrency=3, preparation_threads=1)
    assert (report.ok, report.failed, report.absent) == (117, 3, 3)
    assert report.errors.lines("failed") == [f"failed: status {status} 3, e.g. post 'p20': status {status}: blocked"]
    assert run_engines(make_posts(40), store, engine).absent == 3


def test_a_moderated_post_may_be_the_first_one(store):
    engine = failing(MisconfiguredError("moderation", status=403), is_number(0))
    assert run_engines(make_posts(4), store, engine, concurrency=1).failed == 3


@pytest.mark.parametrize("status", [401, 404, 405])
def test_a_run_stops_at_the_first_request_before_any_answer(store, status):
    engine = failing(MisconfiguredError("no", status=status))
    with pytest.raises(MisconfiguredError, match="no"):
        run_engines(make_posts(40), store, engine, concurrency=3)
    assert len(engine.asked) < 12 and "failed" not in statuses(store)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MisconfiguredError("key revoked", status=401), MisconfiguredError),
        (MisconfiguredError("forbidden", status=403), MisconfiguredError),
        (MisconfiguredError("the model was unloaded", status=404), MisconfiguredError),
        (PermanentError("this model does not support image input", status=400), MisconfiguredError),
        (RetryableError("<html>Bad gateway</html>", reason="unreadable reply"), OutageError),
        (REFUSAL, MisconfiguredError),
    ],
    ids=["401", "403", "404", "400", "html", "refusal"],
)
@pytest.mark.parametrize("first", [0, 30], ids=["from the start", "midway"])
def test_a_run_in_which_everything_fails_stops_and_the_same_run_goes_on_later(tmp_path, error, kind, first):
    store = new_store(tmp_path / "s", num_shards=3)
    with pytest.raises(kind) as stop:
        run_engines(make_posts(90), store, failing(error, lambda post, number: number >= first), concurrency=6)
    assert set(statuses(store)) <= {"ok", "open"}
    message = str(stop.value)
    expected = str(error) if isinstance(error, Exception) else "I'm sorry"
    assert expected in message and len(message) <= 400
    if first or not isinstance(error, MisconfiguredError) or error.status == 403:
        assert "20 posts in a row failed" in message and "none of these failures was recorded" in message
    run_engines(make_posts(90), store, ScriptedEngine())
    assert statuses(store)["ok"] >= 268 and set(statuses(store)) <= {"ok", "flagged"}


def test_an_empty_account_stops_the_run_also_after_answers(store):
    with pytest.raises(QuotaError, match="insufficient_quota"):
        engine = failing(QuotaError("insufficient_quota", status=429), lambda post, number: number >= 30)
        run_engines(make_posts(40), store, engine, concurrency=3)
    assert len(engine.asked) <= 36 and set(statuses(store)) == {"ok", "open"}


def test_answers_to_texts_do_not_hide_that_every_image_is_refused(tmp_path, store):
    posts = posts_with_images(tmp_path, 60)
    error = PermanentError("this model does not support image input", status=400)
    with pytest.raises(MisconfiguredError, match="20 posts in a row failed.*does not support image"):
        run_engines(posts, store, failing(error, with_image), concurrency=3)
    assert set(statuses(store)) == {"ok", "open"}
    assert run_engines(posts, store, ScriptedEngine()).failed == 0
    assert statuses(store) == {"ok": 180}


def test_answers_to_small_images_do_not_hide_that_large_requests_are_refused(tmp_path, store):
    (tmp_path / "small").mkdir()
    small = [post | {"id": f"small {post['id']}"} for post in posts_with_images(tmp_path / "small", 44)]
    large = posts_with_images(tmp_path, 44, size=(100, 100))
    posts = [post for pair in zip(small, large, strict=True) for post in pair]
    smallest = 1 << 30

    def is_large(post, _):
        nonlocal smallest
        if post.image is not None and post.post_id.startswith("small"):
            smallest = min(smallest, len(post.image))
        return post.image is not None and not post.post_id.startswith("small")

    with pytest.raises(MisconfiguredError, match=r"20 posts in a row failed.*status 413.*lower --max_pixels"):
        run_engines(posts, store, failing(PermanentError("too large", status=413), is_large), concurrency=3)
    assert set(statuses(store)) == {"ok", "open"} and smallest < 1 << 30


@pytest.mark.parametrize("error", [PermanentError("no images", status=400), RetryableError("no content")])
def test_a_short_run_in_which_everything_fails_records_nothing(store, error):
    with pytest.raises((MisconfiguredError, OutageError), match="All posts of this run failed"):
        run_engines(make_posts(4), store, failing(error))
    assert "failed" not in statuses(store)
    assert run_engines(make_posts(4), store, ScriptedEngine()).ok == 12


def test_the_last_faulty_posts_of_an_earlier_run_are_recorded(store):
    run_engines(make_posts(10), store, ScriptedEngine())
    report = run_engines(make_posts(13), store, failing(PermanentError("too long", status=400)))
    assert (report.complete, report.failed, report.absent) == (10, 9, 9)


def test_faulty_posts_that_are_retried_do_not_stop_the_run(store):
    too_long = failing(PermanentError("too long", status=400), lambda post, _: post.post_id != "p39")
    with pytest.raises(MisconfiguredError, match="raise --failed_in_a_row"):
        run_engines(make_posts(40), store, too_long)
    assert run_engines(make_posts(40), store, too_long, failed_in_a_row=40).failed == 117
    assert run_engines(make_posts(40), store, too_long, retry_failed=True).failed == 117


def test_rejected_answers_are_counted_by_code_and_recorded_after_an_accepted_one(store):
    report = run_engines(make_posts(8), store, failing(REFUSAL, is_number(3)), concurrency=3)
    assert (report.ok, report.flagged, report.absent) == (21, 3, 0)
    (line,) = [line for line in report.flags.lines("flagged") if "refusal" in line]
    assert line.startswith("flagged: refusal 3, e.g. post 'p3': I'm sorry")
    assert contents(store)["p3"]["neutral"][1] == "flagged"


def test_only_the_most_frequent_reasons_are_listed(store):
    def script(number, post, perspective, attempt):
        day = int(post.post_id[1:])
        if day % 2:
            raise PermanentError("no " * 200, reason=f"reason {day // 4}")

    report = run_engines(make_posts(28), store, ScriptedEngine(script), concurrency=3, preparation_threads=1)
    lines = report.errors.lines("failed")
    assert len(lines) == 6 and lines[-1] == "failed: 2 other reasons 12"
    assert all(len(line) < 220 for line in lines)


def test_the_last_failures_of_a_shard_are_recorded_once_a_later_shard_is_answered(tmp_path):
    store = new_store(tmp_path / "s", num_shards=3)

    def script(number, post, perspective, attempt):
        shard_id = store.shard_of(post.text_sha256, None)
        if shard_id == 0:
            raise PermanentError("too long", status=400)
        if shard_id == 2:
            raise KeyError("the process ends here")

    with pytest.raises(KeyError):
        run_engines(make_posts(30), store, ScriptedEngine(script), concurrency=3)
    first, second, _ = store.status()
    assert first.published and first.posts > 0 and first.failed == 3 * first.posts and second.published
