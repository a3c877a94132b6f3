"""examples/push_to_hub.py with the real client of the Hub, against a server on loopback (tests/hub_server.py)."""

import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import DatasetDict

from dataset_scripts import load_posts, split_posts
from dataset_scripts.writing.hub import plan_push
from dataset_scripts.writing.publish import save_posts
from helpers.hub_server import HubServer

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "examples" / "push_to_hub.py")
# The client waits for seconds before it tries a broken connection again; in a test there is nothing to wait for.
WITHOUT_WAITING = """
import runpy, sys, time
time.sleep = lambda _: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> DatasetDict:
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets_cache")
    yield split_posts(load_posts("sample", num_posts=60))
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture
def folder(splits, tmp_path) -> Path:
    save_posts(splits, tmp_path / "posts", "sample", protocol="grouped", seed=42, max_shard_size=60_000)
    return tmp_path / "posts"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """`client(*arguments)` runs the script in a process of its own."""

    def run(
        *arguments: str | Path, token: str | None = "hf_writer", python: str = WITHOUT_WAITING, home: str = "home"
    ):
        path = {"PYTHONPATH": f"{ROOT}"}
        return subprocess.run(
            [sys.executable, "-c", python, SCRIPT, *map(str, arguments)],
            env=hub.environment(tmp_path / home, token) | path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_without_push_nothing_reaches_the_hub_and_the_calls_are_printed(hub, client, folder):
    done = client(folder, "me/posts", "--private", token=None)
    assert done.returncode == 0, done.stderr
    assert hub.log == []
    assert "create_repo('me/posts', repo_type='dataset', private=True" in done.stdout
    assert "sample/train-00000-of-" in done.stdout
    assert f"python examples/push_to_hub.py {folder} me/posts --private --push" in done.stdout


def test_a_dataset_is_created_and_pushed_again_unchanged_transfers_nothing(hub, client, folder):
    done = client(folder, "me/posts", "--push")
    assert done.returncode == 0, done.stderr
    assert f"Published: {hub.url}/datasets/me/posts" in done.stdout
    repository = hub.repositories["dataset", "me/posts"]
    local = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert repository.files == local

    before = hub.received()
    again = client(folder, "me/posts", "--push")
    assert again.returncode == 0, again.stderr
    assert hub.received() == before
    assert repository.commits == 1
    assert "up to date: nothing was sent" in again.stderr


def test_what_was_pushed_loads_from_the_hub_also_as_a_stream(hub, client, folder):
    assert client(folder, "me/posts", "--push").returncode == 0
    loading = """
