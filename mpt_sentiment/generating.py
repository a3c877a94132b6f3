"""Generation of rationales with a large multimodal model."""

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts import join_rationales
from dataset_scripts.output import check_writable
from dataset_scripts.rationales.engines.base import Engine, FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.open_files import ensure_open_files
from dataset_scripts.rationales.engines.server_check import ServerCheck, check_server
from dataset_scripts.rationales.errors import OutageError
from dataset_scripts.rationales.plan import num_shards_for
from dataset_scripts.rationales.prompts import Prompt, load_prompt
from dataset_scripts.rationales.run.runner import RunReport, RunSettings, run
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from mpt_sentiment.generation_arguments import (
    DEFAULT_MODEL,
    EngineArguments,
    GenerationArguments,
    SpecArguments,
    ZeroShotArguments,
    arguments_of,
)

INTERRUPTED = "Interrupted. All answers received are stored; run it again to resume."
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class GeneratedRationales:
    """Result of a run.

    Attributes:
        store ([`RationaleStore`]): all rationales in the folder, of this run and of earlier ones.
        report ([`RunReport`]): counts of this run.
    """

    store: RationaleStore
    report: RunReport
    _posts: Dataset | DatasetDict = dataclasses.field(repr=False)

    @property
    def folder(self) -> Path:
        """Folder of the store; `train` and `load_posts` accept it as `rationales`."""
        return self.store.folder

    @functools.cached_property
    def posts(self) -> Dataset | DatasetDict:
        """The posts with their `rationale_*` columns."""
        return join_rationales(self._posts, self.folder)

    def __str__(self) -> str:
        folder = f"Rationales are in {self.folder}. To train on them: --rationales {self.folder}"
        return "\n".join([*report_lines(self.report), folder])


def generate_rationales(
    posts: Dataset | DatasetDict,
    output_dir: str | Path,
    *,
    endpoint: str | Sequence[str] | None = None,
    engine: str | None = None,
    progress: bool = True,
    **fields: Any,
) -> GeneratedRationales:
    """Write one rationale per post and perspective with a large multimodal model.

    Called again with the same arguments, an interrupted run is resumed: stored answers are never requested again.

    Args:
        posts (`Dataset` or `DatasetDict`): posts with `id`, `text`, `image`; labels are not read.
        output_dir (`str` or `Path`): folder of the store.
        endpoint (`str` or sequence, *optional*): address of one or several OpenAI-compatible servers.
        engine (`str`, *optional*): `"endpoint"`, `"transformers"` (a model in this process) or `"fake"` (fixed
            sentences, to try out a run). By default `"endpoint"` if there is one, else `"transformers"`.
        progress (`bool`, defaults to `True`): show a progress bar.
        fields: any field of [`SpecArguments`] (`model`, by default `"Qwen/Qwen2.5-VL-7B-Instruct"`, `prompt`,
            `language`, `perspectives`, …), [`EngineArguments`] (`profile`, `api_key_env`, `device`, …) or
            [`GenerationArguments`] (`concurrency`, `num_shards`, `shard_id`, …).

    Returns:
        [`GeneratedRationales`]; its `posts` are the given posts with the rationales.

    Raises:
        ValueError: an unknown or unusable field, or posts that cannot be read.
        StoreError: the folder holds rationales of another specification, or cannot be written.
        OutageError: a server is unreachable or fails every request; the same call resumes the run later.
        MisconfiguredError: every request fails until its cause is corrected. No failure is recorded.
        KeyboardInterrupt: the run was interrupted; its answers are stored.
    """
    classes = (SpecArguments, EngineArguments, GenerationArguments)
    fields |= {"output_dir": str(output_dir)} | engine_fields(endpoint, engine)
    return generate(posts, *arguments_of(classes, fields), progress=progress)


def engine_fields(endpoint: str | Sequence[str] | None, engine: str | None) -> dict[str, Any]:
    """Complete `endpoint` and `engine` of a Python call."""
    endpoints = [endpoint] if isinstance(endpoint, str) else endpoint and list(endpoint)
    return {"endpoint": endpoints, "engine": engine or ("endpoint" if endpoints else "transformers")}


