"""Shards: files of safetensors with the outputs of one encoder for some contents."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .errors import FeatureStoreError
from .tokens import KEY, KEY_BYTES

SUFFIX = ".safetensors"
# Outputs with one row per token. All others have one per text, rationale or image.
PER_TOKEN = ("text_states", "rationale_states")
# Bits of a stored number, as numpy knows them: it has no bf16.
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def check_dtype(name: str) -> torch.dtype:
    """Return the type of stored numbers.

    Raises:
        ValueError: For another one.
    """
    if name not in DTYPES:
        raise ValueError(f"`feature_store_dtype` must be one of {', '.join(DTYPES)}, got {name!r}.")
    return DTYPES[name]


def shard_name(keys: np.ndarray) -> str:
    """Name the shard of these keys."""
    return hashlib.blake2b(keys.tobytes(), digest_size=KEY_BYTES).hexdigest()


def write_shard(path: Path, keys: np.ndarray, tensors: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> None:
    """Write a shard that is complete or absent. The caller holds its lock.

    Args:
        keys (`np.ndarray` of shape `(contents,)`)
        tensors: outputs by name: `(contents, …)`, or states `(tokens, dim)` of the contents one after the other.
        lengths: tokens of each content; 0 where there are none.
    """
    fields = dict(tensors)
    fields["keys"] = torch.from_numpy(np.frombuffer(keys.tobytes(), np.uint8).reshape(-1, KEY_BYTES).copy())
    fields["offsets"] = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64)
    temporary = path.with_suffix(".tmp")
    try:
        save_file(fields, temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or "I/O error" in str(error):
            raise FeatureStoreError(f"{path} cannot be written ({error}).") from error
        raise


class Shards:
    """Stored outputs of one encoder, mapped into memory.

    Args:
        folder (`Path`): folder of the encoder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._keys: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        self._maps: dict[int, dict[str, np.ndarray]] = {}
        self.refresh()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": {}}  # another process maps the files itself

    def path(self, name: str) -> Path:
        """Return the path of a shard."""
        return self.folder / (name + SUFFIX)

    @property
    def entries(self) -> int:
        """Number of stored contents."""
        return sum(map(len, self._keys))

    @property
    def size(self) -> int:
        """Bytes of all shards on disk."""
        return sum(self.path(name).stat().st_size for name in self.names)

    def refresh(self) -> None:
        """Read the keys of shards that were written since the last call."""
        known = set(self.names)
        for path in sorted(self.folder.glob("*" + SUFFIX)):
            if path.stem not in known:
                with safe_open(path, "pt") as file:
                    keys = np.frombuffer(file.get_tensor("keys").numpy().tobytes(), dtype=KEY)
                    self._offsets.append(file.get_tensor("offsets").numpy().copy())
                self._keys.append(keys)
                self.names.append(path.stem)

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return shard and row of each key `(n,)`, -1 for one that is not stored."""
        shard, row = np.full((2, len(keys)), -1, dtype=np.int32)
        if not self._keys:
            return shard, row
        every = np.concatenate(self._keys)
        order = np.argsort(every, kind="stable")
        place = np.searchsorted(every, keys, sorter=order).clip(max=len(every) - 1)
        found = every[order[place]] == keys
        sizes = np.array([len(part) for part in self._keys])
        shards = np.repeat(np.arange(len(sizes)), sizes)[order[place]]
        rows = np.concatenate([np.arange(size) for size in sizes])[order[place]]
        shard[found], row[found] = shards[found], rows[found]
        return shard, row

    def spans(self, shard: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first token and the number of tokens of rows `(n,)`, 0 for those with shard -1."""
        first, length = np.zeros((2, len(shard)), dtype=np.int32)
        for number, offsets in enumerate(self._offsets):
            of = shard == number
            first[of], length[of] = offsets[row[of]], offsets[row[of] + 1] - offsets[row[of]]
        return first, length

    def outputs(self, shard: int) -> dict[str, np.ndarray]:
        """Map the outputs of a shard into memory: the bits of their numbers, by name."""
        if shard not in self._maps:
            with safe_open(self.path(self.names[shard]), "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if name not in ("keys", "offsets")}  # noqa: SIM118
            self._maps[shard] = {name: tensor.view(BITS[tensor.dtype]).numpy() for name, tensor in tensors.items()}
        return self._maps[shard]
