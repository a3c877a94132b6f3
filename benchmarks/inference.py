"""Benchmark of inference: ratios against a plain formulation of the same work, in one run.

    python benchmarks/inference.py [--posts 512] [--repeats 5] [--folder FOLDER] [--device cuda] [--rows predict …]

Posts have a text of 12 words, a JPEG of 640 x 480 pixels, and no rationales. Without --folder the model is random: a
text encoder of 6 layers and 384 dimensions, a ViT of 6 layers and 192 dimensions. Each row of the printed table is one
function of this file:

- predict: throughput of `predict` over that of a loop of the model over batches whose tensors are ready;
- memory: peak memory of `predict` for 50,000 posts of text over that for 1,000, each in its own process.
- onnx, int8: latency of the pipeline over that of `OnnxClassifier`, one post at a time, with as many threads;
- onnx_size, int8_size: size of the graph over that of the weights in single precision;
- onnx_first_answer, onnx_memory: a process that answers one post with `OnnxClassifier`, from its start to its end,
  over one that does so with the pipeline: seconds, and peak memory;
- draft: time to decode and resize a JPEG over that with `Image.draft`, which decodes at half the size;
- draft_difference: mean difference of their pixels, in levels of 255.
"""

import argparse
import functools
import io
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from serving import WORDS, make_posts, save_random_model

from mpt_sentiment import OnnxClassifier, export, load_pipeline
from mpt_sentiment.exporting.pixels import resized
from mpt_sentiment.prediction.batches import Preparation, batches_by_length, prepared_batches
from mpt_sentiment.prediction.posts import PostReader, read_items
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scorer import Scorer
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions, open_sources

