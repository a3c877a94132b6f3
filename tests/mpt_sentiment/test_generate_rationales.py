"""Generation of rationales: runs and their resumption, and the commands around a store."""

import asyncio
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from dataset_scripts import load_posts
from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.store.store import RationaleStore
from helpers import tiny_lmm, train_command
from helpers.faulty_server import FaultyServer
from mpt_sentiment import commands
from mpt_sentiment.arguments import parse
from mpt_sentiment.commands.generate_rationales import main
from mpt_sentiment.generating import generate_rationales
from mpt_sentiment.generation_arguments import EngineArguments, GenerationArguments

ROOT = Path(__file__).parents[2]
FEW = '{"num_posts": 4}'


@pytest.fixture(scope="module")
def lmm(tmp_path_factory) -> Path:
    return tiny_lmm.build(tmp_path_factory.mktemp("lmm") / "tiny")


def call(command: str, **arguments: object) -> int | None:
    words = [command]
    for name, value in arguments.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [f"--{name}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in values)]
    return main(words)


def run(folder: Path, posts: int = 6, **arguments: object) -> int | None:
    return call("run", **{"output_dir": folder, "dataset_options": {"num_posts": posts}, "engine": "fake"} | arguments)


def rows(folder: Path) -> dict[str, dict]:
    """Rows of a store by post id, without columns that differ between two equal runs."""
    stored = list(RationaleStore.open(folder).rows())
    assert len({row["id"] for row in stored}) == len(stored)
    varying = ("attempts_", "prompt_tokens_", "cached_tokens_", "completion_tokens_")
    return {row["id"]: {name: row[name] for name in row if not name.startswith(varying)} for row in stored}


def interrupt_after(monkeypatch, engine: type, calls: int) -> None:
    """Send SIGINT to this process when the engine gets a certain call."""
    generate = engine.generate
    count = 0

    @functools.wraps(generate)
    async def interrupted(self, *args):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return await generate(self, *args)

    monkeypatch.setattr(engine, "generate", interrupted)


def in_a_notebook(function):
    """Call a function where an event loop is running, as in a cell."""

    async def cell():
        return function()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()


# --- runs ------------------------------------------------------------------------------------------------------------


def test_every_post_gets_every_perspective_and_is_asked_once(tmp_path, capsys, monkeypatch):
    assert not run(tmp_path / "s")
    posts = load_posts("sample", num_posts=6)
    stored = rows(tmp_path / "s")
    assert list(stored) == sorted(posts["id"])
    assert all(
        row[f"status_{name}"] == "ok" for row in stored.values() for name in ("positive", "neutral", "negative")
    )
    assert "18 rationales, ok 18" in capsys.readouterr().out
    monkeypatch.setattr(FakeEngine, "generate", None)  # any request would fail
    assert not run(tmp_path / "s")
    assert "0 rationales" in capsys.readouterr().out


@pytest.mark.parametrize("call_in", [lambda function: function(), in_a_notebook], ids=["script", "notebook"])
def test_python_returns_the_posts_with_their_rationales(tmp_path, call_in):
    posts = load_posts("sample", num_posts=9).remove_columns(["rationale_positive"])
    splits = datasets.DatasetDict({"train": posts.select(range(6)), "test": posts.select(range(6, 9))})
    with FaultyServer() as server:
        result = call_in(
            lambda: generate_rationales(splits, tmp_path / "s", endpoint=server.url, model="m", progress=False)
        )
    assert result.report.ok == 27 and result.store.spec.model == "m" and "27 rationales" in str(result)
    assert {body["model"] for body in server.requests} == {"m"}
    joined = load_posts("sample", num_posts=9, rationales=result.folder)
    assert {name: len(split) for name, split in result.posts.items()} == {"train": 6, "test": 3}
    for column in ("id", "rationale_positive", "rationale_negative"):
        assert [*result.posts["train"][column], *result.posts["test"][column]] == joined[column]
    with pytest.raises(ValueError, match="Unknown field 'perspective'. Did you mean 'perspectives'"):
        generate_rationales(splits, tmp_path / "s", engine="fake", perspective=["positive"])


def test_an_interrupted_cell_of_a_notebook_is_resumed(tmp_path, monkeypatch):
    posts = load_posts("sample", num_posts=20)
    generate = functools.partial(generate_rationales, posts, engine="fake", concurrency=3, progress=False)
    whole = generate(tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, FakeEngine, 10)
        with pytest.raises(KeyboardInterrupt, match="run it again to resume"):
            in_a_notebook(lambda: generate(tmp_path / "s"))
    recorded = sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())
    result = in_a_notebook(lambda: generate(tmp_path / "s"))
    assert recorded + result.report.ok == whole.report.ok
    assert rows(tmp_path / "s") == rows(tmp_path / "whole")


