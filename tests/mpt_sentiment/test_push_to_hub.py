"""Command `push` with the real client of the Hub, against a server on loopback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from huggingface_hub import DatasetCard

from dataset_scripts import join_rationales, load_posts, split_posts
from dataset_scripts.rationales.engines.base import FakeEngine
from dataset_scripts.writing.publish import save_posts
from helpers import tiny_processor
from helpers.hub_server import HubServer
from helpers.rationale_runs import make_posts, new_store, run_engines
from mpt_sentiment.evaluation import TrainingData, environment, evaluate_predictions, write_model_card
from mpt_sentiment.pushing import push_to_hub

ROOT = Path(__file__).parents[2]
# Commands run in a process of their own: the client of the Hub reads its settings when it is imported.
COMMANDS = """
import contextlib, io, json, logging, os, sys, time
from mpt_sentiment.commands import main

time.sleep = lambda _: None  # the client sleeps for seconds before it retries a broken connection
for line in sys.stdin:
    arguments, os.environ["HF_TOKEN"] = json.loads(line)
    logging.root.handlers.clear()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return split_posts(load_posts("sample", num_posts=60))


@pytest.fixture
def folder(splits, tmp_path) -> Path:
    save_posts(splits, tmp_path / "posts", "sample", protocol="grouped", seed=42, max_file_size=60_000)
    return tmp_path / "posts"


@pytest.fixture(scope="module")
def server():
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(server):
    server.reset()
    return server


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    """Process that runs commands, with the server as its Hub."""
    environment = server.environment(tmp_path_factory.mktemp("home")) | {"PYTHONPATH": f"{ROOT}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", COMMANDS], env=environment, text=True, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def push(client):
    """`push(folder, repo_id, …)` runs the command and returns its exit code, output and errors."""

    def run(*arguments: object, token: str = "hf_writer") -> tuple[int, str, str]:
        print(json.dumps([["push", *map(str, arguments)], token]), file=client.stdin, flush=True)
        return tuple(json.loads(client.stdout.readline()))

    return run


@pytest.fixture
def python(hub, tmp_path):
    """`python(…)` runs Python in a new process and returns its exit code, output and errors."""

    def run(*arguments: str, token: str | None = "hf_writer") -> tuple[int, str, str]:
        environment = hub.environment(tmp_path / "home", token) | {"PYTHONPATH": f"{ROOT}"}
        process = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
        return process.returncode, process.stdout, process.stderr

    return run


def test_the_launcher_lists_the_calls_and_sends_nothing_without_push(hub, python, folder):
    code, out, err = python(str(ROOT / "examples/push_to_hub.py"), str(folder), "me/posts", "--private", token=None)
    assert code == 0, err
    assert {method for method, _, _ in hub.log} == {"GET"} and hub.repositories == {}
    assert "me/posts is not on the Hub yet" in out
    assert "create_repo('me/posts', repo_type='dataset', private=True" in out
    assert "sample/train-00000-of-" in out
    assert f"mpt-sentiment push {folder} me/posts --private --push" in out


def test_a_dataset_is_pushed_once_and_load_dataset_opens_it_also_as_a_stream(hub, push, python, folder):
    code, out, err = push(folder, "me/posts", "--push")
    assert code == 0, err
    assert f"Published: {hub.url}/datasets/me/posts" in out
    repository = hub.repositories["dataset", "me/posts"]
    local = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    local["README.md"] = local["README.md"].replace(b"os.getcwd()", b'"me/posts"').replace(b"import os\n\n", b"")
    assert repository.files == local
    before = hub.received()
    code, _, err = push(folder, "me/posts", "--push")
    assert code == 0 and "up to date" in err
    assert hub.received() == before and repository.commits == 1

    loading = """
from datasets import get_dataset_config_names, load_dataset
print(get_dataset_config_names("me/posts"))
posts = load_dataset("me/posts", "sample")
post = next(iter(load_dataset("me/posts", "sample", split="test", streaming=True)))
print(post["id"] == posts["test"][0]["id"], post["image"] == posts["test"][0]["image"])
"""
    code, out, err = python("-c", loading)
    assert code == 0, err
    assert "['sample']" in out and "True True" in out


