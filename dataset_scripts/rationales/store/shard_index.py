"""Index of the records of one shard, without their texts."""

from __future__ import annotations

import hashlib
from typing import Any

from dataset_scripts.rationales.store.old_names import CRASHES, current_status

# Of a rationale: accepted by the gate; best answer, with hard flags; no answer; the post crashes the server.
STATUSES = ("ok", "flagged", "failed", "crashed")
FAILED = ("failed", "crashed")
# Status in rows of a rationale without any result yet.
OPEN = "open"

Record = dict[str, Any]


class ShardIndex:
    """Index of the records of one shard, about 150 bytes an answer.

    Attributes:
        posts: offset of each post, by a digest of its id and content.
        unusable_posts: offset of each post that could not be prepared, by a digest of its id.
        crash_counts: number of server crashes with a post in flight, by its content (`content_key`).
    """

    def __init__(self) -> None:
        self.posts: dict[bytes, int] = {}
        self.unusable_posts: dict[bytes, int] = {}
        self.crash_counts: dict[str, int] = {}
        self._answers: dict[bytes, int] = {}  # offset and status in one integer, which halves the memory
        self._rejected: dict[bytes, list[int]] = {}

    def status(self, key: str) -> str | None:
        """Return the status of a final answer; `None` if there is none yet."""
        answer = self._answers.get(_short(key))
        return None if answer is None else STATUSES[answer % len(STATUSES)]

    def offset(self, key: str) -> int | None:
        """Return the offset of a final answer; `None` if there is none yet."""
        answer = self._answers.get(_short(key))
        return None if answer is None else answer // len(STATUSES)

    def rejected_offsets(self, key: str) -> list[int]:
        """List the offsets of answers rejected by the gate, while there is no final one."""
        return self._rejected.get(_short(key), [])

    def post_offsets(self) -> list[int]:
        """List the offsets of all posts in order of arrival."""
        return sorted([*self.posts.values(), *self.unusable_posts.values()])

    def has_post(self, post: Record) -> bool:
        """Tell whether this post is recorded as usable."""
        return _digest(post) in self.posts and _id_digest(post) not in self.unusable_posts

    def adds(self, record: Record) -> bool:
        """Tell whether a record adds information. Only failed answers are replaced by later ones."""
        if record["kind"] == "post":
            return _id_digest(record) not in self.unusable_posts if record.get("error") else not self.has_post(record)
        return record["kind"] == "suspect" or self.status(record["key"]) in (None, *FAILED)

    def add(self, offset: int, record: Record) -> None:
        """Add a record, unless it adds no information."""
        if not self.adds(record):
            return
        if record["kind"] == "post":
            if record.get("error"):
                self.unusable_posts[_id_digest(record)] = offset
            else:
                self.posts[_digest(record)] = offset
                self.unusable_posts.pop(_id_digest(record), None)
        elif record["kind"] == "suspect":
            self.crash_counts[record["content"]] = record["crashes"] if "crashes" in record else record[CRASHES]
        elif record["kind"] == "try":
            self._rejected.setdefault(_short(record["key"]), []).append(offset)
        else:
            key = _short(record["key"])
            self._answers[key] = offset * len(STATUSES) + STATUSES.index(current_status(record["status"]))
            self._rejected.pop(key, None)


def _short(key: str) -> bytes:
    return bytes.fromhex(key[:32])


def _digest(post: Record) -> bytes:
    return _hash(post["id"], post["image_sha256"] or "", post["text_sha256"] or "")


def _id_digest(post: Record) -> bytes:
    return _hash(post["id"])


def _hash(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
