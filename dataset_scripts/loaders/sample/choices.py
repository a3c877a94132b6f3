"""Random choices that are equal on every machine and Python version."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class SeededChoices:
    """Stream of random choices seeded by its key, e.g. `SeededChoices(seed, "text", 17)`.

    Python guarantees that `random.Random(int).random()` never changes, but gives no such guarantee for `choice`,
    `shuffle` or string seeds. Hence every choice uses `random()`, seeded with a SHA-256 hash of the key. Streams with
    different keys are independent.
    """

    def __init__(self, *key: int | str):
        digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest, "big"))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random.random() < probability

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between `low` and `high`."""
        return low + (high - low) * self._random.random()

    def integer(self, low: int, high: int) -> int:
        """Draw an integer from `low` to `high`, both included."""
        return low + int((high - low + 1) * self._random.random())

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order."""
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.integer(0, last)
            items[last], items[other] = items[other], items[last]
        return items
