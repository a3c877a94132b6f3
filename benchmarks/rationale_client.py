"""Benchmark of the rationale runner: requests per second, memory, and shared prompt tokens.

    python benchmarks/rationale_client.py [throughput] [memory] [tokens]

Needs no model. The server is a stub in another process that answers at once, so only the client is measured.

throughput: requests per second of a run (posts prepared, gate, record log, Parquet) over those of a bare asyncio loop
    with the same client (huggingface_hub.AsyncInferenceClient) and the same requests, built before the clock starts;
    three requests per post, 64 in flight, images of 8 x 8 pixels. There are two bare loops: one task per request with
    a semaphore, and 64 workers that send their next request when an answer arrives. The three take turns in
    alternating order, and the medians of the ratios are printed.
memory: peak anonymous resident memory of a process that runs 1,000 and 100,000 posts against the stub, with one
    perspective per post and images of 8 x 8 pixels that are drawn when they are read.
tokens: prompt tokens of three perspectives with a shared beginning over three separate prompts, at 448 x 448 pixels:
    image tokens as in Qwen2.5-VL, text tokens estimated from the letters (dataset_scripts.rationales.plan).
"""

import argparse
import asyncio
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
from huggingface_hub import AsyncInferenceClient

from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.run.runner import RunSettings, run
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore

PARTS = ("throughput", "memory", "tokens")
CONCURRENCY = 64
MEMORY_POSTS = (1_000, 100_000)
POSTS_PER_SHARD = 20_000
PROMPT = load_prompt("default", "en")
SPEC = RationaleSpec(model="stub", prompt_hash=PROMPT.hash, language="en")
# Answers of the stub, which pass the gate, by a word of the prompt that names the perspective.
ANSWERS = {
    b"hopeful": "The bright picture and the light wording suggest that the moment is enjoyed and looked forward to.",
    b"informing": "The sentence states a place and a time, and the scene shows just that without any further remark.",
    b"displeased": "The short line sounds tired, and the empty corner of the scene supports that a little, if weakly.",
}


