"""Benchmark of inference: ratios against a plain formulation of the same work, in one run.

    python benchmarks/inference.py [--posts 512] [--repeats 5] [--folder FOLDER] [--device cuda] [--rows predict …]

Posts have a text of 12 words, a JPEG of 640 x 480 pixels, and no rationales. Without --folder the model is random: a
text encoder of 6 layers and 384 dimensions, a ViT of 6 layers and 192 dimensions. Each row of the printed table is one
function of this file:

- predict: throughput of `predict` over that of a loop of the model over batches whose tensors are ready;
- predict_ahead: the same in CPU seconds of the process that has the model, while a worker process prepares the posts:
  the ratio of throughputs where workers have cores of their own;
- memory: peak memory of `predict` for --many posts (100,000) over that for 1,000, each in its own process. The posts
  are texts, and the model is tiny: what remains is what could keep something of each row;
- onnx, int8: latency of the pipeline over that of `OnnxClassifier`, one post at a time, with as many threads;
- onnx_size, int8_size: size of the graph over that of the weights in single precision;
- first_answer: seconds of a process that answers one post with the pipeline, from its start to its end, over those of
  a process that imports torch and the pipeline of transformers alone;
- onnx_first_answer, onnx_memory: seconds and peak memory of such a process with `OnnxClassifier` over the pipeline's;
- draft, decode_jpeg: time to decode and resize a JPEG with PIL, as the processor does, over that with `Image.draft`,
  which decodes at half the size, and over that with `torchvision.io.decode_jpeg`;
- draft_difference, decode_jpeg_difference: mean difference of their pixels from PIL's, in levels of 255.

Peak memory is that of Linux (`VmHWM`). Times are those of the clock, which counts the work of other programs too, or
with `--clock cpu` and one thread (OMP_NUM_THREADS=1) the CPU seconds of all processes: those of one idle core.
"""

import argparse
import functools
import io
import json
import multiprocessing
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from serving import WORDS, make_posts, save_random_model
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional
from transformers import BertConfig

from modeling_mpt import MPTForSentimentClassification
from mpt_sentiment import MPTPipeline, MPTProcessor, OnnxClassifier, export, load_pipeline
from mpt_sentiment.prediction.batches import Preparation, batches_by_length, prepared_batches
from mpt_sentiment.prediction.posts import PostReader, read_items
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scorer import Scorer
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions, open_sources

BATCH_SIZE = 16
SIDE = 224  # of the pixels that a JPEG is resized to
# Programs of processes that are measured from start to end. They print their peak memory.
PEAK = "import re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
ANSWER = "import sys, mpt_sentiment as mpt; mpt.{}({{'text': 'a good day'}}); " + PEAK
WITH_PIPELINE = ANSWER.format("load_pipeline(sys.argv[1], 'cpu')")
WITH_ONNX = ANSWER.format("OnnxClassifier(sys.argv[1])")
IMPORTS = "import torch; from transformers import Pipeline; " + PEAK


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        args.temporary = Path(temporary)
        args.folder = args.folder or save_random_model(args.temporary / "model")
        print("| Row | Ratio |\n|---|---|")
        for name in args.rows:
            print(f"| {name} | {ROWS[name](args):.2f} |", flush=True)


def predict_over_bare_loop(
    args: argparse.Namespace, workers: int | None = None, clock: Callable[[], float] | None = None
) -> float:
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

    def bare() -> None:
        for inputs in ready:
            scorer(inputs)

    def predict() -> None:
        options = RunOptions(batch_size=BATCH_SIZE, dataloader_num_workers=workers, progress=False, overwrite=True)
        score(pipe, source, RunFolder(args.temporary / "predictions"), ReadingOptions(), options)

    return ratio(args, bare, predict, clock)


def peak_memory(args: argparse.Namespace) -> float:
    """Return the peak memory of `predict` for many posts over that for 1,000."""
    peaks = []
    model = save_tiny_model(args.temporary / "tiny")
    for size in (1_000, args.many):
        posts = args.temporary / f"{size}.csv"
        posts.write_text("id,text\n" + "".join(f"{number},{' '.join(WORDS)}\n" for number in range(size)))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            peaks.append(process.submit(peak_of, str(model), str(posts), str(args.temporary / f"out-{size}")).result())
    return peaks[1] / peaks[0]


