"""Folders and cards to publish."""

import json
from pathlib import Path

from bad_inputs.case import FOLDER, BadInput
from dataset_scripts import load_posts, split_posts
from dataset_scripts.writing.publish import save_posts
from helpers.rationale_runs import new_store
from mpt_sentiment.pushing import push_to_hub

CARD = "---\nlicense: mit\n---\n\nMine.\n"
NETWORK = {"config.json": json.dumps({"model_type": "mpt_sentiment"}), "model.safetensors": "weights"}

IN_A_FOLDER = {f"mine/{name}": text for name, text in NETWORK.items()}


def saved(change=lambda folder: None):
    """Return a function that saves a dataset and changes its files."""

    def write(folder: Path) -> None:
        save_posts(split_posts(load_posts("sample", num_posts=20)), folder, "mine")
        change(folder)

    return write


def replace(name: str, content: bytes):
    return saved(lambda folder: (folder / name).write_bytes(content))


def shorten(folder: Path) -> None:
    file = next((folder / "mine").glob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])


def without_card(folder: Path) -> None:
    (folder / "README.md").unlink()


def without_images(folder: Path) -> None:
    next((folder / "mine").glob("test-*.parquet")).unlink()


def push(name: str, words: tuple[str, ...], *arguments: str, repo_id: str = "me/x", **options) -> BadInput:
    return BadInput(f"push: {name}", ["push", FOLDER, repo_id, *arguments], words, **options)


def dry_run(folder: Path) -> str:
    return push_to_hub(folder, "me/x", dry_run=True)


ROWS: list[BadInput] = [
    *(
        push(f"repository id {repo_id!r}", ("OWNER/NAME", repo_id), repo_id=repo_id, files=NETWORK)
        for repo_id in ("x", "/x", "me/", "me/x/y", "https://huggingface.co/me/x")
    ),
    push("repository id with a space", ("alphanumeric",), repo_id="me/my model", files=NETWORK),
    push("repository id of 120 letters", ("96",), repo_id="me/" + "x" * 117, files=NETWORK),
    BadInput("push: no folder", ["push", f"{FOLDER}/none", "me/x"], ("is not a folder", "train")),
    BadInput("push: a file", ["push", f"{FOLDER}/a.txt", "me/x"], ("is not a folder",), {"a.txt": "a"}),
    BadInput("push: no repository", ["push", FOLDER], ("repo_id", "--help")),
    push("unknown argument", ("--publik", "--help"), "--publik"),
    push("empty folder", ("neither a dataset", "nor a model", "nor a store")),
    push("parent of a model", ("Did you mean", "mine"), files=IN_A_FOLDER),
    push("a model without weights", ("no weights", "training finish"), files={"config.json": "{}"}),
    push("interrupted training", ("no weights",), files={"config.json": "{}", "checkpoint-3/model.safetensors": "w"}),
    push(
        "damaged YAML",
        ("README.md, line 3", "damaged", "Correct"),
        files=NETWORK | {"README.md": "---\na: 1\nb: [\n---\n"},
    ),
    push("YAML that is a list", ("README.md", "damaged"), files=NETWORK | {"README.md": "---\n- a\n---\n"}),
    push(
        "card in another encoding",
        ("README.md is not UTF-8", "UTF-8"),
        files=NETWORK | {"README.md": "é".encode("cp1252")},
    ),
    push("card of a person", ("is a model",), files=NETWORK | {"README.md": CARD}, exit_code=0),
    push("dataset without a card", ("no README.md", "Build it again"), files=saved(without_card)),
    push("shortened Parquet file", ("train-00000", "missing or has changed"), files=saved(shorten)),
    push("missing Parquet file", ("test-00000", "Build 'mine' again"), files=saved(without_images)),
    push("damaged build.json", ("build.json is damaged", "build it again"), files=replace("mine/build.json", b"{")),
    push("build.json of another version", ("build.json is damaged",), files=replace("mine/build.json", b'{"a": 1}')),
    BadInput("push in Python: damaged build.json", dry_run, ("is damaged",), replace("mine/build.json", b"[]")),
    push("store without rationales", ("no rationales yet", "generate-rationales run"), files=new_store),
    BadInput("push in Python: no folder", lambda folder: push_to_hub(folder / "none", "me/x"), ("is not a folder",)),
    BadInput(
        "save posts: card with damaged YAML",
        saved(),
        ("README.md, line 2", "damaged"),
        {"README.md": "---\na: : b\n---\n"},
    ),
    BadInput(
        "save posts: text of a person without YAML",
        lambda folder: saved()(folder / "posts"),
        (),
        {"notes/README.md": "Mine."},
        exit_code=0,
        kept=("posts/README.md", "posts/mine/build.json"),
    ),
    *(
        BadInput(
            f"save posts: configuration {name!r}",
            lambda folder, name=name: save_posts(split_posts(load_posts("sample", num_posts=20)), folder, name),
            ("config_name", "letters"),
        )
        for name in ("", "../up", "a b")
    ),
]