class Posts(Sequence):
    """Posts with distinct texts and images, which are drawn when they are read."""

    def __init__(self, count: int, side: int = 8) -> None:
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        colour = (index % 256, index // 256 % 256, index // 65536)
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (self.side, self.side), colour).save(buffer, "PNG")
        image = {"bytes": buffer.getvalue(), "path": None}
        return {"id": str(index), "text": f"post number {index} of a long feed", "image": image, "language": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Any of {', '.join(PARTS)}; by default all.")
    parser.add_argument("--posts", type=int, default=1500, help="Posts per repetition of `throughput`.")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        url, count = args.child
        print(json.dumps(peak_memory(url, int(count))))
        return
    parts = args.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if "tokens" in parts:
        print(f"prompt tokens, shared over separate, 448 px: {shared_tokens():.0%}", flush=True)
    with stub() as url:
        if "throughput" in parts:
            throughput(url, args.posts, args.repetitions)
        if "memory" in parts:
            memory(url)


# --- throughput ------------------------------------------------------------------------------------------------------


def throughput(url: str, count: int, repetitions: int) -> None:
    posts = [Posts(count)[index] for index in range(count)]
    prepared = [prepare_post(row, SPEC.max_pixels, SPEC.language) for row in posts]
    requests = [PROMPT.messages(post, perspective) for post in prepared for perspective in SPEC.perspectives]
    clients = {
        "runner": lambda: runner(url, posts),
        "semaphore": lambda: bare_semaphore(url, requests),
        "workers": lambda: bare_workers(url, requests),
    }
    timings: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for repetition in range(repetitions + 1):
        for name in list(clients) if repetition % 2 else reversed(list(clients)):
            start, start_cpu = time.perf_counter(), time.process_time()
            asyncio.run(clients[name]())
            if repetition:  # the first repetition is a warm-up
                timings[name].append((time.perf_counter() - start, time.process_time() - start_cpu))
    for name in ("semaphore", "workers"):
        pairs = list(zip(timings[name], timings["runner"], strict=True))
        speed = [bare[0] / run[0] for bare, run in pairs]
        processor = statistics.median(run[1] / bare[1] for bare, run in pairs)
        print(
            f"requests/s, runner over bare loop ({name}): {statistics.median(speed):.2f} "
            f"({min(speed):.2f} to {max(speed):.2f} in {len(speed)} pairs); processor time {processor:.2f}",
            flush=True,
        )


async def bare_semaphore(url: str, requests: list[Any]) -> None:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(client: AsyncInferenceClient, messages: Any) -> None:
        async with slots:
            await chat(client, messages)

    client = AsyncInferenceClient(base_url=f"{url}/v1", api_key="EMPTY", timeout=180)
    await asyncio.gather(*(ask(client, messages) for messages in requests))
    await client.close()


async def bare_workers(url: str, requests: list[Any]) -> None:
    remaining = iter(requests)

    async def ask(client: AsyncInferenceClient) -> None:
        for messages in remaining:
            await chat(client, messages)

    client = AsyncInferenceClient(base_url=f"{url}/v1", api_key="EMPTY", timeout=180)
    await asyncio.gather(*(ask(client) for _ in range(CONCURRENCY)))
    await client.close()


async def chat(client: AsyncInferenceClient, messages: Any) -> None:
    completion = await client.chat_completion(messages, model=SPEC.model, max_tokens=SPEC.max_tokens, seed=SPEC.seed)
    if not completion.choices[0].message.content:
        raise RuntimeError(f"The answer is empty: {completion}")


async def runner(url: str, posts: Sequence[Any], spec: RationaleSpec = SPEC, num_shards: int = 1) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = RationaleStore.create(Path(folder) / "store", spec, PROMPT, num_shards=num_shards)
        engine = EndpointEngine(url, spec, PROMPT)
        report = await run(posts, store, [engine], settings=RunSettings(concurrency=CONCURRENCY), progress=False)
        await engine.close()
    wanted = len(posts) * len(spec.perspectives)
    if (report.ok, report.requests) != (wanted, wanted):
        raise RuntimeError(f"Some requests failed: {report}")


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(url: str) -> None:
    peaks = {}
    for count in MEMORY_POSTS:
        command = [sys.executable, __file__, "--child", url, str(count)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peaks[count] = json.loads(output.splitlines()[-1])
        print(f"peak anonymous memory, {count:,} posts: {peaks[count] / 2**20:.0f} MiB", flush=True)
    small, large = MEMORY_POSTS
    print(f"peak anonymous memory, {large // small} times the posts: {peaks[large] / peaks[small]:.2f}")


def peak_memory(url: str, count: int) -> int:
    """Measure the peak anonymous memory of a run of `count` posts, in bytes."""
    spec = RationaleSpec(model="stub", prompt_hash=PROMPT.hash, language="en", perspectives=("positive",))
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            status = Path("/proc/self/status").read_text()
            peak = max(peak, int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    asyncio.run(runner(url, Posts(count), spec, num_shards=-(-count // POSTS_PER_SHARD)))
    done.set()
    watcher.join()
    return peak


# --- tokens ----------------------------------------------------------------------------------------------------------


def shared_tokens() -> float:
    from datasets import Dataset

    from dataset_scripts.rationales.plan import plan_run

    text = "Sunset over the harbour tonight, what a view after a long and rainy week #summer"
    rows = [row | {"text": f"{text} {row['id']}"} for row in (Posts(20, 448)[index] for index in range(20))]
    plan = plan_run(Dataset.from_list(rows), SPEC, PROMPT)
    return plan.computed_tokens / plan.prompt_tokens


# --- the stub --------------------------------------------------------------------------------------------------------


@contextmanager
def stub() -> Iterator[str]:
    """Start the stub in another process and yield its address."""
    server = subprocess.Popen(
        [sys.executable, "-c", STUB, json.dumps({k.decode(): v for k, v in ANSWERS.items()})],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.kill()
        server.wait()


# It parses only the HTTP that the client sends: sequential requests with a content length.
STUB = """
import asyncio, json, sys

answers = json.loads(sys.argv[1])


def response(text):
    body = json.dumps({
        "id": "1", "object": "chat.completion", "created": 1, "model": "stub", "system_fingerprint": "stub",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 460, "completion_tokens": 30, "total_tokens": 490},
    }).encode()
    head = f"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    return head.encode() + body


replies = {word.encode(): response(text) for word, text in answers.items()}


class Stub(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.received, self.wanted = transport, bytearray(), None

    def data_received(self, data):
        self.received += data
        while True:
            if self.wanted is None:
                end = self.received.find(b"\\r\\n\\r\\n")
                if end < 0:
                    return
                head = bytes(self.received[:end]).lower()
                length = head.partition(b"content-length:")[2].partition(b"\\r\\n")[0]
                self.wanted = end + 4 + int(length or 0)
            if len(self.received) < self.wanted:
                return
            body = bytes(self.received[: self.wanted])
            del self.received[: self.wanted]
            self.wanted = None
            end = max(replies, key=body.rfind)
            self.transport.write(replies[end])


async def main():
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


if __name__ == "__main__":
    main()
