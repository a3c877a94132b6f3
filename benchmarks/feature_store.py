"""Training with stored outputs of frozen encoders against running them in every step.

    OMP_NUM_THREADS=1 python benchmarks/feature_store.py
    OMP_NUM_THREADS=1 python benchmarks/feature_store.py --text FOLDER --cnn FOLDER

Random weights of BERT-base, ViT-B/16 at 224 px and the plain CNN by default, all frozen; lengths of MVSA-Single.
Each part runs in a process of its own. Times are those of the processor, so that other programs do not count. All
figures are ratios of one run of this script.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Deciles of words of the texts and rationales of MVSA-Single.
TEXT_LENGTHS = (5, 14, 18, 21, 24, 27, 30, 34, 40, 47, 126)
RATIONALE_LENGTHS = (28, 36, 38, 39, 40, 41, 42, 43, 44, 46, 60)
BATCH = 16
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=48, help="posts of the measured trainings")
    parser.add_argument("--text", help="folder of a pretrained text encoder; by default BERT-base with random weights")
    parser.add_argument("--cnn", help="folder of a pretrained timm CNN; by default ViT-B/16 and the plain CNN")
    parser.add_argument("--epochs", type=int, default=5, help="epochs with the store")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        run = Runner(Path(temporary))
        bare, without, stored = run("bare"), run("without"), run("stored", "store")
        print(f"training with the store / without it, posts per second: {without / stored['epoch']:>7.1f}×")
        print(f"first epoch with the build / bare pass of the encoders: {stored['first'] / bare:>7.2f}×")
        print(f"every further epoch / bare pass of the encoders:        {stored['epoch'] / bare:>7.2%}")
        peaks = [run("memory", f"memory-{count}", "--posts", str(count)) for count in (1_000, 20_000)]
        print(f"peak memory, 20,000 posts / 1,000 posts:                {peaks[1] / peaks[0]:>7.2f}×")
        pair = [run.start("build", "two"), run.start("build", "two")]
        run("build", "one")
        assert [process.wait() for process in pair] == [0, 0]
        same = run.files("one") == run.files("two")
        print(f"two processes build the files of one:                   {'yes' if same else 'NO':>8}")


class Runner:
    """Parts of the benchmark, each in a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, part: str, folder: str = "none", *options: str) -> subprocess.Popen:
        command = [sys.executable, __file__, *sys.argv[1:], *options, "--part", part]
        return subprocess.Popen([*command, "--folder", str(self.folder / folder)], stdout=subprocess.PIPE, text=True)

    def __call__(self, part: str, folder: str = "none", *options: str) -> Any:
        output, _ = (process := self.start(part, folder, *options)).communicate()
        if process.returncode:
            sys.exit(f"The part {part!r} failed with code {process.returncode}.")
        return json.loads(output.splitlines()[-1])

    def files(self, folder: str) -> dict[str, bytes]:
        root = self.folder / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.safetensors")}


def measure_bare(args: argparse.Namespace) -> float:
    """Measure CPU seconds of one pass of processor and encoders over the posts."""
    network, processor, posts = setting(args)
    collator = processor.data_collator()
    encoders = network.frozen_encoders()
    encode(encoders, collator(posts[:2]))  # libraries allocate and compile at their first call
    start = time.process_time()
    for first in range(0, len(posts), BATCH):
        encode(encoders, collator(posts[first : first + BATCH]))
    return time.process_time() - start


def encode(encoders: list[Any], batch: dict[str, torch.Tensor]) -> None:
    """Run the frozen encoders on a batch."""
    for encoder in encoders:
        if encoder.reads == "image":
            encoder.encode(pixel_values=batch["pixel_values"])
        else:
            prefix = "" if encoder.reads == "text" else "rationale_"
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            encoder.encode(input_ids=ids.flatten(0, -2), attention_mask=mask.flatten(0, -2))


def measure_without(args: argparse.Namespace) -> float:
    """Measure processor seconds of an epoch of training in which the encoders run."""
    return train(args, "none", epochs=1)[0]


