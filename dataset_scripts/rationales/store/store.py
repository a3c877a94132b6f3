"""A folder of rationales that survives whatever ends the process that fills it.

manifest.json                 what was asked: the whole specification and the words of the prompt
shards/00017/journal.jsonl    while shard 17 is being written
data/00017.parquet            once it is done: `load_dataset("parquet", data_files="<folder>/data/*.parquet")`
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import json
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.rows import Row, sync_folder
from dataset_scripts.rationales.store.shard import ShardFiles, ShardWriter
from dataset_scripts.rationales.store.shard_index import OPEN, STATUSES

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Prompt

__all__ = ["RationaleStore", "ShardStatus", "ShardWriter", "StoreError", "is_store"]

MANIFEST = "manifest.json"
_KIND = "mpt-rationales"
_VERSION = 1
_PACKAGES = ("mpt-sentiment", "huggingface-hub", "transformers", "datasets", "pyarrow")


@dataclasses.dataclass(frozen=True)
class ShardStatus:
    """How far a shard is. `posts` are posts; the others count rationales, one per post and perspective.

    `posts` are those taken up so far: a store does not know how many posts its dataset has.
    """

    shard_id: int
    posts: int
    ok: int
    flagged: int
    failed: int
    crashed: int
    open: int
    published: bool


class RationaleStore:
    """The rationales of one specification. Get one from `create` or `open`.

    Attributes:
        folder: where it lies.
        spec: what is asked for each post.
        num_shards: number of parts; each has one writer at a time. About 20,000 posts a shard are a good size.
        manifest: all that `manifest.json` says.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.spec = RationaleSpec.from_dict(manifest["spec"])
        self.num_shards: int = manifest["num_shards"]

    @classmethod
    def create(
        cls,
        folder: str | Path,
        spec: RationaleSpec,
        prompt: Prompt,
        *,
        num_shards: int = 1,
        data: Mapping[str, Any] | None = None,
    ) -> RationaleStore:
        """Begin a store, or open the one that is there. Several processes may do so at the same time.

        Args:
            folder: made if it is not there.
            spec: what is asked.
            prompt: of `spec`; its words are kept in the manifest.
            num_shards: fixed for good.
            data: facts about the dataset, for the reader of the manifest.

        Raises:
            StoreError: the store that is there was begun with another specification (the fields are named) or number
                of shards, or the folder cannot be written.
            ValueError: `prompt` is not that of `spec`, or `num_shards` is below 1.
        """
        folder = Path(folder)
        check_prompt(spec, prompt)
        if num_shards < 1:
            raise ValueError(f"num_shards={num_shards}; at least 1 is needed.")
        if not (folder / MANIFEST).exists():
            manifest = {
                "kind": _KIND,
                "version": _VERSION,
                "spec": spec.to_dict(),
                "spec_hash": spec.spec_hash,
                "num_shards": num_shards,
                "prompt": prompt.to_dict(),
                "data": dict(data or {}),
                "versions": _versions(),
            }
            try:
                _begin(folder, manifest)
            except OSError as error:
                raise StoreError(f"{folder} cannot be written ({error}).") from error
        store = cls.open(folder)
        differences = store.spec.differences(spec)
        if store.num_shards != num_shards:
            differences.append(f"num_shards: {store.num_shards!r}, not {num_shards!r}")
        if differences:
            raise StoreError(
                f"{folder} was begun with another specification: {'; '.join(differences)}. Rationales of two "
                "specifications do not mix: ask as before, or give another folder."
            )
        return store

    @classmethod
    def open(cls, folder: str | Path) -> RationaleStore:
        """The store in `folder`.

        Raises:
            StoreError: there is none, or it was written by another version.
        """
        path = Path(folder) / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"There is no store of rationales in {folder}: it has no {MANIFEST}.") from None
        except ValueError as error:
            raise StoreError(f"{path} is not readable as JSON ({error}).") from None
        if not isinstance(manifest, dict) or manifest.get("kind") != _KIND or manifest.get("version") != _VERSION:
            raise StoreError(f"{path} is not the manifest of a store of rationales, or of another version.")
        try:
            return cls(Path(folder), manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: {error}") from None

    def shard_of(self, text_sha256: str | None, image_sha256: str | None) -> int:
        """The shard of a post, by its text if it has one: the same posts meet in one shard, and nobody needs to read
        an image to know whether a post is his. A post of which nothing can be read is in the first."""
        digest = text_sha256 or image_sha256
        return int(digest, 16) % self.num_shards if digest else 0

    def writer(self, shard_id: int) -> ShardWriter:
        """Context manager; see `ShardWriter`.

        Raises:
            StoreError: on entering, if another process writes this shard.
        """
        return ShardWriter(self._files(shard_id))

    def rows(self, shard_ids: Iterable[int] | None = None) -> Iterator[Row]:
        """One row per post recorded so far, published or not; also while a run writes.

        Its columns are those of the Parquet files (`rows.row_schema`): `id`, `image_sha256`, `text_sha256`,
        `language`, `provenance`, `system_fingerprint`, and per perspective `rationale_`, `status_` (`"ok"`,
        `"flagged"`, `"failed"`, `"crashed"`, `"open"`), `flags_`, `error_`, `raw_`, `attempts_`, `prompt_tokens_`,
        `cached_tokens_`, `completion_tokens_` and `key_`. A post whose text or image was changed between two runs has
        a row for each content: join by the two hashes where that can be.
        """
        for shard_id in self._shard_ids(shard_ids):
            yield from self._files(shard_id).rows()

    def status(self) -> list[ShardStatus]:
        """Of every shard, from its files alone."""
        return [self._status(shard_id) for shard_id in range(self.num_shards)]

    def _status(self, shard_id: int) -> ShardStatus:
        files = self._files(shard_id)
        columns = files.published_statuses()
        counts: collections.Counter[str] = collections.Counter()
        posts = 0
        if columns is None:
            for row in files.rows():
                posts += 1
                counts.update(row[f"status_{perspective}"] for perspective in self.spec.perspectives)
        else:
            for column in columns.values():
                posts = len(column)
                counts.update(column)
        numbers = {status: counts[status] for status in (*STATUSES, OPEN)}
        return ShardStatus(shard_id, posts, **numbers, published=columns is not None)

    def _shard_ids(self, shard_ids: Iterable[int] | None) -> Iterable[int]:
        return range(self.num_shards) if shard_ids is None else shard_ids

    def _files(self, shard_id: int) -> ShardFiles:
        if not 0 <= shard_id < self.num_shards:
            raise ValueError(f"There is no shard {shard_id}; this store has the shards 0 to {self.num_shards - 1}.")
        return ShardFiles(self.folder, shard_id, self.spec)


def is_store(path: str | Path) -> bool:
    """Whether a folder is a store of rationales."""
    try:
        RationaleStore.open(path)
    except StoreError:
        return False
    return True


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Puts the manifest in place whole. Of several processes that begin one store, the first wins."""
    taken = (folder / "shards").exists() or (folder / "data").exists()
    if taken and not (folder / MANIFEST).exists():  # in this order: another process may be beginning it just now
        raise StoreError(
            f"{folder} has no {MANIFEST}, but the folders of a store or of something else; give another folder, or "
            f"put the {MANIFEST} back."
        )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{MANIFEST}.{uuid.uuid4().hex}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(manifest, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, folder / MANIFEST)  # unlike a rename, it fails if another process was faster
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(temporary, folder / MANIFEST)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
