"""Arguments of `generate-rationales` and `zero-shot`, on the command line and in Python."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_scripts.rationales.engines.profiles import PROFILES
from dataset_scripts.rationales.plan import SAMPLE
from dataset_scripts.rationales.posts import LANGUAGES
from dataset_scripts.rationales.run.settings import DEFAULTS
from dataset_scripts.reading.report import did_you_mean
from mpt_sentiment.arguments import JSON, PostArguments, argument, options_object

DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
ENGINES = ("endpoint", "transformers", "fake")
REQUIRED = dataclasses.MISSING
EXTRA_BODY = "Fields (JSON) merged into each request to a server, e.g. '{\"top_p\": 0.9}'; null leaves a field out."
_SHARD_OR_PART = re.compile(r"(\d+)(?:/(\d+))?")


@dataclasses.dataclass
class SpecArguments:
    """Fields of the specification, by default those of the store or of `RationaleSpec`."""

    model: str | None = argument(f"Name of the model, as its server has it. Default: {DEFAULT_MODEL}.")
    revision: str | None = argument("Commit of the model's weights: recorded, and loaded by --engine transformers.")
    prompt: str | None = argument("default, paper, or the path of your own YAML file.")
    language: str | None = argument("Language of the rationales: en, zh, or auto (that of each post; the default).")
    perspectives: list[str] | None = argument("Perspectives; default: positive neutral negative.")
    max_pixels: int | None = argument("Larger images are scaled down to this size; default 1003520.")
    max_tokens: int | None = argument("Maximum length of an answer; default 256.")
    temperature: float | None = argument("Temperature of the first request for an answer; default 0.")
    seed: int | None = argument("Seed of the first request for an answer; default 0.")
    repetition_penalty: float | None = argument("Repetition penalty, if the server accepts one; default 1.05.")
    extra_body: JSON | None = argument(EXTRA_BODY)


@dataclasses.dataclass
class EngineArguments:
    """Engine: servers, or a model in this process.

    Raises:
        ValueError: unknown engine, or an endpoint that is missing or not used.
    """

    engine: str = argument(
        "endpoint: a server; transformers: a model in this process; fake: fixed sentences.", "endpoint"
    )
    endpoint: list[str] | None = argument(
        "Address of a server, or of several; /v1 is appended unless the path holds a version or ends in "
        "/chat/completions.",
        action="extend",
    )
    profile: str = argument(f"Fields that the server accepts: {', '.join(PROFILES)}.", "vllm")
    api_key_env: str | None = argument("Name of the environment variable with the server's key.")
    timeout: float = argument("Seconds without an answer after which a request is repeated.", 180.0)
    wait_for_server: float = argument("Seconds to wait for servers that are still loading.", 0.0)
    device: str | None = argument("Device of the model in this process, e.g. cuda:1.")
    dtype: str = argument("Type of the weights in this process: auto, bfloat16, float32 …", "auto")

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {self.engine!r}.")
        if self.engine == "endpoint" and not self.endpoint:
            raise ValueError(
                "--endpoint is missing. Name one or several servers, e.g. --endpoint http://localhost:8000, or use "
                "--engine transformers for a model in this process."
            )
        if self.engine != "endpoint" and self.endpoint:
            raise ValueError(f"--endpoint cannot be combined with --engine {self.engine}. Remove one of them.")

    def server_options(self) -> dict[str, Any]:
        """Collect the options of [`EndpointEngine`].

        Raises:
            ValueError: the environment variable of the key is unset or empty, or the key itself is given.
        """
        key = None
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            raise ValueError(
                "--api_key_env takes the name of an environment variable, not the key itself: export KEY=…, then "
                "--api_key_env KEY."
            )
        if self.api_key_env is not None and not (key := os.environ.get(self.api_key_env)):
            raise ValueError(f"--api_key_env {self.api_key_env}: this environment variable is unset or empty.")
        return {"profile": self.profile, "api_key": key, "timeout": self.timeout}


@dataclasses.dataclass
class GenerationArguments:
    """Store, shards of this process, and limits of the run."""

    output_dir: str = argument("Folder of the store. A run that is already in it is resumed.", REQUIRED)
    num_shards: int | None = argument("Shards of the store, each written by one process; default: 1 per 20,000 posts.")
    shard_id: list[str] | None = argument(
        "Shards to write: numbers from 0, or I/N, the I-th (from 0) of N equal parts of all shards.", action="extend"
    )
    concurrency: int | None = argument(
        f"Maximum number of requests in flight per server; default {DEFAULTS.concurrency}."
    )
    max_attempts: int = argument("Maximum requests for one answer after temporary failures.", DEFAULTS.max_attempts)
    max_re_asks: int = argument("Maximum new requests after the gate rejects an answer.", DEFAULTS.max_re_asks)
    outage_wait: float = argument("Seconds to wait for a crashed server, then exit code 75.", DEFAULTS.outage_wait)
    failed_in_a_row: int = argument(
        "Stop after this many posts in a row without an accepted answer.", DEFAULTS.failed_in_a_row
    )
    retry_failed: bool = argument("Request again what failed permanently in an earlier run.", False)

    def chosen_shards(self, num_shards: int) -> list[int]:
        """List the shards that `shard_id` names, by default all.

        Raises:
            ValueError: a shard or part that does not exist or is malformed.
        """
        if self.shard_id is None:
            return list(range(num_shards))
        chosen: set[int] = set()
        for word in map(str, self.shard_id):
            match = _SHARD_OR_PART.fullmatch(word)
            if not match:
                raise ValueError(f"--shard_id must be a number or a part such as 3/64, got {word!r}.")
            index, parts = int(match[1]), int(match[2] or num_shards)
            if parts < 1:
                raise ValueError(f"--shard_id must name a part of at least one, such as 0/4, got {word!r}.")
            if index >= parts:
                last = f"{parts - 1}/{parts}" if match[2] else parts - 1
                raise ValueError(f"--shard_id must be at most {last} (numbers start at 0), got {word!r}.")
            chosen.update(range(num_shards * index // parts, num_shards * (index + 1) // parts))
        return sorted(chosen)


@dataclasses.dataclass
class ZeroShotArguments:
    """Model, question and folder of a zero-shot classification."""

    output_dir: str = argument("Folder of the results. A run that is already in it is resumed.", REQUIRED)
    model: str = argument("Name of the model, as its server has it.", DEFAULT_MODEL)
    revision: str | None = argument("Commit of the model's weights.")
    instructions: str | None = argument("The question; by default for the overall sentiment of the author.")
    criteria: JSON | None = argument(
        'Meanings of labels (JSON), e.g. \'{"good": "worth buying"}\'; positive, neutral and negative have defaults.'
    )
    max_pixels: int = argument("Larger images are scaled down to this size.", 1280 * 28 * 28)
    extra_body: JSON | None = argument(EXTRA_BODY)
    concurrency: int | None = argument(
        f"Maximum number of requests in flight per server; default {DEFAULTS.concurrency}."
    )
    failed_in_a_row: int = argument(
        "Stop after this many posts in a row without a usable answer.", DEFAULTS.failed_in_a_row
    )
    retry_failed: bool = argument("Request again what failed permanently in an earlier run.", False)

    def __post_init__(self) -> None:
        texts = [*options_object("criteria", self.criteria).items(), ("instructions", self.instructions)]
        for name, text in texts:
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise ValueError(f"--criteria and --instructions must be texts, got {text!r:.40} for {name!r}.")


@dataclasses.dataclass
class PlanArguments:
    """Sample to examine, and prices.

    Raises:
        ValueError: a price that is not a positive number, or lacks another one.
    """

    sample: int = argument("Posts to examine, evenly spaced; 0: all.", SAMPLE)
    price_prompt: float | None = argument("Price per million prompt tokens.")
    price_cached: float | None = argument("Price per million cached prompt tokens; default: --price_prompt.")
    price_completion: float | None = argument("Price per million tokens of answers.")
    price_hour: float | None = argument("Price of all machines per hour; needs --posts_per_second.")
    posts_per_second: float | None = argument("Speed, as the progress bar of a first run shows it.")
    output_file: str | None = argument("Also write the plan as JSON.")

    def __post_init__(self) -> None:
        for name in ("price_prompt", "price_cached", "price_completion", "price_hour", "posts_per_second"):
            value, is_speed = getattr(self, name), name == "posts_per_second"
            if value is not None and not (0 < value < math.inf or (value == 0 and not is_speed)):
                raise ValueError(
                    f"--{name} must be a number {'above' if is_speed else 'of at least'} 0, got {value!r}."
                )
        if self.price_cached is not None and self.price_prompt is None:
            raise ValueError("--price_cached needs --price_prompt, the price of the other prompt tokens.")
        if self.price_hour is not None and self.posts_per_second is None:
            raise ValueError(
                "--price_hour needs --posts_per_second. Run a few hundred posts and read it from the progress bar."
            )


@dataclasses.dataclass
class StatusArguments:
    """Store."""

    output_dir: str = argument("Folder of the store; a run may be writing it.", REQUIRED)


@dataclasses.dataclass
class OptionalPostArguments(PostArguments):
    """Posts, for commands that also work without them."""

    dataset: str | None = argument("Posts of the rationales, for their texts and labels: as `dataset` of a run.")


@dataclasses.dataclass
class ValidateArguments:
    """Rationales, and the share of faults that is accepted."""

    rationales: str = argument("A store, or a TSV, CSV, JSONL or Parquet file.", REQUIRED)
    threshold: float = argument("Share of answers rejected by the gate above which the exit code is 3.", 0.15)
    language: str | None = argument("Language of all rationales, en or zh; by default that of each post.")
    folds: int = argument("Cross-validation folds of the leak probe.", 10)
    seed: int = argument("Seed of these folds.", 42)
    output_file: str | None = argument("Also write the report as JSON.")

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold must be a share from 0 to 1, such as 0.15, got {self.threshold!r}.")
        if self.folds < 2:
            raise ValueError(f"--folds must be at least 2, got {self.folds}.")
        if self.language is not None and self.language not in LANGUAGES:
            raise ValueError(f"--language must be one of {', '.join(LANGUAGES)}, got {self.language!r}.")


@dataclasses.dataclass
class ExportArguments:
    """Rationales and the file to write."""

    rationales: str = argument("A store, or a file written by `import`.", REQUIRED)
    output_file: str = argument(
        "A .parquet or .jsonl file, or .tsv for the format of the paper's authors (needs --dataset).", REQUIRED
    )


@dataclasses.dataclass
class ImportArguments:
    """File of rationales, and its origin."""

    file: str = argument(
        "TSV of the paper's authors, or TSV, CSV, JSONL, Parquet with columns id and rationale_PERSPECTIVE.", REQUIRED
    )
    output_file: str = argument("A .parquet or .jsonl file.", REQUIRED)
    authors: str | None = argument("The authors' dataset: ch_mits, mvsa_single, mvsa_multiple or memotion.")
    language: str = argument(
        "Language of the rationales: en, zh, or auto (that of the posts of --dataset, or detected).", "auto"
    )
    provenance: str | None = argument("Origin of the rationales; by default the file's name.")


def arguments_of(classes: Sequence[type], fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Create one instance of each argument class from keywords of a Python call.

    Raises:
        ValueError: a field that no class has, with the closest known one.
    """
    names = {cls: [field.name for field in dataclasses.fields(cls)] for cls in classes}
    known = [name for own in names.values() for name in own]
    for name in fields:
        if name not in known:
            raise ValueError(f"Unknown field {name!r}.{did_you_mean(name, known)} Known are {', '.join(known)}.")
    return tuple(cls(**{name: fields[name] for name in own if name in fields}) for cls, own in names.items())
