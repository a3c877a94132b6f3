"""The commands of `generate_rationales.py` and their arguments."""

import dataclasses
import json
import os
import re
from typing import Any, NoReturn

from transformers import HfArgumentParser

from dataset_scripts.rationales.engines.endpoint import PROFILES
from dataset_scripts.rationales.plan import SAMPLE
from dataset_scripts.reading.report import did_you_mean

ENGINES = ("endpoint", "transformers", "fake")
_PART = re.compile(r"(\d+)(?:/(\d+))?")


def _help(text: str, default: Any = None, **options: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **options})


@dataclasses.dataclass
class PostArguments:
    """Which posts."""

    dataset: str | None = _help(
        "sample, mvsa_single, mvsa_multiple, memotion, ch_mits, authors, folder, or one published."
    )
    data_dir: str | None = _help("Folder or archive of the original download.")
    dataset_options: str | None = _help("Options of the dataset's loader (JSON), e.g. '{\"num_posts\": 200}'.")
    on_error: str = _help("raise: stop at the first faulty post; skip: leave it out, counted.", "raise")

    def __post_init__(self) -> None:
        try:
            self.dataset_options = json.loads(self.dataset_options or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(
                f"--dataset_options {self.dataset_options!r} is not JSON ({error}); write e.g. '{{\"key\": 1}}'."
            ) from None


@dataclasses.dataclass
class SpecArguments:
    """What is asked of which model. What is left out is as in the store, or else as RationaleSpec has it."""

    model: str | None = _help("Name under which the engine knows the model. Default: Qwen/Qwen2.5-VL-7B-Instruct.")
    revision: str | None = _help("Commit of its weights, for the record; in this process also what is loaded.")
    prompt: str | None = _help("default, paper, or the path of a YAML file of your own.")
    language: str | None = _help("Of the rationales: en, zh, or auto (each post's own; the default).")
    perspectives: list[str] | None = _help("What to argue for; by default positive neutral negative.")
    max_pixels: int | None = _help("Larger images are scaled down to it before they are sent; default 1003520.")
    max_tokens: int | None = _help("Longest answer; default 256.")
    temperature: float | None = _help("Of the first try; default 0. Re-asks sample.")
    seed: int | None = None
    repetition_penalty: float | None = _help("Where the server takes one; default 1.05.")


@dataclasses.dataclass
class EngineArguments:
    """Who answers."""

    engine: str = _help(
        "endpoint: a server; transformers: a model in this process; fake: stock sentences.", "endpoint"
    )
    endpoint: list[str] | None = _help("Address of a server; repeat it for several.", action="extend")
    profile: str = _help(f"What the server takes: {', '.join(PROFILES)}.", "vllm")
    api_key_env: str | None = _help("Name of the environment variable that holds the server's key.")
    timeout: float = _help("Seconds after which an answer counts as lost.", 180.0)
    wait_for_server: float = _help("Seconds to wait for servers that are still loading.", 0.0)
    device: str | None = _help("Of the model in this process, e.g. cuda:1; by default as accelerate has it.")
    dtype: str = _help("Of the model in this process: auto, bfloat16, float32 …", "auto")

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"--engine {self.engine!r}; write one of {', '.join(ENGINES)}.")
        if self.engine == "endpoint" and not self.endpoint:
            raise ValueError(
                "name the server: --endpoint http://localhost:8000 (repeat it for several), or --engine transformers "
                "for a model in this process."
            )
        if self.engine != "endpoint" and self.endpoint:
            raise ValueError(f"--endpoint goes with --engine endpoint, not with {self.engine!r}.")

    def server_options(self) -> dict[str, Any]:
        """How every server of `endpoint` is asked.

        Raises:
            ValueError: there is no such key.
        """
        key = None
        if self.api_key_env is not None and not (key := os.environ.get(self.api_key_env)):
            raise ValueError(f"--api_key_env {self.api_key_env}: no such environment variable, or it is empty.")
        return {"profile": self.profile, "api_key": key, "timeout": self.timeout}


@dataclasses.dataclass
class PlanArguments:
    """What to reckon with."""

    sample: int = _help("Posts to examine, at equal distances; 0 for all.", SAMPLE)
    price_prompt: float | None = _help("Per million tokens of prompts.")
    price_cached: float | None = _help("Per million prompt tokens that the server had computed; else as the others.")
    price_completion: float | None = _help("Per million tokens of answers.")
    price_hour: float | None = _help("Of all machines together, per hour; needs --posts_per_second.")
    posts_per_second: float | None = _help("As the progress bar of a first run shows it.")
    output_file: str | None = _help("Also write the plan as JSON.")

    def __post_init__(self) -> None:
        if self.price_hour is not None and self.posts_per_second is None:
            raise ValueError(
                "--price_hour needs --posts_per_second: run a few hundred posts and read its progress bar."
            )


