"""Batches of requests, and the store that a run with a server would have written."""

import functools
import json
import zlib

import pytest

from dataset_scripts import load_posts
from dataset_scripts.rationales.errors import MisconfiguredError
from dataset_scripts.rationales.store.store import RationaleStore
from helpers.batch_runner import run_batch
from helpers.faulty_server import FaultyServer, answer
from mpt_sentiment import commands
from mpt_sentiment.batching import ExportBatchArguments, ImportBatchArguments, export_batch, import_batch
from mpt_sentiment.generating import generate_rationales
from mpt_sentiment.generation_arguments import SpecArguments

POSTS = 12
SPEC = {"model": "m", "language": "en"}


@pytest.fixture(scope="module")
def posts():
    return load_posts("sample", num_posts=POSTS)


def export(posts, folder, number=0, **options):
    args = ExportBatchArguments(str(folder / "s"), str(folder / f"batch{number}"), **options)
    return export_batch(posts, SpecArguments(**SPEC), args, progress=False)


def read(posts, folder, *files, on_error="raise"):
    args = ImportBatchArguments(str(folder / "s"), [str(file) for file in files])
    return import_batch(posts, SpecArguments(), args, on_error=on_error, progress=False)


def respond(body):
    """Answer so that the gate rejects some first and second answers."""
    kind = zlib.crc32(json.dumps(body["messages"]).encode()) % 4
    return 200, answer(body, finish_reason="length") if body["seed"] < kind - 1 else answer(body)


def rows(folder):
    return sorted(RationaleStore.open(folder / "s").rows(), key=lambda row: row["id"])


@pytest.fixture(scope="module")
def online(posts, tmp_path_factory):
    """Folder of a run with a server that gives the same answers, and the requests that it got."""
    folder = tmp_path_factory.mktemp("online")
    with FaultyServer(lambda number, body: (200, {}, respond(body)[1])) as server:
        generate_rationales(
            posts, folder / "s", endpoint=server.url, profile="openai", progress=False, num_shards=2, **SPEC
        )
        return folder, server.requests


def test_batches_write_the_store_of_a_run_with_a_server(posts, online, tmp_path):
    sent, rounds = [], []
    for number in range(4):
        exported = export(posts, tmp_path, number, num_shards=2 if number == 0 else None)
        if not exported.files:
            break
        rounds.append(exported.requests)
        outputs = []
        for file in exported.files:
            outputs.append(file.with_suffix(".out"))
            sent += [request["body"] for request in run_batch(file, outputs[-1], respond=respond)]
        imported = read(posts, tmp_path, *outputs)
        assert imported.report.requests == exported.requests and len(imported.answers.used) == exported.requests
        assert (imported.open > 0) == (number < 2)
    assert rounds[0] == 3 * POSTS and len(rounds) == 3 and rounds == sorted(rounds, reverse=True)
    folder, requests = online
    assert rows(tmp_path) == rows(folder)
    assert sum(shard.published for shard in RationaleStore.open(tmp_path / "s").status()) == 2
    without_stream = [{name: body[name] for name in body if name != "stream"} for body in requests]
    key = functools.partial(json.dumps, sort_keys=True)
    assert sorted(sent, key=key) == sorted(without_stream, key=key)
    assert not (tmp_path / "batch3").exists()


