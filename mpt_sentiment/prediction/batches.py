"""Batches of posts by length, decoded and tokenized in worker processes ahead of the model."""

import dataclasses
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import ProcessorMixin

from dataset_scripts import rationale_column
from dataset_scripts.reading.images import read_rgb, stored_image
from mpt_sentiment.prediction.posts import Fault, Item

BATCHES_PER_WINDOW = 16  # posts are sorted by length within as many batches
_MAX_WORKERS = 16
_FEW_BATCHES = 8  # to start worker processes takes longer
_UNREADABLE = "unreadable image"
_UNUSABLE = "unusable post"

# Why a post cannot be read: reason, the part that it concerns, and the problem.
Problem = tuple[str, str, str]


@dataclasses.dataclass
class Batch:
    """Consecutive rows of one part, in the order of their length.

    Attributes:
        part (`int`): number of the part.
        items (`list[Item]`): rows with a post.
        others (`list[Item]`): rows without one.
        is_last (`bool`): whether the part ends with this batch.
        inputs (mapping, *optional*): tensors of the posts in `items`.
    """

    part: int
    items: list[Item]
    others: list[Item]
    is_last: bool = False
    inputs: Mapping[str, torch.Tensor] | None = None


def batches_by_length(windows: Iterable[tuple[int, list[Item], bool]], batch_size: int) -> Iterator[Batch]:
    """Divide windows of rows (part, rows, whether the part ends) into batches of similar length."""
    for part, items, is_last in windows:
        posts = sorted((item for item in items if item.post is not None), key=_length)
        others = [item for item in items if item.post is None]
        starts = range(0, len(posts), batch_size) or range(1)
        for start in starts:
            is_end = start == starts[-1]
            yield Batch(part, posts[start : start + batch_size], others if is_end else [], is_last and is_end)


def windows_of_parts(items: Iterable[Item], rows_per_part: int, window: int) -> Iterator[tuple[int, list[Item], bool]]:
    """Divide rows into windows of at most `window` rows, none across the border of a part."""
    for part, rows in itertools.groupby(items, key=lambda item: item.number // rows_per_part):
        following = list(itertools.islice(rows, window))
        while following:
            current, following = following, list(itertools.islice(rows, window))  # noqa: B031
            yield part, current, not following


def prepared_batches(
    batches: Iterator[Batch], preparation: "Preparation", num_workers: int | None, *, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yield the batches with tensors; a post that cannot be read becomes a fault.

    Args:
        batches: batches without tensors; read ahead, in this process.
        preparation ([`Preparation`])
        num_workers (`int`, *optional*): processes that prepare; by default one per core, none for few posts.
        pin_memory (`bool`): prepare tensors for the copy to an accelerator.
    """
    if num_workers is None:
        first = list(itertools.islice(batches, _FEW_BATCHES))
        num_workers = 0 if len(first) < _FEW_BATCHES else _default_workers()
        batches = itertools.chain(first, batches)
    waiting: deque[Batch] = deque()

    def requests() -> Iterator[list[dict[str, Any]]]:
        for batch in batches:
            waiting.append(batch)
            yield [item.post for item in batch.items]

    loader = DataLoader(
        preparation,
        batch_sampler=requests(),
        num_workers=num_workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
    )
    for inputs, faults in loader:
        batch = waiting.popleft()
        for item, fault in zip(batch.items, faults, strict=True):
            if fault is not None:
                reason, part, problem = fault
                message = f"{item.location}: {part.format(repr(item.post['id']))} {problem}"
                item.fault, item.post = Fault(item.post["id"], item.location, reason, message), None
        batch.others = [*batch.others, *(item for item in batch.items if item.fault is not None)]
        batch.items = [item for item in batch.items if item.fault is None]
        batch.inputs = inputs
        yield batch


class Preparation(Dataset):
    """Images and texts of posts as tensors. An item is a list of posts.

    Args:
        processor ([`MPTProcessor`])
        modalities (sequence of `str`): modalities that the model reads.
    """

    def __init__(self, processor: ProcessorMixin, modalities: Sequence[str]) -> None:
        self.processor, self.modalities = processor, modalities
        self._columns = {name: rationale_column(name) for name in processor.perspectives}

    def __getitems__(self, posts: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[Problem | None]]:
        """Return the tensors of the posts that can be read, and the problem of each or None."""
        decoded: list[dict[str, Any] | None] = []
        faults: list[Problem | None] = []
        for post in posts:
            image, fault = post["image"], None
            if image is not None:
                try:
                    image = read_rgb(stored_image(image))
                except (OSError, ValueError) as error:
                    image, fault = None, (_UNREADABLE, "the image of post {}", f"cannot be decoded ({error}).")
            decoded.append(None if fault else post | {"image": image})
            faults.append(fault)
        sound = [post for post in decoded if post is not None]
        try:
            return self._tensors(sound), faults
        except ValueError:  # one of the posts: each alone says which
            for index, post in enumerate(decoded):
                if post is not None:
                    try:
                        self._tensors([post])
                    except ValueError as error:
                        faults[index] = (_UNUSABLE, "post {}", f"cannot be used ({error}).")
        return self._tensors([post for post, fault in zip(decoded, faults, strict=True) if fault is None]), faults

    def _tensors(self, posts: list[dict[str, Any]]) -> dict[str, Any] | None:
        if not posts:
            return None
        inputs: dict[str, Any] = {}
        if "text" in self.modalities:
            inputs["text"] = [post["text"] for post in posts]
        if "image" in self.modalities:
            inputs["images"] = [post["image"] for post in posts]
        if "rationales" in self.modalities:
            inputs["rationales"] = [
                {name: post.get(column) for name, column in self._columns.items()} for post in posts
            ]
        return dict(self.processor(**inputs))


def _default_workers() -> int:
    """Return the number of cores, shared with the other processes of a launcher, at most 16.

    0 where processes do not begin as copies of this one: they would not find the code that a model's folder brings.
    """
    if multiprocessing.get_start_method() != "fork":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1))


def _length(item: Item) -> int:
    return sum(len(value) for name, value in item.post.items() if isinstance(value, str) and name != "image")


def _unchanged(prepared: Any) -> Any:
    return prepared