@dataclasses.dataclass
class RunArguments:
    """Where to, how much at a time, and which part."""

    output_dir: str = dataclasses.field(metadata={"help": "Folder of the store; a run in it goes on."})
    num_shards: int | None = _help("Parts of the store, each written by one process; by default one per 20,000 posts.")
    shard_id: list[str] | None = _help(
        "Only these shards: numbers from 0, or I/N, the I-th (from 0) of N equal parts of all shards.",
        action="extend",
    )
    concurrency: int | None = _help("Requests at a time and server; less when a server says that it has too many.")
    max_attempts: int | None = _help("Tries of a request that fails for a passing reason.")
    max_re_asks: int | None = _help("How often an answer that the gate refuses is asked for again.")
    outage_wait: float | None = _help("Seconds to wait for a server that died, before stopping with exit code 75.")
    first_failures: int | None = _help(
        "If so many posts, the first of a run, all fail for good, it stops; default 20."
    )
    retry_failed: bool = _help("Ask again what failed for good in an earlier run.", False)

    def shards(self, num_shards: int) -> list[int] | None:
        """The shards asked for; `None` for all.

        Raises:
            ValueError: no such shard, or not of the form.
        """
        if self.shard_id is None:
            return None
        chosen: set[int] = set()
        for word in self.shard_id:
            match = _PART.fullmatch(word)
            if not match:
                raise ValueError(f"--shard_id {word!r}; write a number, or a part like 3/64.")
            place, parts = int(match[1]), int(match[2] or num_shards)
            if place >= parts:
                last = f"{parts - 1}/{parts}" if match[2] else parts - 1
                raise ValueError(f"--shard_id {word!r}: they are numbered from 0, the last is {last}.")
            chosen.update(range(num_shards * place // parts, num_shards * (place + 1) // parts))
        return sorted(chosen)


@dataclasses.dataclass
class StatusArguments:
    """Which store."""

    output_dir: str = dataclasses.field(metadata={"help": "Folder of the store; a run may be writing it."})


@dataclasses.dataclass
class ValidateArguments:
    """Which rationales, and how many faults are too many."""

    rationales: str = dataclasses.field(metadata={"help": "A store, or a TSV, CSV, JSONL or Parquet file."})
    threshold: float = _help("Share of answers refused by the gate above which the exit code is 3.", 0.15)
    language: str | None = _help("Of all rationales: en or zh; by default each post's own.")
    folds: int = _help("Of the leak probe's cross-validation.", 10)
    seed: int = _help("Of the leak probe's folds.", 42)
    output_file: str | None = _help("Also write the report as JSON.")


@dataclasses.dataclass
class ExportArguments:
    """From where to where."""

    rationales: str = dataclasses.field(metadata={"help": "A store, or a file that import wrote."})
    output_file: str = dataclasses.field(
        metadata={
            "help": "Its ending says the form: .parquet, .jsonl, or .tsv (the authors', with the posts of --dataset)."
        }
    )


@dataclasses.dataclass
class ImportArguments:
    """Which file, and what is known of it."""

    file: str = dataclasses.field(
        metadata={"help": "TSV of the paper's authors, or TSV, CSV, JSONL, Parquet with columns id and rationale_…."}
    )
    output_file: str = dataclasses.field(metadata={"help": "A .parquet or .jsonl file."})
    authors: str | None = _help("The file is the authors': ch_mits, mvsa_single, mvsa_multiple or memotion.")
    language: str = _help(
        "Of the rationales: en, zh, or auto (by the posts of --dataset, or their own script).", "auto"
    )
    provenance: str | None = _help("Where the rationales come from; by default the file's name.")


COMMANDS: dict[str, tuple[type, ...]] = {
    "plan": (PostArguments, SpecArguments, PlanArguments),
    "doctor": (SpecArguments, EngineArguments),
    "run": (PostArguments, SpecArguments, EngineArguments, RunArguments),
    "status": (StatusArguments,),
    "validate": (PostArguments, ValidateArguments),
    "export": (PostArguments, ExportArguments),
    "import": (PostArguments, ImportArguments),
}


def parse(argv: list[str], description: str) -> tuple[str, tuple[Any, ...]]:
    """The command, and its arguments as one object for each of `COMMANDS[command]`.

    Raises:
        ValueError: no such command or argument, or a value that makes no sense.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(description)
        raise SystemExit(0 if argv else 2)
    command, *rest = argv
    if command not in COMMANDS:
        raise ValueError(
            f"there is no command {command!r}; write one of {', '.join(COMMANDS)}.{did_you_mean(command, COMMANDS)}"
        )
    parser = HfArgumentParser(COMMANDS[command], prog=f"generate_rationales.py {command}", allow_abbrev=False)

    def refuse(message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        options = [option for action in parser._actions for option in action.option_strings if "-" not in option[2:]]
        hint = did_you_mean(unknown[1], options) if unknown else ""
        raise ValueError(f"{message}.{hint} {command} --help lists every argument.")

    parser.error = refuse
    return command, parser.parse_dict(vars(parser.parse_args(rest)))