def measure_stored(args: argparse.Namespace) -> dict[str, float]:
    """Measure processor seconds of the first epoch with the build, and of a further one."""
    first, *further = train(args, args.folder, epochs=args.epochs)
    return {"first": first, "epoch": sorted(further)[len(further) // 2]}


def train(args: argparse.Namespace, store: str, epochs: int) -> list[float]:
    """Train, and return the seconds of each epoch; the first begins with the call of `train`."""
    from transformers import TrainerCallback

    from modeling_mpt import MPTTrainer, MPTTrainingArguments

    network, processor, posts = setting(args)
    times = []

    class Clock(TrainerCallback):
        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.process_time())

    arguments = MPTTrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=1e-4,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_strategy="no",
        disable_tqdm=True,
        bf16=False,
        report_to=[],
        feature_store=store,
    )
    trainer = MPTTrainer(network, arguments, train_dataset=posts, processing_class=processor, callbacks=[Clock()])
    encode(network.frozen_encoders(), processor.data_collator()(posts[:2]))  # as for the bare pass
    start = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    return np.diff([start, *times]).tolist()


def measure_memory(args: argparse.Namespace) -> int:
    """Measure the peak of private memory in bytes while features are built and read.

    The encoders are small.
    """
    from modeling_mpt.features import FeatureStore

    network, processor, posts = setting(args, small=True)
    peak = Peak()
    features = FeatureStore(args.folder).build(network, processor, posts, progress=False)
    order = np.random.default_rng(0).permutation(len(features))
    for first in range(0, len(order), BATCH):
        network(**features.collate(order[first : first + BATCH]))
    return peak.stop()


class Peak(threading.Thread):
    """Peak of the memory of this process that is not a mapped file, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.ended = 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            self.peak = max(self.peak, int(next(line for line in lines if line.startswith("RssAnon")).split()[1]))

    def stop(self) -> int:
        self.ended.set()
        self.join()
        return self.peak * 1024


def measure_build(args: argparse.Namespace) -> bool:
    """Build a store of 2,000 posts with small encoders."""
    from modeling_mpt.features import FeatureStore

    args.posts = 2_000
    network, processor, posts = setting(args, small=True)
    FeatureStore(args.folder).build(network, processor, posts, progress=False)
    return True


def setting(args: argparse.Namespace, small: bool = False) -> tuple[Any, Any, Any]:
    """Return network, processor and posts."""
    from transformers import ViTImageProcessor

    from modeling_mpt import MPTConfig, MPTForSentimentClassification
    from processing_mpt import MPTProcessor
    from processing_mpt.vocabulary_mpt import train_tokenizer

    torch.manual_seed(0)
    frozen = {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}
    posts = Posts(args.posts, side=32 if small else 300)
    if args.text and args.cnn and not small:
        processor = MPTProcessor.from_backbones(args.text, cnn=args.cnn)
        backbones = {"text": args.text, "cnn": args.cnn, "processor": processor, "image_branches": ["cnn"]}
        return MPTForSentimentClassification.from_backbones(**backbones, **frozen), processor, posts
    config = MPTConfig(**frozen)
    if small:
        vision = {"model_type": "vit", "image_size": 32, "patch_size": 16, **SMALL}
        config = MPTConfig(text_config={"model_type": "bert", **SMALL}, vision_config=vision, hidden_size=32, **frozen)
    side = 32 if small else 224
    words = [{"text": " ".join(Posts.words)}]
    import datasets

    tokenizer = train_tokenizer(datasets.Dataset.from_list(words), [], config.text_config)
    processor = MPTProcessor(ViTImageProcessor(size={"height": side, "width": side}), tokenizer)
    return MPTForSentimentClassification(config), processor, posts


class Posts(list):
    """Rows that are made when they are read.

    Images are noise, and texts have the lengths of those of MVSA-Single.
    """

    words = [a + b for a in ("ba", "co", "du", "fi", "gu", "ha") for b in ("la", "mi", "no", "pe", "ru", "sti")]

    def __init__(self, count: int, side: int) -> None:
        super().__init__(range(count))
        self.side = side

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        from PIL import Image

        draw = np.random.default_rng(int(index))
        file = io.BytesIO()
        pixels = draw.integers(0, 255, (self.side, self.side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=60)
        row = {"id": str(index), "label": int(index) % 3, "image": file.getvalue()}
        row["text"] = self.text(draw, TEXT_LENGTHS)
        names = ("positive", "neutral", "negative")
        return row | {f"rationale_{name}": self.text(draw, RATIONALE_LENGTHS) for name in names}

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def text(self, draw: np.random.Generator, lengths: tuple[int, ...]) -> str:
        length = int(np.interp(draw.random() * (len(lengths) - 1), range(len(lengths)), lengths))
        return " ".join(draw.choice(self.words, length))


PARTS = {
    "bare": measure_bare,
    "without": measure_without,
    "stored": measure_stored,
    "memory": measure_memory,
    "build": measure_build,
}

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