from datasets import get_dataset_config_names, load_dataset
print(get_dataset_config_names("me/posts"))
posts = load_dataset("me/posts", "sample")
print({name: len(split) for name, split in posts.items()}, posts["test"][0]["image"].size)
post = next(iter(load_dataset("me/posts", "sample", split="test", streaming=True)))
print(post["id"] == posts["test"][0]["id"], post["image"] == posts["test"][0]["image"])
"""
    done = client(python=loading)
    assert done.returncode == 0, done.stderr
    assert "['sample']" in done.stdout
    assert "True True" in done.stdout


def test_after_a_broken_connection_the_same_command_sends_only_what_is_missing(hub, client, folder):
    shards = len(list(folder.glob("sample/*.parquet")))
    assert shards >= 4
    hub.break_after = 1
    broken = client(folder, "me/posts", "--push")
    assert broken.returncode == 1
    assert "error: the connection to the Hub broke" in broken.stderr and "run the same command again" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert hub.repositories["dataset", "me/posts"].files == {}
    assert len(hub.objects) == 1

    hub.break_after = None
    hub.log.clear()
    resumed = client(folder, "me/posts", "--push")
    assert resumed.returncode == 0, resumed.stderr
    assert sum(method == "PUT" for method, _, _ in hub.log) == shards - 1
    files = hub.repositories["dataset", "me/posts"].files
    assert sum(name.endswith(".parquet") for name in files) == shards


def test_a_private_repository_is_private_and_a_public_one_is_never_taken_for_it(hub, client, folder):
    assert client(folder, "me/secret", "--private", "--push").returncode == 0
    assert hub.repositories["dataset", "me/secret"].private
    look = "from datasets import load_dataset; print(len(load_dataset('me/secret', 'sample', split='train')))"
    assert client(python=look).returncode == 0
    stranger = client(python=look, token=None, home="home of a stranger")
    assert stranger.returncode != 0 and "me/secret" in stranger.stderr

    assert client(folder, "me/open", "--push").returncode == 0
    refused = client(folder, "me/open", "--private", "--push")
    assert refused.returncode == 1
    assert "me/open exists already and is public; nothing was sent" in refused.stderr


def test_a_missing_or_refused_token_is_said_before_anything_is_made(hub, client, folder):
    missing = client(folder, "me/posts", "--push", token=None)
    assert missing.returncode == 1
    assert "error: no token of the Hugging Face Hub was found; run `hf auth login`" in missing.stderr
    refused = client(folder, "me/posts", "--push", token="hf_wrong")
    assert refused.returncode == 1
    assert "error: the Hub does not accept the token" in refused.stderr
    foreign = client(folder, "somebody/posts", "--push")
    assert foreign.returncode == 1
    assert "error: the token may not write to somebody/posts" in foreign.stderr
    assert hub.repositories == {}


def test_a_second_push_keeps_the_configurations_of_the_first_and_removes_its_own_old_shards(
    hub, client, folder, splits, tmp_path
):
    assert client(folder, "me/posts", "--push").returncode == 0
    save_posts(splits, folder, "sample", max_shard_size=10**9)  # fewer shards
    assert client(folder, "me/posts", "--push").returncode == 0
    other = tmp_path / "other"
    save_posts(DatasetDict({"test": splits["test"]}), other, "mine", dataset="folder", license="cc0-1.0")
    assert client(other, "me/posts", "--push").returncode == 0
    repository = hub.repositories["dataset", "me/posts"]
    parquet = [name for name in sorted(repository.files) if name.endswith(".parquet")]
    assert parquet == [
        "mine/test-00000-of-00001.parquet",
        "sample/test-00000-of-00001.parquet",
        "sample/train-00000-of-00001.parquet",
        "sample/validation-00000-of-00001.parquet",
    ]
    names = "from datasets import get_dataset_config_names as names; print(sorted(names('me/posts')))"
    assert "['mine', 'sample']" in client(python=names).stdout
    assert "**This dataset is synthetic.**" in repository.files["README.md"].decode()
    assert "config_name: sample" not in (other / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def model(tmp_path) -> Path:
    """The files that a finished training leaves."""
    folder = tmp_path / "model"
    files = {
        "config.json": '{"model_type": "mpt_sentiment"}',
        "model.safetensors": "weights",
        "modeling_mpt.py": "code",
        "README.md": "---\nlicense: apache-2.0\n---\n# Model\n",
        "confusion_matrix.png": "figure",
        "metrics.json": "{}",
        "settings.json": '{"data": {"data_dir": "/home/someone"}}',
        "training_args.bin": "pickle",
        "predictions.parquet": "rows",
        "checkpoint-10/model.safetensors": "weights",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_model_is_pushed_without_checkpoints_and_without_what_names_this_machine(hub, client, model):
    done = client(model, "me/model", "--push")
    assert done.returncode == 0, done.stderr
    assert "is a model." in done.stdout
    assert (
        "Not sent: checkpoint-10/, metrics.json, predictions.parquet, settings.json, training_args.bin" in done.stdout
    )
    assert sorted(hub.repositories["model", "me/model"].files) == [
        "README.md",
        "config.json",
        "confusion_matrix.png",
        "model.safetensors",
        "modeling_mpt.py",
    ]
    before = hub.received()
    assert client(model, "me/model", "--push").returncode == 0
    assert hub.received() == before


def test_a_folder_that_is_neither_says_what_to_give(model, tmp_path):
    with pytest.raises(ValueError, match=r"neither a dataset .* nor a model .*Did you mean '.*model'\?"):
        plan_push(tmp_path, "me/x")
    (model / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights; did the training finish"):
        plan_push(model, "me/x")
    with pytest.raises(ValueError, match="write owner/name"):
        plan_push(model, "x")


def test_a_dataset_folder_with_a_lost_shard_is_refused_before_it_is_sent(folder):
    shard = next(folder.glob("sample/test-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{shard.name} is missing or not as it was written; build 'sample' again"):
        plan_push(folder, "me/posts")


def test_the_plan_warns_where_texts_and_images_are_not_the_publishers(splits, tmp_path):
    save_posts(splits, tmp_path / "with", "mvsa_single")
    save_posts(splits, tmp_path / "without", "mvsa_single", with_content=False)
    assert "Do so only if the terms of the original allow it" in plan_push(tmp_path / "with", "me/x").describe()
    assert "terms" not in plan_push(tmp_path / "without", "me/x").describe()