def generate(
    posts: Dataset | DatasetDict,
    spec_args: SpecArguments,
    engine_args: EngineArguments,
    args: GenerationArguments,
    *,
    progress: bool = True,
) -> GeneratedRationales:
    """Write rationales as described by argument objects; see [`generate_rationales`]."""
    check_writable(args.output_dir)
    rows = one_dataset(posts)
    state = process_state(engine_args)
    processes = state.num_processes if state else 1
    planned = planned_store(rows, spec_args, engine_args, args.output_dir, args.num_shards, processes)
    shard_ids = args.chosen_shards(planned.num_shards)
    if state:
        from dataset_scripts.rationales.engines.local import process_shards

        shard_ids = [shard_ids[index] for index in process_shards(len(shard_ids))]
        progress = progress and state.is_local_main_process
    store, report = request_answers(
        rows,
        planned.create,
        lambda: open_engines(engine_args, planned.spec, planned.prompt),
        wait_seconds=engine_args.wait_for_server,
        settings=run_settings(args, engine_args, planned.spec),
        shard_ids=shard_ids,
        progress=progress,
    )
    return GeneratedRationales(store, report, posts)


class PlannedStore(NamedTuple):
    """Specification and size of a store, and the function that creates or opens it."""

    spec: RationaleSpec
    prompt: Prompt
    num_shards: int
    create: Callable[[], RationaleStore]


def planned_store(
    rows: Dataset,
    spec_args: SpecArguments,
    engine_args: EngineArguments | None,
    folder: str | Path,
    num_shards: int | None,
    processes: int = 1,
) -> PlannedStore:
    """Complete the arguments of a store by those of an existing one, or by the defaults."""
    earlier = RationaleStore.open(folder) if is_store(folder) else None
    spec, prompt = specification(spec_args, engine_args, earlier)
    if num_shards is None:
        num_shards = earlier.num_shards if earlier else max(num_shards_for(len(rows)), processes)
    if num_shards < 1:
        raise ValueError(f"--num_shards must be at least 1, got {num_shards}.")
    sources = sorted(filter(None, set(rows["source"]))) if "source" in rows.column_names else []
    data = {"dataset": ", ".join(sources), "posts": len(rows)}
    create = functools.partial(RationaleStore.create, folder, spec, prompt, num_shards=num_shards, data=data)
    return PlannedStore(spec, prompt, num_shards, create)


def request_answers(
    posts: Dataset,
    create_store: Callable[[], RationaleStore],
    open_engines: Callable[[], list[Engine]],
    *,
    wait_seconds: float,
    **options: Any,
) -> tuple[RationaleStore, RunReport]:
    """Request all answers that a store lacks, with the `options` of `runner.run`.

    The store is created after the health checks, so that an unreachable server leaves no folder.

    Raises:
        KeyboardInterrupt: the run was interrupted; its text is the report.
    """

    async def ask() -> tuple[RationaleStore, RunReport]:
        async with healthy_engines(open_engines, wait_seconds) as engines:
            store = create_store()
            return store, await run(posts, store, engines, **options)

    store, report = run_to_completion(ask())
    if report.stopped:
        raise KeyboardInterrupt("\n".join([*report_lines(report), INTERRUPTED]))
    return store, report


def check_servers(spec_args: SpecArguments, engine_args: EngineArguments) -> list[list[ServerCheck]]:
    """Check each server, or a model in this process, before a long run.

    Raises:
        OutageError: a server is unreachable.
    """
    spec, prompt = specification(spec_args, engine_args)

    async def check() -> list[list[ServerCheck]]:
        open_all = functools.partial(open_engines, engine_args, spec, prompt)
        async with healthy_engines(open_all, engine_args.wait_for_server) as engines:
            return [await check_server(engine, spec) for engine in engines]

    return run_to_completion(check())


def specification(
    args: SpecArguments, engine: EngineArguments | None = None, store: RationaleStore | None = None
) -> tuple[RationaleSpec, Prompt]:
    """Fill in fields from `store` or from the defaults, and load the prompt."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    if engine is not None and engine.engine == "fake":
        if "model" in given:
            raise ValueError("--model cannot be combined with --engine fake. Remove it.")
        given["model"] = "fake"  # keeps fixed sentences out of a model's store
    fields = (store.spec.to_dict() if store else {"model": DEFAULT_MODEL}) | given
    fields["model"] = str(fields["model"])
    prompt = load_prompt(str(fields.get("prompt", "default")), fields.get("language", "auto"))
    fields |= {"prompt": prompt.name, "prompt_hash": prompt.hash}
    fields["perspectives"] = tuple(fields.get("perspectives") or prompt.perspectives)
    return RationaleSpec(**fields), prompt


def one_dataset(posts: Dataset | DatasetDict) -> Dataset:
    """Concatenate all splits."""
    return concatenate_datasets([*posts.values()]) if isinstance(posts, DatasetDict) else posts


def process_state(args: EngineArguments) -> Any:
    """Return accelerate's state of the processes if the model runs in them, else `None`."""
    if args.engine != "transformers":
        return None
    import torch
    from accelerate import PartialState

    # without `cpu=True`, accelerate ignores the other processes on a machine without accelerator
    return PartialState(cpu=args.device == "cpu" or not torch.accelerator.is_available())


