"""Files of OpenAI's Batch API, which vLLM's `run-batch` reads and writes too.

A run with the engine `BatchRequests` writes every request that a store lacks to files, and one with `BatchAnswers`
takes the answers from the files that the batch returned. Both are runs like any other: same requests, gate and store.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dataset_scripts.rationales.engines.profiles import Profile, request_body
from dataset_scripts.rationales.engines.replies import error_of, error_words, excerpt, read_answer
from dataset_scripts.rationales.errors import MisconfiguredError, PermanentError, RetryableError
from dataset_scripts.rationales.prompts import check_prompt
from dataset_scripts.rationales.run.results import Reasons
from dataset_scripts.rationales.run.server import Postponed
from dataset_scripts.rationales.spec import item_key

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.base import Answer
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Prompt
    from dataset_scripts.rationales.spec import RationaleSpec
    from dataset_scripts.rationales.store.store import RationaleStore
    from dataset_scripts.reading.report import BuildReport

URL = "/v1/chat/completions"
# Limits of OpenAI for one file.
MAX_REQUESTS, MAX_MEGABYTES = 50_000, 200.0
# OpenAI limits `custom_id` to 64 characters, so it is a part of the answer's key and the number of the attempt.
_KEY_LENGTH = 48
# The post's own fault; after any other error the request is exported again.
_PERMANENT_STATUS = {400, 403, 413, 415, 422}


def custom_id(spec: RationaleSpec, post: PreparedPost, perspective: str, attempt: int) -> str:
    """Return the identifier of a request, equal for posts with the same content."""
    key = item_key(spec.spec_hash, post.image_sha256, post.text_sha256, perspective)
    return f"{key[:_KEY_LENGTH]}-{attempt}"


class BatchRequests:
    """Engine that writes requests to files and postpones their answers.

    Args:
        folder: empty folder for `requests-00000.jsonl` and so on.
        spec: specification of the rationales.
        prompt: prompt of `spec`.
        profile: fields that the server accepts.
        max_requests, max_bytes: limits of one file.

    Attributes:
        files: files written.
        requests: number of requests in them.
    """

    name = "batch files"

    def __init__(
        self, folder: Path, spec: RationaleSpec, prompt: Prompt, profile: Profile, max_requests: int, max_bytes: int
    ) -> None:
        check_prompt(spec, prompt)
        self.folder = folder
        self.spec = spec
        self.prompt = prompt
        self.profile = profile
        self.files: list[Path] = []
        self.requests = 0
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._requests_in_file = self._bytes_in_file = 0

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Write one request.

        Raises:
            Postponed: always.
            MisconfiguredError: the request is larger than a file may be.
        """
        body = request_body(self.spec, self.profile, self.prompt.messages(post, perspective), attempt)
        body.pop("stream", None)
        request = {"custom_id": custom_id(self.spec, post, perspective, attempt), "method": "POST", "url": URL}
        line = json.dumps(request | {"body": body}, ensure_ascii=False).encode() + b"\n"
        if len(line) > self._max_bytes:
            raise MisconfiguredError(
                f"post {post.post_id!r}: its request has {len(line) / 1e6:,.3g} MB, more than a file of "
                f"{self._max_bytes / 1e6:,.3g} MB may hold. Raise --max_megabytes, or use a lower --max_pixels in "
                "another folder."
            )
        full = self._requests_in_file >= self._max_requests or self._bytes_in_file + len(line) > self._max_bytes
        if self._file is None or full:
            self._next_file()
        self._file.write(line)
        self.requests += 1
        self._requests_in_file += 1
        self._bytes_in_file += len(line)
        raise Postponed

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _next_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self.files.append(self.folder / f"requests-{len(self.files):05d}.jsonl")
        self._file = open(self.files[-1], "wb")
        self._requests_in_file = self._bytes_in_file = 0


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, renamed to `folder` when the block succeeds with a file in it.

    Raises:
        ValueError: `folder` has files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists and is not empty. Name a new folder, so that no earlier request is sent again."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a killed process
        shutil.rmtree(leftover)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if any(temporary.iterdir()):
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class BatchAnswers:
    """Engine that answers from the files of a batch, and postpones what they lack.

    Args:
        files: output and error files in any order. An answer counts more than an error with the same `custom_id`.
        spec: specification of the rationales.
        report: receives the counts of lines; faulty ones are skipped or raised.

    Attributes:
        used: `custom_id`s that this run asked for.
        unanswered: requests that failed for a reason that is not the post's, by reason.

    Raises:
        ValueError: a file that is not the output of a batch, or (unless skipped) a damaged line.
    """

    name = "batch files"

    def __init__(self, files: Sequence[Path], spec: RationaleSpec, report: BuildReport) -> None:
        self.spec = spec
        self.used: set[str] = set()
        self.unanswered = Reasons()
        self._places: dict[str, tuple[Path, int]] = {}
        self._failed: set[str] = set()  # of these, the ones without an answer
        for file in files:
            for offset, line in _lines(Path(file), report):
                self._add(Path(file), offset, line, report)

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Return the answer in the files.

        Raises:
            Postponed: there is none, or an error after which the request is sent again.
            PermanentError: an error that every attempt would repeat.
            MisconfiguredError: another model answered.
        """
        identifier = custom_id(self.spec, post, perspective, attempt)
        if identifier not in self._places:
            raise Postponed
        self.used.add(identifier)
        file, offset = self._places[identifier]
        with open(file, "rb") as lines:
            lines.seek(offset)
            line = json.loads(lines.readline())
        try:
            return read_answer(_completion(line), {"model": self.spec.model})
        except RetryableError as error:
            self.unanswered.add(error.reason, f"post {post.post_id!r}: {excerpt(str(error))}")
            raise Postponed from None

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def unknown(self, store: RationaleStore) -> list[str]:
        """List the `custom_id`s that are no request of a store.

        Those of earlier attempts, whose answers the store has, are known.
        """
        unused = self._places.keys() - self.used
        if not unused:
            return []
        columns = [f"key_{perspective}" for perspective in self.spec.perspectives]
        known = {row[name][:_KEY_LENGTH] for row in store.rows() for name in columns if row[name]}
        return [identifier for identifier in unused if identifier.rpartition("-")[0] not in known]

    def __len__(self) -> int:
        return len(self._places)

    def _add(self, file: Path, offset: int, line: Mapping[str, Any], report: BuildReport) -> None:
        identifier = line["custom_id"]
        failed = _is_failed(line)
        if identifier in self._places:
            report.note("repeated custom_id, of which the first answer counts")
            if failed or identifier not in self._failed:
                return
        report.kept += identifier not in self._places
        self._places[identifier] = file, offset
        (self._failed.add if failed else self._failed.discard)(identifier)


def _lines(file: Path, report: BuildReport) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield offset and content of each sound line."""
    with open(file, "rb") as content:
        head = content.read(3)
        if head[:2] == b"\x1f\x8b":
            raise ValueError(f"{file} is compressed. Unpack it first: gunzip {file}")
        if not head.strip():
            raise ValueError(f"{file} is empty. Download the output file of the batch again.")
        offset = 3 if head == b"\xef\xbb\xbf" else 0
        content.seek(offset)
        for number in itertools.count(1):
            raw = content.readline()
            if not raw:
                return
            if raw.strip():
                report.read += 1
                line = _parsed(f"{file}, line {number}", raw, report)
                if line is not None:
                    yield offset, line
            offset += len(raw)