BATCH_SIZE = 16
SIDE = 224  # of the pixels that a JPEG is resized to
FIRST_ANSWER = """
import resource, sys, mpt_sentiment as mpt
mpt.{opened}({{"text": "a good day"}})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.temporary = Path(temporary)
        args.folder = args.folder or save_random_model(args.temporary / "model")
        print("| Row | Ratio |\n|---|---|")
        for name in args.rows:
            print(f"| {name} | {ROWS[name](args):.2f} |", flush=True)


def predict_over_bare_loop(args: argparse.Namespace) -> float:
    """Return the throughput of `predict` over that of the model on ready batches."""
    pipe = load_pipeline(args.folder, args.device)
    posts = [{"id": str(number)} | post for number, post in enumerate(make_posts(args.posts))]
    Dataset.from_list(posts).to_parquet(args.temporary / "posts.parquet")
    source = str(args.temporary / "posts.parquet")
    scorer = Scorer(pipe)
    (opened,) = open_sources(source, ReadingOptions())
    reader = PostReader(opened, scorer.modalities, scorer.perspectives)
    items = list(read_items([opened], [reader], lambda number: True))
    batches = batches_by_length([(0, items, True)], BATCH_SIZE)
    ready = [batch.inputs for batch in prepared_batches(batches, Preparation(scorer.processor, scorer.modalities), 0)]

    def bare(number: int) -> None:
        for inputs in ready:
            scorer(inputs)

    def predict(number: int) -> None:
        folder = RunFolder(args.temporary / f"predictions-{number}")
        score(pipe, source, folder, ReadingOptions(), RunOptions(batch_size=BATCH_SIZE, progress=False))

    for run in (bare, predict):
        run(-1)
    return statistics.median(seconds(bare, number) / seconds(predict, number) for number in range(args.repeats))


def peak_memory(args: argparse.Namespace) -> float:
    """Return the peak memory of `predict` for 50,000 posts over that for 1,000."""
    peaks = []
    for size in (1_000, 50_000):
        posts = args.temporary / f"{size}.csv"
        posts.write_text("id,text\n" + "".join(f"{number},{' '.join(WORDS)}\n" for number in range(size)))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            peaks.append(
                process.submit(peak_of, args.folder, str(posts), str(args.temporary / f"out-{size}")).result()
            )
    return peaks[1] / peaks[0]


def peak_of(model: str, posts: str, output: str) -> int:
    """Predict posts, and return the peak resident memory of this process in KiB."""
    options = RunOptions(batch_size=256, rows_per_part=1_000, dataloader_num_workers=1, progress=False)
    score(load_pipeline(model, "cpu"), posts, RunFolder(output), ReadingOptions(), options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def exported(args: argparse.Namespace, quantize: str | None) -> Path:
    """Export the model once."""
    folder = args.temporary / f"exported-{quantize}"
    if not folder.exists():
        export(args.folder, folder, quantize=quantize)
    return folder


def latency(args: argparse.Namespace, quantize: str | None = None) -> float:
    """Return the latency of the pipeline over that of the exported model, one post at a time."""
    pipe, posts = load_pipeline(args.folder, "cpu"), make_posts(16)
    classifier = OnnxClassifier(exported(args, quantize), num_threads=torch.get_num_threads())

    def one_by_one(classify: Callable) -> Callable[[int], None]:
        return lambda number: [classify(post) for post in posts] and None

    runs = one_by_one(pipe), one_by_one(classifier)
    for run in runs:
        run(-1)
    return statistics.median(seconds(runs[0], number) / seconds(runs[1], number) for number in range(args.repeats))


def size(args: argparse.Namespace, quantize: str | None = None) -> float:
    """Return the size of the graph over that of the weights in single precision."""
    megabytes = json.loads((exported(args, quantize) / "metrics.json").read_text())["megabytes"]
    return megabytes[quantize or "onnx"] / megabytes["torch"]


def first_answer(args: argparse.Namespace, memory: bool = False) -> float:
    """Return seconds or peak memory of a process that answers one post, ONNX over the pipeline."""
    values = []
    for opened, folder in (("OnnxClassifier(sys.argv[1])", exported(args, None)), (PIPELINE, args.folder)):
        command = [sys.executable, "-c", FIRST_ANSWER.format(opened=opened), str(folder)]
        peaks, times = [], []
        for _ in range(args.repeats):
            start = time.perf_counter()
            peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout.split()[-1]))
            times.append(time.perf_counter() - start)
        values.append(statistics.median(peaks if memory else times))
    return values[0] / values[1]


PIPELINE = "load_pipeline(sys.argv[1], 'cpu')"


def decoded(content: bytes, draft: bool) -> np.ndarray:
    """Decode and resize a JPEG."""
    image = PIL.Image.open(io.BytesIO(content))
    if draft:
        image.draft("RGB", (SIDE, SIDE))
    return resized(np.asarray(image.convert("RGB")), SIDE, SIDE, PIL.Image.Resampling.BILINEAR)


def draft(args: argparse.Namespace) -> float:
    """Return the time to decode and resize JPEGs over that with `Image.draft`."""
    contents = [post["image"] for post in make_posts(64)]
    runs = [
        lambda number, draft=draft: [decoded(each, draft) for each in contents] and None for draft in (False, True)
    ]
    for run in runs:
        run(-1)
    return statistics.median(seconds(runs[0], number) / seconds(runs[1], number) for number in range(args.repeats))


def draft_difference(args: argparse.Namespace) -> float:
    """Return the mean difference of pixels with and without `Image.draft`, in levels of 255."""
    contents = [post["image"] for post in make_posts(64)]
    pairs = [(decoded(each, False).astype(int), decoded(each, True)) for each in contents]
    return float(np.mean([np.abs(full - drafted).mean() for full, drafted in pairs]))


# Row of the table: its function.
ROWS: dict[str, Callable[[argparse.Namespace], float]] = {
    "predict": predict_over_bare_loop,
    "memory": peak_memory,
    "onnx": latency,
    "int8": functools.partial(latency, quantize="int8"),
    "onnx_size": size,
    "int8_size": functools.partial(size, quantize="int8"),
    "onnx_first_answer": first_answer,
    "onnx_memory": functools.partial(first_answer, memory=True),
    "draft": draft,
    "draft_difference": draft_difference,
}


def seconds(run: Callable[[int], None], number: int) -> float:
    """Measure one call."""
    start = time.perf_counter()
    run(number)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
