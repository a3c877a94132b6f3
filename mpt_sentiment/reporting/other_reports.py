"""Figures of other datasets' reports, drawn next to those of a report."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_scripts.output import write_text_atomically
from dataset_scripts.reading.option_names import option_name
from mpt_sentiment.reporting.section import Figure, Section

CAPTIONS_FILE = "figures/captions.json"


def read_captions(folder: Path) -> dict[str, dict[str, str]]:
    """Read heading and captions of the figures of a finished report.

    Raises:
        ValueError: the folder has no report.
    """
    file = folder / CAPTIONS_FILE
    if not file.is_file():
        raise ValueError(
            f"{option_name('other_reports')} {folder} has no {CAPTIONS_FILE}: name the output_dir of a finished "
            "report."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def write_captions(folder: Path, heading: str, sections: Mapping[str, Section]) -> None:
    """Store heading and captions, from which a report of another dataset shows the figures."""
    captions = {figure.path.stem: figure.caption for section in sections.values() for figure in section.figures}
    if captions:
        text = json.dumps({"heading": heading, "captions": captions}, ensure_ascii=False, indent=1)
        write_text_atomically(folder / CAPTIONS_FILE, text + "\n")


def with_figures_of(
    folders: Sequence[Path], output_dir: Path, heading: str, sections: Mapping[str, Section]
) -> dict[str, Section]:
    """Add to each figure of the sections those of the same name in other reports."""
    others = [(folder, read_captions(folder)) for folder in folders]
    if not others:
        return dict(sections)
    return {
        name: dataclasses.replace(
            section, figures=[each for own in section.figures for each in _row(own, others, output_dir, heading)]
        )
        for name, section in sections.items()
    }


def _row(own: Figure, others: Sequence[tuple[Path, Mapping]], output_dir: Path, heading: str) -> list[Figure]:
    """Copy the figures of other reports, and put the name of its dataset before each caption."""
    figures = [dataclasses.replace(own, caption=f"{heading}: {own.caption}")]
    for number, (folder, stored) in enumerate(others, 1):
        if own.path.stem in stored["captions"]:
            path = output_dir / "figures" / f"{own.path.stem}-{number}.png"
            for suffix in (".png", ".svg"):
                shutil.copyfile(folder / "figures" / f"{own.path.stem}{suffix}", path.with_suffix(suffix))
            figures.append(Figure(path, f"{stored['heading']}: {stored['captions'][own.path.stem]}"))
    return figures
