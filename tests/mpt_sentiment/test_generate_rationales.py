"""`examples/generate_rationales.py` from the command line: run, stop, go on, look, judge, and hand over."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

import mpt_sentiment.building as build_dataset
import mpt_sentiment.generating as generate_rationales
import mpt_sentiment.training as train
from dataset_scripts import load_posts
from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.store.store import RationaleStore
from helpers import tiny_lmm
from mpt_sentiment.rationale_arguments import RunArguments, parse

SCRIPT = Path(generate_rationales.__file__)
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TRAIN = {
    "dataset_options": {"num_posts": 40},
    "text_config": {"model_type": "bert", "vocab_size": 300, "max_position_embeddings": 64} | TINY,
    "vision_config": {"model_type": "vit", "image_size": 16, "patch_size": 8} | TINY,
} | {"hidden_size": 16, "num_train_epochs": 1, "bf16": False, "disable_tqdm": True}


@pytest.fixture(scope="module", autouse=True)
def datasets_cache(tmp_path_factory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets_cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def lmm(tmp_path_factory) -> Path:
    return tiny_lmm.build(tmp_path_factory.mktemp("lmm") / "tiny")


def call(command: str, **arguments: object) -> int:
    words = [command]
    for name, value in arguments.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [f"--{name}", *(json.dumps(one) if isinstance(one, dict) else str(one) for one in values)]
    return generate_rationales.main(words)


def run(folder: Path, posts: int = 6, **arguments: object) -> int:
    return call("run", **{"output_dir": folder, "dataset_options": {"num_posts": posts}, "engine": "fake"} | arguments)


def rows(folder: Path) -> dict[str, dict]:
    """Rows of a store by the id of the post, without what differs between two runs of the same."""
    found = list(RationaleStore.open(folder).rows())
    assert len({row["id"] for row in found}) == len(found)
    passing = ("attempts_", "prompt_tokens_", "cached_tokens_", "completion_tokens_")
    return {row["id"]: {name: row[name] for name in row if not name.startswith(passing)} for row in found}


def interrupt_after(monkeypatch, engine: type, calls: int) -> None:
    """Ctrl-C while the engine works on its `calls`-th answer."""
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


def test_every_post_gets_every_perspective_and_is_asked_once(tmp_path, capsys, monkeypatch):
    assert run(tmp_path / "s") == 0
    posts = load_posts("sample", num_posts=6)
    found = rows(tmp_path / "s")
    assert list(found) == sorted(posts["id"])
    assert all(row[f"status_{name}"] == "ok" for row in found.values() for name in ("positive", "neutral", "negative"))
    assert "18 rationales, ok 18" in capsys.readouterr().out
    monkeypatch.setattr(FakeEngine, "generate", None)  # asking again would fail
    assert run(tmp_path / "s") == 0
    assert "0 rationales" in capsys.readouterr().out


def test_the_status_is_read_from_the_files(tmp_path, capsys):
    run(tmp_path / "s", num_shards=2, shard_id=0)
    capsys.readouterr()
    assert call("status", output_dir=tmp_path / "s") == 0
    shown = capsys.readouterr().out
    count = len(rows(tmp_path / "s"))
    assert 0 < count < 6
    assert shown.splitlines()[1].split() == ["0", str(count), str(3 * count), "0", "0", "0", "0", "published"]
    assert "1 of 2 shards begun, 1 published" in shown


def test_parts_of_the_shards_make_the_whole(tmp_path):
    run(tmp_path / "whole", num_shards=5)
    for part in ("0/2", "1/2"):
        run(tmp_path / "parts", num_shards=5, shard_id=part)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    "words, shards",
    [(None, None), (["3"], [3]), (["4", "0"], [0, 4]), (["0/3"], [0, 1, 2]), (["2/3", "0"], [0, 6, 7, 8, 9])],
)
def test_shards_by_number_and_by_part(words, shards):
    assert RunArguments("x", shard_id=words).shards(10) == shards


@pytest.mark.parametrize("word, said", [("10", "the last is 9"), ("3/3", "the last is 2/3"), ("1-2", "like 3/64")])
def test_a_shard_that_is_not_there_is_said(word, said):
    with pytest.raises(ValueError, match=said):
        RunArguments("x", shard_id=[word]).shards(10)


def test_an_interrupted_run_goes_on_and_ends_as_an_undisturbed_one(tmp_path, capsys, monkeypatch):
    run(tmp_path / "whole", posts=20)
    with monkeypatch.context() as patch:
        interrupt_after(patch, FakeEngine, 10)
        assert run(tmp_path / "s", posts=20, concurrency=3) == 130
    assert "the same command goes on" in capsys.readouterr().out
    recorded = sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())
    assert 10 <= recorded < 60  # what was in flight is there
    assert run(tmp_path / "s", posts=20) == 0
    assert rows(tmp_path / "s") == rows(tmp_path / "whole")


def test_what_is_not_said_is_as_in_the_store(tmp_path):
    run(tmp_path / "s", language="en", perspectives=["positive", "negative"], seed=5)
    assert run(tmp_path / "s", posts=8) == 0
    assert len(rows(tmp_path / "s")) == 8
    with pytest.raises(StoreError, match="seed: 5, not 6"):
        run(tmp_path / "s", seed=6)
    with pytest.raises(StoreError, match="prompt: 'default', not 'paper'"):
        run(tmp_path / "s", prompt="paper")
    with pytest.raises(StoreError, match="num_shards: 1, not 2"):
        run(tmp_path / "s", num_shards=2)


def test_a_prompt_of_ones_own(tmp_path):
    words = load_prompt("default", "en").to_dict()["en"]
    words["readings"] = {"ironic": "not meaning what is said", "literal": "meaning what is said"}
    # JSON is YAML too
    (tmp_path / "mine.yaml").write_text(json.dumps({"en": words}), encoding="utf-8")
    assert run(tmp_path / "s", prompt=tmp_path / "mine.yaml", language="en") == 0
    assert RationaleStore.open(tmp_path / "s").spec.perspectives == ("ironic", "literal")


def test_a_model_in_this_process_is_stopped_and_goes_on(tmp_path, lmm, monkeypatch):
    own = {"engine": "transformers", "model": lmm, "device": "cpu", "max_tokens": 12, "posts": 4}
    assert run(tmp_path / "whole", **own) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, TransformersEngine, 5)
        assert run(tmp_path / "s", **own) == 130
    assert run(tmp_path / "s", **own) == 0
    whole = rows(tmp_path / "whole")
    assert rows(tmp_path / "s") == whole and len(whole) == 4
    # noise that the gate refuses is kept, with its flags, and no post is lost
    assert {row["status_neutral"] for row in whole.values()} == {"flagged"}
    assert all(row["flags_neutral"] for row in whole.values())


def test_a_server_is_examined_asked_stopped_and_asked_again(tmp_path, lmm, capsys, monkeypatch):
    if reason := tiny_lmm.missing_for_serve():
        pytest.skip(reason)
    asked = {"model": lmm, "max_tokens": 12}
    # sampling differs between a server and this process, greedy decoding does not
    own = asked | {"posts": 4, "max_re_asks": 0}
    assert run(tmp_path / "alone", **own, engine="transformers", device="cpu") == 0
    with tiny_lmm.serve(lmm, tmp_path / "home") as url:
        server = {"endpoint": url, "profile": "transformers", "wait_for_server": 60}
        assert call("doctor", **asked, **server, max_pixels=28 * 28 * 64) == 0
        assert "ok      image canary" in capsys.readouterr().out
        with monkeypatch.context() as patch:
            interrupt_after(patch, EndpointEngine, 5)
            assert run(tmp_path / "s", **own, **server, engine="endpoint", concurrency=2) == 130
        assert run(tmp_path / "s", **own, **server, engine="endpoint") == 0
    served, alone = rows(tmp_path / "s"), rows(tmp_path / "alone")
    for row in [*served.values(), *alone.values()]:
        del row["system_fingerprint"]
    assert served == alone and len(served) == 4


def test_several_processes_share_the_shards(tmp_path, lmm):
    # what `accelerate launch` starts; by itself it runs one process where there is no accelerator
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT), "run"]
    own = [
        "--engine",
        "transformers",
        "--device",
        "cpu",
        "--model",
        str(lmm),
        "--max_tokens",
        "4",
        "--max_re_asks",
        "0",
    ]
    words = ["--output_dir", str(tmp_path / "s"), "--dataset_options", '{"num_posts": 4}', *own]
    done = subprocess.run([*command, *words], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    store = RationaleStore.open(tmp_path / "s")
    assert [shard.published for shard in store.status()] == [True, True] and len(rows(tmp_path / "s")) == 4
    # each of them says what it did
    assert done.stdout.count("Rationales are in") == 2


def environment(tmp_path: Path, offline: str = "1") -> dict[str, str]:
    return os.environ | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": offline,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(SCRIPT.parents[1]),
    }


ABSENT = ["run", "--output_dir", "s", "--endpoint", "http://127.0.0.1:9", "--dataset_options", '{"num_posts": 2}']


@pytest.mark.parametrize(
    "words, offline, code, said",
    [
        (ABSENT, "0", 75, "http://127.0.0.1:9 does not answer"),
        (ABSENT, "1", 1, "Set HF_HUB_OFFLINE=0"),
        (["status", "--output_dir", "s"], "1", 1, "There is no store of rationales in s"),
    ],
)
def test_exit_codes_and_one_line_for_a_fault(tmp_path, words, offline, code, said):
    env = environment(tmp_path, offline)
    done = subprocess.run([sys.executable, str(SCRIPT), *words], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "s").exists()  # nor was a folder begun with what may have been a slip


@pytest.mark.parametrize(
    "words, said",
    [
        (["ran"], "no command 'ran'.*Did you mean 'run'"),
        (["run", "--output_dir", "s", "--engine", "fake", "--conurrency", "3"], "Did you mean '--concurrency'"),
        (["run", "--output_dir", "s"], "name the server: --endpoint"),
        (["run", "--output_dir", "s", "--engine", "vllm"], "write one of endpoint, transformers, fake"),
        (["run", "--output_dir", "s", "--engine", "fake", "--endpoint", "http://x"], "--endpoint goes with"),
        (["run", "--engine", "fake"], "--output_dir"),
        (["plan", "--dataset_options", "{"], "is not JSON"),
        (["plan", "--price_hour", "2"], "--posts_per_second"),
    ],
)
def test_arguments_that_make_no_sense(words, said):
    with pytest.raises(ValueError, match=said):
        parse(words, "")


def test_endpoints_may_be_repeated():
    words = ["run", "--output_dir", "s", "--endpoint", "http://a", "http://b", "--endpoint", "http://c"]
    _, (_, _, engine, _) = parse(words, "")
    assert engine.endpoint == ["http://a", "http://b", "http://c"]


def test_the_fake_engine_never_mixes_with_a_model(tmp_path):
    with pytest.raises(ValueError, match="leave out --model"):
        run(tmp_path / "s", model="m")
    run(tmp_path / "s")
    assert RationaleStore.open(tmp_path / "s").spec.model == "fake"


def test_a_key_comes_from_the_environment(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--api_key_env ABSENT"):
        run(tmp_path / "s", engine="endpoint", endpoint="http://127.0.0.1:9", api_key_env="ABSENT")


def test_the_plan_is_what_a_run_asks(tmp_path, capsys):
    options = {"num_posts": 6}
    assert (
        call("plan", dataset_options=options, output_file=tmp_path / "p.json", price_prompt=1, price_completion=2) == 0
    )
    plan = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert "Image tokens" in capsys.readouterr().out
    run(tmp_path / "s")
    assert plan["answers"] == sum(shard.ok for shard in RationaleStore.open(tmp_path / "s").status())
    assert plan["cost"] == pytest.approx((plan["prompt_tokens"] + 2 * plan["answer_tokens"]) / 1e6)


def test_train_takes_a_store_and_masks_what_it_lacks(tmp_path, capsys, monkeypatch):
    run(tmp_path / "s", posts=40, num_shards=2, shard_id=0, perspectives=["positive", "negative"])
    there = len(rows(tmp_path / "s"))
    assert 0 < there < 40
    (tmp_path / "r.yaml").write_text(json.dumps(TRAIN), encoding="utf-8")
    words = [
        "train.py",
        str(tmp_path / "r.yaml"),
        "--rationales",
        str(tmp_path / "s"),
        "--output_dir",
        str(tmp_path / "m"),
    ]
    monkeypatch.setattr(sys, "argv", words)
    train.main()
    shown = capsys.readouterr().out
    for perspective in ("positive", "negative"):
        assert f"{40 - there} posts have no {perspective} rationale; they are trained with it masked" in shown
    notes = json.loads((tmp_path / "m" / "metrics.json").read_text(encoding="utf-8"))["split"]["notes"]
    assert f"without a row in the rationale file: {40 - there}" in notes


def test_the_authors_file_goes_in_and_comes_out(tmp_path, capsys):
    good = "画面里的人都在笑，配文也说今天玩得很开心，图文一致，读来轻松愉快。"
    bad = "桌上的菜几乎没有动过，文字里又说等了一个小时，读来让人失望不满。"
    content = f'1\tp0/image_0.jpg\t今天 出去\t{good}\t"{bad}\n{bad[:12]}。"\n0\tn1/image_0.jpg\t排队 好久\t{good}\t\n'
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "ch.tsv").write_bytes(content.encode("gbk"))
    file, output = tmp_path / "theirs" / "ch.tsv", tmp_path / "authors.parquet"
    assert call("import", file=file, authors="ch_mits", output_file=output) == 0
    assert "newline 1" in capsys.readouterr().out
    posts = {"dataset": "authors", "data_dir": tmp_path / "theirs", "dataset_options": {"images": False}}
    assert call("export", rationales=output, output_file=tmp_path / "out.tsv", **posts) == 0
    back = (tmp_path / "out.tsv").read_text(encoding="utf-8")
    # line breaks inside a rationale are mended, all else is as it was
    assert back == content.replace(f'"{bad}\n{bad[:12]}。"', f"{bad} {bad[:12]}。")
    with pytest.raises(ValueError, match="name the posts with --dataset"):
        call("export", rationales=output, output_file=tmp_path / "out.tsv")


def test_a_store_is_exported_with_where_it_comes_from(tmp_path):
    run(tmp_path / "s", posts=3)
    assert call("export", rationales=tmp_path / "s", output_file=tmp_path / "out.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert lines[0]["provenance"].startswith("model fake; prompt default (")
    joined = load_posts("sample", num_posts=3, rationales=tmp_path / "out.jsonl")
    assert (
        joined["rationale_neutral"]
        == load_posts("sample", num_posts=3, rationales=tmp_path / "s")["rationale_neutral"]
    )


def test_validate_judges_a_store_and_probes_it_for_the_label(tmp_path, capsys):
    run(tmp_path / "s", posts=60)
    posts = {"dataset": "sample", "dataset_options": {"num_posts": 60}}
    judged = {"rationales": tmp_path / "s", "output_file": tmp_path / "report.json"}
    assert call("validate", **judged, **posts, folds=3) == 0
    shown = capsys.readouterr().out
    assert "0.0% of the rationales have a hard flag" in shown and "all rationales" in shown
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["perspectives"]["neutral"]["rationales"] == 60 and report["leak"]["folds"] == 3
    assert call("validate", **judged, **posts, folds=40) == 0  # too few posts for that: said, not fatal
    assert "No leak probe" in capsys.readouterr().err


def test_too_many_flags_are_an_exit_code_of_their_own(tmp_path, capsys):
    lines = [{"id": str(number), "rationale_positive": "Nice."} for number in range(10)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert call("validate", rationales=tmp_path / "r.jsonl") == 3
    assert "hard: short" in capsys.readouterr().out
    assert call("validate", rationales=tmp_path / "r.jsonl", threshold=1) == 0


def test_only_what_was_written_is_validated_not_the_posts_own(tmp_path, capsys):
    run(tmp_path / "s", perspectives=["negative"])
    output = tmp_path / "report.json"
    call("validate", rationales=tmp_path / "s", dataset="sample", dataset_options={"num_posts": 6}, output_file=output)
    assert list(json.loads(output.read_text(encoding="utf-8"))["perspectives"]) == ["negative"]


def test_posts_in_splits_are_asked_as_one_and_get_their_rationales_back(tmp_path):
    posts = load_posts("sample", num_posts=9)
    folder = tmp_path / "posts"
    datasets.DatasetDict({"train": posts.select(range(6)), "test": posts.select(range(6, 9))}).save_to_disk(folder)
    assert call("run", output_dir=tmp_path / "s", dataset=folder, engine="fake") == 0
    joined = load_posts(str(folder), rationales=tmp_path / "s")
    whole = load_posts("sample", num_posts=9, rationales=tmp_path / "s")
    assert {name: len(split) for name, split in joined.items()} == {"train": 6, "test": 3}
    for column in ("id", "rationale_positive", "rationale_negative"):
        assert [*joined["train"][column], *joined["test"][column]] == whole[column]
    assert len(rows(tmp_path / "s")) == 9


def test_the_card_of_a_built_dataset_says_which_model_and_prompt(tmp_path):
    run(tmp_path / "s", posts=30)
    options = ["--dataset_options", '{"num_posts": 30}', "--rationales", str(tmp_path / "s")]
    build_dataset.main(["sample", "--output_dir", str(tmp_path / "posts"), *options])
    card = (tmp_path / "posts" / "README.md").read_text(encoding="utf-8")
    assert "model: fake" in card and "prompt: default (" in card and str(tmp_path) not in card
