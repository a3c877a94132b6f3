"""Benchmark of inference: ratios against a plain formulation of the same work, in one run.

    python benchmarks/inference.py [--posts 512] [--repeats 5] [--folder FOLDER] [--device cuda] [--rows predict …]

Posts have a text of 12 words, a JPEG of 640 x 480 pixels, and no rationales. Without --folder the model is random: a
text encoder of 6 layers and 384 dimensions, a ViT of 6 layers and 192 dimensions. Each row of the printed table is one
function of this file:

- predict: throughput of `predict` over that of a loop of the model over batches whose tensors are ready;
- memory: peak memory of `predict` for 50,000 posts of text over that for 1,000, each in its own process.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from datasets import Dataset
from serving import WORDS, make_posts, save_random_model

from mpt_sentiment import load_pipeline
from mpt_sentiment.prediction.batches import Preparation, batches_by_length, prepared_batches
from mpt_sentiment.prediction.posts import PostReader, read_items
from mpt_sentiment.prediction.run_folder import RunFolder
from mpt_sentiment.prediction.scorer import Scorer
from mpt_sentiment.prediction.scoring import RunOptions, score
from mpt_sentiment.prediction.sources import ReadingOptions, open_sources

BATCH_SIZE = 16


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


# Row of the table: its function.
ROWS: dict[str, Callable[[argparse.Namespace], float]] = {
    "predict": predict_over_bare_loop,
    "memory": peak_memory,
}


def seconds(run: Callable[[int], None], number: int) -> float:
    """Measure one call."""
    start = time.perf_counter()
    run(number)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
