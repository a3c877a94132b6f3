"""Command `generate-rationales`: write, inspect and convert rationales.

    mpt-sentiment generate-rationales COMMAND --name value …

    plan          estimate posts, tokens, disk and cost of a run
    check-server  check a server, or a model in this process, before a long run
    run           request all rationales that the store lacks; called again, the run is resumed
    export-batch  write these requests to files for OpenAI's Batch API or vLLM's run-batch instead
    import-batch  read the answers of a batch into the store
    status        show the progress of a store, also during a run
    validate      report what the gate rejects in a store or file, and what a leak probe predicts from it
    export        write a store or file as one table, or in the format of the paper's authors
    import        convert rationales of other origin, and check them with the gate

Servers: vLLM, SGLang, transformers serve, or any other with the OpenAI API:
    mpt-sentiment generate-rationales run --dataset ch_mits --data_dir CH-Mits --output_dir rationales \\
        --endpoint http://localhost:8000
A model in this process, or one per GPU:
    accelerate launch examples/generate_rationales.py run --dataset ch_mits --data_dir CH-Mits \\
        --output_dir rationales --engine transformers

`COMMAND --help` lists its arguments. Exit codes: 0 done; 1 refused, or every request fails until you correct the cause
that the message names; 3 finished, but some rationales are missing (run, import-batch) or too many are rejected
(validate); 75 server unreachable or overloaded, try again later; 130 interrupted. After 1, 75 and 130 the same command
resumes the run.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from datasets import Dataset, DatasetDict

from dataset_scripts import load_posts
from dataset_scripts.output import check_writable, write_text_atomically
from dataset_scripts.rationales.engines.server_check import checks_table
from dataset_scripts.rationales.files import rationale_columns
from dataset_scripts.rationales.plan import Prices, plan_run, plan_table
from dataset_scripts.rationales.quality.summary import summarize_gate, summary_table
from dataset_scripts.rationales.store.store import RationaleStore
from dataset_scripts.rationales.transfer import export_authors, export_table, import_rationales, load_rationale_table
from dataset_scripts.reading.report import did_you_mean
from mpt_sentiment.arguments import PostArguments, parse
from mpt_sentiment.batching import ExportBatchArguments, ImportBatchArguments, export_batch, import_batch
from mpt_sentiment.commands.faults import INCOMPLETE, INTERRUPTED
from mpt_sentiment.commands.logs import set_up_logging
from mpt_sentiment.generating import check_servers, generate, one_dataset, process_state, specification
from mpt_sentiment.generation_arguments import (
    EngineArguments,
    ExportArguments,
    GenerationArguments,
    ImportArguments,
    OptionalPostArguments,
    PlanArguments,
    SpecArguments,
    StatusArguments,
    ValidateArguments,
)


def main(argv: Sequence[str]) -> int | None:
    """Run the command.

    Raises:
        ValueError: no such command, or unusable arguments or data.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return None
    name, *rest = argv
    if name not in COMMANDS:
        raise ValueError(f"Unknown command {name!r}; use one of {', '.join(COMMANDS)}.{did_you_mean(name, COMMANDS)}")
    function, classes = COMMANDS[name]
    arguments = parse(classes, rest, command=f"generate-rationales {name}")
    set_up_logging()
    return function(*arguments)


def plan(post_args: PostArguments, spec_args: SpecArguments, args: PlanArguments) -> None:
    check_output(args.output_file)
    spec, prompt = specification(spec_args)
    prices = Prices(
        args.price_prompt, args.price_cached, args.price_completion, args.price_hour, args.posts_per_second
    )
    result = plan_run(one_dataset(posts_of(post_args)), spec, prompt, sample=args.sample)
    print(plan_table(result, prices))
    if args.output_file:
        write_text_atomically(args.output_file, json.dumps(result.to_dict(prices), indent=2) + "\n")


def check_server(spec_args: SpecArguments, engine_args: EngineArguments) -> int:
    reports = check_servers(spec_args, engine_args)
    print("\n\n".join(map(checks_table, reports)))
    return 0 if all(check.passed is not False for checks in reports for check in checks) else 1


def run(
    post_args: PostArguments, spec_args: SpecArguments, engine_args: EngineArguments, args: GenerationArguments
) -> int | None:
    state = process_state(engine_args)
    with state.main_process_first() if state else nullcontext():
        posts = posts_of(post_args)
    try:
        generated = generate(posts, spec_args, engine_args, args)
    except KeyboardInterrupt as interrupt:
        print(interrupt)
        return INTERRUPTED
    print(generated)
    # a launcher of several processes would end the others at the first code that is not 0
    several_processes = state is not None and state.num_processes > 1
    return INCOMPLETE if generated.report.absent and not several_processes else 0


