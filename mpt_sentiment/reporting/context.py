"""Posts, predictions and trained networks that the sections of a report read."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from datasets import Dataset

from mpt_sentiment.evaluation.comparison import Entry
from mpt_sentiment.evaluation.comparison import compare as compare_entries
from mpt_sentiment.evaluation.scored_posts import scored_posts
from mpt_sentiment.out_of_fold import groups_of_tested, heading_of, probabilities_of, tested_posts
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.reporting.section import Figure, Omitted, Post
from mpt_sentiment.rows import list_of_rows, parse_row
from mpt_sentiment.training_data import Parts, modalities_of

MPT = "mpt"


@dataclass(frozen=True)
class Plan:
    """Posts and arguments of MPT, from which the rows of a report are chosen.

    Attributes:
        parts ([`Parts`]): posts of each fold.
        base ([`TrainingSetup`]): arguments of the row `mpt`.
    """

    parts: Parts
    base: TrainingSetup

    @functools.cached_property
    def modalities(self) -> list[str]:
        """Modalities that MPT reads of these posts."""
        return self.base.model.modalities or modalities_of(next(iter(self.parts.values())).posts)

    @functools.cached_property
    def ablations(self) -> list[str]:
        """Rows of the list `ablations` of a comparison."""
        return list_of_rows("ablations", next(iter(self.parts.values())).posts, lambda system: self.base)

    def alone(self, modality: str) -> str | None:
        """Return the row that reads one modality; `None` if the posts have no other, or lack it."""
        others = [name for name in self.modalities if name != modality]
        if modality not in self.modalities or not others:
            return None
        return " ".join([MPT, *(f"-{name}" for name in others)])

    def unimodal(self) -> list[str]:
        """Return the rows that read the text alone and the image alone."""
        return [row for row in map(self.alone, ("text", "image")) if row is not None]

    def field(self, name: str) -> Any:
        """Return the value of a field of MPT's configuration that the runs use."""
        value = getattr(self.base.model, name, None)
        if value is None:
            value = (self.base.model.model_options or {}).get(name)
        return getattr(self.base.model.config_class(), name) if value is None else value


