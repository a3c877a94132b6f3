"""Command `push` with the real client of the Hub, against a server on loopback (`helpers.hub_server`)."""

import subprocess
import sys
from pathlib import Path

import pytest
from datasets import DatasetDict

from dataset_scripts import load_posts, split_posts
from dataset_scripts.writing.publish import save_posts
from helpers.hub_server import HubServer
from mpt_sentiment.pushing import push_to_hub

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "examples" / "push_to_hub.py")
# The client sleeps for seconds before it retries a broken connection.
WITHOUT_SLEEPING = """
import runpy, sys, time
time.sleep = lambda _: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return split_posts(load_posts("sample", num_posts=60))


@pytest.fixture
def folder(splits, tmp_path) -> Path:
    save_posts(splits, tmp_path / "posts", "sample", protocol="grouped", seed=42, max_file_size=60_000)
    return tmp_path / "posts"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """`client(*arguments)` runs the launcher in a process of its own."""

    def run(
        *arguments: str | Path, token: str | None = "hf_writer", python: str = WITHOUT_SLEEPING, home: str = "home"
    ):
        return subprocess.run(
            [sys.executable, "-c", python, SCRIPT, *map(str, arguments)],
            env=hub.environment(tmp_path / home, token) | {"PYTHONPATH": f"{ROOT}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_push_transfers_each_file_once_and_load_dataset_opens_the_result(hub, client, folder):
    listed = client(folder, "me/posts", "--private", token=None)
    assert listed.returncode == 0, listed.stderr
    assert hub.log == []
    assert "create_repo('me/posts', repo_type='dataset', private=True" in listed.stdout
    assert "sample/train-00000-of-" in listed.stdout
    assert f"mpt-sentiment push {folder} me/posts --private --push" in listed.stdout

    pushed = client(folder, "me/posts", "--push")
    assert pushed.returncode == 0, pushed.stderr
    assert f"Published: {hub.url}/datasets/me/posts" in pushed.stdout
    repository = hub.repositories["dataset", "me/posts"]
    local = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert repository.files == local
    before = hub.received()
    again = client(folder, "me/posts", "--push")
    assert again.returncode == 0, again.stderr
    assert hub.received() == before and repository.commits == 1
    assert "up to date" in again.stderr

    loading = """
from datasets import get_dataset_config_names, load_dataset
print(get_dataset_config_names("me/posts"))
posts = load_dataset("me/posts", "sample")
post = next(iter(load_dataset("me/posts", "sample", split="test", streaming=True)))
print(post["id"] == posts["test"][0]["id"], post["image"] == posts["test"][0]["image"])
"""
    loaded = client(python=loading)
    assert loaded.returncode == 0, loaded.stderr
    assert "['sample']" in loaded.stdout and "True True" in loaded.stdout


def test_after_a_broken_connection_the_same_command_sends_only_what_is_missing(hub, client, folder):
    count = len(list(folder.glob("sample/*.parquet")))
    assert count >= 4
    hub.break_after = 1
    broken = client(folder, "me/posts", "--push")
    assert broken.returncode == 1
    assert "error: The connection to the Hub broke" in broken.stderr and "Traceback" not in broken.stderr
    assert hub.repositories["dataset", "me/posts"].files == {}
    assert len(hub.objects) == 1

    hub.break_after = None
    hub.log.clear()
    resumed = client(folder, "me/posts", "--push")
    assert resumed.returncode == 0, resumed.stderr
    assert sum(method == "PUT" for method, _, _ in hub.log) == count - 1
    files = hub.repositories["dataset", "me/posts"].files
    assert sum(name.endswith(".parquet") for name in files) == count


def test_a_private_repository_is_private_and_a_public_one_is_refused_instead(hub, client, folder):
    assert client(folder, "me/secret", "--private", "--push").returncode == 0
    assert hub.repositories["dataset", "me/secret"].private
    load = "from datasets import load_dataset; print(len(load_dataset('me/secret', 'sample', split='train')))"
    assert client(python=load).returncode == 0
    stranger = client(python=load, token=None, home="home of a stranger")
    assert stranger.returncode != 0 and "me/secret" in stranger.stderr

    assert client(folder, "me/open", "--push").returncode == 0
    refused = client(folder, "me/open", "--private", "--push")
    assert refused.returncode == 1
    assert "me/open exists already and is public; nothing was sent" in refused.stderr


def test_a_missing_or_refused_token_is_reported_before_a_repository_is_created(hub, client, folder):
    for token, repo_id, message in (
        (None, "me/posts", "error: No token of the Hugging Face Hub was found. Run `hf auth login`"),
        ("hf_wrong", "me/posts", "error: The Hub does not accept the token"),
        ("hf_writer", "somebody/posts", "error: The token cannot write to somebody/posts"),
    ):
        refused = client(folder, repo_id, "--push", token=token)
        assert refused.returncode == 1
        assert message in refused.stderr
    assert hub.repositories == {}


def test_a_second_push_keeps_other_configurations_and_deletes_its_own_old_files(hub, client, folder, splits, tmp_path):
    assert client(folder, "me/posts", "--push").returncode == 0
    save_posts(splits, folder, "sample", max_file_size=10**9)  # fewer files
    assert client(folder, "me/posts", "--push").returncode == 0
    other = tmp_path / "other"
    save_posts(DatasetDict({"test": splits["test"]}), other, "mine", dataset="folder", license="cc0-1.0")
    assert client(other, "me/posts", "--push").returncode == 0
    repository = hub.repositories["dataset", "me/posts"]
    assert [name for name in sorted(repository.files) if name.endswith(".parquet")] == [
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
    """Write the files of a finished training."""
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


def test_a_model_is_pushed_without_checkpoints_and_files_with_local_paths(hub, client, model):
    pushed = client(model, "me/model", "--push")
    assert pushed.returncode == 0, pushed.stderr
    assert "is a model." in pushed.stdout
    assert (
        "Not sent: checkpoint-10/, metrics.json, predictions.parquet, settings.json, training_args.bin"
        in pushed.stdout
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


def test_a_folder_that_cannot_be_published_is_refused_with_the_reason(model, folder, tmp_path):
    with pytest.raises(ValueError, match=r"neither a dataset .* nor a model .*Did you mean '.*model'\?"):
        push_to_hub(tmp_path, "me/x", dry_run=True)
    (model / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights"):
        push_to_hub(model, "me/x", dry_run=True)
    with pytest.raises(ValueError, match="OWNER/NAME"):
        push_to_hub(model, "x", dry_run=True)
    damaged = next(folder.glob("sample/test-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{damaged.name} is missing or has changed. Build 'sample' again"):
        push_to_hub(folder, "me/posts", dry_run=True)


def test_the_plan_warns_of_texts_and_images_under_the_terms_of_others(splits, tmp_path):
    save_posts(splits, tmp_path / "with", "mvsa_single")
    save_posts(splits, tmp_path / "without", "mvsa_single", with_content=False)
    assert "terms of the original" in push_to_hub(tmp_path / "with", "me/x", dry_run=True)
    assert "terms" not in push_to_hub(tmp_path / "without", "me/x", dry_run=True)