def run_settings(
    args: GenerationArguments | ZeroShotArguments, engine_args: EngineArguments, spec: RationaleSpec, **fixed: Any
) -> RunSettings:
    """Collect the settings of a run from its arguments."""
    names = [field.name for field in dataclasses.fields(RunSettings)]
    given = {name: value for name, value in vars(args).items() if name in names and value is not None}
    if engine_args.engine == "transformers":  # answers one request at a time, so two posts in flight suffice
        given = {"concurrency": 2 * len(spec.perspectives)} | given
    settings = RunSettings(**given | fixed)
    ensure_open_files(settings.concurrency, len(engine_args.endpoint or ()))
    return settings


def open_engines(args: EngineArguments, spec: RationaleSpec, prompt: Prompt) -> list[Engine]:
    """Create one engine per server, or one for the model in this process."""
    if args.engine == "fake":
        return [FakeEngine()]
    if args.engine == "transformers":
        from dataset_scripts.rationales.engines.local import TransformersEngine

        return [TransformersEngine.from_pretrained(spec, prompt, device=args.device, dtype=args.dtype)]
    return [EndpointEngine(url, spec, prompt, **args.server_options()) for url in args.endpoint]


@contextlib.asynccontextmanager
async def healthy_engines(open_engines: Callable[[], list[Engine]], seconds: float) -> AsyncIterator[list[Engine]]:
    """Open engines, wait until all health checks succeed, and close the engines in the end.

    Raises:
        OutageError: a health check still fails after `seconds`.
        MisconfiguredError: waiting does not help.
    """
    engines = open_engines()
    try:
        deadline = time.monotonic() + seconds
        for engine in engines:
            while True:
                try:
                    await engine.check_health()
                    break
                except OutageError as error:
                    if time.monotonic() >= deadline:
                        raise OutageError(
                            f"{error} Start the server, or use --wait_for_server SECONDS while it loads."
                        ) from None
                await asyncio.sleep(min(2.0, seconds / 10))
        yield engines
    finally:
        for engine in engines:
            await engine.close()


def run_to_completion(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine, also where an event loop is already running, as in a notebook.

    In a notebook it runs in a thread with its own loop, and an interrupt of the cell drops the requests in flight.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="rationales") as pool:
            future = pool.submit(loop.run_until_complete, task)
            try:
                return future.result()
            except KeyboardInterrupt:
                loop.call_soon_threadsafe(task.cancel)
                raise KeyboardInterrupt(INTERRUPTED) from None
    finally:
        loop.close()


def report_lines(report: RunReport) -> list[str]:
    """Summarize a run in a few lines."""
    statuses = ("ok", "flagged", "failed", "crashed")
    counts = {name: getattr(report, name) for name in statuses if getattr(report, name)}
    lines = [
        f"{report.posts:,} posts in {report.seconds:,.0f} s, {report.complete:,} of them already complete; "
        f"{report.answers:,} rationales" + "".join(f", {name} {count:,}" for name, count in counts.items())
    ]
    if report.requests:
        lines.append(
            f"{report.requests:,} requests ({report.retried:,} retried, {report.re_asked:,} rejected by the gate, "
            f"{report.outages:,} outages); tokens: {report.prompt_tokens:,} in prompts, {report.cached_tokens:,} of "
            f"them cached, {report.completion_tokens:,} in answers"
        )
    lines += [*report.errors.lines("failed"), *report.flags.lines("flagged")]
    if report.failed_before:
        lines.append(f"failed in earlier runs: {report.failed_before:,}; request them again with --retry_failed")
    if report.crashing_posts:
        lines.append(f"posts that crash the server: {', '.join(report.crashing_posts)}")
    return lines
