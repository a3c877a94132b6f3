"""Targets of a student: logits and embeddings that teachers give to posts, by id."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from dataset_scripts.output import atomic_path
from modeling_mpt.trainer_mpt import MPTTrainer

EMBEDDING = "fused_embeds"


@dataclasses.dataclass(frozen=True)
class Targets:
    """Outputs of teachers for posts.

    Attributes:
        ids (`np.ndarray` of shape `(posts,)`): ids of the posts.
        logits (`np.ndarray` of shape `(posts, num_labels)`): calibrated on validation.
        embeds (`np.ndarray` of shape `(posts, dim)`): fused vectors. Those of two teachers have no common axes.
        teachers (`np.ndarray` of shape `(posts,)`): number of the teacher that read the post.
    """

    ids: np.ndarray
    logits: np.ndarray
    embeds: np.ndarray
    teachers: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def join(cls, parts: Sequence["Targets"]) -> "Targets":
        """Join the targets of several teachers."""
        return cls(
            *(np.concatenate(columns) for columns in zip(*(part.columns().values() for part in parts), strict=True))
        )

    def of_posts(self, ids: Sequence[str]) -> "Targets":
        """Return the targets of posts, in the order of their ids.

        Raises:
            ValueError: a post has no target, or two posts have the same id.
        """
        row_of = {post_id: row for row, post_id in enumerate(self.ids.tolist())}
        missing = [post_id for post_id in ids if post_id not in row_of]
        if missing or len(row_of) < len(self.ids):
            problem = f"have no target (first id {missing[0]!r})" if missing else "have the id of another post"
            raise ValueError(f"{len(missing) or len(self.ids) - len(row_of)} of {len(ids)} posts {problem}.")
        rows = [row_of[post_id] for post_id in ids]
        return Targets(**{name: column[rows] for name, column in self.columns().items()})

    def save(self, path: Path) -> None:
        """Write the targets to a file that is complete or absent."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self.columns())

    @classmethod
    def load(cls, path: Path) -> "Targets":
        """Read targets from a file."""
        with np.load(path, allow_pickle=False) as columns:
            return cls(**columns)


def read_by(trainer: MPTTrainer, posts: Dataset, teacher: int) -> Targets:
    """Let the network of a trainer read posts.

    Args:
        trainer ([`MPTTrainer`]): of a trained teacher, with the temperature in its configuration.
        posts (`Dataset`): posts, with labels or without.
        teacher (`int`): number of the teacher.
    """
    config = trainer.accelerator.unwrap_model(trainer.model).config
    ignored = [name for name in config.keys_to_ignore_at_inference if name != EMBEDDING]
    logits, embeds = trainer.predict(posts, ignore_keys=ignored).predictions
    return Targets(
        np.array(posts["id"], dtype=str),
        np.float32(logits) / config.calibration_temperature,
        np.float32(embeds),
        np.full(len(posts), teacher),
    )
