"""Benchmark of peak memory: building, splitting and reading 1,000 and 20,000 posts.

    python benchmarks/data_loading.py

Writes two folders of posts (images and a CSV) to a temporary folder, then loads, splits and processes each in its own
process. All figures are ratios within one run of this script.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (1_000, 20_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(measure(Path(args.folder))))
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in SIZES:
            folder = Path(temporary) / str(size)
            write_posts(folder, size)
            environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, __file__, "--folder", str(folder)]
            output = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
            peaks[size] = json.loads(output.splitlines()[-1])
    small, large = (peaks[size] for size in SIZES)
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
