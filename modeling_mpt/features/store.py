"""FeatureStore: folder with the outputs of frozen encoders, one folder for each encoder."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from .contents import read_contents
from .dataset import FeatureDataset, StoredOutputs
from .encoding import Source, encode
from .errors import FeatureStoreError
from .identity import encoder_identity, identity_digest
from .shards import PER_TOKEN, Shards, check_dtype, shard_name, write_shard

logger = logging.getLogger(__name__)

# Contents of a shard.
SHARD = 256
# Bytes that are left free on the disk.
RESERVE = 64 * 2**20
IDENTITY = "encoder.json"
UNITS = {"text": "texts", "rationales": "rationales", "image": "images"}


class FeatureStore:
    """Outputs of frozen encoders on disk, one entry for each encoder and distinct content.

    Processes may build and read one store at the same time.

    Args:
        folder (`str` or `Path`)
        dtype (`str`, defaults to `"bfloat16"`): of the stored numbers; or `"float16"`, `"float32"`.

    Raises:
        ValueError: For another dtype.
    """

    def __init__(self, folder: str | Path, dtype: str = "bfloat16") -> None:
        self.folder = Path(folder).expanduser()
        self.dtype = check_dtype(dtype)

    @classmethod
    def default(cls, dtype: str = "bfloat16") -> "FeatureStore":
        """Return the store in the folder of Hugging Face's caches, `HF_HOME`."""
        return cls(Path(huggingface_hub.constants.HF_HOME) / "mpt_sentiment" / "features", dtype)

    def build(
        self,
        network: Any,
        processor: Any,
        *posts: Any,
        autocast: torch.dtype | None = None,
        progress: bool = True,
        announce: Callable[[str], None] = logger.info,
    ) -> FeatureDataset | list[FeatureDataset]:
        """Compute what the store lacks of the posts, and return them as a dataset of features.

        Datasets given together, such as the splits of one dataset, share their files with any other split of the same
        posts.

        Args:
            network: MPT, a baseline, or a network with their `frozen_encoders` and `live_inputs`.
            processor ([`MPTProcessor`])
            posts: one or more datasets, or lists of rows.
            autocast (`torch.dtype`, *optional*): in which the encoders compute, if not in that of their weights.
            progress (`bool`): whether to show a progress bar.
            announce (`Callable`): called with one line before outputs are computed: how many, and their size.

        Returns:
            [`FeatureDataset`], or a list for several datasets.

        Raises:
            FeatureStoreError: For a folder that cannot be written, or a disk without space.
            ValueError: For posts that the collator refuses.
        """
        contents = [read_contents(each, processor, network.config.modalities) for each in posts]
        encoders = list(network.frozen_encoders())
        device = next(network.parameters()).device
        shards = [self._shards(encoder, autocast) for encoder in encoders]
        sources = {
            reads: Source(posts, contents, processor, reads) for reads in sorted({each.reads for each in encoders})
        }
        groups: dict[tuple[str, bytes], list[int]] = {}
        missing: dict[tuple[str, bytes], np.ndarray] = {}
        for number, (encoder, stored) in enumerate(zip(encoders, shards, strict=True)):
            places = np.flatnonzero(stored.find(sources[encoder.reads].keys)[0] < 0)
            if len(places):
                group = (encoder.reads, places.tobytes())  # encoders of one group share the decoded images
                groups.setdefault(group, []).append(number)
                missing[group] = places
        work = [
            ([encoders[i] for i in numbers], [shards[i] for i in numbers], sources[group[0]], missing[group])
            for group, numbers in groups.items()
        ]
        self._check_space(work, device, autocast, announce)
        total = sum(len(places) for _, _, _, places in work)
        with tqdm(total=total, desc="Feature store", unit="content", disable=not progress or not total) as bar:
            for each in work:
                self._compute(*each, device, autocast, bar)
        results = [
            FeatureDataset(
                each,
                part,
                processor,
                [
                    StoredOutputs(encoder.name, encoder.reads, stored, part.keys(encoder.reads), self.dtype)
                    for encoder, stored in zip(encoders, shards, strict=True)
                ],
                live=set(network.live_inputs()),
                dtype=network.dtype,
            )
            for each, part in zip(posts, contents, strict=True)
        ]
        return results[0] if len(results) == 1 else results

    def _shards(self, encoder: Any, autocast: torch.dtype | None) -> Shards:
        """Return the shards of an encoder, and note that they were used."""
        identity = encoder_identity(encoder, self.dtype, autocast)
        folder = self.folder / identity_digest(identity)
        record = folder / IDENTITY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not record.exists():
                temporary = folder / f"{IDENTITY}.{os.getpid()}.tmp"
                temporary.write_text(json.dumps(identity, indent=1, default=str), encoding="utf-8")
                os.replace(temporary, record)
            os.utime(record)
        except OSError as error:
            raise FeatureStoreError(f"{folder} cannot be written ({error.strerror}).") from error
        return Shards(folder)

    def _check_space(
        self,
        work: Sequence[tuple],
        device: torch.device,
        autocast: torch.dtype | None,
        announce: Callable[[str], None],
    ) -> None:
        """Announce what will be computed, and its size.

        Raises:
            FeatureStoreError: For a disk without space.
        """
        parts, size = [], 0
        for encoders, _, source, places in work:
            lengths = source.lengths(places)
            probe = places[:1]
            for outputs in encode(encoders, source, probe, device, self.dtype, autocast):
                for name, tensor in outputs.items():
                    size += tensor[0].nbytes * (int(lengths.sum()) if name in PER_TOKEN else len(places))
                parts.append(f"{' and '.join(outputs)} of {len(places):,} {UNITS[source.reads]}")
        if not parts:
            return
        shown = f"{size / 2**20:,.0f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} kB"
        announce(f"Feature store {self.folder}: computing {', '.join(parts)}, {shown}")
        free = shutil.disk_usage(self.folder).free
        if size + RESERVE > free:
            raise FeatureStoreError(
                f"{self.folder} needs {shown} for the outputs of frozen encoders, and {free / 2**20:,.0f} MB are free."
            )

    def _compute(
        self,
        encoders: Sequence[Any],
        shards: Sequence[Shards],
        source: Source,
        places: np.ndarray,
        device: torch.device,
        autocast: torch.dtype | None,
        bar: Any,
    ) -> None:
        """Compute the missing shards, those that another process holds last."""
        parts = [places[start : start + SHARD] for start in range(0, len(places), SHARD)]
        wait = 0.0
        while parts:
            left = []
            for part in parts:
                keys = source.keys[part]
                paths = [each.path(shard_name(keys)) for each in shards]
                try:
                    with locked(paths[0].with_suffix(".lock"), wait):
                        if not all(path.exists() for path in paths):
                            results = encode(encoders, source, part, device, self.dtype, autocast)
                            for path, outputs in zip(paths, results, strict=True):
                                write_shard(path, keys, outputs, source.lengths(part))
                except Timeout:
                    left.append(part)
                else:
                    bar.update(len(part))
            wait = 1.0 if len(left) == len(parts) else 0.0
            parts = left
        for each in shards:
            each.refresh()


def store_at(where: str, dtype: str = "bfloat16") -> FeatureStore:
    """Return the store in a folder, or the default one for `"auto"`."""
    return FeatureStore.default(dtype) if where == "auto" else FeatureStore(where, dtype)


@contextmanager
def locked(path: Path, wait: float) -> Iterator[None]:
    """Hold the lock of a shard, and remove its file.

    A process that waits for it finds the finished shard.

    Raises:
        Timeout: If another process holds it for `wait` seconds.
    """
    with FileLock(path, timeout=wait):
        yield
        with suppress(OSError):
            path.unlink()
