"""Listing and deletion of the encoders of a feature store."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .shards import Shards
from .store import IDENTITY


@dataclass(frozen=True)
class StoredEncoder:
    """Outputs of one encoder in a store.

    Args:
        folder (`Path`)
        identity (`dict`): name, settings and hash of the weights.
        entries (`int`): number of distinct contents.
        size (`int`): bytes.
        used (`float`): time of the last use, in seconds since 1970.
    """

    folder: Path
    identity: dict[str, Any]
    entries: int
    size: int
    used: float

    @property
    def title(self) -> str:
        """Name, architecture and type of the numbers."""
        network = self.identity.get("settings", {}).get("network", "").split("(")[0]
        return f"{self.identity.get('name')} {network} {self.identity.get('dtype')}"


def stored_encoders(store: Path) -> list[StoredEncoder]:
    """List the encoders of a store, those that were used last first."""
    found = []
    for record in store.glob(f"*/{IDENTITY}"):
        folder = record.parent
        shards = Shards(folder)
        identity = json.loads(record.read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in folder.iterdir())
        found.append(StoredEncoder(folder, identity, shards.entries, size, record.stat().st_mtime))
    return sorted(found, key=lambda each: -each.used)


def prune(encoders: Sequence[StoredEncoder], days: float) -> list[StoredEncoder]:
    """Delete the encoders that were not used for some days, 0 for all, and return them."""
    old = [each for each in encoders if each.used <= time.time() - days * 24 * 3600]
    for each in old:
        shutil.rmtree(each.folder)
    return old