def test_requests_of_a_post_are_adjacent_with_its_image_and_files_are_split_at_both_limits(posts, tmp_path):
    (file,) = export(posts, tmp_path).files
    lines = file.read_bytes().splitlines(keepends=True)
    requests = [json.loads(line) for line in lines]
    assert len({request["custom_id"] for request in requests}) == 3 * POSTS
    assert all(len(request["custom_id"]) <= 64 and request["custom_id"].endswith("-0") for request in requests)
    contents = [request["body"]["messages"][1]["content"] for request in requests]
    assert all(content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,") for content in contents)
    assert all(contents[number][:-1] == contents[number + 1][:-1] for number in range(0, len(contents), 3))
    exported = export(posts, tmp_path, 1, max_requests=10)
    assert [file.name for file in exported.files] == [f"requests-{number:05d}.jsonl" for number in range(4)]
    assert content_of(exported.files) == sorted(lines)
    limit = max(map(len, lines)) * 5 / 1e6
    files = export(posts, tmp_path, 2, max_megabytes=limit).files
    assert all(file.stat().st_size <= limit * 1e6 for file in files) and len(files) > 3
    assert content_of(files) == sorted(lines)


def content_of(files):
    """Lines of all files, sorted, since images are prepared in threads."""
    return sorted(line for file in files for line in file.read_bytes().splitlines(keepends=True))


def test_an_export_leaves_all_files_or_none(posts, tmp_path):
    with pytest.raises(MisconfiguredError, match=r"its request has .* MB, more than a file.*--max_megabytes"):
        export(posts, tmp_path, max_megabytes=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]
    export(posts, tmp_path)
    (tmp_path / ".batch1.1.tmp").mkdir()  # of an export that was killed
    export(posts, tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch0", "batch1", "s"]
    with pytest.raises(ValueError, match="batch0 exists and is not empty"):
        export(posts, tmp_path)


@pytest.mark.parametrize("own_file", [True, False], ids=["OpenAI", "vLLM"])
def test_errors_of_a_batch_fail_the_post_or_are_exported_again(posts, tmp_path, own_file):
    statuses = {0: 400, 1: 429, 2: 500, 3: None}
    words = {400: "the image is too long", 429: "rate limit", 500: "internal"}

    def failing(body):
        post = posts_seen.setdefault(json.dumps(body["messages"][1]["content"][:-1]), len(posts_seen))
        status = statuses.get(post, 200)
        return status, answer(body) if status == 200 else {"error": {"message": words.get(status), "code": None}}

    posts_seen = {}
    (file,) = export(posts, tmp_path).files
    output, errors = file.with_suffix(".out"), file.with_suffix(".err") if own_file else None
    run_batch(file, output, errors, respond=failing)
    files = [output, errors] if own_file else [output]
    for new in (True, False):
        imported = read(posts, tmp_path, *files)
        assert (imported.report.ok, imported.open) == (3 * (POSTS - 4) if new else 0, 9)
        assert imported.report.errors.counts == {"status 400": 3}
        assert imported.answers.unanswered.counts == {"status 429": 3, "status 500": 3, "batch_expired": 3}
        assert "status 429 3, e.g. post" in str(imported) and "9 rationales are missing" in str(imported)
    assert {row["error_neutral"] for row in rows(tmp_path)} >= {"permanent: status 400: the image is too long"}
    again = export(posts, tmp_path, 1)
    assert again.requests == 9 and again.report.failed_before == 3
    assert export(posts, tmp_path, 2, retry_failed=True).requests == 12
    run_batch(again.files[0], output)
    imported = read(posts, tmp_path, output)
    assert (imported.open, imported.failed) == (0, 3) and "3 rationales of the store failed" in str(imported)
    assert all(shard.published for shard in RationaleStore.open(tmp_path / "s").status())
    run_batch(tmp_path / "batch2" / "requests-00000.jsonl", output)
    imported = read(posts, tmp_path, output)
    assert (imported.open, imported.failed) == (0, 0)
    assert {row[f"status_{name}"] for row in rows(tmp_path) for name in ("positive", "negative")} == {"ok"}


def test_a_batch_in_which_everything_fails_records_nothing(posts, tmp_path):
    (file,) = export(posts, tmp_path).files
    refusal = {"error": {"message": "this model does not support image input", "code": "invalid_request_error"}}
    run_batch(file, tmp_path / "out", respond=lambda body: (400, refusal))
    with pytest.raises(MisconfiguredError, match="does not support image"):
        read(posts, tmp_path, tmp_path / "out")
    assert all(shard.failed == 0 for shard in RationaleStore.open(tmp_path / "s").status())
    run_batch(file, tmp_path / "out")
    assert read(posts, tmp_path, tmp_path / "out").open == 0


def test_another_model_is_not_recorded(posts, tmp_path):
    (file,) = export(posts, tmp_path).files
    run_batch(file, tmp_path / "out", respond=lambda body: (200, answer(body) | {"model": "qwen"}))
    with pytest.raises(MisconfiguredError, match="qwen"):
        read(posts, tmp_path, tmp_path / "out")
    assert all(shard.ok == 0 for shard in RationaleStore.open(tmp_path / "s").status())


def test_faulty_lines_are_named_or_counted(posts, tmp_path):
    (file,) = export(posts, tmp_path).files
    output = tmp_path / "out.jsonl"
    run_batch(file, output)
    first, second, *others = output.read_text(encoding="utf-8").splitlines(keepends=True)
    foreign = first.replace(json.loads(first)["custom_id"], f"{'0' * 48}-0")
    nothing = json.dumps({"id": "b", "custom_id": "x", "response": None, "error": None}) + "\n"
    output.write_text("".join([second, *others, foreign, nothing, second, first[:50]]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"out.jsonl, line {3 * POSTS + 1} has neither a response nor an error"):
        read(posts, tmp_path, output)
    imported = read(posts, tmp_path, output, on_error="skip")
    assert imported.lines.skipped == {"line without response": 1, "damaged line": 1}
    assert imported.open == 1 and imported.report.ok == 3 * POSTS - 1
    text = str(imported)
    assert "custom_id of no request of this store" in text and "repeated custom_id" in text
    assert f"{3 * POSTS + 3} lines: {3 * POSTS} requests, {3 * POSTS - 1} of them new" in text


def test_commands_export_import_and_end_with_the_code_for_missing_rationales(tmp_path, capsys):
    def call(command, *words):
        posts = ["--dataset_options", '{"num_posts": 4}', "--output_dir", str(tmp_path / "s")]
        return commands.main(["generate-rationales", command, *posts, *words])

    batch, output = str(tmp_path / "b"), tmp_path / "out.jsonl"
    assert call("export-batch", "--batch_dir", batch, "--model", "m", "--profile", "vllm") == 0
    assert "12 requests in 1 file" in capsys.readouterr().out
    requests = run_batch(tmp_path / "b" / "requests-00000.jsonl", output)
    assert requests[0]["body"]["chat_template_kwargs"] == {"enable_thinking": False}
    content = output.read_text(encoding="utf-8").splitlines(keepends=True)
    output.write_text("".join(content[:-1]), encoding="utf-8")
    assert call("import-batch", "--files", str(output)) == 3
    assert "1 rationales are missing or were rejected: export them again" in capsys.readouterr().out
    output.write_text("".join(content), encoding="utf-8")
    assert call("import-batch", "--files", str(output)) == 0
    assert call("export-batch", "--batch_dir", str(tmp_path / "c")) == 0
    assert "lacks no answer" in capsys.readouterr().out and not (tmp_path / "c").exists()
