"""The multimodal model alone: its own answer as label probabilities, in the form of any other model's predictions.

    python examples/zero_shot.py --dataset mvsa_single --data_dir MVSA_Single --output_dir zero_shot \\
        --endpoint http://localhost:8000
    python examples/zero_shot.py --dataset ch_mits --data_dir CH-Mits --output_dir zero_shot --engine transformers

Takes the data arguments of `train.py`, hence the same posts on the same sides. Validation and test are asked, in each
cyclic order of the options; a temperature is fitted on validation, and test is scored with it. In OUTPUT_DIR:
predictions.parquet and metrics.json as train.py writes them, log_probs.parquet with the raw answers, and the store
that a second call goes on from. Exit codes: 0 done, 1 refused, 75 the server is gone, 130 interrupted.
"""

import asyncio
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetDict, concatenate_datasets
from scipy.special import softmax
from transformers import HfArgumentParser

from dataset_scripts.output import atomic_path
from dataset_scripts.rationales.engines.base import Engine
from dataset_scripts.rationales.engines.label_question import LabelQuestion, average_orders, read_log_probs
from dataset_scripts.rationales.engines.zero_shot import EndpointZeroShot
from dataset_scripts.rationales.run.runner import RunReport, RunSettings, run
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore
from mpt_sentiment.evaluation import (
    TrainingData,
    environment,
    evaluate_predictions,
    prediction_table,
    write_metrics,
    write_predictions,
)
from mpt_sentiment.evaluation.calibration import calibration_scores, fit_temperature
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.generating import INTERRUPTED, MODEL, close, wait_for
from mpt_sentiment.rationale_arguments import EngineArguments
from mpt_sentiment.recipe import DataArguments
from mpt_sentiment.training import load_splits

ASKED = ("validation", "test")


@dataclasses.dataclass
class ZeroShotArguments:
    output_dir: str = dataclasses.field(metadata={"help": "Folder of the results; a second call in it goes on."})
    model: str = dataclasses.field(default=MODEL, metadata={"help": "Name under which the engine knows the model."})
    revision: str | None = dataclasses.field(default=None, metadata={"help": "Commit of its weights."})
    instructions: str | None = dataclasses.field(
        default=None, metadata={"help": "The question; by default for the overall sentiment of the author."}
    )
    criteria: str | None = dataclasses.field(
        default=None,
        metadata={"help": 'What the labels mean (JSON), e.g. \'{"good": "worth buying"}\'; MPT\'s own are known.'},
    )
    max_pixels: int = dataclasses.field(default=1280 * 28 * 28, metadata={"help": "Larger images are scaled down."})
    concurrency: int | None = dataclasses.field(default=None, metadata={"help": "Requests at a time and server."})
    retry_failed: bool = dataclasses.field(default=False, metadata={"help": "Ask again what failed for good."})

    def __post_init__(self) -> None:
        try:
            self.criteria = json.loads(self.criteria) if self.criteria else None
        except json.JSONDecodeError as error:
            raise ValueError(f"--criteria {self.criteria!r} is not JSON ({error}).") from None


