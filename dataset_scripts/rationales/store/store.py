"""Store of rationales: a folder whose content survives a crash of its writers.

manifest.json                 specification, prompt, number of shards, versions
shards/00017/journal.jsonl    records of shard 17 while it is being written
data/00017.parquet            shard 17 once it is complete; all of them:
                              `load_dataset("parquet", data_files="<folder>/data/*.parquet")`
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_scripts.output import write_text_atomically
from dataset_scripts.rationales.errors import StoreError
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.rows import Row, sync_folder
from dataset_scripts.rationales.store.shard import ShardFiles, ShardWriter
from dataset_scripts.rationales.store.shard_index import OPEN, STATUSES

if TYPE_CHECKING:
    from dataset_scripts.rationales.prompts import Prompt

MANIFEST = "manifest.json"
_KIND = "mpt-rationales"
_VERSION = 1
_PACKAGES = ("mpt-sentiment", "huggingface-hub", "transformers", "datasets", "pyarrow")


@dataclasses.dataclass(frozen=True)
class ShardStatus:
    """Progress of a shard.

    Attributes:
        posts: posts recorded so far. The number of posts in the dataset is not stored.
        ok, flagged, failed, crashed, open: rationales by status, one per post and perspective.
        published: `True` if the shard is a Parquet file without unpublished changes.
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
    """Rationales of one specification. Use `create` or `open` to get an instance.

    Attributes:
        folder: folder of the store.
        spec: specification of the rationales.
        num_shards: number of parts. Each has one writer at a time; about 20,000 posts per shard are recommended.
        manifest: content of `manifest.json`.
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
        """Create a store, or open an existing one. Several processes may do so at the same time.

        An existing store whose runs got no answer takes the new specification: the user has corrected the arguments.

        Args:
            folder: created if missing.
            spec: specification of the rationales.
            prompt: the prompt of `spec`, stored in the manifest.
            num_shards: cannot be changed later.
            data: information about the dataset, stored in the manifest.

        Raises:
            StoreError: the existing store has answers for another specification or number of shards (the message
                lists the differences), or the folder cannot be written.
            ValueError: `prompt` is not the prompt of `spec`, or `num_shards` is below 1.
        """
        folder = Path(folder)
        check_prompt(spec, prompt)
        if num_shards < 1:
            raise ValueError(f"`num_shards` must be at least 1, got {num_shards}.")
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
            if not (folder / MANIFEST).exists():
                _write_manifest(folder, manifest)
            store = cls.open(folder)
            if store._differences(spec, num_shards) and store._has_no_answers():
                store._forget_posts()
                write_text_atomically(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1))
                store = cls.open(folder)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written ({error}).") from error
        if differences := store._differences(spec, num_shards):
            raise StoreError(
                f"{folder} has another specification: {'; '.join(differences)}. Use the same settings as before, or "
                "another folder."
            )
        return store

    @classmethod
    def open(cls, folder: str | Path) -> RationaleStore:
        """Open an existing store.

        Raises:
            StoreError: `folder` is not a store, or was written by another version.
        """
        path = Path(folder) / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{folder} is not a store of rationales: it has no {MANIFEST}.") from None
        except ValueError as error:
            raise StoreError(
                f"{path} is damaged: not valid JSON ({error}). Restore this file, or use another folder."
            ) from None
        if not isinstance(manifest, dict) or manifest.get("kind") != _KIND or manifest.get("version") != _VERSION:
            raise StoreError(
                f"{path} is not the manifest of a store of rationales, or was written by another version."
            )
        num_shards = manifest.get("num_shards")
        if not isinstance(manifest.get("spec"), dict) or not isinstance(num_shards, int) or num_shards < 1:
            raise StoreError(
                f"{path} is damaged: no `spec` or `num_shards`. Restore this file, or use another folder."
            )
        try:
            store = cls(Path(folder), manifest)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path}: {error}") from None
        if manifest.get("spec_hash") != store.spec.spec_hash:  # no key of an answer would be found
            raise StoreError(f"{path}: `spec` was changed by hand. Restore this file, or use another folder.")
        return store

    def shard_of(self, text_sha256: str | None, image_sha256: str | None) -> int:
        """Return the shard of a post: hash of its text, or of its image if there is no text.

        Posts with the same content are in one shard. A post without text or readable image is in shard 0.
        """
        digest = text_sha256 or image_sha256
        return int(digest, 16) % self.num_shards if digest else 0

    def writer(self, shard_id: int) -> ShardWriter:
        """Return the context manager that writes a shard.

        Raises:
            StoreError: on entering, if another process writes this shard.
        """
        return ShardWriter(self._files(shard_id))

    def rows(self, shard_ids: Iterable[int] | None = None) -> Iterator[Row]:
        """Yield one row per recorded post, published or not. Safe to call while a run writes.

        The columns are those of the Parquet files (`rows.row_schema`): `id`, `image_sha256`, `text_sha256`,
        `language`, `provenance`, `system_fingerprint`, and per perspective `rationale_`, `status_` (`"ok"`,
        `"flagged"`, `"failed"`, `"crashed"`, `"open"`), `flags_`, `error_`, `raw_`, `attempts_`, `prompt_tokens_`,
        `cached_tokens_`, `completion_tokens_` and `key_`. A post whose text or image changed between two runs has one
        row per version; join by the two hashes if that can happen.
        """
        for shard_id in range(self.num_shards) if shard_ids is None else shard_ids:
            yield from self._files(shard_id).rows()

    def status(self) -> list[ShardStatus]:
        """Return the progress of every shard, read from its files."""
        return [self._status(shard_id) for shard_id in range(self.num_shards)]

    def _differences(self, spec: RationaleSpec, num_shards: int) -> list[str]:
        differences = self.spec.differences(spec)
        if self.num_shards != num_shards:
            differences.append(f"num_shards: {self.num_shards!r}, not {num_shards!r}")
        return differences

    def _has_no_answers(self) -> bool:
        """Return whether a run has recorded posts, and no run an answer."""
        if any((self.folder / "data").glob("*.parquet")):
            return False
        logs = (self._files(shard_id).log_records() for shard_id in range(self.num_shards))
        return {record["kind"] for records in logs for record in records} == {"post"}

    def _forget_posts(self) -> None:
        """Delete the logs of all shards.

        Raises:
            StoreError: another process writes one of them.
        """
        for shard_id in range(self.num_shards):
            log = self._files(shard_id).log
            if log.exists():
                with self.writer(shard_id):
                    pass
                log.unlink(missing_ok=True)

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

    def _files(self, shard_id: int) -> ShardFiles:
        if not 0 <= shard_id < self.num_shards:
            raise ValueError(f"`shard_id` must be from 0 to {self.num_shards - 1}, got {shard_id}.")
        return ShardFiles(self.folder, shard_id, self.spec)


def is_store(path: str | Path) -> bool:
    """Tell whether a folder is a store of rationales."""
    try:
        RationaleStore.open(path)
    except StoreError:
        return False
    return True


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest atomically. If several processes create one store, the first one wins."""
    in_use = (folder / "shards").exists() or (folder / "data").exists()
    if in_use and not (folder / MANIFEST).exists():  # checked last, because another process may create it now
        raise StoreError(
            f"{folder} has a folder `shards` or `data` but no {MANIFEST}. Use another folder, or restore the "
            f"{MANIFEST}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{MANIFEST}.{uuid.uuid4().hex}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(manifest, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, folder / MANIFEST)  # unlike a rename, it fails if the manifest exists
        except FileExistsError:
            return
        except OSError:  # file system without hard links
            os.replace(temporary, folder / MANIFEST)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