def _parsed(place: str, raw: bytes, report: BuildReport) -> dict[str, Any] | None:
    """Parse a line of a batch's output; `None` if it is faulty and skipped."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        report.fail("damaged line", f"{place} is not JSON, or is cut off. Download the file again.")
        return None
    if isinstance(line, dict) and isinstance(line.get("custom_id"), str):
        if "body" in line and "response" not in line:
            raise ValueError(f"{place} is a request, not an answer. Run the batch and give its output file.")
        if isinstance(line.get("response"), Mapping) or line.get("error"):
            return line
        report.fail("line without response", f"{place} has neither a response nor an error.")
        return None
    report.fail(
        "no custom_id", f"{place} is not the output of a batch: it has no custom_id. Give its output or error file."
    )
    return None


def _is_failed(line: Mapping[str, Any]) -> bool:
    response = line.get("response")
    if line.get("error") or not isinstance(response, Mapping):
        return True
    status = response.get("status_code")
    return (isinstance(status, int) and status >= 400) or error_of(response.get("body")) is not None


def _completion(line: Mapping[str, Any]) -> Any:
    """Return the completion in a line.

    Raises:
        PermanentError, RetryableError: it has an error instead.
    """
    response = line.get("response") if isinstance(line.get("response"), Mapping) else {}
    body = response.get("body")
    if not _is_failed(line):
        return body
    code, details = error_of(line.get("error") and {"error": line["error"]}) or error_of(body) or (None, {})
    status = response.get("status_code")
    if not isinstance(status, int) or status < 400:
        status = code if isinstance(code, int) else None
    words = excerpt(error_words(details) or error_words(body) or str(code or "no words"))
    if status in _PERMANENT_STATUS:
        raise PermanentError(f"status {status}: {words}", status=status)
    reason = str(code) if code and not isinstance(code, int) else None
    raise RetryableError(words, status=status, reason=reason)
