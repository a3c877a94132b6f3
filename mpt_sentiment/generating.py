"""Write the rationales of posts, one per perspective, with any large multimodal model.

    python examples/generate_rationales.py COMMAND --name value …

    plan      posts, tokens, disk and cost, before anything is asked
    doctor    is this server, or this model, fit for a long run?
    run       ask for every rationale that the store lacks; start it again to go on
    status    how far a store is, also while a run writes it
    validate  the gate's report on a store or file, and the leak probe
    export    a store or file as one table, or as the paper's authors write theirs
    import    rationales from elsewhere, held against the gate

A server (vLLM, SGLang, transformers serve, any OpenAI-compatible one):
    python examples/generate_rationales.py run --dataset ch_mits --data_dir CH-Mits --output_dir rationales \\
        --endpoint http://localhost:8000
A model in this process, or in several:
    accelerate launch examples/generate_rationales.py run --dataset ch_mits --data_dir CH-Mits \\
        --output_dir rationales --engine transformers

`COMMAND --help` lists its arguments. Exit codes: 0 done, 1 refused, 3 too many rationales flagged (validate), 75 the
server is gone (the same command goes on), 130 interrupted with everything in flight recorded (likewise).
"""

import asyncio
import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts import load_posts_with_report
from dataset_scripts.rationales.engines.base import Engine, FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.server_check import check_server, checks_table
from dataset_scripts.rationales.errors import OutageError
from dataset_scripts.rationales.plan import Prices, num_shards_for, plan_run, plan_table
from dataset_scripts.rationales.prompts import Prompt, load_prompt
from dataset_scripts.rationales.quality.summary import summarize_gate, summary_table
from dataset_scripts.rationales.run.runner import RunReport, RunSettings, run
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore, is_store
from dataset_scripts.rationales.transfer import (
    export_authors,
    export_table,
    import_rationales,
    load_rationale_table,
)
from dataset_scripts.reading.tables import table_columns
from mpt_sentiment.rationale_arguments import (
    EngineArguments,
    ExportArguments,
    ImportArguments,
    PlanArguments,
    PostArguments,
    RunArguments,
    SpecArguments,
    StatusArguments,
    ValidateArguments,
    parse,
)

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
OUTAGE, INTERRUPTED, FLAGGED = 75, 130, 3