def test_after_a_broken_connection_the_same_command_sends_only_what_is_missing(hub, push, folder):
    count = len(list(folder.glob("sample/*.parquet")))
    assert count >= 4
    hub.break_after = 1
    code, _, err = push(folder, "me/posts", "--push")
    assert code == 1 and "error: The connection to the Hub broke" in err
    assert hub.repositories["dataset", "me/posts"].files == {}
    assert len(hub.objects) == 1

    hub.break_after = None
    hub.log.clear()
    code, _, err = push(folder, "me/posts", "--push")
    assert code == 0, err
    assert sum(method == "PUT" for method, _, _ in hub.log) == count - 1
    files = hub.repositories["dataset", "me/posts"].files
    assert sum(name.endswith(".parquet") for name in files) == count


def test_a_private_repository_is_private_and_a_public_one_is_refused_instead(hub, push, folder):
    assert push(folder, "me/secret", "--private", "--push")[0] == 0
    assert hub.repositories["dataset", "me/secret"].private
    assert push(folder, "me/open", "--push")[0] == 0
    code, _, err = push(folder, "me/open", "--private", "--push")
    assert code == 1 and "me/open exists already and is public; nothing was sent" in err


def test_a_missing_or_refused_token_is_reported_before_a_repository_is_created(hub, push, folder):
    for token, repo_id, message in (
        ("", "me/posts", "error: No token of the Hugging Face Hub was found. Run `hf auth login`"),
        ("hf_wrong", "me/posts", "error: The Hub does not accept the token"),
        ("hf_writer", "somebody/posts", "error: The token cannot write to somebody/posts"),
    ):
        code, _, err = push(folder, repo_id, "--push", token=token)
        assert code == 1 and message in err
    assert hub.repositories == {}