@dataclass(frozen=True)
class Context:
    """Posts, predictions and options that a section reads.

    Attributes:
        plan ([`Plan`]): posts and arguments of MPT.
        table (`pa.Table`, *optional*): predictions of all runs, as `predictions.parquet` of a comparison has them.
        output_dir (`Path`): folder of the report.
        train (callable): trains a row once, keeps its network, and returns its folder.
        zero_shot (`pa.Table`, *optional*): predictions of the large multimodal model.
        opposite (callable): loads the posts that MVSA's rule drops.
        epochs (sequence of `int`): epochs whose vectors are mapped; the last one is added.
        num_explained (`int`): posts that are explained.
        num_shown (`int`): posts that a section shows of each kind.
        errors (`dict[str, str]`): error of each cell that failed, and of each row that could not be trained.
    """

    plan: Plan
    table: pa.Table | None
    output_dir: Path
    train: Callable[[str], Path]
    zero_shot: pa.Table | None = None
    opposite: Callable[[], Dataset | None] = lambda: None
    epochs: Sequence[int] = ()
    num_explained: int = 16
    num_shown: int = 5
    errors: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def tested(self) -> Dataset:
        """Test posts of all folds."""
        return tested_posts(self.plan.parts)

    @functools.cached_property
    def ids(self) -> list[str]:
        return list(self.tested["id"])

    @functools.cached_property
    def label_names(self) -> list[str]:
        return self.tested.features["label"].names

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """True class indices `(num_posts,)`."""
        return np.array(self.tested["label"][:])

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """Groups of duplicates `(num_posts,)`."""
        return groups_of_tested(self.plan.parts, self.plan.base.data.split_options.get("group_column"))

    @functools.cached_property
    def runs(self) -> dict[str, dict[int, np.ndarray]]:
        """Title of a row → seed → probabilities `(num_posts, num_classes)`."""
        runs: dict[str, dict[int, np.ndarray]] = {}
        if self.table is None:
            return runs
        for (title, seed), values in probabilities_of(self.table, self.ids, self.label_names).items():
            runs.setdefault(title, {})[seed] = values
        return runs

    @property
    def heading(self) -> str:
        return heading_of(self.plan.parts)

    def present(self, rows: Sequence[str]) -> list[str]:
        """Return the titles of those rows that have predictions of all posts."""
        titles = [parse_row(row).title for row in rows]
        return [title for title in dict.fromkeys(titles) if title in self.runs]

    def missing(self, rows: Sequence[str]) -> list[str]:
        """Say which of the rows have no predictions, with the error of each that failed."""
        titles = [title for title in dict.fromkeys(parse_row(row).title for row in rows) if title not in self.runs]
        return [f"`{title}` is missing: {self.why(title)}" for title in titles]

    def why(self, title: str) -> str:
        """Return the reason why a row has no predictions of all posts."""
        reasons = [error for cell, error in self.errors.items() if cell.split(", ")[0] == title]
        return reasons[0] if reasons else "the comparison has no predictions of all posts for it."

    def probabilities(self, row: str) -> np.ndarray:
        """Return the probabilities `(num_seeds, num_posts, num_classes)` of a row.

        Raises:
            Omitted: the row has none.
        """
        title = parse_row(row).title
        if title not in self.runs:
            raise Omitted(f"The row `{title}` is needed. {self.why(title)}")
        return np.array(list(self.runs[title].values()))

    def mean_probabilities(self, row: str) -> np.ndarray:
        """Return the means over seeds `(num_posts, num_classes)` of the probabilities of a row."""
        return self.probabilities(row).mean(axis=0)

    def uncalibrated(self, row: str, seed: int) -> np.ndarray:
        """Return the probabilities `(num_posts, num_classes)` of a run without its temperatures."""
        own = pa.compute.equal(self.table["seed"], seed)
        scored = scored_posts(self.table.filter(own), parse_row(row).title, calibrated=False)
        place = {post_id: number for number, post_id in enumerate(scored.ids)}
        return scored.probabilities[[place[post_id] for post_id in self.ids]]

    def compared(self, rows: Sequence[str], chosen: np.ndarray | None = None) -> list[dict[str, Any]]:
        """Score rows, with intervals and tests that are corrected for these rows alone.

        Args:
            rows (sequence of `str`): rows; those without predictions are left out.
            chosen (`np.ndarray` of bool, *optional*): the posts to score on; by default all.
        """
        chosen = np.full(len(self.labels), True) if chosen is None else chosen
        labels = self.labels[chosen]
        runs = {title: np.array(list(self.runs[title].values()))[:, chosen] for title in self.present(rows)}
        entries = [
            Entry(title, labels, values.argmax(axis=2), rationales=parse_row(title).reads_rationales)
            for title, values in runs.items()
        ]
        groups = np.unique(self.groups[chosen], return_inverse=True)[1]
        reference = MPT if MPT in runs else None
        return compare_entries(entries, len(self.label_names), reference=reference, groups=groups)

    def describe(self, rows: Sequence[str], num_posts: int | None = None) -> str:
        """Return number of posts, seeds and kind of interval, for captions."""
        of_rows = [{seed for seed in self.runs[title] if seed is not None} for title in self.present(rows)]
        seeds = sorted(set().union(*of_rows))
        listed = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
        if any(each != set(seeds) for each in of_rows):
            listed += ", of which some rows have fewer runs"
        number = len(self.labels) if num_posts is None else num_posts
        return f"{number:,} posts; {listed}; 95 % bootstrap intervals over groups of duplicates."

    def figure(self, name: str, caption: str, draw: Callable[..., Path], *args: Any, **kwargs: Any) -> Figure:
        """Draw a figure into the folder of the report."""
        return Figure(draw(self.output_dir / "figures" / f"{name}.png", *args, **kwargs), caption)

    def post(self, post_id: str, facts: Mapping[str, str], posts: Dataset | None = None) -> Post:
        """Return a post as a section shows it."""
        posts = self.tested if posts is None else posts
        row = posts[list(posts["id"]).index(post_id)]
        prefix = "rationale_"
        rationales = {
            name.removeprefix(prefix): text for name, text in row.items() if name.startswith(prefix) and text
        }
        return Post(post_id, row["text"], row["image"], rationales, facts)