def test_parts_of_the_shards_make_the_whole(tmp_path, capsys):
    run(tmp_path / "whole", num_shards=5)
    for part in ("0/2", "1/2"):
        run(tmp_path / "parts", num_shards=5, shard_id=part)
        capsys.readouterr()
        call("status", output_dir=tmp_path / "parts")
        count = len(rows(tmp_path / "parts"))
        assert capsys.readouterr().out.splitlines()[-2].split() == ["all", str(count), str(3 * count), *"0000"]
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_shards_are_chosen_by_number_and_by_part():
    for words, shards in ((None, [*range(10)]), (["4", "0"], [0, 4]), (["2/3", "0"], [0, 6, 7, 8, 9])):
        assert GenerationArguments("x", shard_id=words).chosen_shards(10) == shards
    for word, message in (("10", "at most 9"), ("3/3", "at most 2/3"), ("1-2", "3/64")):
        with pytest.raises(ValueError, match=message):
            GenerationArguments("x", shard_id=[word]).chosen_shards(10)


def test_fields_left_out_are_those_of_the_store(tmp_path):
    run(tmp_path / "s", language="en", perspectives=["positive", "negative"], seed=5)
    assert not run(tmp_path / "s", posts=8)
    assert len(rows(tmp_path / "s")) == 8
    for field, message in (({"seed": 6}, "seed"), ({"prompt": "paper"}, "prompt"), ({"num_shards": 2}, "num_shards")):
        with pytest.raises(StoreError, match=f"{message}: "):
            run(tmp_path / "s", **field)


def test_a_prompt_of_the_user_defines_the_perspectives(tmp_path):
    words = load_prompt("default", "en").to_dict()["en"]
    words["readings"] = {"ironic": "not meaning what is said", "literal": "meaning what is said"}
    (tmp_path / "mine.yaml").write_text(json.dumps({"en": words}), encoding="utf-8")  # JSON is YAML
    posts = load_posts("sample", num_posts=6)
    result = generate_rationales(posts, tmp_path / "s", engine="fake", prompt=tmp_path / "mine.yaml", language="en")
    assert result.store.spec.perspectives == ("ironic", "literal")
    assert all(result.posts["rationale_ironic"])


# --- engines ---------------------------------------------------------------------------------------------------------


def test_a_model_in_this_process_is_interrupted_and_resumed(tmp_path, lmm, monkeypatch):
    model = {"engine": "transformers", "model": lmm, "device": "cpu", "max_tokens": 8, "max_re_asks": 0, "posts": 3}
    assert not run(tmp_path / "whole", **model)
    with monkeypatch.context() as patch:
        interrupt_after(patch, TransformersEngine, 4)
        assert run(tmp_path / "s", **model) == 130
    assert not run(tmp_path / "s", **model)
    whole = rows(tmp_path / "whole")
    assert rows(tmp_path / "s") == whole and len(whole) == 3
    # answers that the gate rejects are kept with their flags
    assert {row["status_neutral"] for row in whole.values()} == {"flagged"}
    assert all(row["flags_neutral"] for row in whole.values())


def test_a_server_is_checked_interrupted_and_resumed(tmp_path, capsys, monkeypatch):
    with FaultyServer() as server:
        assert call("check-server", model="m", endpoint=server.url) == 1  # it does not look at images
        assert "image canary" in capsys.readouterr().out
        run_it = functools.partial(run, tmp_path / "s", engine="endpoint", endpoint=server.url, model="m")
        with monkeypatch.context() as patch:
            interrupt_after(patch, EndpointEngine, 5)
            assert run_it(concurrency=2) == 130
        assert "run it again to resume" in capsys.readouterr().out
        answered = sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())
        requests = len(server.requests)
        assert 5 <= answered < 18
        assert not run_it()
        assert len(server.requests) - requests == 18 - answered