def test_a_second_push_keeps_other_configurations_and_deletes_its_own_old_files(hub, push, folder, splits, tmp_path):
    assert push(folder, "me/posts", "--push")[0] == 0
    save_posts(splits, folder, "sample", max_file_size=10**9)  # fewer files
    assert push(folder, "me/posts", "--push")[0] == 0
    other = tmp_path / "other"
    save_posts(DatasetDict({"test": splits["test"]}), other, "mine", dataset="folder", license="cc0-1.0")
    assert push(other, "me/posts", "--push")[0] == 0
    repository = hub.repositories["dataset", "me/posts"]
    assert [name for name in sorted(repository.files) if name.endswith(".parquet")] == [
        "mine/test-00000-of-00001.parquet",
        "sample/test-00000-of-00001.parquet",
        "sample/train-00000-of-00001.parquet",
        "sample/validation-00000-of-00001.parquet",
    ]
    card = DatasetCard(repository.files["README.md"].decode())
    assert sorted(config["config_name"] for config in card.data.configs) == ["mine", "sample"]
    assert "**This dataset is synthetic.**" in card.text
    assert "config_name: sample" not in (other / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def model(tmp_path) -> Path:
    """Write the files of a finished training."""
    folder = tmp_path / "model"
    files = {
        "config.json": '{"model_type": "mpt_sentiment"}',
        "model.safetensors": "weights",
        "modeling_mpt.py": "code",
        "README.md": "---\nlicense: apache-2.0\n---\n\n# Model\n",
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


def test_a_model_is_pushed_without_checkpoints_and_files_with_local_paths(hub, push, model):
    code, out, err = push(model, "me/model", "--push")
    assert code == 0, err
    assert "is a model." in out
    assert "Not sent: checkpoint-10/, metrics.json, predictions.parquet, settings.json, training_args.bin" in out
    assert sorted(hub.repositories["model", "me/model"].files) == [
        "README.md",
        "config.json",
        "confusion_matrix.png",
        "model.safetensors",
        "modeling_mpt.py",
    ]
    card = hub.repositories["model", "me/model"].files["README.md"]
    assert card == (model / "README.md").read_bytes()  # written by hand: it has no generated part
    before = hub.received()
    assert push(model, "me/model", "--push")[0] == 0
    assert hub.received() == before


def filled_store(folder: Path) -> tuple[Path, Dataset]:
    """Write a store with rationales of three posts, and return it with the posts."""
    posts = make_posts(3)
    run_engines(posts, new_store(folder), FakeEngine())
    return folder, Dataset.from_list([{**row, "language": "en"} for row in posts])


def code_on(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.S)[1]


def test_the_code_on_a_card_runs_in_the_folder_and_from_the_hub(hub, push, python, folder, tmp_path):
    pipe = tiny_processor.pipeline()
    pipe.save_pretrained(tmp_path / "network")
    scores = evaluate_predictions(
        [[2, 1, 0], [0, 2, 1], [0, 1, 2]], [0, 1, 2], list(pipe.model.config.id2label.values())
    )
    facts = {"data": TrainingData("Mine", {"test": 3}), "hyperparameters": {}, "environment": environment()}
    counts = {"num_parameters": 1, "num_trainable_parameters": 1}
    write_model_card(tmp_path / "network", config=pipe.model.config, metrics=scores, **facts, **counts)
    store, _ = filled_store(tmp_path / "store")
    for path, repo_id in ((folder, "me/posts"), (tmp_path / "network", "me/network"), (store, "me/rationales")):
        assert push(path, repo_id, "--push")[0] == 0
    lines = ["import os"]
    for (_, repo_id), repository in hub.repositories.items():
        lines.append(code_on(repository.files["README.md"].decode()))
        assert repo_id in lines[-1]
    for path in (folder, tmp_path / "network", store / "published"):
        code = code_on((path / "README.md").read_text(encoding="utf-8"))
        assert '"."' in code or "getcwd" in code
        lines += [f"os.chdir({str(path)!r})", code]
    status, _, err = python("-c", "\n".join(lines))
    assert status == 0, err


def test_a_person_s_text_tags_license_and_gate_on_the_hub_stay(hub, push, folder, splits):
    assert push(folder, "me/posts", "--push")[0] == 0
    files = hub.repositories["dataset", "me/posts"].files
    card = DatasetCard(files["README.md"].decode())
    card.data.license, card.data.tags = "cc-by-4.0", ["memes", *card.data.tags]
    card.data["extra_gated_prompt"] = "Ask us first."
    card.content = card.content.replace("<!-- Generated by", "# By hand\n\nRead this first.\n\n<!-- Generated by", 1)
    files["README.md"] = card.content.encode()
    save_posts(splits, folder, "sample", protocol="paper", seed=7, max_file_size=60_000)  # another generated text

    code, out, _ = push(folder, "me/posts")  # the dry run shows the difference, and sends nothing
    assert code == 0 and "-`grouped`" in out and "+`paper`" in out
    assert "cc-by-4.0" not in out and "Read this first." not in out
    assert files["README.md"] == card.content.encode()

    assert push(folder, "me/posts", "--push")[0] == 0
    pushed = DatasetCard(hub.repositories["dataset", "me/posts"].files["README.md"].decode())
    assert (pushed.data.license, pushed.data["extra_gated_prompt"]) == ("cc-by-4.0", "Ask us first.")
    assert pushed.data.tags[0] == "memes" and "rationales" in pushed.data.tags
    assert "Read this first." in pushed.text and "`paper`" in pushed.text and "`grouped`" not in pushed.text


def test_text_in_the_folder_that_differs_from_that_on_the_hub_replaces_it_only_if_asked_to(hub, push, folder):
    readme = folder / "README.md"
    generated = readme.read_text(encoding="utf-8")
    for text in ("First.", "Second."):
        readme.write_text(f"{generated}\n{text}\n", encoding="utf-8")
        code, _, err = push(folder, "me/posts", "--push")
        assert code == 0
    files = hub.repositories["dataset", "me/posts"].files
    assert "--replace_card" in err and b"First." in files["README.md"]
    assert push(folder, "me/posts", "--push", "--replace_card")[0] == 0
    pushed = hub.repositories["dataset", "me/posts"].files["README.md"]
    assert b"Second." in pushed and b"First." not in pushed


def test_a_store_of_rationales_is_pushed_as_a_table_that_posts_are_joined_to(hub, push, python, tmp_path):
    store, posts = filled_store(tmp_path / "store")
    code, out, err = push(store, "me/rationales", "--push")
    assert code == 0, err
    assert "is a table of rationales." in out
    assert sorted(hub.repositories["dataset", "me/rationales"].files) == ["README.md", "rationales.parquet"]
    joined = join_rationales(posts, store / "published" / "rationales.parquet")
    assert None not in joined["rationale_positive"]


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
