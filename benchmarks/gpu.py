"""Training on one GPU: posts per second, MFU and peak memory at the paper's size.

    python benchmarks/gpu.py             # one GPU, at most 8 minutes
    python benchmarks/gpu.py --smoke     # tiny networks on the CPU: shows that the code runs, measures nothing

BERT-base, ViT-B/16 at 224 px, the plain CNN, random weights, fused AdamW, lengths of MVSA-Single, batches of 16, 64
and 256. The plain formulation is that of benchmarks/training_step.py: each text and rationale padded to 320 tokens,
four encoder calls. Frozen encoders run in every step, or are read from a feature store.

MFU is the share of the GPU's dense bf16 peak that the padding-free network needs: multiplications of matrices and
convolutions of the trained network at these lengths, without the LSTM. So formulations of the same network can be
compared, and padding does not count as work.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from feature_store import setting
from torch.utils.flop_counter import FlopCounterMode
from training_step import make_batch, plain_states

from modeling_mpt import MPTConfig, MPTForSentimentClassification
from modeling_mpt.features import FeatureStore

# Dense bf16 operations per second, by a part of the card's name.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
FROZEN = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
Batches = Callable[[int], list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny networks, two posts, CPU")
    parser.add_argument("--minutes", type=float, default=5, help="no variant is started after this time")
    parser.add_argument("--posts", type=int, default=512, help="posts of the feature store")
    args = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        raise SystemExit("No GPU was found: benchmarks/gpu.py needs one. --smoke runs its code on the CPU.")
    run = Run(args)
    print(f"{run.name}, torch {torch.__version__}\n")
    print(f"{'variant':<28}{'batch':>6}{'posts/s':>10}{'plain = 1':>11}{'MFU':>7}{'peak GB':>9}", flush=True)
    for name, numbers in (("plain, fp32", "fp32"), ("plain, bf16", "bf16")):
        run.measure(name, run.live({}, "eager", plain=True), numbers)
    run.measure("fp32, SDPA", run.live({}, "sdpa"), "fp32")
    run.measure("bf16, eager attention", run.live({}, "eager"), "bf16")
    run.measure("bf16, SDPA", run.live({}, "sdpa"), "bf16")
    run.measure("frozen, encoders run, bf16", run.live(FROZEN, "sdpa"), "bf16", trained=False)
    run.measure("frozen, stored, bf16", run.stored, "bf16", trained=False)
    run.measure("bf16, SDPA, compiled", run.live({}, "sdpa", compiled=True), "bf16")


class Run:
    """Variants measured on one device, within a time limit."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device("cpu" if args.smoke else "cuda")
        self.name = "CPU, smoke run without meaning" if args.smoke else torch.cuda.get_device_name()
        self.end = time.monotonic() + 60 * args.minutes
        self.sizes = (2,) if args.smoke else (16, 64, 256)
        self.peak = next((peak for part, peak in PEAKS.items() if part in self.name), None)
        self.plain: dict[int, float] = {}
        self.operations: float | None = None  # of a post in training

    def measure(self, name: str, build: Callable[[], tuple[Any, Batches]], numbers: str, trained: bool = True) -> None:
        """Build a variant and print a line for each batch size.

        Args:
            name (`str`): of the variant.
            build (`Callable`): returns the network, and a function of the batch size that gives batches.
            numbers (`str`): `"fp32"` or `"bf16"`, by autocast.
            trained (`bool`): whether the encoders are trained, so that MFU has a meaning.
        """
        if time.monotonic() > self.end:
            print(f"{name:<28}   not measured: --minutes {self.args.minutes:g} are over", flush=True)
            return
        network, batches = build()
        weights = [each for each in network.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
        for size in self.sizes:
            if not self.args.smoke:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                speed = self.speed(network, optimizer, batches(size), numbers)
            except torch.OutOfMemoryError:
                print(f"{name:<28}{size:>6}   out of memory", flush=True)
                optimizer.zero_grad()
                continue
            self.report(name, size, speed, trained)

    def report(self, name: str, size: int, speed: float, trained: bool) -> None:
        """Print the line of one batch size."""
        if name == "plain, fp32":
            self.plain[size] = speed
        ratio = f"{speed / self.plain[size]:.1f}×" if size in self.plain else ""
        share = f"{speed * self.operations / self.peak:.0%}" if trained and self.operations and self.peak else ""
        memory = "" if self.args.smoke else f"{torch.cuda.max_memory_allocated() / 1e9:.1f}"
        print(f"{name:<28}{size:>6}{speed:>10,.0f}{ratio:>11}{share:>7}{memory:>9}", flush=True)

    def speed(self, network: Any, optimizer: Any, batches: list[dict[str, Any]], numbers: str) -> float:
        """Measure trained posts per second."""
        warm, steps = (1, 1) if self.args.smoke else (2 * len(batches), 20)
        stream = endless(batches)
        for _ in range(warm):
            self.step(network, optimizer, next(stream), numbers)
        self.wait()
        start, done = time.perf_counter(), 0
        while done < steps and (done < 4 or time.perf_counter() - start < 4):
            self.step(network, optimizer, next(stream), numbers)
            done += 1
        self.wait()
        return done * len(batches[0]["labels"]) / (time.perf_counter() - start)

    def step(self, network: Any, optimizer: Any, batch: dict[str, Any], numbers: str) -> None:
        """Take one training step; batches come from the memory of the host."""
        batch = {name: self.moved(value) for name, value in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=numbers == "bf16"):
            loss = network(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def moved(self, value: Any) -> Any:
        """Move a tensor, or those of a mapping, to the device."""
        if isinstance(value, dict):
            return {name: self.moved(each) for name, each in value.items()}
        return value.to(self.device, non_blocking=True)

    def wait(self) -> None:
        """Wait for the device."""
        if not self.args.smoke:
            torch.cuda.synchronize()

    def live(
        self, frozen: dict[str, Any], attention: str, plain: bool = False, compiled: bool = False
    ) -> Callable[[], tuple[Any, Batches]]:
        """Return a function that builds a network whose encoders run, and its batches."""

        def build() -> tuple[Any, Batches]:
            torch.manual_seed(0)
            network = MPTForSentimentClassification(self.config(frozen)).to(self.device).train()
            network.set_attn_implementation(attention)
            config = network.config
            if not frozen and self.operations is None:
                self.operations = self.count(network)
            if plain:
                encoder = network.mpt.text_encoder
                network.mpt._states = lambda text, rationales, layers: plain_states(encoder, text, rationales)
            if compiled:
                network = torch.compile(network, dynamic=True, backend="eager" if self.args.smoke else "inductor")

            def batches(size: int) -> list[dict[str, Any]]:
                torch.manual_seed(1)
                return [self.pinned(make_batch(config, size, self.side())) for _ in range(1 if self.args.smoke else 4)]

            return network, batches

        return build

    def stored(self) -> tuple[Any, Batches]:
        """Build the frozen network and a feature store of posts; return it with stored batches."""
        options = argparse.Namespace(posts=4 if self.args.smoke else self.args.posts, text=None, cnn=None)
        network, processor, posts = setting(options, small=self.args.smoke)
        network = network.to(self.device).train()
        folder = tempfile.TemporaryDirectory()
        start = time.perf_counter()
        autocast = None if self.args.smoke else torch.bfloat16
        features = FeatureStore(folder.name).build(network, processor, posts, autocast=autocast, progress=False)
        if not self.args.smoke:
            print(f"{'building the store, bf16':<28}{'':>6}{len(posts) / (time.perf_counter() - start):>10,.0f}")
        features.folder = folder  # which is deleted with the features

        def batches(size: int) -> list[dict[str, Any]]:
            count = 1 if self.args.smoke else 4
            order = torch.randperm(max(len(features), count * size), generator=torch.Generator().manual_seed(0))
            order = (order % len(features)).tolist()
            return [features.collate(order[first * size : (first + 1) * size]) for first in range(count)]

        return network, batches

    def config(self, frozen: dict[str, Any]) -> MPTConfig:
        """Return the configuration of the paper, or a tiny one."""
        if not self.args.smoke:
            return MPTConfig(**frozen)
        vision = {"model_type": "vit", "image_size": 32, "patch_size": 16, **SMALL}
        text = {"model_type": "bert", "vocab_size": 30_000, **SMALL}
        return MPTConfig(text_config=text, vision_config=vision, hidden_size=32, **frozen)

    def side(self) -> int:
        """Return the height and width of the images."""
        return 32 if self.args.smoke else 224

    def pinned(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Pin a batch in the memory of the host, from which copies overlap with computing."""
        return batch if self.args.smoke else {name: value.pin_memory() for name, value in batch.items()}

    def count(self, network: Any) -> float:
        """Count the operations of a training step for one post."""
        batch = self.moved(make_batch(network.config, self.sizes[0], self.side()))
        with FlopCounterMode(display=False) as counter:
            network(**batch).loss.backward()
        network.zero_grad()
        return counter.get_total_flops() / self.sizes[0]


def endless(batches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Repeat batches."""
    while True:
        yield from batches


if __name__ == "__main__":
    main()