def main(argv: list[str]) -> int:
    command, arguments = parse(argv, __doc__)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("httpx", "httpx2", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return COMMANDS[command](*arguments)


def plan(post_args: PostArguments, spec_args: SpecArguments, args: PlanArguments) -> int:
    spec, prompt = specify(spec_args)
    prices = Prices(
        args.price_prompt, args.price_cached, args.price_completion, args.price_hour, args.posts_per_second
    )
    found = plan_run(load(post_args), spec, prompt, sample=args.sample)
    print(plan_table(found, prices))
    if args.output_file:
        write_json(args.output_file, found.to_dict(prices))
    return 0


def doctor(spec_args: SpecArguments, engine_args: EngineArguments) -> int:
    spec, prompt = specify(spec_args, engine_args)

    async def examined() -> bool:
        engines = engines_of(engine_args, spec, prompt)
        try:
            await wait_for(engines, engine_args.wait_for_server)
            reports = [await check_server(engine, spec) for engine in engines]
        finally:
            await close(engines)
        print("\n\n".join(checks_table(checks) for checks in reports))
        return all(check.passed is not False for checks in reports for check in checks)

    return 0 if asyncio.run(examined()) else 1


def generate(
    post_args: PostArguments, spec_args: SpecArguments, engine_args: EngineArguments, args: RunArguments
) -> int:
    state = None
    if engine_args.engine == "transformers":  # asking a server needs no torch
        import torch
        from accelerate import PartialState

        # by itself it takes several processes without accelerator for one
        state = PartialState(cpu=engine_args.device == "cpu" or not torch.accelerator.is_available())
    with state.main_process_first() if state else nullcontext():
        posts = load(post_args)
    earlier = RationaleStore.open(args.output_dir) if is_store(args.output_dir) else None
    spec, prompt = specify(spec_args, engine_args, earlier)
    processes = state.num_processes if state else 1
    num_shards = args.num_shards or (earlier.num_shards if earlier else max(num_shards_for(len(posts)), processes))
    shards = args.shards(num_shards)
    if state:
        from dataset_scripts.rationales.engines.local import process_shards

        shards = shards or list(range(num_shards))
        shards = [shards[place] for place in process_shards(len(shards))]
    chosen = ("concurrency", "max_attempts", "max_re_asks", "outage_wait", "first_failures", "retry_failed")
    settings = {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    if state:  # it answers one request at a time, and need not hold many posts for that
        settings.setdefault("concurrency", 2 * len(spec.perspectives))

    async def asked() -> tuple[RunReport, RationaleStore]:
        engines = engines_of(engine_args, spec, prompt)
        try:
            await wait_for(engines, engine_args.wait_for_server)
            # not before: a folder belongs to the specification that it was begun with
            data = {"dataset": name_of(post_args), "posts": len(posts)}
            store = RationaleStore.create(args.output_dir, spec, prompt, num_shards=num_shards, data=data)
            bar = state is None or state.is_local_main_process
            done = await run(posts, store, engines, shard_ids=shards, settings=RunSettings(**settings), progress=bar)
            return done, store
        finally:
            await close(engines)

    report, store = asyncio.run(asked())
    print(summary(report, store))
    return INTERRUPTED if report.stopped else 0


def status(args: StatusArguments) -> int:
    store = RationaleStore.open(args.output_dir)
    names = ("posts", "ok", "flagged", "failed", "poison", "open")
    shards = store.status()
    print(f"{'shard':>7}" + "".join(f"{name:>12}" for name in names))
    for shard in shards:
        if shard.posts:
            numbers = "".join(f"{getattr(shard, name):>12,}" for name in names)
            print(f"{shard.shard_id:>7}{numbers}{'  published' * shard.published}")
    totals = "".join(f"{sum(getattr(shard, name) for shard in shards):>12,}" for name in names)
    published, begun = (sum(getattr(shard, name) > 0 for shard in shards) for name in ("published", "posts"))
    print(f"{'all':>7}{totals}\n{begun:,} of {store.num_shards:,} shards begun, {published:,} published")
    return 0


def validate(post_args: PostArguments, args: ValidateArguments) -> int:
    from dataset_scripts.rationales.quality.leak_probe import (
        leak_probe,  # with scikit-learn, which no other command needs
    )

    if post_args.dataset is None:
        posts = load_rationale_table(args.rationales)
    else:
        there = set(table_columns(Path(args.rationales)))
        posts = load(post_args, args.rationales)
        own = [name for name in posts.column_names if name.startswith("rationale_") and name not in there]
        posts = posts.remove_columns(own)
    report = summarize_gate(posts, language=args.language)
    if "label" in posts.column_names:
        try:
            report["leak"] = leak_probe(posts, seed=args.seed, folds=args.folds, language=args.language)
        except ValueError as error:
            print(f"No leak probe: {error}", file=sys.stderr)
    print(summary_table(report))
    if args.output_file:
        write_json(args.output_file, report)
    parts = report["perspectives"].values()
    share = sum(part["hard"] for part in parts) / sum(part["rationales"] for part in parts)
    print(f"{share:.1%} of the rationales have a hard flag; the threshold is {args.threshold:.1%}")
    return FLAGGED if share > args.threshold else 0


def export(post_args: PostArguments, args: ExportArguments) -> int:
    output = Path(args.output_file)
    if output.suffix == ".tsv":
        if post_args.dataset is None:
            raise ValueError("the authors' form holds labels and texts: name the posts with --dataset.")
        posts = load(post_args, args.rationales)
        export_authors(posts, output, data_dir=post_args.data_dir)
        count = len(posts)
    else:
        count = export_table(args.rationales, output)
    print(f"{count:,} posts in {output}")
    return 0


def import_file(post_args: PostArguments, args: ImportArguments) -> int:
    posts = load(post_args) if post_args.dataset else None
    report = import_rationales(
        args.file,
        args.output_file,
        posts=posts,
        authors=args.authors,
        language=args.language,
        provenance=args.provenance,
        on_error=post_args.on_error,
    )
    print(report.summary())
    print(f"Written to {args.output_file}; for training: train.py --rationales {args.output_file}")
    return 0


COMMANDS = {
    "plan": plan,
    "doctor": doctor,
    "run": generate,
    "status": status,
    "validate": validate,
    "export": export,
    "import": import_file,
}


def load(args: PostArguments, rationales: str | None = None) -> Dataset:
    """The posts; those of all splits, where a dataset comes in splits."""
    posts, report = load_posts_with_report(
        args.dataset or "sample", args.data_dir, rationales=rationales, on_error=args.on_error, **args.dataset_options
    )
    if report.skipped:
        print(report.summary(), file=sys.stderr)
    return concatenate_datasets([*posts.values()]) if isinstance(posts, DatasetDict) else posts


def name_of(args: PostArguments) -> str:
    """Of the posts, for those who get the store: where a folder lies is nobody's business."""
    name = args.dataset or "sample"
    return Path(name).resolve().name if Path(name).is_dir() else name


def specify(
    args: SpecArguments, engine: EngineArguments | None = None, store: RationaleStore | None = None
) -> tuple[RationaleSpec, Prompt]:
    """What is asked: as the arguments say, where they are silent as in `store`, and else as `RationaleSpec` has it."""
    given = {name: value for name, value in dataclasses.asdict(args).items() if value is not None}
    if engine is not None and engine.engine == "fake":
        if "model" in given:
            raise ValueError("--engine fake is no model; leave out --model.")
        given["model"] = "fake"  # so that its sentences never mix with a model's
    base = store.spec.to_dict() if store else {"model": MODEL}
    fields = base | given
    prompt = load_prompt(fields.get("prompt", "default"), fields.get("language", "auto"))
    fields |= {"prompt_hash": prompt.hash, "perspectives": tuple(fields.get("perspectives") or prompt.perspectives)}
    return RationaleSpec(**fields), prompt


def engines_of(args: EngineArguments, spec: RationaleSpec, prompt: Prompt) -> list[Engine]:
    if args.engine == "fake":
        return [FakeEngine()]
    if args.engine == "transformers":
        from dataset_scripts.rationales.engines.local import TransformersEngine

        return [TransformersEngine.from_pretrained(spec, prompt, device=args.device, dtype=args.dtype)]
    return [EndpointEngine(url, spec, prompt, **args.server_options()) for url in args.endpoint]


def write_json(path: str, content: dict[str, Any]) -> None:
    from mpt_sentiment.evaluation import (
        write_metrics,  # and with it torch and matplotlib, which asking a server does not need
    )

    write_metrics(path, content)


async def wait_for(engines: Sequence[Engine], seconds: float) -> None:
    """Until all of them answer.

    Raises:
        OutageError: after `seconds`, one of them still does not.
    """
    deadline = time.monotonic() + seconds
    while down := [engine.name for engine in engines if not await engine.healthy()]:
        if time.monotonic() >= deadline:
            raise OutageError(
                f"{', '.join(down)} does not answer its health check; is it running? --wait_for_server SECONDS waits "
                "for one that is loading."
            )
        await asyncio.sleep(min(2.0, seconds / 10))


async def close(engines: Sequence[Engine]) -> None:
    for engine in engines:
        await engine.close()


def summary(report: RunReport, store: RationaleStore) -> str:
    counts = {name: getattr(report, name) for name in ("ok", "flagged", "failed", "poison") if getattr(report, name)}
    lines = [
        f"{report.posts:,} posts in {report.seconds:,.0f} s, {report.complete:,} of them complete before; "
        f"{report.answers:,} rationales" + "".join(f", {name} {count:,}" for name, count in counts.items())
    ]
    if report.requests:
        lines.append(
            f"{report.requests:,} requests ({report.retried:,} retried, {report.re_asked:,} sent back by the gate, "
            f"{report.outages:,} outages); tokens: {report.prompt_tokens:,} of prompts, {report.cached_tokens:,} of "
            f"them not computed again, {report.completion_tokens:,} written"
        )
    lines += [f"failed: {name} {count:,}" for name, count in report.errors.items()]
    if report.poison_posts:
        lines.append(f"posts that kill the server: {', '.join(report.poison_posts)}")
    lines.append(
        "Interrupted; everything answered is recorded, and the same command goes on."
        if report.stopped
        else f"Rationales are in {store.folder}; for training: train.py --rationales {store.folder}"
    )
    return "\n".join(lines)