def peak_of(model: str, posts: str, output: str) -> int:
    """Predict posts, and return the peak resident memory of this process in KiB."""
    options = RunOptions(batch_size=256, rows_per_part=1_000, dataloader_num_workers=0, progress=False)
    score(load_pipeline(model, "cpu"), posts, RunFolder(output), ReadingOptions(), options)
    # not `ru_maxrss`, which a process inherits from the one that starts it
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def save_tiny_model(folder: Path) -> Path:
    """Save a model of text with random weights, and its processor."""
    text = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    reads = {"modalities": ["text"]}
    processor = MPTProcessor.from_backbones(text, None, posts=Dataset.from_dict({"text": [" ".join(WORDS)]}), **reads)
    sizes = {"hidden_size": 16, "text_branches": ["mean"], "loss_weight_mlcl": 0}
    model = MPTForSentimentClassification.from_backbones(
        text, None, processor=processor, labels=["positive", "negative"], **sizes, **reads
    )
    MPTPipeline(model=model, processor=processor, device="cpu").save_pretrained(folder)
    return folder


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

    return ratio(args, *(lambda one=one: [one(post) for post in posts] for one in (pipe, classifier)))


def size(args: argparse.Namespace, quantize: str | None = None) -> float:
    """Return the size of the graph over that of the weights in single precision."""
    megabytes = json.loads((exported(args, quantize) / "metrics.json").read_text())["megabytes"]
    return megabytes[quantize or "onnx"] / megabytes["torch"]


def process(program: str, folder: Path) -> int:
    """Run a program in a process, and return its peak memory in KiB."""
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def first_answer(args: argparse.Namespace) -> float:
    """Return the seconds to the pipeline's first answer over those of importing its libraries."""
    programs = WITH_PIPELINE, IMPORTS
    return ratio(args, *(functools.partial(process, program, args.folder) for program in programs))


def onnx_first_answer(args: argparse.Namespace) -> float:
    """Return the seconds to the first answer of ONNX over those of the pipeline."""
    programs = (WITH_ONNX, exported(args, None)), (WITH_PIPELINE, args.folder)
    return ratio(args, *(functools.partial(process, *program) for program in programs))


def onnx_memory(args: argparse.Namespace) -> float:
    """Return the peak memory of a process that answers with ONNX over one with the pipeline."""
    return process(WITH_ONNX, exported(args, None)) / process(WITH_PIPELINE, args.folder)


def with_pil(content: bytes, draft: bool = False) -> torch.Tensor:
    """Decode a JPEG to `(3, height, width)`."""
    image = PIL.Image.open(io.BytesIO(content))
    if draft:
        image.draft("RGB", (SIDE, SIDE))
    return torch.from_numpy(np.stack([np.asarray(band) for band in image.convert("RGB").split()]))


def with_torchvision(content: bytes) -> torch.Tensor:
    """Decode a JPEG to `(3, height, width)`."""
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)


with_draft = functools.partial(with_pil, draft=True)


def pixels(decode: Callable[[bytes], torch.Tensor], content: bytes) -> torch.Tensor:
    """Decode a JPEG, and resize it as the processor does."""
    return functional.resize(decode(content), [SIDE, SIDE], antialias=True)


def decoding(args: argparse.Namespace, decode: Callable[[bytes], torch.Tensor]) -> float:
    """Return the time to decode and resize JPEGs with PIL over that with another decoder."""
    contents = [post["image"] for post in make_posts(64)]
    return ratio(
        args, *(lambda each=each: [pixels(each, content) for content in contents] for each in (with_pil, decode))
    )


def difference(args: argparse.Namespace, decode: Callable[[bytes], torch.Tensor]) -> float:
    """Return the mean difference of pixels from PIL's, in levels of 255."""
    contents = [post["image"] for post in make_posts(64)]
    return float(
        np.mean([(pixels(with_pil, each).int() - pixels(decode, each)).abs().float().mean() for each in contents])
    )


# Row of the table: its function.
ROWS: dict[str, Callable[[argparse.Namespace], float]] = {
    "predict": predict_over_bare_loop,
    "predict_ahead": functools.partial(predict_over_bare_loop, workers=1, clock=time.process_time),
    "memory": peak_memory,
    "onnx": latency,
    "int8": functools.partial(latency, quantize="int8"),
    "onnx_size": size,
    "int8_size": functools.partial(size, quantize="int8"),
    "first_answer": first_answer,
    "onnx_first_answer": onnx_first_answer,
    "onnx_memory": onnx_memory,
    "draft": functools.partial(decoding, decode=with_draft),
    "draft_difference": functools.partial(difference, decode=with_draft),
    "decode_jpeg": functools.partial(decoding, decode=with_torchvision),
    "decode_jpeg_difference": functools.partial(difference, decode=with_torchvision),
}


def ratio(
    args: argparse.Namespace,
    first: Callable[[], Any],
    second: Callable[[], Any],
    clock: Callable[[], float] | None = None,
) -> float:
    """Return the median ratio of the times of two functions that take turns.

    The first turn is not counted.
    """
    clock = clock or CLOCKS[args.clock]
    times = [[seconds(first, clock), seconds(second, clock)] for _ in range(args.repeats + 1)]
    return statistics.median(one / other for one, other in times[1:])


def seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Measure one call."""
    start = clock()
    run()
    return clock() - start


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


CLOCKS = {"wall": time.perf_counter, "cpu": cpu_seconds}

if __name__ == "__main__":
    main()