def test_several_processes_share_the_shards(tmp_path, lmm):
    # `accelerate launch` starts one process where there is no accelerator
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    engine = f"--engine transformers --device cpu --model {lmm} --max_tokens 4 --max_re_asks 0".split()
    posts = ["--output_dir", "s", "--dataset_options", FEW]
    environment = {"HF_HOME": "hf", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, str(ROOT / "examples" / "generate_rationales.py"), "run", *posts, *engine],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    store = RationaleStore.open(tmp_path / "s")
    assert [shard.published for shard in store.status()] == [True, True] and len(rows(tmp_path / "s")) == 4
    assert done.stdout.count("Rationales are in") == 2


# --- errors ----------------------------------------------------------------------------------------------------------


def test_exit_codes_and_one_line_for_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    unreachable = ["run", "--output_dir", "s", "--endpoint", "http://127.0.0.1:9", "--dataset_options", FEW]
    for words, code, message in (
        (unreachable, 75, "http://127.0.0.1:9: connection refused"),
        (["status", "--output_dir", "s"], 1, "no manifest.json"),
        (["ran"], 1, "'ran'.*Did you mean 'run'"),
    ):
        assert commands.main(["generate-rationales", *words]) == code
        line = capsys.readouterr().err.splitlines()[-1]
        assert re.match(f"error: .*{message}", line) and not Path("s").exists()


def test_the_exit_code_says_whether_rationales_are_missing_and_whether_to_try_again(tmp_path, capsys):
    def run_it(*words):
        posts = ["--output_dir", str(tmp_path / "s"), "--dataset_options", FEW, "--model", "m"]
        return commands.main(["generate-rationales", "run", *posts, "--endpoint", server.url, *words])

    def status():
        return sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())

    no_images = (400, {}, {"error": {"message": "This model does not support image input"}})
    too_long = (422, {}, {"error": {"message": "this post is too long"}})
    with FaultyServer(lambda number, body: no_images) as server:
        assert run_it() == 1 and "does not support image" in capsys.readouterr().err and status() == 0
        server.script = lambda number, body: (200, {"Content-Type": "text/html"}, "<html><title>Login</title></html>")
        assert run_it("--max_attempts", "1") == 75
        assert "All posts of this run failed" in capsys.readouterr().err and status() == 0
        first_post = []
        server.script = lambda number, body: too_long if body["messages"][1]["content"][:-1] == first_post else None
        first_post[:] = server.requests[0]["messages"][1]["content"][:-1]
        assert run_it() == 3 and status() == 9
        assert "failed: status 422 3, e.g. post 'sample-" in capsys.readouterr().out
        assert run_it() == 3 and "failed in earlier runs: 3" in capsys.readouterr().out
        server.script = lambda number, body: None
        assert run_it("--retry_failed") == 0 and status() == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--output_dir", "s", "--engine", "fake", "--conurrency", "3"], "Did you mean '--concurrency'"),
        (["run", "--output_dir", "s"], "--endpoint is missing"),
        (["run", "--output_dir", "s", "--engine", "vllm"], "one of endpoint, transformers, fake, got 'vllm'"),
        (["run", "--output_dir", "s", "--engine", "fake", "--endpoint", "http://x"], "--endpoint cannot be combined"),
        (
            ["run", "--output_dir", "s", "--engine", "fake", "--model", "m", "--dataset_options", FEW],
            "--model cannot be combined",
        ),
        (["check-server", "--endpoint", "http://x", "--api_key_env", "ABSENT"], "--api_key_env ABSENT"),
        (["run", "--engine", "fake"], "--output_dir"),
        (["plan", "--dataset_options", "{"], "is not JSON"),
        (["plan", "--price_hour", "2"], "--posts_per_second"),
        (["export", "--rationales", "r", "--output_file", "out.tsv"], "--dataset"),
    ],
)
def test_unusable_arguments_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        main(words)


def test_endpoints_may_be_repeated():
    words = ["--endpoint", "http://a", "http://b", "--endpoint", "http://c"]
    (engine,) = parse([EngineArguments], words, command="generate-rationales check-server")
    assert engine.endpoint == ["http://a", "http://b", "http://c"]


# --- other commands --------------------------------------------------------------------------------------------------