def export_requests(post_args: PostArguments, spec_args: SpecArguments, args: ExportBatchArguments) -> None:
    print(export_batch(posts_of(post_args), spec_args, args))


def import_answers(post_args: PostArguments, spec_args: SpecArguments, args: ImportBatchArguments) -> int:
    imported = import_batch(posts_of(post_args), spec_args, args, on_error=post_args.on_error)
    print(imported)
    return INCOMPLETE if imported.open or imported.failed else 0


def status(args: StatusArguments) -> None:
    store = RationaleStore.open(args.output_dir)
    columns = ("posts", "ok", "flagged", "failed", "crashed", "open")
    shards = store.status()
    print(f"{'shard':>7}" + "".join(f"{name:>12}" for name in columns))
    for shard in shards:
        if shard.posts:
            counts = "".join(f"{getattr(shard, name):>12,}" for name in columns)
            print(f"{shard.shard_id:>7}{counts}{'  published' * shard.published}")
    totals = "".join(f"{sum(getattr(shard, name) for shard in shards):>12,}" for name in columns)
    published, started = (sum(getattr(shard, name) > 0 for shard in shards) for name in ("published", "posts"))
    print(f"{'all':>7}{totals}\n{started:,} of {store.num_shards:,} shards started, {published:,} published")


def validate(post_args: OptionalPostArguments, args: ValidateArguments) -> int:
    check_output(args.output_file)
    if post_args.dataset is None:
        posts = load_rationale_table(args.rationales, on_error=post_args.on_error)
    else:
        posts = one_dataset(posts_of(post_args, args.rationales))
        validated = rationale_columns(Path(args.rationales))
        posts = posts.remove_columns(
            [name for name in posts.column_names if name.startswith("rationale_") and name not in validated]
        )
    report = summarize_gate(posts, language=args.language)
    if "label" in posts.column_names:
        from dataset_scripts.rationales.quality.leak_probe import leak_probe  # imports scikit-learn

        try:
            report["leak"] = leak_probe(posts, seed=args.seed, folds=args.folds, language=args.language)
        except ValueError as error:
            print(f"No leak probe: {error}", file=sys.stderr)
    print(summary_table(report))
    if args.output_file:
        write_text_atomically(args.output_file, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    parts = report["perspectives"].values()
    share = sum(part["hard"] for part in parts) / sum(part["rationales"] for part in parts)
    print(f"The gate rejects {share:.1%} of the rationales; the threshold is {args.threshold:.1%}.")
    return INCOMPLETE if share > args.threshold else 0


def export(post_args: OptionalPostArguments, args: ExportArguments) -> None:
    check_output(args.output_file)
    output = Path(args.output_file)
    if output.suffix == ".tsv":
        if post_args.dataset is None:
            raise ValueError("The authors' format has labels and texts. Name the posts with --dataset.")
        posts = one_dataset(posts_of(post_args, args.rationales))
        export_authors(posts, output, data_dir=post_args.data_dir)
        num_posts = len(posts)
    else:
        num_posts = export_table(args.rationales, output, on_error=post_args.on_error)
    print(f"{num_posts:,} posts in {output}")


def import_file(post_args: OptionalPostArguments, args: ImportArguments) -> None:
    check_output(args.output_file)
    report = import_rationales(
        args.file,
        args.output_file,
        posts=one_dataset(posts_of(post_args)) if post_args.dataset else None,
        authors=args.authors,
        language=args.language,
        provenance=args.provenance,
        on_error=post_args.on_error,
    )
    print(f"{report.summary()}\nWritten to {args.output_file}. To train on it: --rationales {args.output_file}")


COMMANDS: dict[str, tuple[Callable[..., int | None], tuple[type, ...]]] = {
    "plan": (plan, (PostArguments, SpecArguments, PlanArguments)),
    "check-server": (check_server, (SpecArguments, EngineArguments)),
    "run": (run, (PostArguments, SpecArguments, EngineArguments, GenerationArguments)),
    "export-batch": (export_requests, (PostArguments, SpecArguments, ExportBatchArguments)),
    "import-batch": (import_answers, (PostArguments, SpecArguments, ImportBatchArguments)),
    "status": (status, (StatusArguments,)),
    "validate": (validate, (OptionalPostArguments, ValidateArguments)),
    "export": (export, (OptionalPostArguments, ExportArguments)),
    "import": (import_file, (OptionalPostArguments, ImportArguments)),
}


def check_output(file: str | None) -> None:
    """Check that a file can be written, before the work for it."""
    if file is not None:
        check_writable(file, "output_file", is_file=True)


def posts_of(args: PostArguments, rationales: str | None = None) -> Dataset | DatasetDict:
    """Load the posts that the arguments name."""
    return load_posts(
        args.dataset, args.data_dir, rationales=rationales, on_error=args.on_error, **args.dataset_options
    )
