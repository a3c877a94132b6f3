"""Token ids of texts, computed once in a process and kept without padding."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

KEY_BYTES = 16
KEY = np.dtype(f"S{KEY_BYTES}")
# New texts of a pool after which its arrays are joined.
JOINED = 4096
# Pools that a process keeps: tokenizers with their limits.
POOLS = 8


class TokenPool:
    """Token ids of the distinct texts that a process has read with one tokenizer.

    Texts are added, never removed.

    Attributes:
        ids (`np.ndarray` of shape `(tokens,)`): ids of all rows, one after the other.
        offsets (`np.ndarray` of shape `(rows + 1,)`): where each row begins and ends. Row 0 is the missing text.
        keys (`np.ndarray` of shape `(rows,)`): hash of the ids of each row, empty for a row without tokens.
    """

    def __init__(self, type_of_ids: Any = np.int32) -> None:
        self.ids = np.zeros(0, type_of_ids)
        self.offsets = np.zeros(2, np.int64)
        self.keys = np.zeros(1, KEY)
        # Hashes of the texts, sorted, and their rows.
        self._texts, self._rows = np.zeros(1, KEY), np.zeros(1, np.int64)
        self._new: dict[bytes, int] = {}
        self._new_ids: list[np.ndarray] = []

    def rows(self, texts: Sequence[str | None], tokenize: Callable[[list[str]], list[list[int]]]) -> np.ndarray:
        """Return the rows of texts `(n,)`, and tokenize those that are new."""
        hashes = [digest(text.encode("utf-8", "surrogatepass")) if text else b"" for text in texts]
        wanted = np.array(hashes, dtype=KEY)
        place = np.searchsorted(self._texts, wanted).clip(max=len(self._texts) - 1)
        rows = np.where(self._texts[place] == wanted, self._rows[place], -1)
        missing = {hashes[i]: texts[i] for i in np.flatnonzero(rows < 0) if hashes[i] not in self._new}
        if missing:
            for text, ids in zip(missing, tokenize(list(missing.values())), strict=True):
                self._new[text] = len(self.keys) + len(self._new_ids)
                self._new_ids.append(np.array(ids, dtype=np.int32))
        for i in np.flatnonzero(rows < 0):
            rows[i] = self._new[hashes[i]]
        if len(self._new) >= JOINED:
            self.join()
        return rows

    def join(self) -> None:
        """Join the arrays of the new texts to those of the others."""
        if not self._new:
            return
        keys = np.array([digest(ids.tobytes()) if len(ids) else b"" for ids in self._new_ids], dtype=KEY)
        lengths = np.fromiter(map(len, self._new_ids), dtype=np.int64, count=len(self._new_ids))
        self.ids = np.concatenate([self.ids, *self._new_ids], dtype=self.ids.dtype, casting="unsafe")
        self.offsets = np.concatenate([self.offsets, self.offsets[-1] + lengths.cumsum()])
        self.keys = np.concatenate([self.keys, keys])
        texts = np.concatenate([self._texts, np.array(list(self._new), dtype=KEY)])
        rows = np.concatenate([self._rows, np.fromiter(self._new.values(), dtype=np.int64, count=len(self._new))])
        order = np.argsort(texts, kind="stable")
        self._texts, self._rows = texts[order], rows[order]
        self._new, self._new_ids = {}, []


@dataclass
class TokenRows:
    """Token ids of the texts or of the rationales of posts.

    Args:
        pool ([`TokenPool`])
        rows (`np.ndarray` of shape `(rows,)`): rows of the pool; a missing text has no tokens.
    """

    pool: TokenPool
    rows: np.ndarray

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row."""
        return self.pool.offsets[self.rows + 1] - self.pool.offsets[self.rows]

    @property
    def keys(self) -> np.ndarray:
        """Hash of the ids of each row, empty for a missing text."""
        return self.pool.keys[self.rows]

    def ids(self, row: int) -> np.ndarray:
        """Return the ids of a row."""
        start = self.pool.offsets[self.rows[row]]
        return self.pool.ids[start : start + self.lengths[row]]

    def padded(self, rows: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask `(len(rows), longest)`, padded on the right."""
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids(row) for row in rows] or [self.pool.ids[:0]])
        return ids, mask


def pool_of(processor: Any, kind: str) -> TokenPool:
    """Return the pool of a tokenizer with the limits and preparation of its processor.

    Args:
        processor ([`MPTProcessor`])
        kind (`str`): `"text"` or `"rationale"`, which have limits of their own.
    """
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    type_of_ids = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    if backend is None or not hasattr(backend, "to_str"):  # of Python code, which cannot be compared
        return TokenPool(type_of_ids)
    backend.no_truncation()  # a call sets both again
    backend.no_padding()
    settings = [
        *(kind, type(processor).__qualname__, processor.text_preprocessing),
        *(processor.max_length, processor.rationale_max_length, tokenizer.model_max_length),
        *(type(tokenizer).__qualname__, tokenizer.truncation_side, tokenizer.init_kwargs, backend.to_str()),
    ]
    return _pool(digest(json.dumps(settings, sort_keys=True, default=str).encode()), type_of_ids)


@functools.lru_cache(maxsize=POOLS)
def _pool(settings: bytes, type_of_ids: Any) -> TokenPool:
    return TokenPool(type_of_ids)


def digest(*parts: bytes) -> bytes:
    """Hash parts of a content to `KEY_BYTES` bytes."""
    result = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        result.update(part)
    return result.digest()
