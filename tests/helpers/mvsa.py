"""Small downloads in the layout of MVSA."""

from collections.abc import Callable
from pathlib import Path

from dataset_scripts import LABELS


def write_mvsa(folder: Path, draw: Callable, count: int = 30, annotators: int = 1) -> Path:
    """Write posts 1 to `count`: text `tweet N`, an image, and equal labels of text and image."""
    lines = ["ID\t" + "\t".join(["text,image"] * annotators)]
    for number in range(1, count + 1):
        draw(folder / "data" / f"{number}.jpg", 4 * number)
        (folder / "data" / f"{number}.txt").write_text(f"tweet {number}", encoding="utf-8")
        label = LABELS[number % 3]
        lines.append(f"{number}\t" + "\t".join([f"{label},{label}"] * annotators))
    (folder / "labelResultAll.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
