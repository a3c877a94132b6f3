"""Benchmark of peak memory: building, splitting and reading 1,000 and 20,000 posts.

    python benchmarks/data_loading.py

Writes two folders of posts (images and a CSV) to a temporary folder, then loads, splits and processes each in its own
process. All figures are ratios within one run of this script.
"""

import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SIZES = (1_000, 20_000)


def main() -> None:
    peaks = []
    os.environ["HF_HUB_OFFLINE"] = "1"
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_posts(folder, size)
            os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                peaks.append(process.submit(measure, folder).result())
    small, large = peaks
    print(f"posts: {large['posts'] / small['posts']:.0f}×")
    for name in ("import", "load", "split", "read"):
        print(f"peak memory after {name:<7}{large[name] / small[name]:>6.2f}×")


def write_posts(folder: Path, size: int) -> None:
    """Write JPEG images of 224 pixels (noise, the worst case for size) and a CSV."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["id,text,image,label"]
    for index in range(size):
        name = f"images/{index}.jpg"
        pixels = generator.integers(0, 255, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=60)
        rows.append(f"{index},post number {index} of a long feed,{name},{('good', 'bad')[index % 2]}")
    (folder / "posts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def measure(folder: Path) -> dict[str, float]:
    """Measure the peak resident memory of this process in bytes after each stage."""
    from transformers import ViTImageProcessor

    from dataset_scripts import load_posts, split_posts
    from dataset_scripts.reading.images import to_rgb

    peaks = {"import": peak()}
    posts = load_posts("folder", folder, file="posts.csv")
    peaks["load"] = peak()
    splits = split_posts(posts)
    peaks["split"] = peak()
    image_processor = ViTImageProcessor()
    for split in splits.values():
        for batch in split.iter(batch_size=16):
            image_processor([to_rgb(image) for image in batch["image"]], return_tensors="pt")
    peaks["read"] = peak()
    return peaks | {"posts": len(posts)}


def peak() -> int:
    """Return the peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
