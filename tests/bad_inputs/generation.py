"""Runs that write rationales, and files of batches."""

import fcntl
import functools
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs.case import FOLDER, BadInput
from dataset_scripts import load_posts
from helpers.batch_runner import run_batch
from mpt_sentiment.batching import ExportBatchArguments, ImportBatchArguments, export_batch, import_batch
from mpt_sentiment.generating import generate_rationales
from mpt_sentiment.generation_arguments import SpecArguments

STORE, BATCH, OUTPUT = f"{FOLDER}/s", f"{FOLDER}/batch", f"{FOLDER}/out.jsonl"
POSTS = ["--dataset_options", '{"num_posts": 3}']
NO_SERVER = ["--endpoint", "http://127.0.0.1:9"]


@functools.cache
def sample() -> Any:
    return load_posts("sample", num_posts=3)


def store(folder: Path) -> None:
    """Write a finished store."""
    generate_rationales(sample(), folder / "s", engine="fake", progress=False)


def manifest(**changes: Any) -> Callable[[Path], None]:
    """Write a store with changed fields of its manifest, or with another text in its place."""

    def write(folder: Path) -> None:
        store(folder)
        path = folder / "s" / "manifest.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(changes.get("text") or json.dumps(fields | changes), encoding="utf-8")

    return write


def damaged_shard(folder: Path) -> None:
    store(folder)
    (file,) = (folder / "s" / "data").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:300])


def damaged_log(folder: Path) -> None:
    """Write a log whose second line is damaged, as by a faulty disk."""
    store(folder)
    lines = b'00000000 {"kind":"post"}\n' * 2
    (folder / "s" / "shards" / "00000" / "journal.jsonl").write_bytes(lines)


def without_manifest(folder: Path) -> None:
    store(folder)
    (folder / "s" / "manifest.json").unlink()