def test_the_plan_is_what_a_run_requests(tmp_path, capsys):
    prices = {"price_prompt": 1, "price_completion": 2}
    call("plan", dataset_options={"num_posts": 6}, output_file=tmp_path / "p.json", **prices)
    plan = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert "Image tokens" in capsys.readouterr().out
    run(tmp_path / "s")
    assert plan["answers"] == sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())
    assert plan["cost"] == pytest.approx((plan["prompt_tokens"] + 2 * plan["answer_tokens"]) / 1e6)


def test_train_masks_the_rationales_that_a_store_lacks(tmp_path, capsys):
    run(tmp_path / "s", posts=40, num_shards=2, shard_id=0, perspectives=["positive", "negative"])
    count = len(rows(tmp_path / "s"))
    assert 0 < count < 40
    options = {"dataset_options": {"num_posts": 40}, "rationales": tmp_path / "s", "num_train_epochs": 1}
    train_command.run(tmp_path / "m", **options)
    shown = capsys.readouterr().out
    for perspective in ("positive", "negative"):
        assert f"{40 - count} posts have no {perspective} rationale" in shown
    notes = json.loads((tmp_path / "m" / "metrics.json").read_text(encoding="utf-8"))["split"]["notes"]
    assert f"without a row in the rationale file: {40 - count}" in notes


def test_the_authors_file_is_imported_and_exported(tmp_path, capsys):
    good = "画面里的人都在笑，配文也说今天玩得很开心，图文一致，读来轻松愉快。"
    bad = "桌上的菜几乎没有动过，文字里又说等了一个小时，读来让人失望不满。"
    content = f'1\tp0/image_0.jpg\t今天 出去\t{good}\t"{bad}\n{bad[:12]}。"\n0\tn1/image_0.jpg\t排队 好久\t{good}\t\n'
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "ch.tsv").write_bytes(content.encode("gbk"))
    file, output = tmp_path / "theirs" / "ch.tsv", tmp_path / "authors.parquet"
    call("import", file=file, authors="ch_mits", output_file=output)
    assert "newline 1" in capsys.readouterr().out
    posts = {"dataset": "authors", "data_dir": tmp_path / "theirs", "dataset_options": {"images": False}}
    call("export", rationales=output, output_file=tmp_path / "out.tsv", **posts)
    exported = (tmp_path / "out.tsv").read_text(encoding="utf-8")
    # only the line break inside a rationale is replaced
    assert exported == content.replace(f'"{bad}\n{bad[:12]}。"', f"{bad} {bad[:12]}。")


def test_validate_reports_the_gate_and_the_leak_probe(tmp_path, capsys):
    run(tmp_path / "s", posts=30, perspectives=["neutral"])
    posts = {"dataset": "sample", "dataset_options": {"num_posts": 30}}
    files = {"rationales": tmp_path / "s", "output_file": tmp_path / "report.json"}
    assert call("validate", **files, **posts, folds=3) == 0
    assert "rejects 0.0% of the rationales" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(report["perspectives"]) == ["neutral"]  # without rationales of the posts themselves
    assert report["perspectives"]["neutral"]["rationales"] == 30 and report["leak"]["folds"] == 3
    assert call("validate", **files, **posts, folds=20) == 0  # too few posts for 20 folds
    assert "No leak probe" in capsys.readouterr().err


def test_too_many_rejected_rationales_have_their_own_exit_code(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("id,rationale_positive\na,Nice.\nb,Good.\n")
    assert call("validate", rationales=tmp_path / "r.csv") == 3
    assert "hard: short" in capsys.readouterr().out
    assert call("validate", rationales=tmp_path / "r.csv", threshold=1) == 0


def test_the_card_of_a_built_dataset_and_an_exported_table_name_model_and_prompt(tmp_path):
    run(tmp_path / "s", posts=30)
    options = ["--dataset_options", '{"num_posts": 30}', "--rationales", str(tmp_path / "s")]
    commands.main(["build-dataset", "sample", "--output_dir", str(tmp_path / "posts"), *options])
    card = (tmp_path / "posts" / "README.md").read_text(encoding="utf-8")
    assert "model: fake" in card and "prompt: default (" in card and str(tmp_path) not in card
    call("export", rationales=tmp_path / "s", output_file=tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 30 and lines[0]["provenance"].startswith("model fake; prompt default (")
