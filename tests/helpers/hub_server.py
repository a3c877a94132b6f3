"""Hub on loopback: the routes of huggingface_hub and datasets for repositories and files.

Content is in memory. Clients are separate processes (`HubServer.environment`), because huggingface_hub reads
HF_ENDPOINT when it is imported.
"""

import base64
import dataclasses
import hashlib
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"
OWNER = "me"
LARGE = (".parquet", ".safetensors", ".bin", ".png")


@dataclasses.dataclass
class Repository:
    """Repository with one branch; `files` are those of its last commit."""

    private: bool = False
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        # of the content too: clients cache files by commit
        return hashlib.sha1(f"commit {self.commits} {sorted(self.files.items())}".encode()).hexdigest()


class HubServer:
    """`with HubServer() as hub:` serves until the block ends.

    Attributes:
        repositories (`dict[tuple[str, str], Repository]`): (type, id), e.g. `("dataset", "me/posts")`.
        objects (`dict[str, bytes]`): large files received, by SHA-256.
        log (`list[tuple[str, str, int]]`): method, path and received bytes of every request.
        break_after (`int`, optional): number of large files received before every further upload is disconnected.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Delete all repositories, files and requests."""
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str, int]] = []
        self.break_after: int | None = None
        self.uploads = 0

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Return the environment of a client process with this server as its Hub."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "HUB"))}
        kept |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # large files by Git LFS
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        return kept | ({"HF_TOKEN": token} if token else {})

    def received(self) -> int:
        """Count large files and commits; questions about which files are new do not count."""
        return sum(method == "PUT" or "/commit/" in path for method, path, _ in self.log)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT":
            self._put(path, length)
            return
        body = self.rfile.read(length)
        with self.hub.lock:
            self.hub.log.append((self.command, path, length))
            if path == "/api/whoami-v2":
                self._whoami()
            elif path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == "/api/validate-yaml":
                self._send({"errors": [], "warnings": []})
            elif path.startswith("/api/"):
                self._api(path, body)
            elif path.endswith(".git/info/lfs/objects/batch"):
                self._batch(path.removesuffix(".git/info/lfs/objects/batch"), json.loads(body))
            else:
                self._resolve(path)

    # -- accounts and repositories

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _whoami(self) -> None:
        if self._authorized():
            self._send({"type": "user", "name": OWNER, "auth": {"accessToken": {"role": "write"}}})
        else:
            self._fail(401, "Invalid username or password.")

    def _create(self, request: dict[str, Any]) -> None:
        if not self._authorized():
            self._fail(401, "Invalid username or password.")
            return
        if request.get("organization") not in (None, OWNER):
            self._fail(403, f"You don't have the rights to create a repo under {request['organization']}")
            return
        key = (request.get("type") or "model", f"{OWNER}/{request['name']}")
        exists = key in self.hub.repositories
        if not exists:
            # huggingface_hub 1 says `private`, 2 `visibility`
            private = request.get("visibility") == "private" or request.get("private") is True
            self.hub.repositories[key] = Repository(private=private)
        prefix = "" if key[0] == "model" else f"{key[0]}s/"
        url = f"{self.hub.url}/{prefix}{key[1]}"
        self._send({"url": url, "error": "You already created this repo"}, 409 if exists else 200)

    def _repository(self, kind: str, repo_id: str) -> Repository | None:
        """Return the repository, or answer as the Hub does: a private one is hidden from strangers."""
        repository = self.hub.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not self._authorized()):
            self._fail(401 if not self._authorized() else 404, "Repository not found", "RepoNotFound")
            return None
        return repository

    def _api(self, path: str, body: bytes) -> None:
        _, _, kinds, owner, name, *rest = path.split("/")
        repository = self._repository(kinds.removesuffix("s"), f"{owner}/{name}")
        if repository is None:
            return
        action, *arguments = rest or ["info"]
        if action in ("info", "revision"):
            self._info(repository, f"{owner}/{name}")
        elif action == "tree":
            self._tree(repository, "/".join(arguments[1:]))
        elif not self._authorized():
            self._fail(401, "Invalid username or password.")
        elif action == "preupload":
            self._preupload(repository, json.loads(body))
        elif action == "commit":
            self._commit(repository, kinds, f"{owner}/{name}", body)
        else:
            self._fail(404, f"no route {path}", "EntryNotFound")

    def _info(self, repository: Repository, repo_id: str) -> None:
        siblings = [{"rfilename": name} for name in sorted(repository.files)]
        now = "2026-01-01T00:00:00.000Z"
        info = {"id": repo_id, "sha": repository.sha, "private": repository.private, "siblings": siblings}
        self._send(info | {"lastModified": now, "createdAt": now, "tags": [], "downloads": 0, "likes": 0})

    def _entry(self, repository: Repository, name: str) -> dict[str, Any]:
        content = repository.files.get(name)
        if content is None:
            return {"type": "directory", "path": name, "oid": _git_oid(name.encode()), "size": 0}
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_oid(content)}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        return entry

    def _tree(self, repository: Repository, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        files = [name for name in sorted(repository.files) if name.startswith(prefix)]
        if not files:
            self._fail(404, f"{folder} does not exist", "EntryNotFound")
            return
        children = sorted({prefix + name[len(prefix) :].partition("/")[0] for name in files})
        if "recursive=true" in self.path.lower():
            parents = {name.rpartition("/")[0] for name in files} - {"", folder}
            children = [*files, *sorted(parents)]
        self._send([self._entry(repository, name) for name in children])

    # -- uploads

    def _preupload(self, repository: Repository, request: dict[str, Any]) -> None:
        answers = []
        for name in (file["path"] for file in request["files"]):
            content, large = repository.files.get(name), name.endswith(LARGE)
            oid = None if content is None else _sha256(content) if large else _git_oid(content)
            mode = "lfs" if large else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": answers})

    def _batch(self, repo: str, request: dict[str, Any]) -> None:
        kind, repo_id = _kind_and_id(repo)
        if self._repository(kind, repo_id) is None:
            return
        answers = []
        for item in request["objects"]:
            if item["oid"] not in self.hub.objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/storage/{item['oid']}"}}
            answers.append(item)
        self._send({"transfer": "basic", "objects": answers})

    def _put(self, path: str, length: int) -> None:
        with self.hub.lock:
            breaks = self.hub.break_after is not None and self.hub.uploads >= self.hub.break_after
            self.hub.uploads += 1
        if breaks:
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(length)
        with self.hub.lock:
            self.hub.log.append(("PUT", path, length))
            self.hub.objects[_sha256(body)] = body
        self._send({})

    def _commit(self, repository: Repository, kinds: str, repo_id: str, body: bytes) -> None:
        files = dict(repository.files)
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header" and value.get("parentCommit") not in (None, repository.sha):
                self._fail(412, "The expected parent commit is no longer the head of the branch.")
                return
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        repository.files = files
        repository.commits += 1
        url = f"{self.hub.url}/{'' if kinds == 'models' else kinds + '/'}{repo_id}/commit/{repository.sha}"
        self._send({"success": True, "commitUrl": url, "commitOid": repository.sha})

    # -- downloads

    def _resolve(self, path: str) -> None:
        repo, _, rest = path.partition("/resolve/")
        kind, repo_id = _kind_and_id(repo)
        repository = self._repository(kind, repo_id)
        if repository is None:
            return
        name = rest.partition("/")[2]
        content = repository.files.get(name)
        if content is None:
            self._fail(404, f"{name} does not exist", "EntryNotFound")
            return
        headers = {"ETag": f'"{_git_oid(content)}"', "X-Repo-Commit": repository.sha, "Accept-Ranges": "bytes"}
        status, wanted = 200, self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) if last else len(content), len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status, content = 206, content[start:stop]
        self._answer(status, content, "application/octet-stream", headers)

    # -- answers

    def _fail(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._answer(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _send(self, answer: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(answer).encode(), "application/json", {})

    def _answer(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _kind_and_id(path: str) -> tuple[str, str]:
    """Parse `/datasets/me/posts` to dataset and me/posts; a path without prefix is a model's."""
    first, *rest = path.strip("/").split("/")
    return (first.removesuffix("s"), "/".join(rest)) if first in ("datasets", "spaces") else ("model", path.strip("/"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