def in_use(folder: Path) -> None:
    """Run while another process writes the store."""
    with open(folder / "s" / "shards" / "00000" / "lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        generate_rationales(sample(), folder / "s", engine="fake", seed=0, progress=False)


def prompt(**changes: Any) -> dict[str, str]:
    """Return a prompt file with changed fields."""
    support = {"image_text": "image and text", "image": "image", "text": "words"}
    fields = {"system": "s", "text": "{text}", "task": "{reading}", "support": support, "readings": {"ironic": "i"}}
    return {"p.yaml": json.dumps({"en": fields | changes})}  # JSON is YAML


def exported(change: Callable[[Path], Any] | None = None, model: str = "m") -> Callable[[Path], None]:
    """Export requests, answer them in `out.jsonl`, and change the folder."""

    def write(folder: Path) -> None:
        args = ExportBatchArguments(str(folder / "s"), str(folder / "batch"))
        export_batch(sample(), SpecArguments(model=model), args, progress=False)
        run_batch(folder / "batch" / "requests-00000.jsonl", folder / "out.jsonl", model=model)
        if change is not None:
            change(folder)

    return write


def output(content: str | bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Export requests and replace their answers."""

    def replace(folder: Path) -> None:
        file = folder / "out.jsonl"
        new = content(file.read_bytes()) if callable(content) else content
        file.write_bytes(new.encode() if isinstance(new, str) else new)

    return exported(replace)


def read_into_copy(folder: Path, **options: Any) -> Any:
    """Import into a copy of the store, which stays as it is."""
    shutil.copytree(folder / "s", folder / "copy")
    args = ImportBatchArguments(str(folder / "copy"), [str(folder / "out.jsonl")])
    return import_batch(sample(), SpecArguments(), args, progress=False, **options)


def other_ids(content: bytes) -> bytes:
    lines = [json.loads(line) for line in content.splitlines()]
    return "".join(json.dumps(line | {"custom_id": f"task-{n}"}) + "\n" for n, line in enumerate(lines)).encode()


def refused(content: bytes) -> bytes:
    error = {"error": {"message": "This model does not support image input."}}
    response = {"status_code": 400, "request_id": "r", "body": error}
    lines = [json.loads(line) | {"response": response} for line in content.splitlines()]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def run(*words: str) -> list[str]:
    return ["generate-rationales", "run", "--output_dir", STORE, "--engine", "fake", *POSTS, *words]


def read_batch(*words: str) -> list[str]:
    return ["generate-rationales", "import-batch", "--output_dir", STORE, *POSTS, "--files", *(words or [OUTPUT])]


def command(name: str, *words: str) -> list[str]:
    return ["generate-rationales", name, *words]


def zero_shot(*words: str) -> list[str]:
    return ["zero-shot", "--output_dir", f"{FOLDER}/z", "--dataset_options", '{"num_posts": 30}', *NO_SERVER, *words]


def row(name: str, run: Any, *words: str, **options: Any) -> BadInput:
    return BadInput(f"generation: {name}", run, words, **options)


RATIONALES = {"r.csv": "id,rationale_positive\na,The photo shows a calm street and the words say so plainly.\n"}
ELSEWHERE = [word.replace(STORE, f"{FOLDER}/new") for word in run("--seed", "6")]
VALIDATE = command("validate", "--rationales", f"{FOLDER}/r.csv")
EXPORT = command("export", "--rationales", STORE, "--output_file")
IMPORT = command("import", "--output_file", f"{FOLDER}/out.parquet", "--file", f"{FOLDER}/r.csv")
PLAN = command("plan", *POSTS)

ROWS: list[BadInput] = [
    # stores
    row("another seed", run("--seed", "6"), "seed: 0, not 6", "another folder", files=store, advice=ELSEWHERE),
    row("another number of shards", run("--num_shards", "2"), "num_shards: 1, not 2", files=store, advice=run()),
    row("manifest cut", run(), "manifest.json is damaged", "another folder", files=manifest(text='{"kind": "mpt')),
    row("manifest with words for shards", run(), "manifest.json is damaged", files=manifest(num_shards="two")),
    row(
        "manifest without spec", command("status", "--output_dir", STORE), "is damaged", files=manifest(spec="x")
    ),  # fmt: skip
    row("manifest of a later version", run(), "another version", files=manifest(version=9)),
    row("manifest changed by hand", run(), "`spec` was changed by hand", files=manifest(spec_hash="0")),
    row("no manifest", run(), "has a folder `shards` or `data` but no manifest.json", files=without_manifest),
    row("folder is a file", run(), "s is not a folder", "Choose another place", files={"s": "x"}),
    row("no store", command("status", "--output_dir", STORE), "is not a store of rationales"),
    row(
        "damaged shard",
        command("status", "--output_dir", STORE),
        "00000.parquet is damaged",
        "delete it: the next run requests its rationales again",
        files=damaged_shard,
        advice=lambda folder: (
            (folder / "s" / "data" / "00000.parquet").unlink(),
            generate_rationales(sample(), folder / "s", engine="fake", progress=False),
        ),
    ),
    row(
        "damaged log",
        command("status", "--output_dir", STORE),
        "2 corrupt lines skipped",
        exit_code=0,
        files=damaged_log,
    ),
    row("store in use", in_use, "is being written by", "one writer at a time", files=store),
    # arguments of a run
    row("no shards", run("--num_shards", "0"), "--num_shards must be at least 1, got 0", advice=run()),
    row("shard too large", run("--shard_id", "1"), "--shard_id must be at most 0", advice=run("--shard_id", "0")),
    row("part of nothing", run("--shard_id", "1/0"), "such as 0/4", advice=run("--shard_id", "0/4")),
    row("tiny images", run("--max_pixels", "100"), "`max_pixels` must be an integer of at least 784"),
    row("temperature nan", run("--temperature", "nan"), "`temperature` must be a number of at least 0, got nan"),
    row("no post in a row", run("--failed_in_a_row", "0"), "`failed_in_a_row` must be at least 1"),
    row("unknown perspective", run("--perspectives", "ironic"), "no reading for the perspective ironic"),
    row("prompt with a typo", run("--prompt", "papr"), "Did you mean 'paper'?", advice=run("--prompt", "paper")),
    row("prompt that is no YAML", run("--prompt", "p.yaml"), "p.yaml is not YAML", files={"p.yaml": "en: ["}),
    row(
        "prompt in UTF-16",
        run("--prompt", "p.yaml"),
        "p.yaml is not YAML in UTF-8",
        files={"p.yaml": "en: {}".encode("utf-16")},
    ),
    row(
        "prompt with a number",
        run("--prompt", "p.yaml", "--language", "en"),
        "`system` must be a text, got 3",
        files=prompt(system=3),
    ),
    row(
        "prompt with the name yes",
        run("--prompt", "p.yaml", "--language", "en"),
        "a name in `readings` as True. Write it in quotes",
        files={"p.yaml": prompt(readings={"NAME": "i"})["p.yaml"].replace('"NAME"', "yes")},
    ),
    # batches
    row("output that is compressed", read_batch(), "gunzip", files=output(gzip.compress)),
    row("output that is empty", read_batch(), "out.jsonl is empty", files=output("")),
    row(
        "requests instead of answers",
        read_batch(f"{BATCH}/requests-00000.jsonl"),
        "line 1 is a request, not an answer",
        files=exported(),
    ),  # fmt: skip
    row("object of a batch", read_batch(), "has no custom_id", files=output('{"id": "batch_1", "status": "ok"}\n')),
    row(
        "output cut off",
        read_batch(),
        "line 9 is not JSON, or is cut off",
        files=output(lambda content: content[:-20]),
    ),
    row(
        "output cut off, skipped",
        lambda folder: print(read_into_copy(folder, on_error="skip")),
        "skipped: damaged line 1",
        "1 rationales are missing",
        files=output(lambda content: content[:-20]),
        exit_code=0,
    ),
    row(
        "output in UTF-16",
        read_batch(),
        "is not JSON",
        files=output(lambda content: content.decode().encode("utf-16")),
    ),
    row("answers of another store", read_batch(), "None of the 9 answers", "task-0", files=output(other_ids)),
    row(
        "answers of another model",
        read_batch(),
        "'qwen' answered",
        files=output(lambda content: content.replace(b'"choices"', b'"model": "qwen", "choices"')),
    ),  # fmt: skip
    row(
        "every request refused",
        read_batch(),
        "does not support image input",
        "none of these failures was recorded",
        files=output(refused),
    ),
    row("no output file", read_batch(f"{FOLDER}/none.jsonl"), "none.jsonl", "No such file", files=exported()),
    row("answers without a store", read_batch(), "is not a store of rationales", files={"out.jsonl": "{}\n"}),
    row(
        "export into an old folder",
        command("export-batch", "--output_dir", STORE, "--batch_dir", BATCH, *POSTS),
        "exists and is not empty. Name a new folder",
        files=exported(),
        advice=command("export-batch", "--output_dir", STORE, "--batch_dir", f"{BATCH}2", *POSTS),
    ),
    row(
        "request larger than a file",
        command("export-batch", "--output_dir", STORE, "--batch_dir", BATCH, *POSTS, "--max_megabytes", "0.0001"),
        "Raise --max_megabytes",
        advice=command("export-batch", "--output_dir", STORE, "--batch_dir", BATCH, *POSTS, "--max_megabytes", "1"),
    ),
    row(
        "profile with a typo",
        command("export-batch", "--output_dir", STORE, "--batch_dir", BATCH, "--profile", "openia"),
        "Did you mean 'openai'?",
    ),
    # other commands
    row(
        "threshold in percent",
        [*VALIDATE, "--threshold", "15"],
        "such as 0.15",
        files=RATIONALES,
        advice=[*VALIDATE, "--threshold", "0.15"],
    ),  # fmt: skip
    row("unknown language", [*VALIDATE, "--language", "english"], "must be one of en, zh", files=RATIONALES),
    row("one fold", [*VALIDATE, "--folds", "1"], "--folds must be at least 2", files=RATIONALES),
    row("no rationale", VALIDATE, "No post has a rationale", files={"r.csv": "id,rationale_positive\na,\n"}),
    row(
        "export as CSV",
        [*EXPORT, f"{FOLDER}/x.csv"],
        "must be .parquet or .jsonl",
        files=store,
        advice=[*EXPORT, f"{FOLDER}/x.jsonl"],
    ),  # fmt: skip
    row("export into a folder", [*EXPORT, FOLDER], "Name a file in it", files=store),
    row(
        "import of another language", [*IMPORT, "--language", "de"], "supports the languages en, zh", files=RATIONALES
    ),
    row("import by unknown authors", [*IMPORT, "--authors", "mvsa"], "one of ch_mits", files=RATIONALES),
    row("no speed", [*PLAN, "--price_hour", "2", "--posts_per_second", "0"], "must be a number above 0"),
    row(
        "cached price alone",
        [*PLAN, "--price_cached", "1"],
        "--price_cached needs --price_prompt",
        advice=[*PLAN, "--price_cached", "1", "--price_prompt", "2"],
    ),  # fmt: skip
    row(
        "zero-shot with fixed sentences",
        [word for word in zero_shot("--engine", "fake") if word not in NO_SERVER],
        "has no probabilities",
    ),  # fmt: skip
    row("criteria that are a list", zero_shot("--criteria", "[1]"), "`criteria` must be a JSON object"),
    row("criteria of an unknown label", zero_shot("--criteria", '{"good": "x"}'), "`criteria` has good"),
    row("no question", zero_shot("--instructions", " "), "--criteria and --instructions must be texts"),
]