def main(argv: list[str]) -> int:
    args, engine_args, data_args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("httpx", "httpx2", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    splits, data = load_splits(data_args)
    question = LabelQuestion.for_labels(splits["test"].features["label"].names)
    changes = {"instructions": args.instructions, "criteria": args.criteria}
    question = dataclasses.replace(question, **{name: value for name, value in changes.items() if value is not None})
    spec = question.spec(args.model, revision=args.revision, max_pixels=args.max_pixels)
    store = RationaleStore.create(Path(args.output_dir) / "answers", spec, question, data=dataclasses.asdict(data))
    report = asyncio.run(ask(splits, store, question, args, engine_args))
    print(
        f"{report.posts:,} posts in {report.seconds:,.0f} s, {report.complete:,} of them complete before: "
        f"{report.requests:,} requests, {report.retried:,} of them again"
    )
    if report.stopped:
        print("Interrupted; everything answered is recorded, and the same command goes on.")
        return INTERRUPTED
    results = write_results(Path(args.output_dir), splits, store, question, data)
    print(describe(results))
    return 0


def parse(argv: list[str]) -> tuple[ZeroShotArguments, EngineArguments, DataArguments]:
    parser = HfArgumentParser((ZeroShotArguments, EngineArguments, DataArguments), allow_abbrev=False)
    parser.error = _raise
    args, engine_args, data_args = parser.parse_dict(vars(parser.parse_args(argv)))
    if engine_args.engine == "fake":
        raise ValueError("--engine fake writes sentences and knows no probabilities; write endpoint or transformers.")
    return args, engine_args, data_args


async def ask(
    splits: DatasetDict,
    store: RationaleStore,
    question: LabelQuestion,
    args: ZeroShotArguments,
    engine_args: EngineArguments,
) -> RunReport:
    """Ask whatever `store` lacks of the validation and test posts."""
    settings: dict[str, Any] = {"max_re_asks": 0, "retry_failed": args.retry_failed}
    if args.concurrency is not None:
        settings["concurrency"] = args.concurrency
    elif engine_args.engine == "transformers":  # one answer at a time
        settings["concurrency"] = 2 * len(question.perspectives)
    engines = engines_of(engine_args, store.spec, question)
    try:
        await wait_for(engines, engine_args.wait_for_server)
        return await run(
            concatenate_datasets([splits[name] for name in ASKED]),
            store,
            engines,
            settings=RunSettings(**settings),
            gate=question.read,
            progress=sys.stderr.isatty(),
        )
    finally:
        await close(engines)


def engines_of(args: EngineArguments, spec: RationaleSpec, question: LabelQuestion) -> list[Engine]:
    if args.engine == "transformers":
        from dataset_scripts.rationales.engines.zero_shot_local import TransformersZeroShot

        return [TransformersZeroShot.from_pretrained(spec, question, device=args.device, dtype=args.dtype)]
    return [EndpointZeroShot(url, spec, question, **args.server_options()) for url in args.endpoint]


def write_results(
    output_dir: Path, splits: DatasetDict, store: RationaleStore, question: LabelQuestion, data: TrainingData
) -> dict[str, Any]:
    """Raw answers, predictions and, last, the metrics."""
    raw = {name: read_log_probs(store, question, splits[name]["id"]) for name in ASKED}
    labels = {name: np.array([-1 if one is None else one for one in splits[name]["label"]]) for name in ASKED}
    write_log_probs(output_dir / "log_probs.parquet", raw, splits, question)
    mean = {name: average_orders(raw[name]) for name in ASKED}
    answered = {name: ~np.isnan(mean[name]).any(axis=1) for name in ASKED}
    fitting = answered["validation"] & (labels["validation"] >= 0)
    temperature = fit_temperature(mean["validation"][fitting], labels["validation"][fitting])
    # Who does not answer is answered for by what validation makes most likely; the metrics count how often.
    prior = np.bincount(labels["validation"][labels["validation"] >= 0], minlength=len(question.labels))
    prior = prior / prior.sum()

    def probabilities(temperature: float) -> np.ndarray:
        return np.where(answered["test"][:, None], softmax(mean["test"] / temperature, axis=-1), prior)

    calibrated = probabilities(temperature)
    table = prediction_table(splits["test"]["id"], question.labels, calibrated, splits["test"]["label"])
    write_predictions(output_dir / "predictions.parquet", table)
    known = labels["test"] >= 0
    results = {
        "test": evaluate_predictions(calibrated[known], labels["test"][known], question.labels)
        | calibration_scores(calibrated[known], labels["test"][known]),
        "uncalibrated": calibration_scores(probabilities(1.0)[known], labels["test"][known]),
        "temperature": temperature,
        "validation_posts": int(fitting.sum()),
        "answers": count_answers(store, question, raw, splits),
        "question": question.to_dict(),
        "spec": json.loads(without_paths(json.dumps(store.spec.to_dict()))),
        "split": dataclasses.asdict(data),
        "environment": environment(),
    }
    write_metrics(output_dir / "metrics.json", results)
    return results


def count_answers(
    store: RationaleStore, question: LabelQuestion, raw: dict[str, np.ndarray], splits: DatasetDict
) -> dict[str, Any]:
    """What came back for the test posts: how, how often nothing, and how often the order of the options decided."""
    ids = set(splits["test"]["id"])
    counts = {
        "posts": len(ids),
        "asked": len(ids) * len(question.perspectives),
        "parsed": 0,
        "bounded": 0,
        "failed": 0,
    }
    for row in store.rows():
        for order in question.perspectives if row["id"] in ids else ():
            counts["failed"] += row[f"rationale_{order}"] is None
            for flag in set(row[f"flags_{order}"]) & {"parsed", "bounded"}:
                counts[flag] += 1
    counts["posts_without_answer"] = int(np.isnan(raw["test"]).all(axis=(1, 2)).sum())
    whole = raw["test"][~np.isnan(raw["test"]).any(axis=(1, 2))]
    choices = whole.argmax(axis=2)
    counts["orders_agree"] = float((choices == choices[:, :1]).all(axis=1).mean()) if len(whole) else None
    return counts


def write_log_probs(path: Path, raw: dict[str, np.ndarray], splits: DatasetDict, question: LabelQuestion) -> None:
    """A row per post: `id`, `split`, and `log_prob_{label}_{order}`, null where there is no answer."""
    ids = [post_id for name in ASKED for post_id in splits[name]["id"]]
    columns = {"id": pa.array(ids), "split": pa.array([name for name in ASKED for _ in splits[name]["id"]])}
    values = np.concatenate([raw[name] for name in ASKED])
    for number, order in enumerate(question.perspectives):
        for index, label in enumerate(question.labels):
            column = pa.array(values[:, number, index], from_pandas=True)  # NaN as null
            columns[f"log_prob_{label}_{order}"] = column
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def describe(results: dict[str, Any]) -> str:
    test, before, answers = results["test"], results["uncalibrated"], results["answers"]
    flags = ", ".join(f"{name} {answers[name]:,}" for name in ("parsed", "bounded", "failed") if answers[name])
    lines = [
        f"Test, {test['num_posts']:,} posts: accuracy {test['accuracy']:.4f}, F1 weighted {test['f1_weighted']:.4f}, "
        f"macro {test['f1_macro']:.4f} (majority label {test['majority']['accuracy']:.4f})",
        "Recall: " + ", ".join(f"{name} {scores['recall']:.4f}" for name, scores in test["per_class"].items()),
        f"Temperature {results['temperature']:.3g} from {results['validation_posts']:,} validation posts: "
        + ", ".join(f"{name} {before[name]:.4f} → {test[name]:.4f}" for name in before),
        f"Answers: {answers['asked']:,} asked{', ' + flags if flags else ''}"
        + (
            ""
            if answers["orders_agree"] is None
            else f"; all orders agree on {answers['orders_agree']:.0%} of the posts"
        ),
    ]
    if answers["posts_without_answer"]:
        lines.append(
            f"{answers['posts_without_answer']:,} posts have no answer and get the label shares of validation"
        )
    return "\n".join(lines)


def _raise(message: str) -> NoReturn:
    raise ValueError(f"{message}. --help lists every argument.")
