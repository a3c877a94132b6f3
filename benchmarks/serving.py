"""Benchmark of the server: throughput and latency over those of the pipeline, in one run.

    python benchmarks/serving.py [--posts 256] [--repeats 5] [--folder FOLDER]

The server is the command `mpt-sentiment serve` in another process, on the CPU; its clients are threads of this one
with connections that stay open and requests built before the clock starts. The pipeline reads the same posts, as
bytes, with batches of 16. Posts have a text of 12 words, a JPEG of 640 x 480 pixels, and no rationales. Without
--folder the model is random: a text encoder of 6 layers and 384 dimensions, a ViT of 6 layers and 192 dimensions.

Pipeline and server take turns. Printed for 1, 8 and 64 clients: the median ratio of throughputs (server over
pipeline), that of their CPU seconds per post (pipeline over server), which other programs do not change, and the 99th
percentile of the latency over its median.
"""

import argparse
import base64
import contextlib
import http.client
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil
from datasets import Dataset
from transformers import BertConfig, ViTConfig

from modeling_mpt import MPTForSentimentClassification
from mpt_sentiment import MPTPipeline, MPTProcessor, load_pipeline

CLIENTS = (1, 8, 64)
WORDS = "what a good day at the sea nothing but rain and train".split()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder")
    args = parser.parse_args()
    posts = make_posts(args.posts)
    bodies = [json.dumps({**post, "image": base64.b64encode(post["image"]).decode()}) for post in posts]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or save_random_model(Path(temporary) / "model")
        pipe = load_pipeline(folder, "cpu")
        pipe(posts[:32], batch_size=16)
        with serving(folder) as (port, server):
            send(bodies[:32], 8, port)
            print("| Clients | Throughput, server / pipeline | CPU, pipeline / server | Latency, p99 / p50 |")
            print("|---|---|---|---|")
            for clients in CLIENTS:
                rows = []
                for _ in range(args.repeats):
                    start, used = time.perf_counter(), time.process_time()
                    pipe(posts, batch_size=16)
                    alone, alone_used = time.perf_counter() - start, time.process_time() - used
                    used = sum(server.cpu_times()[:2])
                    seconds, latencies = send(bodies, clients, port)
                    used = sum(server.cpu_times()[:2]) - used
                    rows.append(
                        (alone / seconds, alone_used / used, np.percentile(latencies, 99) / np.median(latencies))
                    )
                print(f"| {clients} | {' | '.join(f'{value:.2f}' for value in np.median(rows, axis=0))} |", flush=True)


def make_posts(number: int) -> list[dict[str, Any]]:
    """Draw posts with the content of their image."""
    rng = np.random.default_rng(5)
    posts = []
    for _ in range(number):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((640, 480)).save(buffer, "JPEG", quality=85)
        posts.append({"text": " ".join(rng.choice(WORDS, 12)), "image": buffer.getvalue()})
    return posts


def save_random_model(folder: Path) -> Path:
    """Save a model with random weights, and its processor."""
    text = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    vision = ViTConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768)
    train = Dataset.from_dict({"text": [" ".join(WORDS)]})
    processor = MPTProcessor.from_backbones(text, vision, posts=train, modalities=["text", "image", "rationales"])
    model = MPTForSentimentClassification.from_backbones(
        text, vision, processor=processor, labels=["positive", "neutral", "negative"]
    )
    MPTPipeline(model=model, processor=processor, device="cpu").save_pretrained(folder)
    return folder


@contextlib.contextmanager
def serving(folder: str | Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run the server in a process, and return its port and its process."""
    script = "import sys; from mpt_sentiment.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "serve", str(folder), "--device", "cpu", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(re.search(r":(\d+),", process.stdout.readline())[1]), psutil.Process(process.pid)
        finally:
            process.terminate()


def send(bodies: list[str], clients: int, port: int) -> tuple[float, list[float]]:
    """Send requests, and return the seconds of all and of each."""

    def client(part: list[str]) -> list[float]:
        latencies = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            for body in part:
                start = time.perf_counter()
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                latencies.append(time.perf_counter() - start)
                if answer.status != 200:
                    raise RuntimeError(f"The server answered {answer.status}.")
        return latencies

    with ThreadPoolExecutor(clients) as threads:
        start = time.perf_counter()
        parts = list(threads.map(client, [bodies[index::clients] for index in range(clients)]))
        return time.perf_counter() - start, [latency for part in parts for latency in part]


if __name__ == "__main__":
    main()
